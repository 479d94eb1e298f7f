//! Which listeners a route is attached to.

use waypoint_policy::ObjectName;

use super::GATEWAY_CLASS;
use super::gateway::{Chosen, missing_parent};
use super::set::Set;
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics, Object};
use crate::raw::ParentRef;
use crate::suggest;

/// The indexes of the served listeners a route is attached to; `None` when it is not this
/// Gateway's.
///
/// Without parents a route of our kinds belongs to every waypoint of its namespace.
pub(super) fn listeners(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    object: &Object,
    parents: Option<&[ParentRef]>,
    out: &mut Diagnostics,
) -> Option<Vec<usize>> {
    let Some(parents) = parents else {
        return of_namespace(set, chosen, object, out);
    };
    let ours = object.kind != ObjectKind::HttpRoute;
    let mut attached: Option<Vec<usize>> = None;
    for (index, parent) in parents.iter().enumerate() {
        let at = object.spec().key("parentRefs").index(index);
        let group = parent
            .group
            .as_deref()
            .unwrap_or(ObjectKind::Gateway.group());
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if (group, kind) != (ObjectKind::Gateway.group(), "Gateway") {
            let message = format!("a parent of kind `{kind}` is not served yet");
            match ours {
                true => out.error(at.key("kind"), "unknown-value", message),
                false => out.warning(at.key("kind"), "not-served", message),
            }
            continue;
        }
        let namespace = parent
            .namespace
            .as_deref()
            .unwrap_or(&object.name.namespace);
        let name = ObjectName::new(namespace, &parent.name);
        if name == chosen.name {
            let found = of_parent(chosen, object, parent, at, out);
            let all = attached.get_or_insert_default();
            all.extend(
                found
                    .into_iter()
                    .filter(|listener| !all.contains(listener))
                    .collect::<Vec<_>>(),
            );
        } else if !set.gateways.contains_key(&name) {
            missing_parent(set, &name, ours, at.key("name"), out);
        }
    }
    attached
}

fn of_namespace(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    object: &Object,
    out: &mut Diagnostics,
) -> Option<Vec<usize>> {
    if chosen.name.namespace == object.name.namespace {
        return Some((0..chosen.listeners.len()).collect());
    }
    let waypoint = |(name, gateway): (
        &ObjectName,
        &super::set::Decoded<'_, crate::raw::gateway::Gateway>,
    )| {
        name.namespace == object.name.namespace && gateway.raw.gateway_class_name == GATEWAY_CLASS
    };
    if !set.gateways.iter().any(waypoint) {
        let message = format!(
            "{} names no `parentRefs` and namespace `{}` has no waypoint, so it is not served",
            super::title(object),
            object.name.namespace
        );
        out.warning(object.name_at(), "not-attached", message);
    }
    None
}

fn of_parent(
    chosen: &Chosen<'_>,
    object: &Object,
    parent: &ParentRef,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Vec<usize> {
    let all = &chosen.gateway.raw.listeners;
    if let Some(section) = &parent.section_name
        && !all.iter().any(|listener| listener.name == *section)
    {
        let names: Vec<&str> = all.iter().map(|listener| listener.name.as_str()).collect();
        let hint = suggest::hint(section, &names);
        let message = format!("Gateway {} has no listener `{section}`{hint}", chosen.name);
        out.error(at.key("sectionName"), "missing-reference", message);
        return Vec::new();
    }
    if let Some(port) = parent.port
        && !chosen
            .listeners
            .iter()
            .any(|listener| listener.port == port)
        && !all.iter().any(|listener| listener.port == port)
    {
        let message = format!("Gateway {} has no listener on port {port}", chosen.name);
        out.error(at.key("port"), "missing-reference", message);
        return Vec::new();
    }
    let mut refused = false;
    let mut found = Vec::new();
    for (index, listener) in chosen.listeners.iter().enumerate() {
        let selected = parent
            .section_name
            .as_deref()
            .is_none_or(|name| *name == *listener.name)
            && parent.port.is_none_or(|port| port == listener.port);
        if !selected {
            continue;
        }
        let raw = all.iter().find(|raw| *raw.name == *listener.name);
        let from_all =
            raw.is_some_and(|raw| raw.allowed_routes.namespaces.from.as_deref() == Some("All"));
        if from_all || chosen.name.namespace == object.name.namespace {
            found.push(index);
        } else {
            refused = true;
        }
    }
    if refused && found.is_empty() {
        let message = format!(
            "Gateway {} takes no routes from namespace `{}`; set `allowedRoutes.namespaces.from: All` \
             on its listener",
            chosen.name, object.name.namespace
        );
        out.error(at.key("name"), "not-granted", message);
    }
    found
}

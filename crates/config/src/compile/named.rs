//! Where objects name a Gateway, for findings about one that is missing.

use waypoint_policy::ObjectName;

use super::set::Set;
use crate::kind::ObjectKind;
use crate::object::{At, Object};
use crate::raw::{ParentRef, agent, authorization};

const KIND: &str = "Gateway";

/// The first place, by file and line, that names this Gateway; without a name, one at all.
pub(super) fn gateway<'s>(set: &'s Set<'_>, name: Option<&ObjectName>) -> Option<At<'s>> {
    let mut places = Vec::new();
    for route in set.http_routes.values() {
        places.extend(parents(route.object, &route.raw.parent_refs));
    }
    for route in set.llm_routes.values() {
        let refs = route.raw.parent_refs.as_deref().unwrap_or_default();
        places.extend(parents(route.object, refs));
    }
    for proxy in set.mcp.values() {
        let refs = proxy.raw.parent_refs.as_deref().unwrap_or_default();
        places.extend(parents(proxy.object, refs));
    }
    for import in set.solo.values() {
        let names = import.raw.proxy_names.iter().enumerate();
        places.extend(names.map(|(index, name)| {
            let at = import.object.spec().key("proxyNames").index(index);
            (at, of(import.object, None, name))
        }));
    }
    for policy in set.policies.values() {
        places.extend(targets(policy.object, &policy.raw.target_refs));
    }
    for policy in set.access.values() {
        places.extend(targets(policy.object, &policy.raw.target_refs));
    }
    for policy in set.authorization.values() {
        let spec = &policy.raw.spec;
        let one = spec.target_ref.as_ref();
        places.extend(istio(policy.object, one, &spec.target_refs));
    }
    for policy in set.authentication.values() {
        let spec = &policy.raw.spec;
        let one = spec.target_ref.as_ref();
        places.extend(istio(policy.object, one, &spec.target_refs));
    }
    let wanted = |(_, named): &(At<'_>, ObjectName)| name.is_none_or(|name| name == named);
    let places = places.into_iter().filter(wanted).map(|(at, _)| at);
    places.min_by_key(|at| (at.file, at.place.line, at.place.col))
}

fn of(object: &Object, namespace: Option<&str>, name: &str) -> ObjectName {
    ObjectName::new(namespace.unwrap_or(&object.name.namespace), name)
}

/// Whether this names a Gateway; a group that is left out is that of the kind.
fn is_gateway(group: Option<&str>, kind: &str) -> bool {
    kind == KIND && group.is_none_or(|group| group == ObjectKind::Gateway.group())
}

fn parents<'s>(
    object: &'s Object,
    refs: &'s [ParentRef],
) -> impl Iterator<Item = (At<'s>, ObjectName)> {
    let refs = refs.iter().enumerate();
    let refs = refs.filter(|(_, reference)| {
        let kind = reference.kind.as_deref().unwrap_or(KIND);
        is_gateway(reference.group.as_deref(), kind)
    });
    refs.map(|(index, reference)| {
        let at = object.spec().key("parentRefs").index(index).key("name");
        let namespace = reference.namespace.as_deref();
        (at, of(object, namespace, &reference.name))
    })
}

fn targets<'s>(
    object: &'s Object,
    refs: &'s [agent::TargetRef],
) -> impl Iterator<Item = (At<'s>, ObjectName)> {
    let refs = refs.iter().enumerate();
    let refs = refs.filter(|(_, target)| is_gateway(target.group.as_deref(), &target.kind));
    refs.map(|(index, target)| {
        let at = object.spec().key("targetRefs").index(index).key("name");
        (at, of(object, None, &target.name))
    })
}

fn istio<'s>(
    object: &'s Object,
    one: Option<&'s authorization::TargetRef>,
    refs: &'s [authorization::TargetRef],
) -> impl Iterator<Item = (At<'s>, ObjectName)> {
    let one = one.map(|target| (object.spec().key("targetRef"), target));
    let refs = refs.iter().enumerate();
    let refs = refs.map(|(index, target)| (object.spec().key("targetRefs").index(index), target));
    let all = one.into_iter().chain(refs);
    // Istio's own objects may be written with empty fields.
    let said = |text: &'s Option<String>| text.as_deref().filter(|text| !text.is_empty());
    all.filter(move |(_, target)| is_gateway(said(&target.group), &target.kind))
        .map(move |(at, target)| {
            let namespace = said(&target.namespace);
            (at.key("name"), of(object, namespace, &target.name))
        })
}

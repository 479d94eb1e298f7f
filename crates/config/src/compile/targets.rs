//! What a policy about agents is attached to.

use waypoint_policy::{Kind, ObjectName, ObjectRef};

use super::missing;
use super::set::Set;
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics, Object};
use crate::raw::agent::TargetRef;
use crate::suggest;

/// Kinds a policy can be attached to.
const TARGETS: &[(ObjectKind, Kind)] = &[
    (ObjectKind::Gateway, Kind::Gateway),
    (ObjectKind::LlmRoute, Kind::LlmRoute),
    (ObjectKind::LlmProvider, Kind::LlmProvider),
    (ObjectKind::McpProxy, Kind::McpProxy),
];

/// All that `targetRefs` of a policy name.
pub(super) fn all(
    set: &Set<'_>,
    object: &Object,
    refs: &[TargetRef],
    out: &mut Diagnostics,
) -> Vec<ObjectRef> {
    let at = object.spec().key("targetRefs");
    if refs.is_empty() {
        let message = "`targetRefs` must name what the policy is attached to";
        out.error(at, "empty-list", message);
    }
    let mut targets = Vec::new();
    for (index, reference) in refs.iter().enumerate() {
        targets.extend(one(set, object, reference, at.index(index), out));
    }
    targets
}

fn one(
    set: &Set<'_>,
    object: &Object,
    raw: &TargetRef,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<ObjectRef> {
    let Some((object_kind, kind)) = TARGETS.iter().find(|(k, _)| k.as_str() == raw.kind) else {
        let known: Vec<String> = TARGETS
            .iter()
            .map(|(kind, _)| format!("`{}`", kind.as_str()))
            .collect();
        let message = format!("`{}` is not one of {}", raw.kind, known.join(", "));
        out.error(at.key("kind"), "unknown-value", message);
        return None;
    };
    if let Some(group) = raw
        .group
        .as_deref()
        .filter(|group| *group != object_kind.group())
    {
        let message = format!(
            "{} is of group `{}`, not `{group}`",
            raw.kind,
            object_kind.group()
        );
        out.error(at.key("group"), "unknown-value", message);
        return None;
    }
    let name = ObjectName {
        namespace: object.name.namespace.clone(),
        name: raw.name.as_str().into(),
    };
    if !set.names(*object_kind).contains(&&name) {
        missing(set, *object_kind, &name, at.key("name"), out);
        return None;
    }
    let section = match raw.section_name.as_deref() {
        None => None,
        Some(section) if *kind == Kind::McpProxy => {
            let proxy = set.mcp.get(&name)?;
            let names: Vec<&str> = proxy
                .raw
                .routes
                .iter()
                .map(|route| route.name.as_str())
                .collect();
            if !names.contains(&section) {
                let hint = suggest::hint(section, &names);
                let message = format!("MCPProxy {name} has no route `{section}`{hint}");
                out.error(at.key("sectionName"), "missing-reference", message);
                return None;
            }
            Some(section.into())
        }
        Some(section) => {
            let message = match kind {
                Kind::Gateway => format!(
                    "a policy for the listener `{section}` alone is not enforced, refusing to start \
                     without it; leave `sectionName` out to attach it to all of Gateway {name}"
                ),
                _ => format!("`sectionName` is not supported for {}", raw.kind),
            };
            out.error(at.key("sectionName"), "not-enforced", message);
            return None;
        }
    };
    Some(ObjectRef {
        kind: *kind,
        name,
        section,
    })
}

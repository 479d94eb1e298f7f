//! Istio's `AuthorizationPolicy`: attachment, and what Istio's admission would refuse.

pub(super) mod liveness;
mod values;

use std::collections::HashMap;
use std::sync::Arc;

use waypoint_policy::istio::{AuthorizationPolicy, IstioAction, IstioRule};
use waypoint_policy::{Kind, Mode, ObjectName, ObjectRef};

use super::ext_authz::Providers;
use super::gateway::Chosen;
use super::missing;
use super::set::{Decoded, Set};
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics, Object};
use crate::raw::authorization as raw;

const DRY_RUN: &str = "istio.io/dry-run";
/// Istio's bound on `targetRefs`.
const TARGETS_MAX: usize = 16;

/// What the mesh says about itself, as far as policies depend on it.
#[derive(Debug)]
pub(super) struct Mesh<'a> {
    /// Where policies for a whole GatewayClass live.
    pub(super) root_namespace: &'a str,
    /// The own trust domain, then its aliases.
    pub(super) trust_domains: &'a [Box<str>],
    /// Whether a bare `spec: {}` of the waypoint's namespace is in force there.
    pub(super) namespace_default_deny: bool,
    /// The authorizers that CUSTOM policies may ask.
    pub(super) ext_authz: &'a Providers,
}

pub(super) fn compile(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    mesh: &Mesh<'_>,
    out: &mut Diagnostics,
) -> Vec<AuthorizationPolicy> {
    let one = |policy| {
        One {
            set,
            chosen,
            mesh,
            policy,
        }
        .compile(out)
    };
    let compiled: Vec<AuthorizationPolicy> = set.authorization.values().filter_map(one).collect();
    warn_ambiguous(set, chosen, &compiled, out);
    compiled
}

/// A workload has one external authorizer; with several, what their rules match is denied.
fn warn_ambiguous(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    policies: &[AuthorizationPolicy],
    out: &mut Diagnostics,
) {
    let is_asked = |policy: &&AuthorizationPolicy| {
        policy.action == IstioAction::Custom && policy.mode == Mode::Enforce
    };
    let everywhere = |target: &ObjectRef| match target.kind {
        Kind::Gateway => target.name == chosen.name,
        kind => kind == Kind::GatewayClass,
    };
    let mut first: HashMap<Option<&ObjectRef>, &AuthorizationPolicy> = HashMap::new();
    let pairs = |wide: bool| {
        let asked = policies.iter().filter(is_asked);
        let pairs = asked.flat_map(|policy| policy.targets.iter().map(move |t| (policy, t)));
        pairs.filter(move |(_, target)| everywhere(target) == wide)
    };
    let mut told: Vec<&ObjectName> = Vec::new();
    // What is everywhere is beside everything else.
    for (policy, target) in pairs(true).chain(pairs(false)) {
        let place = (!everywhere(target)).then_some(target);
        let beside = [first.get(&place), first.get(&None)];
        let other = beside.into_iter().flatten();
        let other = other
            .copied()
            .find(|other| other.provider != policy.provider);
        if let (Some(other), Some(object)) = (other, set.authorization.get(&policy.name)) {
            let message = format!(
                "AuthorizationPolicy {} asks another provider for the same workload as {}: \
                     what their rules match is denied",
                policy.name, other.name
            );
            if !told.contains(&&policy.name) {
                told.push(&policy.name);
                out.warning(object.object.name_at(), "several-providers", message);
            }
        }
        first.entry(place).or_insert(policy);
    }
}

struct One<'c> {
    set: &'c Set<'c>,
    chosen: &'c Chosen<'c>,
    mesh: &'c Mesh<'c>,
    policy: &'c Decoded<'c, raw::Object>,
}

impl One<'_> {
    fn compile(&self, out: &mut Diagnostics) -> Option<AuthorizationPolicy> {
        let (object, spec) = (self.policy.object, &self.policy.raw.spec);
        let at = object.spec();
        let action = match spec.action {
            None | Some(raw::Action::Allow) => IstioAction::Allow,
            Some(raw::Action::Deny) => IstioAction::Deny,
            Some(raw::Action::Audit) => IstioAction::Audit,
            Some(raw::Action::Custom) => IstioAction::Custom,
        };
        let mode = match self.is_dry_run(out) {
            true => Mode::DryRun,
            false => Mode::Enforce,
        };
        let provider = self.provider(action, mode, out);
        if spec.rules.is_empty() && action != IstioAction::Allow {
            let message = "`rules` must have at least one rule: without rules only ALLOW means \
                           anything (it denies all)";
            out.error(at.key("rules"), "empty-list", message);
        }
        let rules = spec.rules.iter().enumerate().map(|(index, rule)| {
            let name: Arc<str> = format!("rule[{index}]").into();
            self.rule(rule, name, at.key("rules").index(index), out)
        });
        let rules: Vec<IstioRule> = rules.collect();
        let of_token = |rule: &&IstioRule| {
            let sides = rule.from.iter().chain(&rule.to).flatten().flatten();
            let mut tests = sides.chain(&rule.when);
            tests.any(|test| test.attribute.is_of_token())
        };
        if let Some(rule) = rules.iter().find(of_token)
            && self.set.authentication.is_empty()
            && !self.set.any_broken(ObjectKind::RequestAuthentication)
        {
            let message = format!(
                "{} asks for claims of a token, and there is no RequestAuthentication that would \
                 verify one: no claim is ever there",
                rule.name
            );
            out.warning(object.name_at(), "never-matches", message);
        }
        if action == IstioAction::Custom {
            self.check_custom(&rules, out);
        }
        let targets = self.targets(out)?;
        Some(AuthorizationPolicy {
            name: object.name.clone(),
            targets,
            action,
            provider,
            mode,
            rules,
        })
    }

    /// Who is asked by a CUSTOM policy; `None` denies what its rules match.
    fn provider(&self, action: IstioAction, mode: Mode, out: &mut Diagnostics) -> Option<Arc<str>> {
        let (object, spec) = (self.policy.object, &self.policy.raw.spec);
        let at = object.spec();
        if action != IstioAction::Custom {
            if spec.provider.is_some() {
                let message = "`provider` must not be with action other than CUSTOM";
                out.error(at.key("provider"), "bad-value", message);
            }
            return None;
        }
        let name = spec.provider.as_ref().and_then(|p| p.name.as_deref());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            let message = "`provider.name` must not be empty with action CUSTOM";
            out.error(at.key("action"), "missing-field", message);
            return None;
        };
        if mode == Mode::DryRun {
            let message = "an authorizer is not asked on trial: as dry-run, action CUSTOM has no \
                           effect";
            out.warning(object.name_at(), "no-effect", message);
        }
        let Some((known, found)) = self.mesh.ext_authz.get_key_value(name) else {
            let message = format!(
                "the mesh configuration (ConfigMap istio-system/istio) has no extension provider \
                 `{name}`: what these rules match is denied"
            );
            out.warning(at.key("provider").key("name"), "unknown-provider", message);
            return None;
        };
        found.as_ref().map(|_| Arc::clone(known))
    }

    /// CUSTOM comes before tokens are verified, and Istio's admission keeps it from all that says
    /// who calls.
    fn check_custom(&self, rules: &[IstioRule], out: &mut Diagnostics) {
        for (index, rule) in rules.iter().enumerate() {
            let sides = rule.from.iter().chain(&rule.to).flatten().flatten();
            let tests = sides.chain(&rule.when);
            for test in tests.filter(|test| test.attribute.is_of_caller()) {
                let at = self.policy.object.spec().key("rules").index(index);
                let message = format!("`{}` cannot be used with action CUSTOM", test.field);
                out.error(at, "bad-value", message);
            }
        }
    }

    fn is_dry_run(&self, out: &mut Diagnostics) -> bool {
        let object = self.policy.object;
        let Some(text) = object.annotations.get(DRY_RUN) else {
            return false;
        };
        // What Go's strconv.ParseBool takes, which istiod asks.
        match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            other => {
                let at = object.at().key("metadata").key("annotations").key(DRY_RUN);
                let message =
                    format!("annotation `{DRY_RUN}` must be \"true\" or \"false\", not `{other}`");
                out.error(at, "unknown-value", message);
                false
            }
        }
    }

    /// What the policy is attached to; `None` when it is nothing that a waypoint enforces.
    fn targets(&self, out: &mut Diagnostics) -> Option<Vec<ObjectRef>> {
        let (object, spec) = (self.policy.object, &self.policy.raw.spec);
        let at = object.spec();
        let given = [
            spec.selector.is_some(),
            spec.target_ref.is_some(),
            !spec.target_refs.is_empty(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            let message = "only one of `targetRefs`, `targetRef` and `selector` can be set";
            out.error(at, "bad-value", message);
            return None;
        }
        if spec.target_refs.len() > TARGETS_MAX {
            let message = format!("`targetRefs` has more than {TARGETS_MAX} entries");
            out.error(at.key("targetRefs"), "bad-value", message);
        }
        let mut targets = Vec::new();
        if let Some(reference) = &spec.target_ref {
            let at = at.key("targetRef");
            targets.extend(target(self.set, self.mesh, object, reference, at, out));
        }
        for (index, reference) in spec.target_refs.iter().enumerate() {
            let at = at.key("targetRefs").index(index);
            targets.extend(target(self.set, self.mesh, object, reference, at, out));
        }
        if given[1] || given[2] {
            return Some(targets);
        }
        let gateway = &self.chosen.name;
        // An empty selector is as none at all: it is about the whole namespace.
        let selects = spec.selector.as_ref().is_some_and(raw::Selector::selects);
        let is_bare_deny = !selects
            && spec.rules.is_empty()
            && matches!(spec.action, None | Some(raw::Action::Allow))
            && object.name.namespace == gateway.namespace;
        if is_bare_deny && self.mesh.namespace_default_deny {
            return Some(vec![ObjectRef::whole(Kind::Gateway, gateway.clone())]);
        }
        let hint = match is_bare_deny {
            true => {
                "; to have it here too, set `namespaceDefaultDeny: true` in the WaypointParameters"
            }
            false => "; give it `targetRefs` to have a waypoint enforce it",
        };
        let how = if selects {
            "a selector"
        } else {
            "no targetRefs"
        };
        let message = format!(
            "AuthorizationPolicy {} has {how}: a waypoint does not enforce it, the ztunnel of each \
             workload does{hint}",
            object.name
        );
        out.warning(object.name_at(), "not-for-waypoints", message);
        None
    }

    fn rule(
        &self,
        raw: &raw::Rule,
        name: Arc<str>,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> IstioRule {
        let reader = values::Reader {
            namespace: &self.policy.object.name.namespace,
            trust_domains: self.mesh.trust_domains,
            paths: self.chosen.parameters.path_normalization,
        };
        for (field, is_empty) in [
            ("from", raw.from.as_ref().is_some_and(Vec::is_empty)),
            ("to", raw.to.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if is_empty {
                let message =
                    format!("an empty `{field}` is as none at all: it matches any request");
                out.warning(at.key(field), "empty-list", message);
            }
        }
        let mut from = Vec::new();
        for (index, entry) in raw.from.iter().flatten().enumerate() {
            let at = at.key("from").index(index).key("source");
            from.push(reader.source(entry.source.as_ref(), index, at, out));
        }
        let mut to = Vec::new();
        for (index, entry) in raw.to.iter().flatten().enumerate() {
            let at = at.key("to").index(index).key("operation");
            to.push(reader.operation(entry.operation.as_ref(), index, at, out));
        }
        let mut when = Vec::new();
        for (index, condition) in raw.when.iter().enumerate() {
            let at = at.key("when").index(index);
            when.push(reader.condition(condition, index, at, out));
        }
        IstioRule {
            name,
            from: (!from.is_empty()).then_some(from),
            to: (!to.is_empty()).then_some(to),
            when,
        }
    }
}

/// What a security policy of Istio is attached to.
pub(super) fn target(
    set: &Set<'_>,
    mesh: &Mesh<'_>,
    object: &Object,
    raw: &raw::TargetRef,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<ObjectRef> {
    let (kind, target) = match raw.kind.as_str() {
        "Gateway" => (ObjectKind::Gateway, Kind::Gateway),
        "GatewayClass" => (ObjectKind::GatewayClass, Kind::GatewayClass),
        "Service" => (ObjectKind::Service, Kind::Service),
        "ServiceEntry" => (ObjectKind::ServiceEntry, Kind::ServiceEntry),
        other => {
            let message = format!(
                "`{other}` is not one of `Gateway`, `GatewayClass`, `Service`, `ServiceEntry`"
            );
            out.error(at.key("kind"), "unknown-value", message);
            return None;
        }
    };
    let group = raw.group.as_deref().unwrap_or_default();
    let group = if group == "core" { "" } else { group };
    if group != kind.group() {
        // Istio reads an empty group as core, where there is no such kind. Who wrote it into a
        // file meant the one there is.
        if !group.is_empty() {
            let message = format!("{} is of group `{}`, not `{group}`", raw.kind, kind.group());
            out.error(at.key("group"), "unknown-value", message);
            return None;
        }
        let message = format!(
            "{} without `group`: taken as `group: {}`; Istio itself refuses it",
            raw.kind,
            kind.group()
        );
        out.warning(at.key("kind"), "missing-group", message);
    }
    let namespace = raw.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() && *namespace != *object.name.namespace {
        let message = "`namespace` must be empty: a policy is attached in its own namespace";
        out.error(at.key("namespace"), "bad-value", message);
        return None;
    }
    if raw.name.is_empty() {
        out.error(at.key("name"), "missing-field", "`name` is missing");
        return None;
    }
    if target == Kind::GatewayClass {
        if *object.name.namespace != *mesh.root_namespace {
            let message = format!(
                "a policy for a GatewayClass must be in the root namespace `{}`",
                mesh.root_namespace
            );
            out.error(at.key("kind"), "bad-value", message);
            return None;
        }
        if raw.name != super::GATEWAY_CLASS {
            let message = format!(
                "this is about GatewayClass `{}`, and has no effect on waypoints of class `{}`",
                raw.name,
                super::GATEWAY_CLASS
            );
            out.warning(at.key("name"), "not-attached", message);
        }
        return Some(ObjectRef::whole(target, ObjectName::new("", &raw.name)));
    }
    let name = ObjectName {
        namespace: object.name.namespace.clone(),
        name: raw.name.as_str().into(),
    };
    if !set.names(kind).contains(&&name) {
        missing(set, kind, &name, at.key("name"), out);
        return None;
    }
    Some(ObjectRef::whole(target, name))
}

//! The SIG's `XAccessPolicy`: attachment, and what its admission would refuse.

mod inline;

use std::collections::BTreeMap;
use std::sync::Arc;

use waypoint_policy::access::{AccessPolicy, AccessRule, HttpAccess, Source};
use waypoint_policy::{Kind, ObjectRef};

use super::agent::Served;
use super::draft::Drafts;
use super::gateway::Chosen;
use super::set::{Decoded, Set};
use super::targets;
use crate::object::{At, Diagnostics, is_label, is_name};
use crate::raw::access as raw;
use crate::snapshot::Route;

/// The API's bounds.
const TARGETS_MAX: usize = 10;
const RULES_MAX: usize = 10;
const NAME_MAX: usize = 63;
/// Since all policies of a target must allow, all are asked. The API leaves the number to those who
/// implement it (`LimitPerTargetExceeded`).
const PER_TARGET_MAX: usize = 16;

/// A policy with errors stays where it is attached, and what of it cannot be used allows nothing.
pub(super) fn compile(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &Drafts<'_>,
    out: &mut Diagnostics,
) -> Vec<AccessPolicy> {
    let served = Served::of(chosen, drafts);
    let mut attached: BTreeMap<ObjectRef, usize> = BTreeMap::new();
    let mut policies = Vec::new();
    for decoded in set.access.values() {
        let one = One {
            set,
            chosen,
            drafts,
            decoded,
        };
        let policy = one.compile(&served, out);
        for target in &policy.targets {
            let count = attached.entry(target.clone()).or_default();
            *count += 1;
            if *count == PER_TARGET_MAX + 1 {
                let message = format!("{target} has more than {PER_TARGET_MAX} XAccessPolicies");
                let at = decoded.object.spec().key("targetRefs");
                out.error(at, "limit-per-target", message);
            }
        }
        policies.push(policy);
    }
    policies
}

struct One<'c> {
    set: &'c Set<'c>,
    chosen: &'c Chosen<'c>,
    drafts: &'c Drafts<'c>,
    decoded: &'c Decoded<'c, raw::AccessPolicy>,
}

impl One<'_> {
    fn compile(&self, served: &Served, out: &mut Diagnostics) -> AccessPolicy {
        let (object, spec) = (self.decoded.object, &self.decoded.raw);
        let at = object.spec();
        let mark = out.len();
        let mut targets = targets::all(self.set, object, &spec.target_refs, out);
        bounded("targetRefs", spec.target_refs.len(), TARGETS_MAX, at, out);
        for (index, target) in spec.target_refs.iter().enumerate() {
            if target.group.is_none() {
                let at = at.key("targetRefs").index(index).key("kind");
                let message = "without `group`: taken for that of the kind; the API's own \
                               admission refuses it";
                out.warning(at, "missing-group", message);
            }
        }
        let mut kinds = spec.target_refs.iter().map(|target| &target.kind);
        let first = kinds.next();
        if kinds.any(|kind| Some(kind) != first) {
            let message = "all `targetRefs` must have the same `kind`";
            out.error(at.key("targetRefs"), "bad-value", message);
        }
        targets.sort();
        targets.dedup();
        let here = targets.iter().any(|target| served.objects.contains(target));
        let elsewhere = super::gateway::ours(self.set).len() > 1;
        if !out.errors_since(mark) && !here && !elsewhere {
            let message = "nothing that this policy is attached to is served, so it has no effect";
            out.warning(at.key("targetRefs"), "not-attached", message);
        }
        let is_allow = self.is_allow(at, out);
        let rules = self.rules(at, out);
        let rules = if is_allow { rules } else { Some(Vec::new()) };
        if let Some(rules) = rules.as_deref().filter(|rules| !rules.is_empty()) {
            self.warn_of_denials(&targets, rules, out);
        }
        AccessPolicy {
            name: object.name.clone(),
            targets,
            rules,
        }
    }

    /// Whether the policy only allows what its rules match; reports what it asks for beside that.
    fn is_allow(&self, at: At<'_>, out: &mut Diagnostics) -> bool {
        let spec = &self.decoded.raw;
        if spec.action == raw::Action::ExternalAuth {
            let message = "action ExternalAuth is not enforced yet, refusing to start without it; \
                           remove the policy only if what the authorizer forbids may happen";
            out.error(at.key("action"), "not-enforced", message);
            if spec.external_auth.is_none() {
                let message = "`externalAuth` must be specified when `action` is ExternalAuth";
                out.error(at, "missing-field", message);
            }
            return false;
        }
        if spec.external_auth.is_some() {
            let message = "`externalAuth` is asked with action ExternalAuth only; remove it, \
                           nobody would ask it";
            out.error(at.key("externalAuth"), "not-enforced", message);
            return false;
        }
        true
    }

    /// The rules that can be used; `None` for a policy that was written without any.
    fn rules(&self, at: At<'_>, out: &mut Diagnostics) -> Option<Vec<AccessRule>> {
        let Some(raw) = &self.decoded.raw.rules else {
            if self.decoded.raw.action == raw::Action::Allow {
                let message = "without `rules` the policy allows any request: models and tools \
                               to everyone with an identity, plain requests to everyone";
                out.warning(self.decoded.object.name_at(), "allows-all", message);
            }
            return None;
        };
        let at = at.key("rules");
        if raw.is_empty() {
            let message = "`rules` is empty; leave it out to allow any request, or name what is \
                           allowed";
            out.error(at, "empty-list", message);
        }
        bounded("rules", raw.len(), RULES_MAX, at, out);
        let mut names: Vec<&str> = Vec::new();
        let mut rules = Vec::new();
        for (index, rule) in raw.iter().enumerate() {
            let at = at.index(index);
            if !is_name(&rule.name) || rule.name.len() > NAME_MAX {
                let message = format!(
                    "`{}` is not a lower-case DNS name of at most {NAME_MAX} characters",
                    rule.name
                );
                out.error(at.key("name"), "bad-name", message);
            } else if names.contains(&rule.name.as_str()) {
                let message = format!("there is another rule `{}`", rule.name);
                out.error(at.key("name"), "duplicate-name", message);
            }
            names.push(&rule.name);
            rules.extend(self.rule(rule, at, out));
        }
        Some(rules)
    }

    /// Nothing if there is anything wrong with it: what is left of a rule could match more.
    fn rule(&self, raw: &raw::Rule, at: At<'_>, out: &mut Diagnostics) -> Option<AccessRule> {
        let mark = out.len();
        let source = self.source(&raw.source, at.key("source"), out);
        let (http, mcp) = match &raw.authorization {
            None => (HttpAccess::default(), None),
            Some(authorization) => {
                let at = at.key("authorization");
                if authorization.kind == raw::AuthorizationType::Cel {
                    let message = "authorization by CEL is not enforced yet, refusing to start \
                                   without it; say it with type Inline";
                    out.error(at.key("type"), "not-enforced", message);
                } else if authorization.cel.is_some() {
                    let message = "`cel` must not be specified when `type` is Inline";
                    out.error(at.key("cel"), "bad-value", message);
                }
                (
                    inline::http(authorization, at, out),
                    inline::mcp(&authorization.mcp, at.key("mcp"), out),
                )
            }
        };
        (!out.errors_since(mark)).then(|| AccessRule {
            name: Arc::from(raw.name.as_str()),
            source,
            http,
            mcp,
        })
    }

    fn source(&self, raw: &raw::Source, at: At<'_>, out: &mut Diagnostics) -> Option<Source> {
        let (spiffe, account) = (&raw.spiffe, &raw.service_account);
        match (raw.kind, spiffe, account) {
            // Written as it is when it is left out, by clients that know the types.
            (None, None, None) => None,
            (Some(raw::SourceType::Spiffe), Some(spiffe), None) => {
                Some(Source::Spiffe(spiffe.0.clone()))
            }
            (Some(raw::SourceType::ServiceAccount), None, Some(account)) => {
                let at = at.key("serviceAccount");
                let own = &self.decoded.object.name.namespace;
                let namespace = account.namespace.as_deref().unwrap_or_default();
                let namespace = if namespace.is_empty() { own } else { namespace };
                if !is_label(namespace) {
                    let message = format!("`{namespace}` is not a lower-case DNS label");
                    out.error(at.key("namespace"), "bad-name", message);
                }
                if !is_name(&account.name) {
                    let message = format!("`{}` is not a lower-case DNS name", account.name);
                    out.error(at.key("name"), "bad-name", message);
                }
                Some(Source::ServiceAccount {
                    namespace: namespace.into(),
                    name: account.name.as_str().into(),
                })
            }
            _ => {
                let message = "`source` needs `type` SPIFFE with `spiffe`, or `type` \
                               ServiceAccount with `serviceAccount`, and nothing else";
                out.error(at, "bad-value", message);
                None
            }
        }
    }

    /// A policy is about all that passes what it is attached to, also where its rules cannot match.
    fn warn_of_denials(&self, targets: &[ObjectRef], rules: &[AccessRule], out: &mut Diagnostics) {
        if rules.iter().any(|rule| rule.mcp.is_none()) {
            return;
        }
        let here = |target: &&ObjectRef| match target.kind {
            Kind::Gateway => target.name == self.chosen.name,
            _ => false,
        };
        let mut routes = self.drafts.routes.iter();
        let others = routes.any(|draft| !matches!(draft.route, Route::Mcp(_)));
        let denied = match targets.iter().find(here) {
            Some(gateway) if others => Some(gateway),
            _ => targets
                .iter()
                .find(|target| matches!(target.kind, Kind::LlmRoute | Kind::LlmProvider)),
        };
        if let Some(target) = denied {
            let message = format!(
                "every rule is about MCP, so all else that passes {target} is denied (LLM calls, \
                 plain requests); attach the policy to an MCPProxy, or add a rule without `mcp`"
            );
            out.warning(self.decoded.object.name_at(), "denies-others", message);
        }
    }
}

/// More of something than the API takes.
fn bounded(field: &str, length: usize, max: usize, at: At<'_>, out: &mut Diagnostics) {
    if length > max {
        let message = format!("`{field}` has {length} entries, at most {max} are taken");
        out.error(at, "bad-value", message);
    }
}

#[cfg(test)]
mod tests;

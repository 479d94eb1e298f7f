//! `AgentPolicy`: what agents may do.

mod arguments;
mod blocks;
mod token;

use std::collections::BTreeSet;
use std::sync::Arc;

use waypoint_policy::{
    AgentPolicy, Caller, Effect, Kind, Mode, ObjectRef, ProviderId, Rule, ServerId,
};

use blocks::{Blocks, each, http};

use super::draft::{Drafts, McpSection};
use super::gateway::Chosen;
use super::set::{Decoded, Set};
use super::targets;
use crate::jwt::RequestAuthentication;
use crate::object::{At, Diagnostics, is_label};
use crate::path::PathNormalization;
use crate::raw::agent as raw;
use crate::snapshot::Route;

pub(super) fn compile(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &Drafts<'_>,
    out: &mut Diagnostics,
) -> Vec<AgentPolicy> {
    let served = Served::of(chosen, drafts);
    let one = |policy| {
        One {
            set,
            drafts,
            served: &served,
            paths: chosen.parameters.path_normalization,
            policy,
        }
        .compile(out)
    };
    set.policies.values().filter_map(one).collect()
}

/// Tells of issuers whose tokens nobody verifies.
pub(super) fn warn_of_issuers(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &Drafts<'_>,
    (policies, authentication): (&[AgentPolicy], &[RequestAuthentication]),
    out: &mut Diagnostics,
) {
    let served = Served::of(chosen, drafts);
    token::warn_of_issuers(set, &served, policies, authentication, out);
}

/// What this waypoint serves, for warnings.
pub(super) struct Served {
    pub(super) objects: BTreeSet<ObjectRef>,
    providers: BTreeSet<ProviderId>,
    /// Each provider under each object it is reached through.
    reach: BTreeSet<(ObjectRef, ProviderId)>,
    servers: BTreeSet<(ObjectRef, ServerId)>,
}

impl Served {
    pub(super) fn of(chosen: &Chosen<'_>, drafts: &Drafts<'_>) -> Self {
        let gateway = ObjectRef::whole(Kind::Gateway, chosen.name.clone());
        let mut served = Self {
            objects: BTreeSet::from([gateway.clone()]),
            providers: BTreeSet::new(),
            reach: BTreeSet::new(),
            servers: BTreeSet::new(),
        };
        for draft in &drafts.routes {
            let targets = draft.targets.iter().chain([&gateway]);
            served.objects.extend(draft.targets.iter().cloned());
            match &draft.route {
                Route::Llm(route) => {
                    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
                    let ids: BTreeSet<_> = backends.map(|backend| backend.provider).collect();
                    served.providers.extend(&ids);
                    for target in targets {
                        served
                            .reach
                            .extend(ids.iter().map(|id| (target.clone(), *id)));
                    }
                }
                Route::Mcp(route) => {
                    served
                        .servers
                        .extend(targets.map(|target| (target.clone(), route.server)));
                }
                Route::Plain(_) => {}
            }
        }
        for draft in drafts
            .providers
            .iter()
            .filter(|p| served.providers.contains(&p.llm.id))
        {
            let object = ObjectRef::whole(Kind::LlmProvider, draft.llm.name.clone());
            served.reach.insert((object.clone(), draft.llm.id));
            served.objects.insert(object);
        }
        served
    }
}

struct One<'c> {
    set: &'c Set<'c>,
    drafts: &'c Drafts<'c>,
    served: &'c Served,
    /// The form that paths of requests are matched in.
    paths: PathNormalization,
    policy: &'c Decoded<'c, raw::AgentPolicy>,
}

impl<'c> One<'c> {
    fn compile(&self, out: &mut Diagnostics) -> Option<AgentPolicy> {
        let (object, spec) = (self.policy.object, &self.policy.raw);
        let at = object.spec();
        let mark = out.len();
        let mut targets = targets::all(self.set, object, &spec.target_refs, out);
        let whole = !out.errors_since(mark);
        let here = targets
            .iter()
            .any(|target| self.served.objects.contains(target));
        if whole && !here && !self.elsewhere(&targets) {
            let message = "nothing that this policy is attached to is served, so it has no effect";
            out.warning(at.key("targetRefs"), "not-attached", message);
        }
        let effect = match spec.action {
            Some(raw::Action::Deny) => Effect::Deny,
            Some(raw::Action::Allow) | None => Effect::Allow,
        };
        let mode = match spec.mode {
            Some(raw::Mode::DryRun) => Mode::DryRun,
            Some(raw::Mode::Enforce) | None => Mode::Enforce,
        };
        if effect == Effect::Deny && spec.rules.is_empty() {
            let message = "a Deny policy without rules denies nothing; give it rules or remove it";
            out.error(at.key("rules"), "empty-list", message);
        }
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut rules = Vec::new();
        for (index, rule) in spec.rules.iter().enumerate() {
            let at = at.key("rules").index(index);
            let name: Arc<str> = match rule.name.as_deref() {
                Some("") => {
                    out.error(at.key("name"), "bad-name", "`name` must not be empty");
                    continue;
                }
                Some(name) => name.into(),
                None => format!("rule[{index}]").into(),
            };
            if names.contains(&name) {
                let message = format!("there is another rule `{name}`");
                out.error(at.key("name"), "duplicate-name", message);
            }
            names.push(name.clone());
            rules.push(self.rule(rule, name, &targets, effect, here, at, out));
        }
        if effect == Effect::Deny {
            self.follow_destinations(&mut targets);
        }
        Some(AgentPolicy {
            name: object.name.clone(),
            targets,
            effect,
            mode,
            rules,
        })
    }

    /// A Deny on a route of an MCPProxy is about the server behind it, so it holds on every other
    /// route to that server.
    fn follow_destinations(&self, targets: &mut Vec<ObjectRef>) {
        let held = |section: &&McpSection| {
            targets.iter().any(|target| {
                target.kind == Kind::McpProxy
                    && target.name == section.proxy
                    && target
                        .section
                        .as_deref()
                        .is_none_or(|only| *only == section.section)
            })
        };
        let servers: BTreeSet<ServerId> = self
            .drafts
            .sections
            .iter()
            .filter(held)
            .filter_map(|section| section.server)
            .collect();
        for section in &self.drafts.sections {
            if section
                .server
                .is_some_and(|server| servers.contains(&server))
            {
                let target = ObjectRef {
                    kind: Kind::McpProxy,
                    name: section.proxy.clone(),
                    section: Some(section.section.as_str().into()),
                };
                let whole = ObjectRef {
                    section: None,
                    ..target.clone()
                };
                if !targets.contains(&target) && !targets.contains(&whole) {
                    targets.push(target);
                }
            }
        }
    }

    /// Whether a target may belong to another waypoint among the objects read.
    fn elsewhere(&self, targets: &[ObjectRef]) -> bool {
        super::gateway::ours(self.set).len() > 1 && !targets.is_empty()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call; a struct would only rename them"
    )]
    fn rule(
        &self,
        raw: &raw::Rule,
        name: Arc<str>,
        targets: &[ObjectRef],
        effect: Effect,
        here: bool,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Rule {
        let blocks = [raw.llm.is_some(), raw.mcp.is_some(), raw.http.is_some()];
        if !blocks.contains(&true) {
            let message = format!("rule `{name}` says nothing: it needs `llm`, `mcp` or `http`");
            out.error(at, "no-family", message);
        }
        let context = Blocks {
            one: self,
            targets,
            effect,
            warn: here,
        };
        let from = raw
            .from
            .as_ref()
            .map(|from| self.callers(from, at.key("from"), out));
        Rule {
            name,
            from,
            llm: each(raw.llm.as_deref(), at.key("llm"), out, |b, at, out| {
                context.llm(b, at, out)
            }),
            mcp: each(raw.mcp.as_deref(), at.key("mcp"), out, |b, at, out| {
                context.mcp(b, at, out)
            }),
            http: each(raw.http.as_deref(), at.key("http"), out, |raw, at, out| {
                http(self.paths, raw, at, out)
            }),
        }
    }

    fn callers(&self, from: &[raw::Caller], at: At<'_>, out: &mut Diagnostics) -> Vec<Caller> {
        if from.is_empty() {
            let message = "`from` is empty, so nobody matches; name somebody";
            out.error(at, "empty-list", message);
        }
        let mut callers = Vec::new();
        for (index, caller) in from.iter().enumerate() {
            let at = at.index(index);
            if caller.spiffe.is_none()
                && caller.service_account.is_none()
                && caller.namespace.is_none()
                && caller.jwt.is_none()
            {
                let message =
                    "an entry of `from` needs `spiffe`, `serviceAccount`, `namespace` or `jwt`";
                out.error(at, "bad-value", message);
            }
            let own = &self.policy.object.name.namespace;
            let account = caller.service_account.as_ref().map(|account| {
                let at = at.key("serviceAccount");
                let namespace = account.namespace.as_deref().unwrap_or(own);
                label(namespace, at.key("namespace"), out);
                if !crate::object::is_name(&account.name) {
                    let message = format!("`{}` is not a lower-case DNS name", account.name);
                    out.error(at.key("name"), "bad-name", message);
                }
                (namespace.into(), account.name.as_str().into())
            });
            if let Some(namespace) = &caller.namespace {
                label(namespace, at.key("namespace"), out);
            }
            callers.push(Caller {
                spiffe: caller.spiffe.as_ref().map(|spiffe| spiffe.0.clone()),
                service_account: account,
                namespace: caller.namespace.as_deref().map(Into::into),
                jwt: (caller.jwt.as_ref()).map(|raw| token::compile(raw, at.key("jwt"), out)),
            });
        }
        callers
    }
}

fn label(text: &str, at: At<'_>, out: &mut Diagnostics) {
    if !is_label(text) {
        out.error(
            at,
            "bad-name",
            format!("`{text}` is not a lower-case DNS label"),
        );
    }
}

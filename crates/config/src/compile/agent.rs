//! `AgentPolicy`: what agents may do.

mod arguments;
mod blocks;
mod reader;
mod token;

use std::collections::BTreeSet;
use std::sync::Arc;

use waypoint_policy::{
    AgentPolicy, Effect, Kind, Mode, ObjectRef, ProviderId, Rule, ServerId, limit::UsageLimit,
};

use blocks::http;
pub(super) use blocks::{Blocks, each};
pub(super) use reader::Reader;

use super::draft::{Drafts, McpSection};
use super::gateway::Chosen;
use super::set::{Decoded, Set};
use crate::jwt::RequestAuthentication;
use crate::object::{At, Diagnostics};
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
    let one = |policy: &Decoded<'_, raw::AgentPolicy>| {
        One {
            reader: Reader {
                set,
                drafts,
                served: &served,
                object: policy.object,
                noun: "policy",
            },
            paths: chosen.parameters.path_normalization,
            spec: &policy.raw,
        }
        .compile(out)
    };
    set.policies.values().map(one).collect()
}

/// Tells of issuers whose tokens nobody verifies.
pub(super) fn warn_of_issuers(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &Drafts<'_>,
    (policies, limits): (&[AgentPolicy], &[UsageLimit]),
    authentication: &[RequestAuthentication],
    out: &mut Diagnostics,
) {
    let served = Served::of(chosen, drafts);
    token::warn_of_issuers(set, &served, (policies, limits), authentication, out);
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
    reader: Reader<'c>,
    /// The form that paths of requests are matched in.
    paths: PathNormalization,
    spec: &'c raw::AgentPolicy,
}

impl One<'_> {
    fn compile(&self, out: &mut Diagnostics) -> AgentPolicy {
        let (object, spec) = (self.reader.object, self.spec);
        let at = object.spec();
        let (mut targets, here) = self.reader.targets(&spec.target_refs, out);
        let effect = match spec.action {
            Some(raw::Action::Deny) => Effect::Deny,
            Some(raw::Action::Allow) | None => Effect::Allow,
        };
        let mode = mode(spec.mode);
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
        AgentPolicy {
            name: object.name.clone(),
            targets,
            effect,
            mode,
            rules,
        }
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
            .reader
            .drafts
            .sections
            .iter()
            .filter(held)
            .filter_map(|section| section.server)
            .collect();
        for section in &self.reader.drafts.sections {
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
            reader: &self.reader,
            targets,
            effect,
            warn: here,
        };
        let from = raw
            .from
            .as_ref()
            .map(|from| self.reader.callers(from, at.key("from"), out));
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
}

pub(super) fn mode(raw: Option<raw::Mode>) -> Mode {
    match raw {
        Some(raw::Mode::DryRun) => Mode::DryRun,
        Some(raw::Mode::Enforce) | None => Mode::Enforce,
    }
}

//! `AgentPolicy`: what agents may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use waypoint_policy::{
    AgentPolicy, Caller, Effect, HttpBlock, Kind, LlmBlock, McpBlock, MethodRule, Mode, ObjectName,
    ObjectRef, Operation, Pattern, ProviderId, Rule, ServerId,
};

use super::draft::{Drafts, McpSection};
use super::gateway::Chosen;
use super::missing;
use super::set::{Decoded, Set};
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics, is_label};
use crate::raw::Text;
use crate::raw::agent as raw;
use crate::snapshot::Route;
use crate::suggest;

/// The MCP methods that policies are asked about; others follow from these.
const ITEM_METHODS: &[&str] = &["tools/call", "prompts/get", "resources/read"];

/// Kinds a policy can be attached to.
const TARGETS: &[(ObjectKind, Kind)] = &[
    (ObjectKind::Gateway, Kind::Gateway),
    (ObjectKind::LlmRoute, Kind::LlmRoute),
    (ObjectKind::LlmProvider, Kind::LlmProvider),
    (ObjectKind::McpProxy, Kind::McpProxy),
];

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
            policy,
        }
        .compile(out)
    };
    set.policies.values().filter_map(one).collect()
}

/// What this waypoint serves, for warnings.
struct Served {
    objects: BTreeSet<ObjectRef>,
    providers: BTreeSet<ProviderId>,
    /// Each provider under each object it is reached through.
    reach: BTreeSet<(ObjectRef, ProviderId)>,
    servers: BTreeSet<(ObjectRef, ServerId)>,
}

impl Served {
    fn of(chosen: &Chosen<'_>, drafts: &Drafts<'_>) -> Self {
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
    policy: &'c Decoded<'c, raw::AgentPolicy>,
}

impl<'c> One<'c> {
    fn compile(&self, out: &mut Diagnostics) -> Option<AgentPolicy> {
        let (object, spec) = (self.policy.object, &self.policy.raw);
        let at = object.spec();
        let mark = out.len();
        let mut targets = self.targets(at.key("targetRefs"), out);
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

    fn targets(&self, at: At<'_>, out: &mut Diagnostics) -> Vec<ObjectRef> {
        let refs = &self.policy.raw.target_refs;
        if refs.is_empty() {
            out.error(
                at,
                "empty-list",
                "`targetRefs` must name what the policy is attached to",
            );
        }
        let mut targets = Vec::new();
        for (index, reference) in refs.iter().enumerate() {
            targets.extend(self.target(reference, at.index(index), out));
        }
        targets
    }

    fn target(&self, raw: &raw::TargetRef, at: At<'_>, out: &mut Diagnostics) -> Option<ObjectRef> {
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
            namespace: self.policy.object.name.namespace.clone(),
            name: raw.name.as_str().into(),
        };
        if !self.set.names(*object_kind).contains(&&name) {
            missing(self.set, *object_kind, &name, at.key("name"), out);
            return None;
        }
        let section = match raw.section_name.as_deref() {
            None => None,
            Some(section) if *kind == Kind::McpProxy => {
                let proxy = self.set.mcp.get(&name)?;
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
            Some(_) => {
                let message = format!("`sectionName` is not supported for {}", raw.kind);
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
            http: each(raw.http.as_deref(), at.key("http"), out, http),
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
            if caller.jwt.is_some() {
                let message = "`jwt` is not enforced yet, refusing to start without it";
                out.error(at.key("jwt"), "not-enforced", message);
            } else if caller.spiffe.is_none()
                && caller.service_account.is_none()
                && caller.namespace.is_none()
            {
                let message = "an entry of `from` needs `spiffe`, `serviceAccount` or `namespace`";
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

/// An empty list matches nothing, which nobody writes on purpose.
fn not_empty(field: &str, length: usize, at: At<'_>, out: &mut Diagnostics) {
    if length == 0 {
        let message =
            format!("`{field}` is empty, so nothing matches; remove it to match everything");
        out.error(at, "empty-list", message);
    }
}

fn each<R, B>(
    raw: Option<&[R]>,
    at: At<'_>,
    out: &mut Diagnostics,
    mut one: impl FnMut(&R, At<'_>, &mut Diagnostics) -> B,
) -> Vec<B> {
    let Some(raw) = raw else { return Vec::new() };
    if raw.is_empty() {
        let message = "this block is empty; give it an entry, `[{}]` for everything, or remove it";
        out.error(at, "empty-list", message);
    }
    raw.iter()
        .enumerate()
        .map(|(index, raw)| one(raw, at.index(index), out))
        .collect()
}

fn patterns(
    list: Option<&[Text<Pattern>]>,
    field: &str,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Vec<Pattern>> {
    let list = list?;
    not_empty(field, list.len(), at.key(field), out);
    Some(list.iter().map(|pattern| pattern.0.clone()).collect())
}

fn http(raw: &raw::Http, at: At<'_>, out: &mut Diagnostics) -> HttpBlock {
    if let Some(methods) = &raw.methods {
        not_empty("methods", methods.len(), at.key("methods"), out);
        for (index, method) in methods.iter().enumerate() {
            let valid = |b: u8| b.is_ascii_uppercase() || b == b'-' || b == b'_';
            if method != "*" && (method.is_empty() || !method.bytes().all(valid)) {
                let message = format!("`{method}` is not a method such as `GET`, or `*`");
                out.error(at.key("methods").index(index), "bad-value", message);
            }
        }
    }
    if let Some(ports) = &raw.ports {
        not_empty("ports", ports.len(), at.key("ports"), out);
    }
    HttpBlock {
        methods: raw.methods.clone(),
        hosts: patterns(raw.hosts.as_deref(), "hosts", at, out),
        paths: patterns(raw.paths.as_deref(), "paths", at, out),
        ports: raw.ports.clone(),
    }
}

/// What the blocks of a rule are read with.
struct Blocks<'b, 'c> {
    one: &'b One<'c>,
    targets: &'b [ObjectRef],
    effect: Effect,
    /// Whether the policy is attached to something served; else it was said already.
    warn: bool,
}

impl Blocks<'_, '_> {
    fn llm(&self, raw: &raw::Llm, at: At<'_>, out: &mut Diagnostics) -> LlmBlock {
        let providers = raw.providers.as_ref().map(|names| {
            let at = at.key("providers");
            not_empty("providers", names.len(), at, out);
            let mut ids = Vec::new();
            for (index, name) in names.iter().enumerate() {
                ids.extend(self.provider(name, at.index(index), out));
            }
            ids
        });
        let operations = raw.operations.as_ref().map(|texts| {
            let at = at.key("operations");
            not_empty("operations", texts.len(), at, out);
            let mut operations = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                match text.parse::<Operation>() {
                    Ok(operation) => operations.push(operation),
                    Err(_) => {
                        let known: Vec<String> = Operation::ALL
                            .iter()
                            .map(|op| format!("`{}`", op.as_str()))
                            .collect();
                        let message = format!("`{text}` is not one of {}", known.join(", "));
                        out.error(at.index(index), "unknown-value", message);
                    }
                }
            }
            operations
        });
        let models = patterns(raw.models.as_deref(), "models", at, out);
        self.check_models(
            providers.as_deref(),
            models.as_deref(),
            at.key("models"),
            out,
        );
        LlmBlock {
            providers,
            models,
            operations,
            max_output_tokens: raw.max_output_tokens,
        }
    }

    fn provider(&self, text: &str, at: At<'_>, out: &mut Diagnostics) -> Option<ProviderId> {
        let one = self.one;
        let own = &one.policy.object.name.namespace;
        let name = match text.split_once('/') {
            Some((namespace, name)) => ObjectName::new(namespace, name),
            None => ObjectName::new(own, text),
        };
        let Some(id) = one.drafts.provider_ids.get(&name).copied() else {
            if one.set.providers.contains_key(&name) {
                return None;
            }
            missing(one.set, ObjectKind::LlmProvider, &name, at, out);
            return None;
        };
        let reached = |target: &ObjectRef| one.served.reach.contains(&(target.clone(), id));
        if self.warn && !self.targets.iter().any(reached) {
            let message = format!(
                "LLMProvider {name} is not reached through what this policy is attached to, so this \
                 never matches"
            );
            out.warning(at, "never-matches", message);
        }
        Some(id)
    }

    /// Says when none of the providers has a model that matches.
    fn check_models(
        &self,
        providers: Option<&[ProviderId]>,
        models: Option<&[Pattern]>,
        at: At<'_>,
        out: &mut Diagnostics,
    ) {
        let Some(models) = models.filter(|_| self.warn) else {
            return;
        };
        let named = |id: ProviderId| match providers {
            Some(list) => list.contains(&id),
            None => self.one.served.providers.contains(&id),
        };
        let candidates: Vec<_> = self
            .one
            .drafts
            .providers
            .iter()
            .filter(|draft| named(draft.llm.id))
            .collect();
        if candidates.is_empty() {
            return;
        }
        for (index, pattern) in models.iter().enumerate() {
            let served = candidates.iter().any(|draft| match &draft.llm.models {
                None => true,
                Some(list) => list.iter().any(|model| {
                    // A Deny also reads the name the caller used.
                    let deny = self.effect == Effect::Deny;
                    pattern.matches(&model.name)
                        || (deny && model.aliases.iter().any(|alias| pattern.matches(alias)))
                }),
            });
            if !served {
                let message = format!(
                    "no provider of this rule has a model `{pattern}`, so this never matches"
                );
                out.warning(at.index(index), "never-matches", message);
            }
        }
    }

    fn mcp(&self, raw: &raw::Mcp, at: At<'_>, out: &mut Diagnostics) -> McpBlock {
        if raw.arguments.is_some() {
            let message = "`arguments` is not enforced yet, refusing to start without it";
            out.error(at.key("arguments"), "not-enforced", message);
        }
        let servers = raw.servers.as_ref().map(|names| {
            let at = at.key("servers");
            not_empty("servers", names.len(), at, out);
            let mut ids = Vec::new();
            for (index, name) in names.iter().enumerate() {
                ids.extend(self.server(name, at.index(index), out));
            }
            ids
        });
        let methods = raw.methods.as_ref().map(|methods| {
            let at = at.key("methods");
            not_empty("methods", methods.len(), at, out);
            let mut rules = Vec::new();
            for (index, method) in methods.iter().enumerate() {
                let at = at.index(index);
                let name = &method.name.0;
                if !ITEM_METHODS.iter().any(|known| name.matches(known)) {
                    let hint = suggest::hint(name.as_str(), ITEM_METHODS);
                    let message =
                        format!("no method is called `{name}`, so this never matches{hint}");
                    out.warning(at.key("name"), "never-matches", message);
                }
                rules.push(MethodRule {
                    method: name.clone(),
                    params: patterns(method.params.as_deref(), "params", at, out),
                });
            }
            rules
        });
        McpBlock { servers, methods }
    }

    /// The server a name stands for: `route`, `proxy/route` or `namespace/proxy/route`.
    fn server(&self, text: &str, at: At<'_>, out: &mut Diagnostics) -> Option<ServerId> {
        let one = self.one;
        let own = &*one.policy.object.name.namespace;
        let mut parts = text.rsplitn(3, '/');
        let route = parts.next().unwrap_or_default();
        let proxy = parts.next();
        let namespace = parts.next().unwrap_or(own);
        let found: Vec<&McpSection> = one
            .drafts
            .sections
            .iter()
            .filter(|section| {
                section.section == route
                    && *section.proxy.namespace == *namespace
                    && proxy.is_none_or(|proxy| *section.proxy.name == *proxy)
            })
            .collect();
        if found.is_empty() {
            if !one.set.any_broken(ObjectKind::McpProxy) {
                let in_namespace = one.drafts.sections.iter();
                let names: Vec<&str> = in_namespace
                    .filter(|section| *section.proxy.namespace == *namespace)
                    .map(|section| section.section.as_str())
                    .collect();
                let hint = suggest::hint(route, &names);
                let message =
                    format!("no MCPProxy of namespace `{namespace}` has a route `{text}`{hint}");
                out.error(at, "missing-reference", message);
            }
            return None;
        }
        let mut servers: Vec<ServerId> =
            found.iter().filter_map(|section| section.server).collect();
        servers.sort_unstable();
        servers.dedup();
        if servers.len() > 1 {
            let names: Vec<String> = found
                .iter()
                .map(|section| format!("`{}/{}`", section.proxy, section.section))
                .collect();
            let message = format!("`{text}` is ambiguous; write {}", names.join(" or "));
            out.error(at, "ambiguous-name", message);
            return None;
        }
        let id = servers.first().copied()?;
        let reached = |target: &ObjectRef| one.served.servers.contains(&(target.clone(), id));
        if self.warn && !self.targets.iter().any(reached) {
            let message = format!(
                "server `{text}` is not reached through what this policy is attached to, so this \
                 never matches"
            );
            out.warning(at, "never-matches", message);
        }
        Some(id)
    }
}

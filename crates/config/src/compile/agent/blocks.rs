//! The blocks of a rule: which LLM calls, MCP calls and plain requests it is about.

use waypoint_policy::{
    Effect, HttpBlock, LlmBlock, McpBlock, MethodRule, ObjectName, ObjectRef, Operation, Pattern,
    ProviderId, ServerId,
};

use super::Reader;
use super::arguments::{TOOLS_CALL, arguments};
use crate::compile::draft::McpSection;
use crate::compile::missing;
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics};
use crate::path::PathNormalization;
use crate::raw::Text;
use crate::raw::agent as raw;
use crate::suggest;

/// The MCP methods that policies are asked about; others follow from these.
const ITEM_METHODS: &[&str] = &["tools/call", "prompts/get", "resources/read"];

/// An empty list matches nothing, which nobody writes on purpose.
fn not_empty(field: &str, length: usize, at: At<'_>, out: &mut Diagnostics) {
    if length == 0 {
        let message =
            format!("`{field}` is empty, so nothing matches; remove it to match everything");
        out.error(at, "empty-list", message);
    }
}

pub(in crate::compile) fn each<R, B>(
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

/// A pattern in the form that paths of requests are matched in; `*` is a character like others.
fn path(form: PathNormalization, pattern: &Pattern, at: At<'_>, out: &mut Diagnostics) -> Pattern {
    let text = pattern.as_str();
    let whole = match text.starts_with('*') {
        true => format!("/{text}"),
        false => text.to_owned(),
    };
    let normal = form.normalize(&whole).map_err(|error| error.to_string());
    let normal = normal.and_then(|normal| {
        let own = match text.starts_with('*') {
            true => normal.strip_prefix('/').filter(|own| own.starts_with('*')),
            false => Some(&*normal),
        };
        let own = own.ok_or("dot segments take all of it away")?;
        own.parse().map_err(|error| format!("{error}"))
    });
    normal.unwrap_or_else(|why| {
        out.error(at, "bad-path", format!("`{text}` matches no path: {why}"));
        pattern.clone()
    })
}

pub(super) fn http(
    form: PathNormalization,
    raw: &raw::Http,
    at: At<'_>,
    out: &mut Diagnostics,
) -> HttpBlock {
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
    let mut paths = patterns(raw.paths.as_deref(), "paths", at, out);
    for (index, pattern) in paths.iter_mut().flatten().enumerate() {
        *pattern = path(form, pattern, at.key("paths").index(index), out);
    }
    HttpBlock {
        methods: raw.methods.clone(),
        hosts: patterns(raw.hosts.as_deref(), "hosts", at, out),
        paths,
        ports: raw.ports.clone(),
    }
}

/// What the blocks of a rule are read with.
pub(in crate::compile) struct Blocks<'b, 'c> {
    pub(in crate::compile) reader: &'b Reader<'c>,
    pub(in crate::compile) targets: &'b [ObjectRef],
    pub(in crate::compile) effect: Effect,
    /// Whether the object is attached to something served; else it was said already.
    pub(in crate::compile) warn: bool,
}

impl Blocks<'_, '_> {
    pub(in crate::compile) fn llm(
        &self,
        raw: &raw::Llm,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> LlmBlock {
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
        let reader = self.reader;
        let own = &reader.object.name.namespace;
        let name = match text.split_once('/') {
            Some((namespace, name)) => ObjectName::new(namespace, name),
            None => ObjectName::new(own, text),
        };
        let Some(id) = reader.drafts.provider_ids.get(&name).copied() else {
            if reader.set.providers.contains_key(&name) {
                return None;
            }
            missing(reader.set, ObjectKind::LlmProvider, &name, at, out);
            return None;
        };
        let reached = |target: &ObjectRef| reader.served.reach.contains(&(target.clone(), id));
        if self.warn && !self.targets.iter().any(reached) {
            let message = format!(
                "LLMProvider {name} is not reached through what this {} is attached to, so this \
                 never matches",
                reader.noun
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
            None => self.reader.served.providers.contains(&id),
        };
        let candidates: Vec<_> = self
            .reader
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

    pub(in crate::compile) fn mcp(
        &self,
        raw: &raw::Mcp,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> McpBlock {
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
                } else if raw.arguments.is_some() && name.as_exact() != Some(TOOLS_CALL) {
                    let message = format!(
                        "`arguments` are those of `{TOOLS_CALL}`, not of `{name}`; give that a block \
                         of its own"
                    );
                    out.error(at.key("name"), "bad-value", message);
                }
                rules.push(MethodRule {
                    method: name.clone(),
                    params: patterns(method.params.as_deref(), "params", at, out),
                });
            }
            rules
        });
        // Without methods, a block with arguments is about the one that has any.
        let only = || MethodRule {
            method: TOOLS_CALL.parse().expect("a name is a pattern"),
            params: None,
        };
        let has_arguments = raw.arguments.is_some();
        let arguments = raw.arguments.as_ref();
        McpBlock {
            servers,
            methods: methods.or_else(|| has_arguments.then(|| vec![only()])),
            arguments: arguments
                .map(|raw| self::arguments(raw, at.key("arguments"), out))
                .unwrap_or_default(),
        }
    }

    /// The server a name stands for: `route`, `proxy/route` or `namespace/proxy/route`.
    fn server(&self, text: &str, at: At<'_>, out: &mut Diagnostics) -> Option<ServerId> {
        let reader = self.reader;
        let own = &*reader.object.name.namespace;
        let mut parts = text.rsplitn(3, '/');
        let route = parts.next().unwrap_or_default();
        let proxy = parts.next();
        let namespace = parts.next().unwrap_or(own);
        let found: Vec<&McpSection> = reader
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
            if !reader.set.any_broken(ObjectKind::McpProxy) {
                let in_namespace = reader.drafts.sections.iter();
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
        let reached = |target: &ObjectRef| reader.served.servers.contains(&(target.clone(), id));
        if self.warn && !self.targets.iter().any(reached) {
            let message = format!(
                "server `{text}` is not reached through what this {} is attached to, so this \
                 never matches",
                reader.noun
            );
            out.warning(at, "never-matches", message);
        }
        Some(id)
    }
}

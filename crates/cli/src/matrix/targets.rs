//! The columns: models, tools and paths that providers, routes and policies name.

use std::collections::BTreeSet;
use std::sync::Arc;

use waypoint_config::{LlmRoute, McpRoute, Provider, Route, Snapshot};
use waypoint_llm::{Dialect, path_of};
use waypoint_policy::access::{AccessPolicy, AccessRule, McpMethod};
use waypoint_policy::{Action, AgentPolicy, Arguments, Operation, Pattern, Rule, TargetId};

use super::plain::plain;
use crate::explain::llm_targets;

/// MCP methods that name something, and how their items are titled.
const METHODS: [(&str, &str); 3] = [
    ("tools/call", ""),
    ("prompts/get", "prompt "),
    ("resources/read", "resource "),
];

/// A column: something that can be asked for.
#[derive(Debug)]
pub(super) struct Target<'s> {
    /// `llm`, `mcp` or `http`.
    pub(super) kind: &'static str,
    /// The provider, server or backend.
    pub(super) name: String,
    /// The route there.
    pub(super) route: String,
    /// The title of the table this stands in.
    pub(super) group: String,
    /// The model, tool or path.
    pub(super) item: String,
    /// Where policies are attached that apply.
    pub(super) attached: Vec<TargetId>,
    /// Whether requests with any host take the route.
    pub(super) any_host: bool,
    /// The hosts that the route may lead to.
    pub(super) behind: Vec<Arc<str>>,
    pub(super) asked: Asked<'s>,
}

#[derive(Debug)]
pub(super) enum Asked<'s> {
    Llm {
        provider: &'s Provider,
        /// What a call is sent to: a host where callers use the provider's own, and the path.
        host: &'s str,
        path: String,
        requested: String,
        upstream: String,
    },
    Mcp {
        route: &'s McpRoute,
        method: &'static str,
        name: String,
    },
    Http {
        /// As tables show it: `*` is any other.
        method: String,
        host: String,
        /// As policies write it.
        shown: String,
        /// One such path.
        path: String,
        port: u16,
        external: bool,
    },
}

impl Target<'_> {
    /// Method, host and path of the request that asks for it.
    pub(super) fn line(&self) -> (&str, &str, &str) {
        match &self.asked {
            Asked::Llm { host, path, .. } => ("POST", host, path),
            Asked::Mcp { route, .. } => ("POST", "", &route.prefix),
            Asked::Http {
                method, host, path, ..
            } => (method, host, path),
        }
    }

    /// The method of a plain request, and what stands at the top of the column.
    pub(super) fn column(&self) -> (Option<&str>, &str) {
        match &self.asked {
            Asked::Http { method, shown, .. } => (Some(method), shown),
            _ => (None, &self.item),
        }
    }

    /// The question for policy, for a tool that is called with these arguments.
    pub(super) fn action<'a>(&'a self, arguments: Arguments<'a>) -> Action<'a> {
        match &self.asked {
            Asked::Llm {
                provider,
                requested,
                upstream,
                ..
            } => Action::Llm {
                provider: provider.llm.id,
                requested,
                upstream,
                operation: None,
                max_output_tokens: None,
            },
            Asked::Mcp {
                route,
                method,
                name,
            } => Action::Mcp {
                server: route.server,
                method,
                name,
                arguments,
            },
            Asked::Http {
                method,
                host,
                path,
                port,
                external,
                ..
            } => Action::Http {
                method,
                host,
                path,
                port: *port,
                external: *external,
            },
        }
    }
}

/// Everything there is to ask for, table by table.
pub(super) fn targets(snapshot: &Snapshot) -> Vec<Target<'_>> {
    let mut found = Vec::new();
    for provider in &snapshot.providers {
        let leads = |route: &&LlmRoute| {
            let mut backends = route.rules.iter().flat_map(|rule| &rule.backends);
            backends.any(|backend| backend.provider == provider.llm.id && backend.weight > 0)
        };
        let routes = snapshot.routes.iter().filter_map(|route| match route {
            Route::Llm(route) => Some(route),
            _ => None,
        });
        let routes: Vec<&LlmRoute> = routes.filter(leads).collect();
        for route in &routes {
            llm(snapshot, provider, route, routes.len() > 1, &mut found);
        }
    }
    for (route, hosts) in snapshot.routes.iter_with_hosts() {
        let behind = snapshot.hosts_behind(route);
        match route {
            Route::Llm(_) => {}
            Route::Mcp(route) => mcp(snapshot, route, &behind, &mut found),
            Route::Plain(route) => plain(snapshot, route, hosts, &behind, &mut found),
        }
    }
    found
}

/// The rules of the policies that are attached to any of these.
pub(super) fn rules<'s>(
    snapshot: &'s Snapshot,
    attached: &[TargetId],
) -> impl Iterator<Item = &'s Rule> {
    let applies = |policy: &&AgentPolicy| {
        let objects = policy.targets.iter();
        let mut targets = objects.filter_map(|object| snapshot.policy.target(object));
        targets.any(|target| attached.contains(&target))
    };
    let policies = snapshot.policy.policies().iter();
    policies.filter(applies).flat_map(|policy| &policy.rules)
}

/// The rules of policies of the kind `XAccessPolicy` that are attached to any of these.
pub(super) fn access_rules<'s>(
    snapshot: &'s Snapshot,
    attached: &[TargetId],
) -> impl Iterator<Item = &'s AccessRule> {
    let applies = |policy: &&AccessPolicy| {
        let objects = policy.targets.iter();
        let mut targets = objects.filter_map(|object| snapshot.policy.target(object));
        targets.any(|target| attached.contains(&target))
    };
    let policies = snapshot.policy.access_policies().filter(applies);
    policies.flat_map(|policy| policy.rules.iter().flatten())
}

/// What policies of the kind `XAccessPolicy` that are attached to any of these say of a method.
fn access_methods<'s>(
    snapshot: &'s Snapshot,
    attached: &[TargetId],
    method: &str,
) -> impl Iterator<Item = &'s McpMethod> {
    let rules = access_rules(snapshot, attached);
    let methods = rules.filter_map(|rule| rule.mcp.as_ref());
    let methods = methods.flat_map(|mcp| &mcp.methods);
    methods.filter(move |known| known.name.as_str() == method)
}

fn llm<'s>(
    snapshot: &'s Snapshot,
    provider: &'s Provider,
    route: &LlmRoute,
    several: bool,
    found: &mut Vec<Target<'s>>,
) {
    let name = provider.llm.name.to_string();
    let mut group = format!("LLMProvider {name}");
    if several {
        group = format!("{group} by LLMRoute {}", route.name);
    }
    let providers = route.rules.iter().flat_map(|rule| &rule.backends);
    let providers = providers.filter_map(|backend| snapshot.provider(backend.provider));
    let behind: Vec<Arc<str>> = providers.map(|p| Arc::clone(&p.endpoint.host)).collect();
    for (requested, upstream) in models(snapshot, provider, route) {
        let item = match requested == upstream {
            true => requested.clone(),
            false => format!("{requested} → {upstream}"),
        };
        found.push(Target {
            kind: "llm",
            name: name.clone(),
            route: format!("LLMRoute/{}", route.name),
            group: group.clone(),
            item,
            attached: llm_targets(snapshot, Some(route), provider),
            any_host: !route.host_form,
            behind: behind.clone(),
            asked: Asked::Llm {
                provider,
                host: match route.host_form {
                    true => &provider.endpoint.host,
                    false => "",
                },
                path: path(provider, route),
                requested,
                upstream,
            },
        });
    }
}

/// Where a chat with a provider is sent to, through a route.
fn path(provider: &Provider, route: &LlmRoute) -> String {
    let operation = match provider.llm.dialect {
        Dialect::OpenAi => Operation::Chat,
        Dialect::Anthropic => Operation::Messages,
    };
    let prefix = route.prefix.trim_end_matches('/');
    format!("{prefix}{}", path_of(operation, None))
}

/// The models that can be asked of a provider through a route: requested and upstream names.
fn models(snapshot: &Snapshot, provider: &Provider, route: &LlmRoute) -> Vec<(String, String)> {
    let attached = llm_targets(snapshot, Some(route), provider);
    let mut requested: BTreeSet<&str> = BTreeSet::new();
    match &provider.llm.models {
        Some(models) => {
            for model in models.iter() {
                requested.insert(&model.name);
                requested.extend(model.aliases.iter().map(|alias| &**alias));
            }
        }
        None => {
            let blocks = rules(snapshot, &attached).flat_map(|rule| &rule.llm);
            let here = blocks.filter(|block| {
                let providers = block.providers.as_ref();
                providers.is_none_or(|providers| providers.contains(&provider.llm.id))
            });
            requested.extend(
                here.filter_map(|b| b.models.as_ref())
                    .flatten()
                    .map(Pattern::as_str),
            );
            requested.insert("*");
        }
    }
    let by_route = route.rules.iter().flat_map(|rule| &rule.models);
    requested.extend(by_route.filter_map(Pattern::as_exact));
    let mut models: Vec<(String, String)> = Vec::new();
    for name in in_order(requested) {
        let Some(rule) = route.rules.iter().find(|rule| rule.matches(name)) else {
            continue;
        };
        let own = rule.backends.iter();
        for backend in own.filter(|b| b.provider == provider.llm.id && b.weight > 0) {
            let asked = backend.model.as_deref().unwrap_or(name);
            let Some(upstream) = provider.llm.upstream_model(asked) else {
                continue;
            };
            let pair = (name.to_owned(), upstream.to_owned());
            if !models.contains(&pair) {
                models.push(pair);
            }
        }
    }
    models
}

/// Names, then patterns, and what stands for everything last.
pub(super) fn in_order(names: BTreeSet<&str>) -> Vec<&str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_key(|name| (name.contains('*'), *name == "*"));
    names
}

fn mcp<'s>(
    snapshot: &'s Snapshot,
    route: &'s McpRoute,
    behind: &[Arc<str>],
    found: &mut Vec<Target<'s>>,
) {
    let full = format!("{}/{}", route.name, route.section);
    for (method, title) in METHODS {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut named = false;
        let blocks = rules(snapshot, &route.targets).flat_map(|rule| &rule.mcp);
        let here = blocks.filter(|block| {
            block
                .servers
                .as_ref()
                .is_none_or(|servers| servers.contains(&route.server))
        });
        for rule in here.filter_map(|block| block.methods.as_ref()).flatten() {
            if rule.method.matches(method) {
                named = named || rule.method.as_exact().is_some();
                names.extend(rule.params.iter().flatten().map(Pattern::as_str));
            }
        }
        for known in access_methods(snapshot, &route.targets, method) {
            named = true;
            names.extend(known.params.iter().map(|param| &**param));
        }
        // Tools are what everybody asks about; the others only where a policy names them.
        if method == "tools/call" || named {
            names.insert("*");
        } else {
            continue;
        }
        for name in in_order(names) {
            found.push(Target {
                kind: "mcp",
                name: full.clone(),
                route: format!("MCPProxy/{full}"),
                group: format!("MCP server {full}"),
                item: format!("{title}{name}"),
                attached: route.targets.clone(),
                any_host: true,
                behind: behind.to_vec(),
                asked: Asked::Mcp {
                    route,
                    method,
                    name: name.to_owned(),
                },
            });
        }
    }
}

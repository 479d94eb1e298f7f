//! Why a request that has ended was allowed or denied, in the words of the command `explain`.

use std::sync::Arc;

use serde::Serialize;
use smallvec::SmallVec;
use waypoint_config::{PlainRoute, Route, Snapshot};
use waypoint_policy::istio::{NOT_KEPT, Request};
use waypoint_policy::{
    Action, Arguments, By, Code, Facts, Outcome, Query, RuleName, ServerId, Stage, TargetId,
    TraceEntry,
};

use crate::edge::Head;
use crate::record::{Remembered, Timestamp};

/// `explain -o json`, and what is known beside it.
#[derive(Serialize)]
struct Explanation<'r> {
    decision: Option<&'static str>,
    by: Option<&'r By>,
    stage: Option<Stage>,
    code: Option<Code>,
    would_deny: &'r [Arc<RuleName>],
    trace: Vec<TraceEntry>,
    route: Option<&'r str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: Vec<String>,
    request_id: &'r str,
    time: Timestamp,
    principal: &'r str,
    identity_source: &'static str,
    listener: &'r str,
    asked: String,
    status: u16,
    generation: u64,
}

/// The explanation of a request, as JSON. What decided is what was written down at the time; what
/// each rule said is asked again, as long as the configuration is the same.
pub(crate) fn explain(
    request: &Remembered,
    snapshot: &Snapshot,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut notes = Vec::new();
    let trace = trace(request, snapshot, &mut notes);
    let decision = match (request.allowed, request.code) {
        (Some(true), _) => Some("allow"),
        (Some(false), _) | (None, Some(_)) => Some("deny"),
        (None, None) => None,
    };
    let reason = request.code.map(|code| By::Transport(code.message()));
    let by = request.by.as_ref().or(reason.as_ref());
    serde_json::to_vec_pretty(&Explanation {
        decision,
        by,
        stage: by.map(|by| by.stage(decision == Some("allow"))),
        code: request.code,
        would_deny: &request.would_deny,
        trace,
        route: request.route.as_deref(),
        notes,
        request_id: request.id.as_str(),
        time: Timestamp::of(request.time),
        principal: request
            .principal
            .spiffe()
            .map_or("anonymous", |id| id.as_str()),
        identity_source: request.identity_source.as_str(),
        listener: &request.listener,
        asked: asked(request),
        status: request.status,
        generation: request.generation,
    })
}

/// What was asked, in words.
fn asked(request: &Remembered) -> String {
    let action = &request.action;
    match (action.kind, &request.head) {
        ("llm", _) => {
            let what = action
                .operation
                .map_or("a call", |operation| operation.as_str());
            let model = action.model.as_deref().filter(|model| !model.is_empty());
            let model = model.map(|model| format!(" with {model}"));
            let at = action.provider.as_ref();
            let at = at.map(|name| format!(" at LLMProvider {name}"));
            format!(
                "{what}{}{}",
                model.unwrap_or_default(),
                at.unwrap_or_default()
            )
        }
        ("mcp", _) => {
            let method = action.method.as_deref().unwrap_or("a message");
            let name = action.tool.as_deref().map(|name| format!(" {name}"));
            let server = action.server.as_deref().unwrap_or_default();
            format!(
                "{method}{} at MCP server {server}",
                name.unwrap_or_default()
            )
        }
        (_, Some(head)) => format!("{} {}{}", head.method, head.authority, head.path),
        (_, None) => "a request that was not read so far, or is too long to be kept".into(),
    }
}

/// What each rule said that was asked.
fn trace(request: &Remembered, snapshot: &Snapshot, notes: &mut Vec<String>) -> Vec<TraceEntry> {
    if request.generation != snapshot.generation {
        notes.push(format!(
            "the configuration has changed since (generation {}, now {}): what each rule said is not \
             known any longer",
            request.generation, snapshot.generation
        ));
        return Vec::new();
    }
    if request.is_cut {
        notes.push("some of it is too long to be kept: not every rule can be asked again".into());
    }
    // Who is nobody reaches no model and no tool, before any policy is asked.
    let Some(head) = request
        .head
        .as_ref()
        .filter(|_| request.by != Some(By::Identity))
    else {
        return Vec::new();
    };
    let mut trace = istio(request, head, snapshot);
    if request.verdict.denied().is_none() {
        trace.extend(agents(request, head, snapshot));
    }
    let named = [
        request.by.as_ref().and_then(rule),
        request.verdict.allowed(),
    ];
    let named = named.into_iter().flatten().chain(&request.would_deny);
    for rule in named {
        // This much is certain, whatever is not kept.
        let is_it = |entry: &&mut TraceEntry| {
            entry.kind.as_str() == rule.kind
                && entry.policy == rule.policy
                && entry.rule == rule.rule
                && !entry.rule.is_empty()
        };
        if let Some(entry) = trace.iter_mut().find(is_it) {
            entry.outcome = Outcome::Matched;
        }
    }
    let is_open = |entry: &TraceEntry| match &entry.outcome {
        Outcome::Matched => false,
        Outcome::NotMatched { actual, .. } => actual == NOT_KEPT,
    };
    if trace.iter().any(is_open) {
        notes.push(
            "headers, tokens and arguments are not kept: a rule that asks about them is told of only \
             if it decided"
                .into(),
        );
    }
    trace
}

fn rule(by: &By) -> Option<&Arc<RuleName>> {
    match by {
        By::Rule(rule) => Some(rule),
        _ => None,
    }
}

fn istio(request: &Remembered, head: &Head, snapshot: &Snapshot) -> Vec<TraceEntry> {
    if !snapshot.policy.has_istio() {
        return Vec::new();
    }
    let mut targets = snapshot.istio.of("");
    for host in request
        .hosts
        .iter()
        .map(|host| &**host)
        .chain([head.host()])
    {
        let more = snapshot.istio.of(host).into_iter();
        let new: Vec<_> = more.filter(|target| !targets.contains(target)).collect();
        targets.extend(new);
    }
    let judged = Request {
        source_ip: Some(request.peer.ip().to_canonical()),
        remote_ip: Some(request.remote),
        destination_ip: Some(request.local.ip().to_canonical()),
        port: request.local.port(),
        method: &head.method,
        host: &head.authority,
        path: &head.path,
        custom: &request.custom,
        ..Request::of(&request.principal)
    };
    snapshot
        .policy
        .explain_istio_without_head(&judged, &targets)
}

/// What the policies of the agents' own kinds said, if they were asked.
fn agents(request: &Remembered, head: &Head, snapshot: &Snapshot) -> Vec<TraceEntry> {
    let label = request.route.as_deref();
    let route = snapshot
        .routes
        .iter()
        .find(|route| Some(label_of(route)) == label);
    let ask = |targets: &[TargetId], action: Action<'_>| {
        let query = Query {
            principal: &request.principal,
            targets,
            action,
            facts: Facts {
                method: &head.method,
                host: head.host(),
                path: &head.path,
                port: request.local.port(),
                ..Facts::default()
            },
        };
        let mut said = (snapshot.policy).explain_after(&request.verdict, &query, snapshot);
        said.trace.iter_mut().for_each(without_head);
        said
    };
    match route {
        None => Vec::new(),
        Some(Route::Plain(_)) => {
            let routes = snapshot.routes.iter().filter_map(|route| match route {
                Route::Plain(route) if Some(&*route.label) == label => Some(route),
                _ => None,
            });
            plain(request, head, routes, ask)
        }
        Some(Route::Llm(route)) => {
            let action = &request.action;
            let Some(name) = &action.provider else {
                return Vec::new();
            };
            let Some(provider) = snapshot.provider_by_name(name) else {
                return Vec::new();
            };
            let mut targets: SmallVec<[TargetId; 4]> = SmallVec::from_slice(&route.targets);
            targets.extend(provider.target);
            let id = provider.llm.id;
            let model = action.model.as_deref().unwrap_or_default();
            let asked = match model.is_empty() {
                true => Action::LlmAny { provider: id },
                false => Action::Llm {
                    provider: id,
                    requested: model,
                    upstream: action.upstream_model.as_deref().unwrap_or(model),
                    operation: action.operation,
                    max_output_tokens: action.max_output_tokens,
                },
            };
            ask(&targets, asked).trace
        }
        Some(Route::Mcp(route)) => mcp(request, route.server, |action| ask(&route.targets, action)),
    }
}

/// Headers and tokens are not kept, so nobody knows whether a rule that asks for them matched.
fn without_head(entry: &mut TraceEntry) {
    if let Outcome::NotMatched { field, actual, .. } = &mut entry.outcome
        && (field.contains("headers") || field.ends_with(".jwt"))
    {
        *actual = NOT_KEPT.into();
    }
}

fn label_of(route: &Route) -> &str {
    match route {
        Route::Llm(route) => &route.label,
        Route::Mcp(route) => &route.label,
        Route::Plain(route) => &route.label,
    }
}

/// Of several backends it is not known which was drawn: the one that explains what was decided.
fn plain<'s>(
    request: &Remembered,
    head: &Head,
    routes: impl Iterator<Item = &'s PlainRoute>,
    ask: impl Fn(&[TargetId], Action<'_>) -> waypoint_policy::Explanation,
) -> Vec<TraceEntry> {
    let mut first = None;
    for route in routes {
        let backends = route.backends.iter();
        let places = backends.map(|backend| (backend.endpoint.port, backend.external));
        let none = route
            .backends
            .is_empty()
            .then_some((request.local.port(), false));
        for (port, external) in places.chain(none) {
            let action = Action::Http {
                method: &head.method,
                host: head.host(),
                path: &head.path,
                port,
                external,
            };
            let said = ask(&route.targets, action);
            if Some(said.decision.is_allowed()) == request.allowed
                && Some(said.decision.by()) == request.by.as_ref()
            {
                return said.trace;
            }
            first.get_or_insert(said.trace);
        }
    }
    first.unwrap_or_default()
}

/// Arguments are not kept: where the best and the worst there can be differ, nobody knows.
fn mcp(
    request: &Remembered,
    server: ServerId,
    ask: impl Fn(Action<'_>) -> waypoint_policy::Explanation,
) -> Vec<TraceEntry> {
    let (Some(method), Some(name)) = (request.action.decided_method, &request.action.tool) else {
        let method = request.action.method.as_deref();
        return ask(Action::McpSession { server, method }).trace;
    };
    let with = |arguments| {
        let action = Action::Mcp {
            server,
            method,
            name,
            arguments,
        };
        ask(action).trace
    };
    let (mut best, worst) = (with(Arguments::Best), with(Arguments::Worst));
    for (best, worst) in best.iter_mut().zip(worst) {
        if best.outcome == worst.outcome {
            continue;
        }
        let failed =
            [&best.outcome, &worst.outcome]
                .into_iter()
                .find_map(|outcome| match outcome {
                    Outcome::Matched => None,
                    Outcome::NotMatched {
                        field, expected, ..
                    } => Some((field.clone(), expected.clone())),
                });
        if let Some((field, expected)) = failed {
            best.outcome = Outcome::NotMatched {
                field,
                expected,
                actual: NOT_KEPT.into(),
            };
        }
    }
    best
}

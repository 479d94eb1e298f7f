//! One request against one snapshot, in the steps the gateway takes.

use std::borrow::Cow;
use std::sync::Arc;

use waypoint_config::{
    LlmRoute, McpRoute, PlainRoute, Provider, Route, RouteQuery, Snapshot, normalize_path,
};
use waypoint_llm::{Call, Candidate, Dialect, candidates};
use waypoint_mcp::Ask;
use waypoint_policy::istio::Verdict;
use waypoint_policy::limit::UsageLimit;
use waypoint_policy::{
    Action, Arguments, By, Code, Explanation, Facts, Operation, Principal, Query, TargetId,
};

use super::answer::Answer;
use super::asked::{call, read_message};
use super::mesh;
use super::request::{Asked, Http, Llm, Mcp, Request};

/// Decides a request.
///
/// # Errors
/// When the request names what the configuration does not have, or too little.
pub(super) fn decide(snapshot: &Snapshot, request: &Request) -> anyhow::Result<Answer> {
    let mut ask = Asking {
        snapshot,
        principal: &request.principal,
        http: &request.http,
        path: None,
        verdict: Verdict::default(),
        line: (String::new(), String::new()),
    };
    if let Some(path) = request
        .http
        .path
        .as_deref()
        .filter(|_| !request.http.mesh.is_tcp)
    {
        ask.path = normal(snapshot, &request.asked, path);
        if ask.path.is_none() {
            let method = request.http.method.as_deref().unwrap_or("a request for");
            let asked = format!("{method} {}{path}", request.http.host);
            let by = "the path cannot be normalized";
            return Ok(Answer::refused(Code::BadRequest, by, asked));
        }
    }
    // Who is nobody reaches no LLM or MCP route, before any policy is asked.
    let is_judged = matches!(request.asked, Asked::Http) || request.principal.spiffe().is_some();
    let mut istio = Vec::new();
    if is_judged {
        let (method, path, hosts) = ask.line(&request.asked)?;
        ask.line = (method, path);
        if snapshot.policy.has_istio() {
            let line = (&*ask.line.0, &*ask.line.1);
            let (verdict, trace) =
                mesh::judge(snapshot, &request.principal, &request.http, line, &hosts);
            (ask.verdict, istio) = (verdict, trace);
        }
    }
    let mut answer = match &request.asked {
        Asked::Http if request.http.mesh.is_tcp => ask.connection(),
        Asked::Llm(llm) => ask.llm(llm)?,
        Asked::Mcp(mcp) => ask.mcp(mcp)?,
        Asked::Http => ask.http()?,
    };
    answer.after(&ask.verdict, istio);
    for name in &request.http.removed {
        let note = format!("header {name} is removed from what callers send");
        answer.notes.push(note);
    }
    let known = &snapshot.parameters.trust_domains;
    if let Some(id) = request.principal.spiffe()
        && !known.iter().any(|domain| domain == id.trust_domain())
    {
        answer.notes.push(format!(
            "listeners accept certificates of {} only, not of {}",
            known.join(", "),
            id.trust_domain()
        ));
    }
    Ok(answer)
}

/// A path in the form that it is routed, judged and forwarded in, without its query, or nothing if
/// it is refused: what leads to models and tools must be unambiguous in every form.
fn normal<'p>(snapshot: &Snapshot, asked: &Asked, path: &'p str) -> Option<Cow<'p, str>> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let normal = snapshot.parameters.path_normalization.normalize(path);
    let normal = normal.ok()?;
    let is_clear = match asked {
        Asked::Http => true,
        Asked::Llm(_) | Asked::Mcp(_) => normalize_path(&normal).is_ok_and(|own| own == normal),
    };
    is_clear.then_some(normal)
}

struct Asking<'a> {
    snapshot: &'a Snapshot,
    principal: &'a Principal,
    http: &'a Http,
    /// The request's path in its form, if it has one.
    path: Option<Cow<'a, str>>,
    /// What Istio's policies said.
    verdict: Verdict,
    /// Method and normalized path.
    line: (String, String),
}

impl Asking<'_> {
    /// A connection without HTTP in it, about which Istio's policies alone have a say.
    fn connection(&self) -> Answer {
        let asked = match &*self.http.mesh.sni {
            "" => "a TCP connection".to_owned(),
            name => format!("a TLS connection to {name}"),
        };
        Answer {
            is_allowed: true,
            by: match self.verdict.allowed() {
                Some(rule) => By::Rule(Arc::clone(rule)),
                None => By::Transport("no AuthorizationPolicy denies it"),
            },
            code: None,
            ..Answer::refused(Code::Forbidden, "", asked)
        }
    }

    /// Method and path as the gateway would see them, those of the request or else what a client of
    /// the API would send; and the hosts that the route may lead to.
    fn line(&self, asked: &Asked) -> anyhow::Result<(String, String, Vec<Arc<str>>)> {
        let (method, path, hosts) = match asked {
            Asked::Http => {
                let hosts = match self.route(self.path.as_deref().unwrap_or("/")) {
                    Some((_, route)) => self.snapshot.hosts_behind(route).to_vec(),
                    None => Vec::new(),
                };
                ("GET", "/".to_owned(), hosts)
            }
            Asked::Mcp(mcp) => {
                let route = self.mcp_route(&mcp.server)?;
                let server = self.snapshot.server(route.server);
                let hosts = server.map(|server| Arc::clone(&server.endpoint.host));
                ("POST", route.prefix.clone(), hosts.into_iter().collect())
            }
            Asked::Llm(llm) => {
                let provider = self.provider(&llm.provider)?;
                let operation = operation(llm, provider);
                let routes = self.llm_routes(provider);
                let prefix = routes.first().map_or("/", |route| &route.prefix);
                let own = waypoint_llm::path_of(operation, None);
                let method = match operation {
                    Operation::Models => "GET",
                    _ => "POST",
                };
                let path = format!("{}{own}", prefix.trim_end_matches('/'));
                let route = routes.first().and_then(|route| {
                    let mut all = self.snapshot.routes.iter();
                    all.find(
                        |known| matches!(known, Route::Llm(known) if std::ptr::eq(known, *route)),
                    )
                });
                let hosts = match route {
                    Some(route) => self.snapshot.hosts_behind(route).to_vec(),
                    None => vec![Arc::clone(&provider.endpoint.host)],
                };
                (method, path, hosts)
            }
        };
        let method = self.http.method.clone().unwrap_or(method.to_owned());
        let path = self.path.as_deref().map_or(path, str::to_owned);
        Ok((method, path, hosts))
    }

    fn query<'q>(&'q self, targets: &'q [TargetId], action: Action<'q>) -> Query<'q> {
        Query {
            principal: self.principal,
            targets,
            action,
            facts: Facts {
                method: &self.line.0,
                host: bare_host(&self.http.host),
                path: &self.line.1,
                port: self.http.port.unwrap_or(0),
                headers: &self.http.mesh.headers,
                claims: self.http.mesh.claims.as_ref(),
            },
        }
    }

    fn explain(&self, targets: &[TargetId], action: Action<'_>) -> Explanation {
        let query = self.query(targets, action);
        (self.snapshot.policy).explain_after(&self.verdict, &query, self.snapshot)
    }

    /// The limits that an action falls under.
    fn limits(&self, targets: &[TargetId], action: Action<'_>) -> Vec<Arc<UsageLimit>> {
        let query = self.query(targets, action);
        let limits = self.snapshot.policy.limits(&query);
        limits.into_iter().map(Arc::clone).collect()
    }

    fn llm(&self, llm: &Llm) -> anyhow::Result<Answer> {
        let provider = self.provider(&llm.provider)?;
        let operation = operation(llm, provider);
        let name = &provider.llm.name;
        let asked = match llm.model.is_empty() {
            true => format!("the models of LLMProvider {name}"),
            false => format!("{operation} with {} at LLMProvider {name}", llm.model),
        };
        if let Some(path) = &self.path
            && !matches!(self.route(path), Some((_, Route::Llm(_))))
        {
            let why = "no LLMRoute for this host and path";
            return Ok(Answer::refused(Code::RouteNotFound, why, asked));
        }
        if llm.model.is_empty() {
            let provider_id = provider.llm.id;
            let routes = self.llm_routes(provider);
            let targets = llm_targets(self.snapshot, routes.first().copied(), provider);
            let explanation = self.explain(
                &targets,
                Action::LlmAny {
                    provider: provider_id,
                },
            );
            return Ok(Answer::of(explanation, asked)
                .through(routes.first().map(|route| llm_label(route))));
        }
        let call = call(provider.llm.dialect, operation, llm)?;
        let mut refused = None;
        let mut found: Vec<(&LlmRoute, Candidate)> = Vec::new();
        let routes = self.llm_routes(provider);
        for route in &routes {
            let lookup = |id| self.snapshot.provider(id).map(|provider| &provider.llm);
            match candidates(&route.rules, lookup, &call, 0) {
                Ok((_, all)) => {
                    let mut own = all
                        .into_iter()
                        .filter(|candidate| candidate.provider == provider.llm.id);
                    match own.next() {
                        Some(candidate) => found.push((route, candidate)),
                        None => refused = Some(Code::ModelNotFound),
                    }
                }
                Err(refusal) => refused = refused.or(Some(refusal.code)),
            }
        }
        let Some((route, candidate)) = found.first() else {
            return Ok(self.unreachable(provider, &call, refused, asked));
        };
        let targets = llm_targets(self.snapshot, Some(route), provider);
        let explanation = self.explain(&targets, candidate.action(&call));
        let mut answer = Answer::of(explanation, asked).through(Some(llm_label(route)));
        answer.within(self.limits(&targets, candidate.action(&call)));
        if *candidate.model != *call.model {
            answer
                .notes
                .push(format!("the provider is asked for {}", candidate.model));
        }
        if found.len() > 1 {
            answer.notes.push(format!(
                "{} LLMRoutes lead there; add `path` (and `host`) to choose one",
                found.len()
            ));
        }
        Ok(answer)
    }

    /// What policy thinks, and that the call would not get as far as that.
    fn unreachable(
        &self,
        provider: &Provider,
        call: &Call,
        refused: Option<Code>,
        asked: String,
    ) -> Answer {
        let candidate = Candidate {
            provider: provider.llm.id,
            model: call.model.clone(),
        };
        let targets = llm_targets(self.snapshot, None, provider);
        let explanation = self.explain(&targets, candidate.action(call));
        let mut answer = Answer::of(explanation, asked);
        match refused {
            None => answer.notes.push(format!(
                "no LLMRoute leads to LLMProvider {}, so this is what policy alone says",
                provider.llm.name
            )),
            Some(_) if !answer.is_allowed => {}
            Some(code) => answer.refuse(
                code,
                match code {
                    Code::OperationNotAllowed => "the provider does not serve this operation",
                    _ => "no route leads to this provider with this model",
                },
            ),
        }
        answer
    }

    /// The provider of this name: in any namespace when it is given, else in the Gateway's, else
    /// where there is only one.
    fn provider(&self, wanted: &str) -> anyhow::Result<&Provider> {
        let all = &self.snapshot.providers;
        let own = &self.snapshot.gateway.namespace;
        let named: Vec<&Provider> = match wanted.split_once('/') {
            Some((namespace, name)) => all
                .iter()
                .filter(|p| *p.llm.name.namespace == *namespace && *p.llm.name.name == *name)
                .collect(),
            None => all.iter().filter(|p| *p.llm.name.name == *wanted).collect(),
        };
        let here = named.iter().find(|p| p.llm.name.namespace == *own);
        match (here, named.as_slice()) {
            (Some(one), _) | (None, [one]) => Ok(one),
            (None, []) => anyhow::bail!(
                "there is no LLMProvider {wanted}; there {}",
                these(all.iter().map(|p| p.llm.name.to_string()))
            ),
            (None, several) => anyhow::bail!(
                "there are several LLMProviders {wanted}: say which of {}",
                list(several.iter().map(|p| p.llm.name.to_string()))
            ),
        }
    }

    /// The routes that lead to a provider, only the one a given path leads to if there is one.
    fn llm_routes(&self, provider: &Provider) -> Vec<&LlmRoute> {
        let by_path = self.path.as_deref().and_then(|path| self.route(path));
        if let Some((_, Route::Llm(route))) = by_path {
            return vec![route];
        }
        let leads = |route: &&LlmRoute| {
            let mut backends = route.rules.iter().flat_map(|rule| &rule.backends);
            backends.any(|backend| backend.provider == provider.llm.id && backend.weight > 0)
        };
        let routes = self.snapshot.routes.iter();
        let routes = routes.filter_map(|route| match route {
            Route::Llm(route) => Some(route),
            _ => None,
        });
        routes.filter(leads).collect()
    }

    fn mcp(&self, mcp: &Mcp) -> anyhow::Result<Answer> {
        let route = self.mcp_route(&mcp.server)?;
        let method = mcp.method.as_deref().unwrap_or("tools/call");
        let label = format!("MCPProxy/{}/{}", route.name, route.section);
        let asked = match &mcp.name {
            Some(name) => format!("{method} {name} at MCP server {}", route.section),
            None => format!("{method} at MCP server {}", route.section),
        };
        let (message, read) = read_message(mcp, method);
        let call = match read {
            Ok(call) => call,
            Err(refusal) if refusal.code == Code::BadRequest => anyhow::bail!(
                "`mcp` does not make a {method} request: {}; tools and prompts need `name`, \
                 resources their URI in `name`",
                refusal.message
            ),
            Err(refusal) => {
                let session = Action::McpSession {
                    server: route.server,
                    method: None,
                };
                let mut answer = Answer::of(self.explain(&route.targets, session), asked);
                if answer.is_allowed {
                    answer.refuse(refusal.code, "no MCP revision has this method");
                }
                return Ok(answer.through(Some(label)));
            }
        };
        let arguments = call.arguments.clone().and_then(|range| message.get(range));
        let arguments = arguments.map_or(Arguments::Absent, Arguments::Json);
        let mut actions: Vec<Action<'_>> = call
            .ask
            .items()
            .iter()
            .map(|item| Action::Mcp {
                server: route.server,
                method: item.method,
                name: &item.name,
                arguments,
            })
            .collect();
        if let Ask::Listen { uris, .. } = &call.ask {
            // As the gateway asks which of them to leave in.
            actions.extend(uris.iter().flat_map(|uri| {
                ["resources/read", "subscriptions/listen"].map(|method| Action::Mcp {
                    server: route.server,
                    method,
                    name: uri,
                    arguments: Arguments::Best,
                })
            }));
        }
        if actions.is_empty() {
            actions.push(Action::McpSession {
                server: route.server,
                method: match call.ask {
                    Ask::Task { .. } => None,
                    _ => Some(&*call.method),
                },
            });
        }
        // All must be allowed; the first that is not tells why.
        let mut explanations = actions
            .iter()
            .map(|action| self.explain(&route.targets, *action))
            .collect::<Vec<_>>();
        let denied = explanations
            .iter()
            .position(|explanation| !explanation.decision.is_allowed());
        let explanation = explanations.swap_remove(denied.unwrap_or(0));
        let mut answer = Answer::of(explanation, asked).through(Some(label));
        for action in &actions {
            answer.within(self.limits(&route.targets, *action));
        }
        if let (
            false,
            Some(Action::Mcp {
                server,
                method,
                name,
                ..
            }),
        ) = (answer.is_allowed, actions.get(denied.unwrap_or(0)))
        {
            let best = Action::Mcp {
                server: *server,
                method,
                name,
                arguments: Arguments::Best,
            };
            if self.explain(&route.targets, best).decision.is_allowed() {
                answer
                    .notes
                    .push("it may be allowed with other arguments, so lists show it".into());
            }
        }
        if let Ask::Listen { .. } = call.ask {
            let note = "what may not be heard of is cut from the request, and the rest is opened";
            answer.notes.push(note.into());
        }
        if let Ask::Task { .. } = call.ask {
            answer
                .notes
                .push("a task answers only to its maker, by what made it".into());
        }
        Ok(answer)
    }

    fn mcp_route(&self, wanted: &str) -> anyhow::Result<&McpRoute> {
        let routes = self.snapshot.routes.iter();
        let routes: Vec<&McpRoute> = routes
            .filter_map(|route| match route {
                Route::Mcp(route) => Some(route),
                _ => None,
            })
            .collect();
        let full = |route: &McpRoute| format!("{}/{}", route.name, route.section);
        let named: Vec<&McpRoute> = routes
            .iter()
            .copied()
            .filter(|route| {
                *route.section == *wanted
                    || full(route) == wanted
                    || full(route)
                        .split_once('/')
                        .is_some_and(|(_, short)| short == wanted)
            })
            .collect();
        let own = &self.snapshot.gateway.namespace;
        let mut here = named.iter().filter(|route| route.name.namespace == *own);
        match (named.as_slice(), here.next(), here.next()) {
            ([one], ..) | (_, Some(one), None) => Ok(one),
            ([], ..) => anyhow::bail!(
                "there is no MCP server {wanted}; there {}",
                these(routes.iter().map(|route| full(route)))
            ),
            (several, ..) => anyhow::bail!(
                "there are several MCP servers {wanted}: say which of {}",
                list(several.iter().map(|route| full(route)))
            ),
        }
    }

    fn http(&self) -> anyhow::Result<Answer> {
        let Http { host, port, .. } = self.http;
        let method = self.http.method.as_deref().unwrap_or("GET");
        let path = self.path.as_deref().unwrap_or("/");
        let asked = format!("{method} {host}{path}");
        let Some((_, route)) = self.route(path) else {
            return Ok(Answer::refused(
                Code::RouteNotFound,
                "no route for this host and path",
                asked,
            ));
        };
        let route = match route {
            Route::Plain(route) if route.holds(path) => route,
            Route::Plain(_) => {
                let by = "the path leads out of its route";
                return Ok(Answer::refused(Code::BadRequest, by, asked));
            }
            Route::Llm(_) | Route::Mcp(_) if self.principal.spiffe().is_none() => {
                let code = Code::IdentityRequired;
                return Ok(Answer {
                    by: By::Identity,
                    ..Answer::refused(code, "", asked)
                });
            }
            Route::Llm(route) => anyhow::bail!(
                "this path is LLMRoute {}'s; say what is asked in `llm`, such as \
                 {{\"provider\": \"openai\", \"model\": \"gpt-4o\", \"operation\": \"chat\"}}",
                route.name
            ),
            Route::Mcp(route) => anyhow::bail!(
                "this path is MCPProxy {}'s; say what is asked in `mcp`, such as \
                 {{\"server\": \"{}\", \"method\": \"tools/call\", \"name\": \"search\"}}",
                route.name,
                route.section
            ),
        };
        let wanted =
            |backend: &&waypoint_config::PlainBackend| Some(backend.endpoint.port) == *port;
        let backend = route.backends.iter().find(wanted);
        let backend = backend.or(route.backends.first());
        let explanation = self.explain(
            &route.targets,
            Action::Http {
                method,
                host: bare_host(host),
                path,
                port: backend.map_or(port.unwrap_or(0), |backend| backend.endpoint.port),
                external: backend.is_some_and(|backend| backend.external),
            },
        );
        Ok(Answer::of(explanation, asked).through(Some(plain_label(route))))
    }

    /// The route a path leads to, on the first listener that has one; on the listener of the
    /// request's port, if there is one.
    fn route(&self, path: &str) -> Option<(usize, &Route)> {
        let header = |name: &str| self.http.headers.get(name).map(String::as_str);
        let listeners = &self.snapshot.listeners;
        let by_port = listeners
            .iter()
            .any(|listener| Some(listener.port) == self.http.port);
        let candidates = listeners
            .iter()
            .enumerate()
            .filter(|(_, listener)| listener.protocol != waypoint_config::Protocol::Hbone)
            .filter(|(_, listener)| !by_port || Some(listener.port) == self.http.port);
        let mut found = candidates.filter_map(|(index, _)| {
            let query = RouteQuery {
                listener: index,
                host: &self.http.host,
                path,
                method: self.http.method.as_deref().unwrap_or("GET"),
                header: &header,
            };
            self.snapshot.route(&query).map(|route| (index, route))
        });
        found.next()
    }
}

fn operation(llm: &Llm, provider: &Provider) -> Operation {
    llm.operation.unwrap_or(match provider.llm.dialect {
        Dialect::OpenAi => Operation::Chat,
        Dialect::Anthropic => Operation::Messages,
    })
}

fn llm_label(route: &LlmRoute) -> String {
    format!("LLMRoute/{}", route.name)
}

fn plain_label(route: &PlainRoute) -> String {
    format!("HTTPRoute/{}", route.name)
}

/// The objects whose policies apply to a call.
pub(crate) fn llm_targets(
    snapshot: &Snapshot,
    route: Option<&LlmRoute>,
    provider: &Provider,
) -> Vec<TargetId> {
    let mut targets = match route {
        Some(route) => route.targets.clone(),
        None => snapshot.gateway_target.into_iter().collect(),
    };
    targets.extend(provider.target);
    targets
}

/// A host without its port.
pub(super) fn bare_host(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => host,
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn these(names: impl Iterator<Item = String>) -> String {
    match list(names).as_str() {
        "" => "is none at all".into(),
        names => format!("is {names}"),
    }
}

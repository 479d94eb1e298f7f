//! Plain routes: decided, rewritten, and forwarded by Pingora itself.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use waypoint_config::{
    Filter, HeaderChanges, PathMatch, PathRewrite, PlainBackend, PlainRoute, Redirect, Route,
    Snapshot,
};
use waypoint_policy::istio::Verdict;
use waypoint_policy::{Action, Code, Decision, ObjectName, Query, Refusal};

use crate::caller::Caller;
use crate::context::Context;
use crate::edge::{self, Head};
use crate::ends::Ends;
use crate::facts::Facts;
use crate::proxy::Waypoint;
use crate::respond::{self, Voice};
use crate::serve::Phase;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Zero would be no timeout at all.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// Without a timeout of its own a backend may be silent for so long.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(600);
/// Streams per HTTP/2 connection to a backend.
const HTTP2_STREAMS: usize = 100;

/// A request that Pingora forwards.
#[derive(Debug)]
pub(crate) struct Forward {
    backend: PlainBackend,
    filters: Arc<[Filter]>,
    /// What is sent in the request line.
    target: String,
    /// What the caller asked for, as sent.
    authority: Box<str>,
    timeout: Option<Duration>,
    asked: Asked,
    /// The generation of the configuration that last permitted it.
    generation: u64,
    ends: Ends,
    addresses: Vec<SocketAddr>,
    tried: usize,
}

/// What was decided, in names that outlive a snapshot; asked again at each generation, and when a
/// token has ended, while the answer goes on.
#[derive(Debug)]
struct Asked {
    caller: Caller,
    route: ObjectName,
    rule: usize,
    method: Box<str>,
    host: Box<str>,
    path: Box<str>,
    port: u16,
    external: bool,
}

impl Asked {
    fn decide(
        &self,
        snapshot: &Snapshot,
        (verdict, facts): (&Verdict, &Facts),
        route: &PlainRoute,
    ) -> Decision {
        let query = Query {
            principal: &self.caller.principal,
            targets: &route.targets,
            action: Action::Http {
                method: &self.method,
                host: &self.host,
                path: &self.path,
                port: self.port,
                external: self.external,
            },
            facts: facts.view(),
        };
        snapshot.policy.decide_after(verdict, &query)
    }

    fn is_permitted(&self, snapshot: &Snapshot, (verdict, facts): (&Verdict, &Facts)) -> bool {
        let route = snapshot.routes.iter().find_map(|route| match route {
            Route::Plain(route) if route.name == self.route && route.rule == self.rule => {
                Some(route)
            }
            _ => None,
        });
        self.caller.is_known(snapshot)
            && verdict.permit().is_ok()
            && route.is_some_and(|route| {
                let judged = (verdict, facts);
                self.decide(snapshot, judged, route).is_allowed()
            })
    }
}

/// Decides a plain request and readies it. `Ok(true)` when it has been answered (a redirect),
/// `Ok(false)` when it is to be forwarded.
///
/// # Errors
/// A refusal, when policy denies it or there is nowhere to send it.
pub(crate) async fn serve(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &PlainRoute,
    head: &Head,
) -> std::result::Result<bool, Refusal> {
    context.voice = Voice::Text;
    context.record.action.kind = "http";
    context.record.action.method = Some(head.method.clone());
    context.record.route = Some(Arc::clone(&route.label));
    if !route.holds(&head.path) {
        return Err(edge::unclear());
    }
    let state = Arc::clone(&context.state);
    let backend = choose(&route.backends, rand::random());
    let port = backend.map_or_else(
        || {
            context
                .connection
                .as_ref()
                .map_or(0, |connection| connection.local.port())
        },
        |backend| backend.endpoint.port,
    );
    let asked = Asked {
        caller: Caller::of(context),
        route: route.name.clone(),
        rule: route.rule,
        method: head.method.clone(),
        host: head.host().into(),
        path: head.path.clone(),
        port,
        external: backend.is_some_and(|backend| backend.external),
    };
    let decision = asked.decide(&state.snapshot, (&context.verdict, &context.facts), route);
    context.record.decided(&decision);
    let _permit = decision.permit()?;
    let redirect = route.filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        _ => None,
    });
    if let Some(redirect) = redirect {
        let listener_is_tls = state
            .snapshot
            .listeners
            .iter()
            .any(|listener| listener.name == context.record.listener && listener.tls.is_some());
        return answer_redirect(session, context, route, redirect, head, listener_is_tls).await;
    }
    let Some(backend) = backend else {
        // Gateway API: a rule whose backends all have weight 0 answers 500.
        return Err(Refusal::new(Code::Internal));
    };
    if backend
        .endpoint
        .tls
        .as_ref()
        .is_some_and(|tls| tls.roots_pem.is_some())
    {
        return Err(Refusal::new(Code::UpstreamConnect));
    }
    let private = &state.snapshot.parameters.allow_private;
    let addresses = waypoint
        .connector
        .addresses(&backend.endpoint, private)
        .await
        .map_err(|error| error.refusal())?;
    context.record.upstream_started = Some(std::time::Instant::now());
    context.record.attempts = 1;
    let tried = rand::random_range(0..addresses.len());
    context.plain = Some(Box::new(Forward {
        target: forwarded_target(route, backend, head),
        authority: head.authority.clone(),
        backend: backend.clone(),
        filters: Arc::clone(&route.filters),
        timeout: route.request_timeout,
        asked,
        generation: state.snapshot.generation,
        ends: Ends::of(context),
        addresses,
        tried,
    }));
    Ok(false)
}

/// A backend by weight.
fn choose(backends: &[PlainBackend], random: u32) -> Option<&PlainBackend> {
    let total: u64 = backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    let mut point = u64::from(random) % total.max(1);
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let hit = point < weight;
        point = point.saturating_sub(weight);
        hit
    })
}

/// The path and query to send.
fn forwarded_target(route: &PlainRoute, backend: &PlainBackend, head: &Head) -> String {
    let rewrite = route.filters.iter().find_map(|filter| match filter {
        Filter::Rewrite(rewrite) => rewrite.path.as_ref(),
        _ => None,
    });
    let path = rewritten(rewrite, route, &head.path);
    let mut target = format!("{}{path}", backend.endpoint.prefix);
    if !head.query.is_empty() {
        target.push('?');
        target.push_str(&head.query);
    }
    target
}

fn rewritten(rewrite: Option<&PathRewrite>, route: &PlainRoute, path: &str) -> String {
    match rewrite {
        None => path.to_owned(),
        Some(PathRewrite::Full(full)) => full.clone(),
        Some(PathRewrite::Prefix(prefix)) => {
            let matched = match &route.matched.path {
                PathMatch::Prefix(matched) | PathMatch::Exact(matched) => {
                    matched.trim_end_matches('/')
                }
            };
            let rest = path.strip_prefix(matched).unwrap_or(path);
            let joined = format!("{}{rest}", prefix.trim_end_matches('/'));
            if joined.is_empty() {
                "/".to_owned()
            } else {
                joined
            }
        }
    }
}

async fn answer_redirect(
    session: &mut ServerSession,
    context: &mut Context,
    route: &PlainRoute,
    redirect: &Redirect,
    head: &Head,
    is_tls: bool,
) -> std::result::Result<bool, Refusal> {
    let scheme = redirect
        .scheme
        .as_deref()
        .unwrap_or(if is_tls { "https" } else { "http" });
    let host = redirect.hostname.as_deref().unwrap_or(head.host());
    let host = match host.contains(':') {
        true => Cow::Owned(format!("[{host}]")),
        false => Cow::Borrowed(host),
    };
    let default_port = if scheme == "https" { 443 } else { 80 };
    let own_port = context
        .connection
        .as_ref()
        .map(|connection| connection.local.port());
    // Gateway API: with a scheme given the port is that scheme's, else the listener's.
    let port = redirect.port.or(if redirect.scheme.is_some() {
        None
    } else {
        own_port
    });
    let port = port
        .filter(|port| *port != default_port)
        .map(|port| format!(":{port}"));
    let path = rewritten(redirect.path.as_ref(), route, &head.path);
    let query = if head.query.is_empty() {
        String::new()
    } else {
        format!("?{}", head.query)
    };
    let location = format!("{scheme}://{host}{}{path}{query}", port.unwrap_or_default());
    let internal = |_| Refusal::new(Code::Internal);
    let mut answer = respond::head(redirect.status, &context.record.id).map_err(internal)?;
    answer
        .insert_header("location", location)
        .map_err(|_| Refusal::new(Code::BadRequest))?;
    context.record.status = redirect.status;
    if respond::whole(session, answer, Bytes::new()).await.is_err() {
        context.record.downstream_gone = true;
    }
    Ok(true)
}

/// The peer to connect to.
pub(crate) async fn peer(_waypoint: &Waypoint, context: &mut Context) -> Result<Box<HttpPeer>> {
    let forward = context
        .plain
        .as_ref()
        .ok_or_else(|| Error::new(ErrorType::InternalError))?;
    let endpoint = &forward.backend.endpoint;
    let address = forward.addresses[forward.tried % forward.addresses.len()];
    let name = endpoint.tls.as_ref().map(|tls| tls.hostname.clone());
    let mut peer = HttpPeer::new(address, name.is_some(), name.unwrap_or_default());
    // The request's timeout holds for each part of it: connecting, sending, reading.
    let left = forward
        .timeout
        .map(|limit| limit.saturating_sub(context.record.started.elapsed()))
        .map(|left| left.max(SHORTEST_WAIT));
    let within = |limit: Duration| Some(left.map_or(limit, |left| left.min(limit)));
    peer.options.total_connection_timeout = within(CONNECT_TIMEOUT);
    peer.options.read_timeout = left.or(Some(SILENCE_TIMEOUT));
    peer.options.write_timeout = within(crate::proxy::WRITE_TIMEOUT);
    peer.options.idle_timeout = Some(IDLE_TIMEOUT);
    if endpoint.http2 {
        peer.options.alpn = ALPN::H2;
        peer.options.max_h2_streams = HTTP2_STREAMS;
    }
    Ok(Box::new(peer))
}

/// Asked with each piece of an answer: ends one that takes longer than the route allows, from the
/// request's head to its end; one that a newer configuration does not permit, or only a token that
/// has ended; and, when the gateway ends, one that does not.
pub(crate) fn check(
    waypoint: &Waypoint,
    session: &ServerSession,
    context: &mut Context,
) -> Result<()> {
    let state = waypoint.state.load();
    let generation = state.snapshot.generation;
    let Some(forward) = &mut context.plain else {
        return Ok(());
    };
    let record = &mut context.record;
    if (forward.timeout).is_some_and(|limit| record.started.elapsed() > limit) {
        record.code = Some(Code::UpstreamTimeout);
        return Err(Error::new_up(ErrorType::ReadTimedout));
    }
    let has_ended = forward.ends.take();
    if has_ended || forward.generation != generation {
        forward.generation = generation;
        let ask = |context: &Context| is_permitted(context, session, &state.snapshot);
        if !ask(context) || !context.outlives_token(ask) {
            context.record.code = Some(Code::PolicyRevoked);
            return Err(Error::new_in(ErrorType::InternalError));
        }
    }
    if *waypoint.phase.borrow() == Phase::Ending {
        context.record.code = Some(Code::ShuttingDown);
        return Err(Error::new_in(ErrorType::InternalError));
    }
    Ok(())
}

/// Whether what is forwarded would be permitted in this snapshot.
fn is_permitted(context: &Context, session: &ServerSession, snapshot: &Snapshot) -> bool {
    let facts = context.facts(session, snapshot);
    let verdict = context.judge(session, snapshot);
    let forward = context.plain.as_ref();
    forward.is_some_and(|forward| forward.asked.is_permitted(snapshot, (&verdict, &facts)))
}

/// Whether another address is worth a try after one refused the connection.
pub(crate) fn try_next(context: &mut Context) -> bool {
    let Some(forward) = &mut context.plain else {
        return false;
    };
    forward.tried += 1;
    context.record.attempts += 1;
    usize::try_from(context.record.attempts).is_ok_and(|tried| tried <= forward.addresses.len())
}

/// Applies the route's changes to the request that goes upstream.
pub(crate) fn rewrite_request(request: &mut RequestHeader, context: &Context) -> Result<()> {
    let Some(forward) = &context.plain else {
        return Ok(());
    };
    // In HTTP/2 the host is part of the target that is replaced.
    if !request.headers.contains_key("host") && !forward.authority.is_empty() {
        request.insert_header("host", &*forward.authority)?;
    }
    request.set_raw_path(forward.target.as_bytes())?;
    request.insert_header("x-request-id", context.record.id.as_str())?;
    for filter in forward.filters.iter() {
        match filter {
            Filter::RequestHeaders(changes) => {
                let HeaderChanges { set, add, remove } = changes;
                for name in remove {
                    request.remove_header(name.as_str());
                }
                for (name, value) in set {
                    request.insert_header(name.clone(), value)?;
                }
                for (name, value) in add {
                    request.append_header(name.clone(), value)?;
                }
            }
            Filter::Rewrite(rewrite) => {
                if let Some(host) = &rewrite.hostname {
                    request.insert_header("host", host)?;
                }
            }
            Filter::ResponseHeaders(_) | Filter::Redirect(_) => {}
        }
    }
    Ok(())
}

/// Applies the route's changes to the answer.
pub(crate) fn rewrite_response(response: &mut ResponseHeader, context: &Context) -> Result<()> {
    let Some(forward) = &context.plain else {
        return Ok(());
    };
    response.insert_header("x-request-id", context.record.id.as_str())?;
    for filter in forward.filters.iter() {
        if let Filter::ResponseHeaders(HeaderChanges { set, add, remove }) = filter {
            for name in remove {
                response.remove_header(name.as_str());
            }
            for (name, value) in set {
                response.insert_header(name.clone(), value)?;
            }
            for (name, value) in add {
                response.append_header(name.clone(), value)?;
            }
        }
    }
    context.change_answer(response)
}

//! MCP routing: one message in, one decision, the same bytes out.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tokio::time::Instant;
use waypoint_config::{McpRoute, Server};
use waypoint_mcp::{
    Ask, Call, CallKind, Denial, Era, Header, MODERN_VERSIONS, McpRefusal, cut_listen, session,
};
use waypoint_policy::limit::Subject;
use waypoint_policy::{By, Code, ObjectName, Refusal};

use super::mcp_refuse::{accepted, deny, method_not_allowed, refuse};
use super::mcp_scope::{Deed, Deeds, Resolved, Scope};
use super::{llm, mcp_answer};
use crate::caller::Caller;
use crate::context::Context;
use crate::edge::{self, Head};
use crate::exchange::{self, Answer, Outgoing, Patience, RequestHead};
use crate::headers::{self, Passing};
use crate::limits::{Ask as Wanted, Reservation, stopped};
use crate::proxy::{Waypoint, interrupted};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static(session::PROTOCOL_VERSION);
const SESSION_ID: HeaderName = HeaderName::from_static(session::SESSION_ID);
const METHOD: HeaderName = HeaderName::from_static(session::METHOD);
const NAME: HeaderName = HeaderName::from_static(session::NAME);

/// A message that may be forwarded.
pub(super) struct Forward {
    pub(super) scope: Scope,
    /// `None` for GET and DELETE.
    pub(super) call: Option<Call>,
    /// What has to stay permitted while an answer streams.
    pub(super) deeds: Deeds,
    method: Method,
    body: Bytes,
    session: Option<String>,
    /// What the request holds of its limits: given back before the caller has its answer, who may
    /// at once send the next.
    pub(super) reserved: Reserved,
}

/// What a server answered.
pub(super) struct Answered {
    pub(super) answer: Box<Answer>,
    /// When a plain answer must have ended.
    pub(super) deadline: Instant,
}

/// What a request holds, for each thing that it names.
pub(super) type Reserved = SmallVec<[Reservation; 1]>;

/// Serves one MCP request.
///
/// # Errors
/// A refusal that names no message; those that do are written here.
pub(crate) async fn serve(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &McpRoute,
    head: &Head,
) -> Result<(), Refusal> {
    context.record.action.kind = "mcp";
    context.record.action.server = Some(Arc::clone(&route.section));
    context.record.route = Some(Arc::clone(&route.label));
    if context.record.principal.spiffe().is_none() {
        return Err(Refusal::new(Code::IdentityRequired).decided_by(By::Identity));
    }
    // Callers with a certificate are no browsers, so any name of ours will do; a page that got
    // hold of one all the same must at least be our own.
    let own = head.host().to_ascii_lowercase();
    edge::check_origin(session, head, |host| host.eq_ignore_ascii_case(&own))?;
    let scope = Scope {
        caller: Caller::of(context),
        route: route.name.clone(),
        section: Arc::clone(&route.section),
        label: Arc::clone(&route.label),
    };
    let resolved = Resolved {
        state: Arc::clone(&context.state),
        targets: SmallVec::from_slice(&route.targets),
        server: route.server,
        verdict: context.verdict.clone(),
        facts: context.facts.clone(),
    };
    // Who may do nothing here is told so before the body is read.
    let bare = (&*head.method != "POST").then_some(&*head.method);
    let decision = scope.decide_session(&resolved, bare);
    context.record.decided(&decision);
    let _permit = decision.permit()?;
    let is_modern = protocol_version(session.req_header())
        .is_some_and(|version| MODERN_VERSIONS.contains(&version));
    let prepared = match (&*head.method, is_modern) {
        ("POST", _) => {
            Box::pin(prepare_post(
                waypoint, session, context, route, scope, &resolved,
            ))
            .await?
        }
        ("GET" | "DELETE", false) => prepare_bare(waypoint, session, context, head, scope)?,
        (_, modern) => {
            let allow = if modern { "POST" } else { "POST, GET, DELETE" };
            return method_not_allowed(session, context, allow).await;
        }
    };
    let Some(mut forward) = prepared else {
        return Ok(());
    };
    match reserve(waypoint, context, &forward, &resolved).await {
        Ok(reserved) => forward.reserved = reserved,
        Err(refusal) => {
            context.record.refused(&refusal);
            let id = forward.call.as_ref().and_then(|call| call.id.as_deref());
            return refuse(session, context, with_id(McpRefusal::from(refusal), id)).await;
        }
    }
    // For a plain answer to its end; a stream has its own.
    let deadline = Instant::now() + route.timeouts.request;
    let sent = Box::pin(send(
        waypoint,
        session,
        context,
        route,
        &resolved,
        &mut forward,
        deadline,
    ))
    .await;
    match sent {
        Ok(Some(answer)) => {
            let answered = Answered { answer, deadline };
            mcp_answer::deliver(
                waypoint, session, context, route, forward, resolved, answered,
            )
            .await
        }
        Ok(None) => {
            context.record.downstream_gone = true;
            Ok(())
        }
        Err(refusal) => {
            let id = forward.call.as_ref().and_then(|call| call.id.as_deref());
            refuse(session, context, with_id(McpRefusal::from(refusal), id)).await
        }
    }
}

fn with_id(refusal: McpRefusal, id: Option<&[u8]>) -> McpRefusal {
    match id {
        Some(id) => refusal.with_id(id),
        None => refusal,
    }
}

fn protocol_version(request: &RequestHeader) -> Option<&str> {
    request
        .headers
        .get(&PROTOCOL_VERSION)?
        .to_str()
        .ok()
        .map(str::trim)
}

fn field<'a>(request: &'a RequestHeader, name: &HeaderName) -> Header<'a> {
    Header::of(
        request
            .headers
            .get_all(name)
            .iter()
            .map(http::HeaderValue::as_bytes),
    )
}

/// Reads a message, decides it and readies it. `None` when it has been answered.
async fn prepare_post(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &McpRoute,
    scope: Scope,
    resolved: &Resolved,
) -> Result<Option<Box<Forward>>, Refusal> {
    let request = session.req_header();
    waypoint_mcp::check_media(
        field(request, &header::CONTENT_TYPE),
        field(request, &header::CONTENT_ENCODING),
    )?;
    let limits = &resolved.state.snapshot.parameters.limits;
    let mut body = context
        .read_body(session, limits.mcp_body_bytes, limits.body_timeout)
        .await?;
    let request = session.req_header();
    let head = waypoint_mcp::Head {
        protocol_version: field(request, &PROTOCOL_VERSION),
        method: field(request, &METHOD),
        name: field(request, &NAME),
        session: field(request, &SESSION_ID),
    };
    let call = match waypoint_mcp::read(&body, &head) {
        Ok(call) => call,
        Err(refusal) => return refuse(session, context, refusal).await.map(|()| None),
    };
    note(context, &call);
    let denial = match route.denial {
        waypoint_config::Denial::Hide => Denial::Hide,
        waypoint_config::Denial::Explicit => Denial::Explicit,
    };
    // A session belongs to the principal that opened it. `initialize` opens a new one, and modern
    // requests have none: what they send is not looked at and not passed on.
    let upstream_session = match head.session {
        _ if call.era == Era::Modern || call.is_initialize() => None,
        Header::Absent => None,
        Header::One(sealed) => {
            match waypoint
                .sealer
                .open(sealed, &scope.caller.principal, &scope.label)
            {
                Ok(id) => Some(id),
                Err(refusal) => {
                    let refusal = with_id(McpRefusal::from(refusal), call.id.as_deref());
                    return refuse(session, context, refusal).await.map(|()| None);
                }
            }
        }
        Header::Many => {
            return Err(Refusal::new(Code::BadRequest).with_message("several session ids"));
        }
    };
    let mut deeds = Deeds::of(&call, &body);
    match &call.ask {
        Ask::Session | Ask::Item(_) | Ask::Items(_) => {}
        Ask::Task { id } => {
            // A task answers to whoever may do what made it, and only to its maker.
            let Some(made) = waypoint.tasks.of(&scope.label, id, &scope.caller.principal) else {
                return deny(session, context, &call, denial, None)
                    .await
                    .map(|()| None);
            };
            deeds.items.push(Deed::of(&made));
            context.record.action.tool = Some(made.name.clone());
        }
        Ask::Listen { .. } => {
            let hears = |uri: &str| {
                scope.may(resolved, "resources/read", uri)
                    && scope.may(resolved, "subscriptions/listen", uri)
            };
            match cut_listen(&body, hears, |task| {
                scope.owns(resolved, &waypoint.tasks, task)
            }) {
                Ok(std::borrow::Cow::Borrowed(_)) => {}
                Ok(std::borrow::Cow::Owned(cut)) => body = Bytes::from(cut),
                Err(refusal) => return refuse(session, context, refusal).await.map(|()| None),
            }
        }
        Ask::Discard => return accepted(session, context).await.map(|()| None),
    }
    for (method, decision) in scope.decisions(resolved, &deeds) {
        context.record.action.decided_method = method;
        context.record.decided(&decision);
        if let Err(refusal) = decision.permit() {
            return deny(session, context, &call, denial, refusal.by)
                .await
                .map(|()| None);
        }
    }
    Ok(Some(Box::new(Forward {
        scope,
        call: Some(call),
        deeds,
        method: Method::POST,
        body,
        session: upstream_session,
        reserved: Reserved::new(),
    })))
}

/// What a request holds of its limits until it has been answered. Only requests are counted: the
/// other messages have no answer that could say no. A stream that a limit would stop is not begun.
async fn reserve(
    waypoint: &Waypoint,
    context: &mut Context,
    forward: &Forward,
    resolved: &Resolved,
) -> Result<Reserved, Refusal> {
    let policy = &resolved.state.snapshot.policy;
    let mut reserved = Reserved::new();
    let is_request = match &forward.call {
        Some(call) if call.kind == CallKind::Request => true,
        None if forward.method == Method::GET => false,
        _ => return Ok(reserved),
    };
    if policy.usage_limits().is_empty() {
        return Ok(reserved);
    }
    let mut counted: SmallVec<[(Option<&str>, &ObjectName); 4]> = SmallVec::new();
    let mut wanted: SmallVec<[_; 1]> = SmallVec::new();
    for (tool, query) in forward.scope.queries(resolved, &forward.deeds) {
        let mut limits = policy.limits(&query);
        if !is_request {
            match limits.into_iter().find(|limit| limit.is_stop()) {
                Some(limit) => return Err(stopped(limit)),
                None => continue,
            }
        }
        // A message that reaches one thing in two ways is one call.
        limits.retain(|limit| !counted.contains(&(tool, &limit.name)));
        if limits.is_empty() {
            continue;
        }
        counted.extend(limits.iter().map(|limit| (tool, &limit.name)));
        wanted.push((tool, query.facts.claims, limits));
    }
    // Not while there are questions: the store of shared limits may have to be waited for.
    let record = &mut context.record;
    for (tool, claims, limits) in wanted {
        let subject = Subject {
            route: record.route.as_deref(),
            server: Some(&forward.scope.section),
            tool,
            claims,
            ..Subject::of(&forward.scope.caller.principal)
        };
        let ask = Wanted::default();
        let would_deny = &mut record.would_deny;
        let reservation = waypoint.limits.reserve(limits, &subject, ask, would_deny);
        let reservation = reservation.await?;
        record.warned(reservation.warnings());
        reserved.push(reservation);
    }
    Ok(reserved)
}

/// Readies a GET or DELETE of the legacy era: both are nothing without their session.
fn prepare_bare(
    waypoint: &Waypoint,
    session: &ServerSession,
    context: &mut Context,
    head: &Head,
    scope: Scope,
) -> Result<Option<Box<Forward>>, Refusal> {
    let request = session.req_header();
    let is_get = &*head.method == "GET";
    context.record.action.method = Some(if is_get { "GET" } else { "DELETE" }.into());
    context.record.action.method_label = Some(if is_get { "GET" } else { "DELETE" });
    let id = match field(request, &SESSION_ID) {
        Header::One(sealed) => Some(waypoint.sealer.open(
            sealed,
            &scope.caller.principal,
            &scope.label,
        )?),
        // A server without sessions may still offer a stream.
        Header::Absent if is_get => None,
        Header::Absent | Header::Many => {
            return Err(Refusal::new(Code::BadRequest).with_message("one session id is needed"));
        }
    };
    Ok(Some(Box::new(Forward {
        scope,
        call: None,
        deeds: Deeds::bare(&head.method),
        method: if is_get { Method::GET } else { Method::DELETE },
        body: Bytes::new(),
        session: id,
        reserved: Reserved::new(),
    })))
}

fn note(context: &mut Context, call: &Call) {
    let action = &mut context.record.action;
    action.method = Some(match call.kind {
        CallKind::Response => "response".into(),
        _ => call.method.clone(),
    });
    action.method_label = Some(method_label(&call.method));
    action.tool = call.name().map(Into::into);
}

/// A method as a metric label; `read` has refused those that no revision knows.
fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 24] = [
        "initialize",
        "ping",
        "server/discover",
        "tools/call",
        "tools/list",
        "prompts/get",
        "prompts/list",
        "resources/read",
        "resources/list",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "subscriptions/listen",
        "logging/setLevel",
        "tasks/get",
        "tasks/result",
        "tasks/list",
        "tasks/cancel",
        "tasks/update",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
    ];
    KNOWN
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// Sends the message on. `None` when the caller has gone.
async fn send(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &McpRoute,
    resolved: &Resolved,
    forward: &mut Forward,
    deadline: Instant,
) -> Result<Option<Box<Answer>>, Refusal> {
    let (server, upstream) = resolved
        .state
        .server(route.server)
        .ok_or(Refusal::new(Code::Internal))?;
    let secret = waypoint.credentials.secret(&route.credential)?;
    let head = upstream_head(session.req_header(), server, forward, secret)?;
    let patience = Patience {
        connect: route.timeouts.connect,
        until: deadline,
    };
    context.record.attempts = 1;
    context.record.upstream_started = Some(std::time::Instant::now());
    let outgoing = Outgoing {
        head: &head,
        body: &forward.body,
    };
    forward.reserved.iter_mut().for_each(Reservation::sent);
    let sent = tokio::select! {
        biased;
        sent = exchange::send(&waypoint.connector, upstream, outgoing, patience) => sent,
        interruption = interrupted(waypoint, session) => return interruption.result(),
    };
    let result = if sent.is_ok() { "ok" } else { "failed" };
    waypoint.recorder.metrics.attempt(&route.section, result);
    match sent {
        // A client would follow it, with its call, to where no policy is asked.
        Ok(answer) if (300..400).contains(&answer.status()) => {
            Err(Refusal::new(Code::UpstreamBadAnswer))
        }
        sent => sent.map(Some).map_err(|error| error.refusal()),
    }
}

fn upstream_head(
    request: &RequestHeader,
    server: &Server,
    forward: &Forward,
    secret: Option<String>,
) -> Result<RequestHead, Refusal> {
    let internal = |_| Refusal::new(Code::Internal);
    let malformed = |_| Refusal::new(Code::BadRequest);
    let target = format!("{}{}", server.endpoint.prefix, server.path);
    let is_post = forward.method == Method::POST;
    let mut out = RequestHead::new(forward.method.clone(), &target).map_err(internal)?;
    llm::own_fields(&mut out, &server.endpoint, &forward.body).map_err(internal)?;
    let passing = Passing {
        secrets: false,
        tracing: true,
        without: match is_post {
            true => &[session::SESSION_ID, "origin", "content-type"],
            false => &[session::SESSION_ID, "origin"],
        },
    };
    headers::copy_request(&request.headers, &mut out, passing).map_err(malformed)?;
    if is_post {
        // A charset parameter would be an instruction to read the checked bytes differently.
        out.push(&header::CONTENT_TYPE, b"application/json")
            .map_err(internal)?;
    }
    if let Some(id) = &forward.session {
        out.push(&SESSION_ID, id.as_bytes()).map_err(internal)?;
    }
    if let Some(secret) = secret {
        out.push_parts(&header::AUTHORIZATION, &[b"Bearer ", secret.as_bytes()])
            .map_err(|_| Refusal::new(Code::CredentialUnavailable))?;
    }
    Ok(out)
}

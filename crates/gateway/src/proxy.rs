//! The waypoint as Pingora sees it: one filter that routes, and native forwarding for plain routes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderName;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::http::ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use tokio::sync::watch;
use tracing::Instrument;
use waypoint_config::{Route, RouteQuery};
use waypoint_mesh::IdentitySource;
use waypoint_policy::{Code, Principal, Refusal};

use crate::body;
use crate::caller::{Caller, Connection, is_trusted};
use crate::context::Context;
use crate::credential::Credentials;
use crate::edge::{self, Head};
use crate::exchange::Connector;
use crate::ext_authz;
use crate::headers;
use crate::jwt;
use crate::limits::Limits;
use crate::mcp_session::Sealer;
use crate::mcp_tasks::Tasks;
use crate::pipeline::{llm, mcp, plain};
use crate::record::{Recent, Recorder, RequestRecord};
use crate::respond::{self, Voice};
use crate::serve::Phase;
use crate::state::State;
use crate::wire::Wire;

/// The request path. One for the whole process.
#[derive(Debug)]
pub(crate) struct Waypoint {
    pub(crate) state: ArcSwap<State>,
    /// Ticks after `state` has changed; running streams then ask again.
    pub(crate) generation: watch::Receiver<u64>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) credentials: Credentials,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) sealer: Sealer,
    pub(crate) tasks: Tasks,
    pub(crate) recent: Recent,
    pub(crate) limits: Arc<Limits>,
}

fn connection(session: &ServerSession) -> Option<Arc<Connection>> {
    let data = session
        .digest()?
        .proxy_digest
        .as_ref()?
        .user_data
        .as_ref()?;
    data.downcast_ref::<Arc<Connection>>().cloned()
}

impl Waypoint {
    /// Everything up to the route, then the pipeline of the route. `Ok(true)` when the request
    /// has been answered, `Ok(false)` for native forwarding.
    async fn serve(
        &self,
        session: &mut ServerSession,
        context: &mut Context,
    ) -> Result<bool, Refusal> {
        let connection = connection(session).ok_or(Refusal::new(Code::Internal))?;
        connection.head_phase.head_done();
        context.record.listener = Arc::clone(&connection.listener);
        context.record.principal = connection.principal.clone();
        context.record.identity_source = connection.identity_source;
        context.connection = Some(Arc::clone(&connection));
        if session.req_header().method == http::Method::CONNECT {
            // What follows is not a request, whatever it looks like.
            session.set_keepalive(None);
            return Err(Refusal::new(Code::MethodNotAllowed));
        }
        headers::strip_identity(session.req_header_mut());
        context.record.trace_id = trace_id(session.req_header());

        let state = Arc::clone(&context.state);
        let limits = &state.snapshot.parameters.limits;
        if session.get_keepalive().is_some() && *self.phase.borrow() == Phase::Serving {
            session.set_keepalive(Some(limits.idle_timeout.as_secs().max(1)));
        }
        context.voice = voice_of_path(session.req_header().uri.path());
        let form = state.snapshot.parameters.path_normalization;
        let mut head = Head::read(session, limits.header_bytes, form)?;
        // What is judged is what is forwarded.
        headers::strip_named(session.req_header_mut());
        if !is_trusted(&connection.principal, connection.expires, &state.snapshot) {
            session.set_keepalive(None);
            return Err(Refusal::new(Code::IdentityInvalid));
        }
        let (index, listener) = context
            .listener()
            .ok_or(Refusal::new(Code::RouteNotFound))?;
        if connection.identity_source == IdentitySource::None
            && let Some(developer) = &listener.developer
        {
            // The operator vouches for callers on this machine; pages in their browsers are not
            // callers.
            if !connection.peer.ip().is_loopback() || !connection.local.ip().is_loopback() {
                return Err(Refusal::new(Code::IdentityInvalid));
            }
            edge::check_origin(session, &head, edge::is_loopback_host)?;
            context.record.principal = Principal::Workload(developer.clone());
            context.record.identity_source = IdentitySource::Developer;
        }
        if connection.identity_source == IdentitySource::None
            && let Some(listener) = state.snapshot.listeners.get(index)
            && !listener.tokens.is_empty()
        {
            let proven = jwt::principal(&state, listener, session.req_header_mut(), &mut head);
            if let Some(proven) = Box::pin(proven).await? {
                context.record.principal = Principal::Workload(proven.id.clone());
                context.record.identity_source = IdentitySource::Token;
                context.proven = Some(Box::new(proven));
            }
        }
        let Some(route) = find_route(&state, index, &head, session.req_header()) else {
            return Err(Refusal::new(Code::RouteNotFound));
        };
        let is_plain = matches!(route, Route::Plain(_));
        if !is_plain {
            head.check_path()?;
        }
        // Who is nobody is told so by the pipeline.
        if is_plain || context.record.principal.spiffe().is_some() {
            context.voice = match route {
                Route::Llm(_) => context.voice,
                Route::Mcp(_) | Route::Plain(_) => Voice::Text,
            };
            context.hosts = state.snapshot.hosts_behind(route);
            if !state.snapshot.ext_authz.is_empty() {
                let check = ext_authz::check(self, &state, session, context, &mut head, is_plain);
                if Box::pin(check).await?.is_none() {
                    context.record.downstream_gone = true;
                    return Ok(true);
                }
            }
            // Who has been denied is not asked for a token.
            let is_denied = context.is_denied();
            if !is_denied && !state.snapshot.authentication.is_empty() {
                // Boxed: its future is not small, and ends before the answer begins.
                let authenticate =
                    jwt::authenticate(&state, session.req_header_mut(), &mut head, &context.hosts);
                context.claims = Box::pin(authenticate).await?.map(Arc::new);
            }
        }
        let head = Arc::new(head);
        context.head = Some(Arc::clone(&head));
        let now = self.state.load_full();
        let route = match now.snapshot.generation == state.snapshot.generation {
            true => route,
            // An authorizer or an issuer took long: what is in force now decides.
            false => renew(&now, session.req_header(), context, route)?,
        };
        if is_plain || context.record.principal.spiffe().is_some() {
            context.facts = context.facts(session, &now.snapshot);
            context.verdict = context.judge(session, &now.snapshot);
            let marked = context.marked(session, &now.snapshot);
            context.record.judged(&context.verdict, marked);
            context.permit()?;
        }
        match route {
            Route::Llm(route) => {
                // Boxed: the future of a pipeline is large, and most of a connection's life is
                // spent in the few fields that streaming needs.
                Box::pin(llm::serve(self, session, context, route, &head)).await?;
                Ok(true)
            }
            Route::Mcp(route) => {
                context.voice = Voice::Mcp;
                Box::pin(mcp::serve(self, session, context, route, &head)).await?;
                Ok(true)
            }
            Route::Plain(route) => {
                Box::pin(plain::serve(self, session, context, route, &head)).await
            }
        }
    }
}

impl Waypoint {
    /// Notes a head that was refused before it became a request: it leaves an event like any other.
    pub(crate) async fn head_refused(&self, connection: &Connection, code: Code) {
        let mut record = RequestRecord::new(&self.state.load().snapshot);
        record.listener = Arc::clone(&connection.listener);
        record.principal = connection.principal.clone();
        record.identity_source = connection.identity_source;
        record.code = Some(code);
        record.status = code.status();
        self.recorder.finish(&record).await;
    }
}

/// Takes a request on to a newer configuration than it began with, where who was locked out, or what
/// was routed elsewhere, meanwhile is.
fn renew<'s>(
    now: &'s Arc<State>,
    request: &RequestHeader,
    context: &mut Context,
    old: &Route,
) -> Result<&'s Route, Refusal> {
    let form = |state: &State| state.snapshot.parameters.path_normalization;
    let is_same_form = form(now) == form(&context.state);
    context.state = Arc::clone(now);
    context.record.generation = now.snapshot.generation;
    let is_known = Caller::of(context).is_known(&now.snapshot);
    let head = context.head.clone().filter(|_| is_same_form && is_known);
    let route = context.listener().zip(head).and_then(|((index, _), head)| {
        let route = find_route(now, index, &head, request)?;
        // What was read of a request is for a pipeline of its kind.
        (std::mem::discriminant(route) == std::mem::discriminant(old)).then_some(route)
    });
    let route = route.ok_or(Refusal::new(Code::PolicyRevoked))?;
    context.hosts = now.snapshot.hosts_behind(route);
    Ok(route)
}

fn find_route<'s>(
    state: &'s State,
    listener: usize,
    head: &Head,
    request: &RequestHeader,
) -> Option<&'s Route> {
    let header = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    state.snapshot.route(&RouteQuery {
        listener,
        host: &head.authority,
        path: &head.path,
        method: &head.method,
        header: &header,
    })
}

/// In whose words an unknown path is refused: by what the caller's SDK sends.
fn voice_of_path(path: &str) -> Voice {
    use waypoint_llm::Dialect;
    if path.ends_with("/messages") || path.contains("/v1/messages/") {
        Voice::Llm(Dialect::Anthropic)
    } else if path.contains("/v1/") {
        Voice::Llm(Dialect::OpenAi)
    } else {
        Voice::Text
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace id of a W3C `traceparent`, when it is well formed.
fn trace_id(request: &RequestHeader) -> Option<Box<str>> {
    let value = request.headers.get(TRACEPARENT)?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (version.len() == 2 && hex(version) && id.len() == 32 && hex(id)).then(|| id.into())
}

/// The handle that Pingora holds.
#[derive(Debug, Clone)]
pub(crate) struct Proxy(pub(crate) Arc<Waypoint>);

#[async_trait]
impl ProxyHttp for Proxy {
    /// Boxed: Pingora moves it through several futures, each of which would set its size aside.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        let state = self.0.state.load_full();
        Box::new(Context::new(state, Arc::clone(&self.0.recorder)))
    }

    /// None: answers pass as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Box<Context>,
    ) -> Result<bool> {
        let session = session.as_downstream_mut();
        let span = tracing::debug_span!(
            target: "waypoint::request",
            "request",
            request_id = context.record.id.as_str()
        );
        match self.0.serve(session, context).instrument(span).await {
            // Bytes that came while the request was served are lost, and so may be the answer: the
            // connection can carry nothing else.
            _ if context.record.downstream_gone => Err(caller_gone()),
            Ok(answered) => Ok(answered),
            Err(refusal) => {
                context.record.refused(&refusal);
                let id = context.record.id;
                // The rest of an unread body is not waited for beyond a while, and may be malformed.
                if !session.is_body_done() {
                    session.set_keepalive(None);
                }
                let denial = context
                    .checked
                    .as_mut()
                    .and_then(|checked| checked.denial.take());
                match respond::refuse(session, context.voice, &refusal, denial, &id).await {
                    Ok(status) => context.record.status = status,
                    Err(_) => return Err(caller_gone()),
                }
                body::discard(session).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        context: &mut Box<Context>,
    ) -> Result<Box<HttpPeer>> {
        plain::peer(&self.0, context).await
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Box<Context>,
    ) -> Result<()> {
        plain::rewrite_request(request, context)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Box<Context>,
    ) -> Result<()> {
        ext_authz::forward_body(context, body);
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Box<Context>,
    ) -> Result<()> {
        plain::rewrite_response(response, context)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        plain::check(&self.0, session.as_downstream(), context)?;
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(plain::try_next(context));
        error
    }

    /// As Pingora has it, for a request of which it kept the whole body.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Box<Context>,
        is_reused: bool,
    ) -> Box<Error> {
        let is_kept = !session.as_ref().retry_buffer_truncated()
            && (context.checked.as_ref()).is_none_or(|checked| !checked.is_sent_once);
        match is_kept && session.req_header().method.is_idempotent() {
            true => error.retry.decide_reuse(is_reused),
            false => error.set_retry(false),
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Box<Context>,
    ) -> FailToProxy {
        let session = session.as_downstream_mut();
        let from_caller = *error.esource() == pingora_error::ErrorSource::Downstream;
        if session.response_written().is_some() || from_caller {
            context.record.downstream_gone = from_caller;
            if !from_caller {
                context.record.code.get_or_insert(Code::UpstreamReset);
            }
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        }
        let code = match error.etype() {
            ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
                Code::UpstreamTimeout
            }
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::InvalidCert
            | ErrorType::SocketError => Code::UpstreamConnect,
            ErrorType::InvalidHTTPHeader => Code::UpstreamBadAnswer,
            _ => Code::UpstreamReset,
        };
        let refusal = Refusal::new(code);
        context.record.refused(&refusal);
        let id = context.record.id;
        match respond::refuse(session, Voice::Text, &refusal, None, &id).await {
            Ok(status) => context.record.status = status,
            Err(_) => context.record.downstream_gone = true,
        }
        FailToProxy {
            error_code: code.status(),
            can_reuse_downstream: false,
        }
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        context: &mut Box<Context>,
    ) {
        let session = session.as_downstream_mut();
        if let Some(head) = session.response_written() {
            context.record.status = head.status.as_u16();
        }
        if let Some(error) = error
            && *error.esource() == pingora_error::ErrorSource::Downstream
        {
            context.record.downstream_gone = true;
        }
        self.0.recorder.finish(&context.record).await;
        context.finished = true;
        if let Some(remembered) = context.remembered(session) {
            self.0.recent.keep(remembered);
        }
        if session.is_body_done()
            && let Some(connection) = &context.connection
        {
            connection.head_phase.await_head();
        }
    }

    /// Pingora's own lines would repeat what the audit says, and may hold foreign bytes.
    fn suppress_error_log(&self, _: &Session, _: &Box<Context>, _: &Error) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, context: &Box<Context>) -> String {
        context.record.id.as_str().to_owned()
    }
}

/// Ends a connection without another byte.
fn caller_gone() -> Box<Error> {
    Error::new_down(ErrorType::ConnectionClosed)
}

/// Resolves when the caller has gone, or sends what it should not while it waits.
pub(crate) async fn gone(session: &mut ServerSession) {
    let _ = session.read_body_or_idle(true).await;
}

/// Resolves when the caller has gone, whether or not its body has been read: nothing of it is here.
pub(crate) async fn left(session: &mut ServerSession) {
    if session.is_http2() || session.is_body_done() {
        return gone(session).await;
    }
    let stream = session.stream();
    let wire = stream.and_then(|stream| stream.as_any().downcast_ref::<Wire>());
    match wire {
        Some(wire) => wire.closed().await,
        None => std::future::pending().await,
    }
}

/// Why a request is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The caller has gone.
    Gone,
    /// The gateway ends.
    Ending,
}

impl Interruption {
    /// Nothing to do for a caller that has gone; a refusal for one that still waits.
    pub(crate) fn result<T>(self) -> Result<Option<T>, Refusal> {
        match self {
            Self::Gone => Ok(None),
            Self::Ending => Err(Refusal::new(Code::ShuttingDown)),
        }
    }
}

/// Resolves when the gateway ends.
pub(crate) async fn ending(waypoint: &Waypoint) {
    let mut phase = waypoint.phase.clone();
    let _ = phase.wait_for(|phase| *phase == Phase::Ending).await;
}

/// Resolves when there is no use in waiting for an upstream any longer.
pub(crate) async fn interrupted(waypoint: &Waypoint, session: &mut ServerSession) -> Interruption {
    tokio::select! {
        () = gone(session) => Interruption::Gone,
        () = ending(waypoint) => Interruption::Ending,
    }
}

/// A stalled reader is given up after this.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

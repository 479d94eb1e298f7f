//! What is known of one request while it is on its way.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use smallvec::SmallVec;
use waypoint_config::{Listener, Snapshot};
use waypoint_policy::istio::{Claims, Verdict};
use waypoint_policy::{Code, Principal, Refusal, RuleName};

use crate::authorize::{self, Inbound};
use crate::body;
use crate::caller::Connection;
use crate::edge::Head;
use crate::ext_authz::{Checked, Denial};
use crate::facts::Facts;
use crate::hbone;
use crate::jwt;
use crate::pipeline::plain;
use crate::record::{Recorder, Remembered, RequestRecord};
use crate::respond::Voice;
use crate::state::State;

/// One request on its way.
pub(crate) struct Context {
    pub(crate) recorder: Arc<Recorder>,
    /// Whether the record has been written.
    pub(crate) finished: bool,
    pub(crate) state: Arc<State>,
    pub(crate) record: RequestRecord,
    pub(crate) connection: Option<Arc<Connection>>,
    /// What was asked for, as routing and policy see it.
    pub(crate) head: Option<Arc<Head>>,
    /// Where the route may lead.
    pub(crate) hosts: SmallVec<[Arc<str>; 2]>,
    /// Who a token said is calling, where that is how it is said.
    pub(crate) proven: Option<Box<jwt::Proven>>,
    /// What the request's token says, if it brought one.
    pub(crate) claims: Option<Arc<Claims>>,
    /// What policies see of the request.
    pub(crate) facts: Facts,
    /// What external authorizers said, where any was asked.
    pub(crate) checked: Option<Box<Checked>>,
    /// What Istio's policies said; those of the agents' own kinds build on it.
    pub(crate) verdict: Verdict,
    pub(crate) voice: Voice,
    pub(crate) plain: Option<Box<plain::Forward>>,
}

/// A request whose connection is dropped leaves its event all the same.
impl Drop for Context {
    fn drop(&mut self) {
        if !self.finished && self.connection.is_some() {
            self.recorder.abandon(&mut self.record);
        }
    }
}

impl Context {
    /// A request of which nothing is known yet.
    pub(crate) fn new(state: Arc<State>, recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            finished: false,
            record: RequestRecord::new(&state.snapshot),
            state,
            connection: None,
            head: None,
            hosts: SmallVec::new(),
            proven: None,
            claims: None,
            checked: None,
            facts: Facts::default(),
            verdict: Verdict::default(),
            voice: Voice::Text,
            plain: None,
        }
    }

    /// What Istio's policies in a snapshot say of this request.
    pub(crate) fn judge(&self, session: &ServerSession, snapshot: &Snapshot) -> Verdict {
        let judged = self.inbound(session, snapshot);
        judged.map_or_else(Verdict::default, |inbound| {
            inbound.judge(snapshot, &self.hosts)
        })
    }

    /// The rules of Istio's policies that match this request and decide nothing.
    pub(crate) fn marked(
        &self,
        session: &ServerSession,
        snapshot: &Snapshot,
    ) -> Vec<Arc<RuleName>> {
        if !snapshot.policy.has_istio_marks() {
            return Vec::new();
        }
        let marked = self.inbound(session, snapshot);
        marked.map_or_else(Vec::new, |inbound| inbound.marked(snapshot, &self.hosts))
    }

    fn inbound<'c>(
        &'c self,
        session: &'c ServerSession,
        snapshot: &Snapshot,
    ) -> Option<Inbound<'c>> {
        let (connection, head) = (self.connection.as_ref()?, self.head.as_ref()?);
        let inbound = Inbound::new(session, connection, &self.record.principal, head);
        let checked = self.checked.as_ref();
        let custom = checked.map_or(&[][..], |checked| &checked.verdicts);
        let claims = self.claims(snapshot).map(|claims| &**claims);
        Some(inbound.with(claims, custom))
    }

    /// Whether the caller's connection is TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.listener()
            .is_some_and(|(_, listener)| listener.tls.is_some())
    }

    /// The body of the request, which may have been read already.
    ///
    /// # Errors
    /// As [`body::read`].
    pub(crate) async fn read_body(
        &mut self,
        session: &mut ServerSession,
        limit_bytes: usize,
        between_pieces: Duration,
    ) -> Result<Bytes, Refusal> {
        let read = self
            .checked
            .as_mut()
            .and_then(|checked| checked.take_body());
        match read {
            None => body::read(session, limit_bytes, between_pieces).await,
            Some(body) if body.len() > limit_bytes => Err(body::too_large(limit_bytes)),
            Some(body) => Ok(body),
        }
    }

    /// Changes the head of an answer as external authorizers want it.
    pub(crate) fn change_answer(&self, head: &mut ResponseHeader) -> Result<()> {
        match &self.checked {
            Some(checked) => checked.answer.apply_answer(head),
            None => Ok(()),
        }
    }

    /// Whether an external authorizer denied, or was needed and could not be asked.
    pub(crate) fn is_denied(&self) -> bool {
        self.denial().is_some()
    }

    fn denial(&self) -> Option<&Denial> {
        self.checked.as_ref()?.denial.as_ref()
    }

    /// Whether Istio's policies let the request go on.
    pub(crate) fn permit(&self) -> Result<(), Refusal> {
        let permitted = self.verdict.permit();
        let Some(denial) = self.denial() else {
            return permitted;
        };
        let code = match denial.failed {
            true => Code::AuthorizerUnavailable,
            false => Code::Forbidden,
        };
        let by = permitted.err().and_then(|refusal| refusal.by);
        let refusal = Refusal::new(code);
        Err(match by {
            Some(by) => refusal.decided_by(by),
            None => refusal,
        })
    }

    /// What is kept of a request that has ended and whose record is written.
    pub(crate) fn remembered(&mut self, session: &ServerSession) -> Option<Remembered> {
        let connection = self.connection.as_ref()?;
        let peer = connection.peer.ip().to_canonical();
        let remote = match self.state.snapshot.policy.has_istio() {
            true => authorize::forwarded_for(&session.req_header().headers),
            false => None,
        };
        let record = &mut self.record;
        Some(Remembered {
            id: record.id,
            time: record.time,
            generation: record.generation,
            listener: Arc::clone(&record.listener),
            principal: std::mem::replace(&mut record.principal, Principal::Anonymous),
            identity_source: record.identity_source,
            peer: connection.peer,
            local: connection.local,
            remote: remote.unwrap_or(peer),
            head: self.head.take(),
            hosts: std::mem::take(&mut self.hosts),
            custom: self
                .checked
                .take()
                .map_or_else(Vec::new, |checked| checked.verdicts),
            verdict: std::mem::take(&mut self.verdict),
            route: record.route.take(),
            action: std::mem::take(&mut record.action),
            allowed: record.allowed,
            by: record.by.take(),
            would_deny: std::mem::take(&mut record.would_deny),
            code: record.code,
            status: record.status,
            is_cut: false,
        })
    }

    /// What policies of a snapshot see of this request.
    pub(crate) fn facts(&self, session: &ServerSession, snapshot: &Snapshot) -> Facts {
        match (&self.connection, &self.head) {
            (Some(connection), Some(head)) => {
                let (head, port) = (Arc::clone(head), connection.local.port());
                Facts::new(
                    snapshot,
                    session,
                    head,
                    port,
                    self.claims(snapshot).cloned(),
                )
            }
            _ => Facts::default(),
        }
    }

    /// What the request's token says, as long as there is a rule that takes tokens of its issuer.
    fn claims(&self, snapshot: &Snapshot) -> Option<&Arc<Claims>> {
        let claims = self.claims.as_ref()?;
        let issuer = claims.text("iss");
        let mut policies = snapshot.authentication.iter();
        let taken = policies.any(|policy| {
            let about = policy.always || self.hosts.iter().any(|host| policy.is_about(host));
            about && policy.rules.iter().any(|rule| rule.takes(issuer))
        });
        taken.then_some(claims)
    }

    /// Whether `ask` finds permitted without the request's token, if that has ended, what it finds
    /// permitted with it: what is so because of the token is not any more. What the token forbids
    /// it still does, so `ask` has to be answered with it as well.
    pub(crate) fn outlives_token(&mut self, ask: impl FnOnce(&Self) -> bool) -> bool {
        let end = self.claims.as_ref().and_then(|claims| jwt::end(claims));
        if end.is_none_or(|end| SystemTime::now() <= end) {
            return true;
        }
        let claims = self.claims.take();
        let is_permitted = ask(self);
        self.claims = claims;
        is_permitted
    }

    pub(crate) fn listener(&self) -> Option<(usize, &Listener)> {
        let connection = self.connection.as_ref()?;
        let snapshot = &self.state.snapshot;
        let mut listeners = snapshot.listeners.iter().enumerate();
        let found = listeners.find(|(_, listener)| listener.name == connection.listener)?;
        hbone::is_open(snapshot, found.1, connection.via.as_deref()).then_some(found)
    }
}

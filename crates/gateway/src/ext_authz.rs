//! External authorizers: asked before anything else is decided, where a `CUSTOM` rule matches.
//!
//! An answer allows or denies, and may change the request. None within the time, or one that
//! cannot be used, denies unless the operator said `failOpen`.

mod changes;
mod grpc;
mod http1;
mod proto;
mod query;
mod shown;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::protocols::http::ServerSession;
use tokio::time::Instant;
use waypoint_config::{ExtAuthz, ExtAuthzProtocol};
use waypoint_policy::istio::CustomVerdict;
use waypoint_policy::{Code, Refusal};

use crate::authorize::Inbound;
use crate::caller::Connection;
use crate::context::Context;
use crate::edge::Head;
use crate::exchange::{self, ExchangeError, Outgoing, Patience, RequestHead, Upstream};
use crate::proxy::{self, Interruption, Waypoint};
use crate::state::State;
use changes::Changes;
use query::QueryChanges;
use shown::Shown;
pub(crate) use shown::forward_body;

/// What an authorizer's answer may hold, headers aside.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// What came of asking; kept to the end of the request.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// What each authorizer that was asked said.
    pub(crate) verdicts: Vec<CustomVerdict>,
    /// How the destination's answer is changed.
    pub(crate) answer: Changes,
    /// The answer of who denied.
    pub(crate) denial: Option<Denial>,
    /// What of the request's body had to be read already.
    shown: Option<Shown>,
    /// Whether that keeps a plain request from being sent a second time.
    pub(crate) is_sent_once: bool,
}

impl Checked {
    /// The request's body, where it has been read: an LLM or MCP call's is read whole.
    pub(crate) fn take_body(&mut self) -> Option<Bytes> {
        self.shown.take().map(|shown| shown.bytes)
    }
}

/// What the caller gets in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    /// 300 to 599.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Empty for our own words.
    pub(crate) body: Bytes,
    /// Whether nobody denied, but nobody could be asked.
    pub(crate) failed: bool,
}

/// What an authorizer said.
#[derive(Debug)]
enum Said {
    /// Go on, with the request and the answer changed so.
    Allow {
        request: Changes,
        query: QueryChanges,
        answer: Changes,
    },
    Deny(Denial),
}

/// Why an authorizer's answer does not count.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it answered with gRPC status {0}")]
    Grpc(i32),
    #[error("its answer is not a CheckResponse")]
    NotUnderstood,
    #[error("it asks for a change that is not possible: {0}")]
    Change(&'static str),
}

/// A request as an authorizer sees it.
struct Asked<'a> {
    session: &'a ServerSession,
    connection: &'a Connection,
    head: &'a Head,
    is_tls: bool,
    /// The principal in its URI form; empty for nobody.
    principal: &'a str,
    request_id: &'a str,
    /// As much of the body as it may see, and whether there is more.
    body: Option<(Bytes, bool)>,
}

impl Asked<'_> {
    /// Path and query. Bytes that may stand in no target are escaped (RFC 3986 §2.1).
    fn target(&self) -> String {
        let mut target = self.head.path.to_string();
        if !self.head.query.is_empty() {
            target.push('?');
            for byte in self.head.query.bytes() {
                match byte.is_ascii_graphic() {
                    true => target.push(char::from(byte)),
                    false => target.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        target
    }
}

/// Asks whom CUSTOM rules want asked about this request, one after the other, until one denies; and
/// changes the request as they say. What they said is in [`Context::checked`]; nothing comes of it
/// when the caller has gone.
///
/// # Errors
/// Those of reading a body that they want to see, [`Code::ShuttingDown`], or [`Code::Internal`].
pub(crate) async fn check(
    waypoint: &Waypoint,
    state: &State,
    session: &mut ServerSession,
    context: &mut Context,
    head: &mut Head,
    is_plain: bool,
) -> Result<Option<()>, Refusal> {
    let snapshot = &state.snapshot;
    let connection = context.connection.clone().ok_or(Code::Internal)?;
    let principal = context.record.principal.clone();
    let inbound = Inbound::new(session, &connection, &principal, head);
    let calls = inbound.custom_calls(snapshot, &context.hosts);
    if calls.is_empty() {
        return Ok(Some(()));
    }
    let mut checked = Box::<Checked>::default();
    for call in calls {
        let known = snapshot.ext_authz(&call.provider);
        let Some((authorizer, upstream)) = known.and_then(|index| state.ext_authz(index)) else {
            return Err(Code::Internal.into());
        };
        let body = match authorizer.body {
            None => None,
            Some(wanted) => {
                let shown = match checked.shown.take() {
                    Some(shown) => shown,
                    None => Shown::read(session, snapshot, wanted, is_plain).await?,
                };
                checked.is_sent_once = !shown.is_kept();
                Some(checked.shown.insert(shown).part(wanted)?)
            }
        };
        let asked = Asked {
            session,
            connection: &connection,
            head,
            is_tls: context.is_tls(),
            principal: principal.spiffe().map_or("", |id| id.as_str()),
            request_id: context.record.id.as_str(),
            body,
        };
        let question = Question::of(authorizer, upstream, &asked);
        let said = match question {
            // What nobody can be asked about is no reason to go on without.
            Err(_) => return Err(Code::BadRequest.into()),
            Ok(question) => {
                let answer = question.ask(waypoint, authorizer, upstream);
                match or_interrupted(waypoint, session, answer).await {
                    Ok(said) => said,
                    Err(interruption) => return interruption.result(),
                }
            }
        };
        let (allows, result) = match &said {
            Ok(Said::Allow { .. }) => (true, "allowed"),
            Ok(Said::Deny(_)) => (false, "denied"),
            Err(_) if authorizer.fail_open => (true, "failed_open"),
            Err(_) => (false, "failed"),
        };
        waypoint.recorder.metrics.ext_authz(&call.provider, result);
        context.record.failed_open |= said.is_err() && allows;
        checked.verdicts.push(CustomVerdict {
            provider: Arc::clone(&call.provider),
            allows,
        });
        match said {
            Ok(Said::Allow {
                request,
                query,
                answer,
            }) => {
                request.apply(session.req_header_mut())?;
                if let Some(query) = query.apply(&head.query) {
                    head.query = query;
                }
                checked.answer.extend(answer);
            }
            Ok(Said::Deny(denial)) => checked.denial = Some(denial),
            Err(error) => {
                tracing::warn!(
                    provider = &*call.provider,
                    request_id = context.record.id.as_str(),
                    %error,
                    fail_open = authorizer.fail_open,
                    "an external authorizer could not be asked"
                );
                if !authorizer.fail_open {
                    checked.denial = Some(Denial {
                        status: authorizer.status_on_error,
                        headers: HeaderMap::new(),
                        body: Bytes::new(),
                        failed: true,
                    });
                }
            }
        }
        if !allows {
            break;
        }
    }
    context.checked = Some(checked);
    Ok(Some(()))
}

/// What is sent to an authorizer.
struct Question {
    head: RequestHead,
    body: Bytes,
}

impl Question {
    fn of(
        authorizer: &ExtAuthz,
        upstream: &Upstream,
        asked: &Asked<'_>,
    ) -> Result<Self, ExchangeError> {
        match &authorizer.protocol {
            ExtAuthzProtocol::Http(http) => http1::question(http, asked),
            ExtAuthzProtocol::Grpc => grpc::question(authorizer, upstream, asked),
        }
    }

    async fn ask(
        self,
        waypoint: &Waypoint,
        authorizer: &ExtAuthz,
        upstream: &Arc<Upstream>,
    ) -> Result<Said, CheckError> {
        let until = Instant::now() + authorizer.timeout;
        let patience = Patience {
            connect: authorizer.timeout,
            until,
        };
        let outgoing = Outgoing {
            head: &self.head,
            body: &self.body,
        };
        let answer = exchange::send(&waypoint.connector, upstream, outgoing, patience).await?;
        match &authorizer.protocol {
            // Its head says all: what follows may take too long, and changes nothing.
            ExtAuthzProtocol::Http(http) => http1::said(http, answer, until).await,
            ExtAuthzProtocol::Grpc => tokio::time::timeout_at(until, grpc::said(answer))
                .await
                .unwrap_or(Err(ExchangeError::Timeout.into())),
        }
    }
}

/// Waits for an answer, unless there is nobody left to give it to.
async fn or_interrupted<T>(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    answer: impl Future<Output = T>,
) -> Result<T, Interruption> {
    tokio::select! {
        answer = answer => Ok(answer),
        () = proxy::left(session) => Err(Interruption::Gone),
        () = proxy::ending(waypoint) => Err(Interruption::Ending),
    }
}

/// The status of a denial: one that says yes would hide it.
fn denial_status(status: u16) -> u16 {
    match status {
        300..600 => status,
        _ => Code::Forbidden.status(),
    }
}

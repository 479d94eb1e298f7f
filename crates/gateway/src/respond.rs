//! Writes answers of our own: refusals in the caller's words, and heads of forwarded answers.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use time::format_description::well_known::Rfc3339;
use time::{Duration as SignedDuration, OffsetDateTime};
use waypoint_llm::{Dialect, rate_headers, refusal_body, refusal_headers};
use waypoint_mcp::McpRefusal;
use waypoint_policy::limit::Rates;
use waypoint_policy::{Code, Refusal};

use crate::context::Context;
use crate::exchange::Answer;
use crate::ext_authz::Denial;
use crate::headers;
use crate::record::RequestId;

/// How we name a request, to callers and to upstreams.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The same, where SDKs look for a provider's name of it.
pub(crate) const PROVIDER_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Limits of which much is used: `namespace/name; at=80%`.
pub(crate) const LIMIT_WARNING: HeaderName = HeaderName::from_static("x-waypoint-limit-warning");

/// In whose words a refusal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// An LLM API's error object.
    Llm(Dialect),
    /// A JSON-RPC error.
    Mcp,
    /// A line of text.
    Text,
}

/// A head with status, request id and room for more.
pub(crate) fn head(status: u16, id: &RequestId) -> Result<Box<ResponseHeader>> {
    let mut head = ResponseHeader::build_no_case(status, Some(16))?;
    head.append_header(REQUEST_ID, id.as_str())?;
    Ok(Box::new(head))
}

/// The head of an upstream's answer as the caller gets it, with our request id and what external
/// authorizers add. The answer keeps
/// no headers: a stream may be long.
///
/// # Errors
/// [`Code::Internal`] when there is no such head.
pub(crate) fn forwarded(
    answer: &mut Answer,
    own_key: bool,
    context: &Context,
) -> std::result::Result<Box<ResponseHeader>, Refusal> {
    let internal = |_| Refusal::new(Code::Internal);
    let mut head =
        headers::response(answer.status(), answer.take_headers(), own_key).map_err(internal)?;
    head.insert_header(REQUEST_ID, context.record.id.as_str())
        .map_err(internal)?;
    for warning in &context.record.limit_warnings {
        if warning.limit.is_enforced() {
            let text = format!("{}; at={}%", warning.limit.name, warning.at);
            head.append_header(LIMIT_WARNING, text).map_err(internal)?;
        }
    }
    context.change_answer(&mut head).map_err(internal)?;
    Ok(head)
}

/// Tells an LLM caller what is left of its limits.
pub(crate) fn tell(head: &mut ResponseHeader, dialect: Dialect, rates: &Rates) -> Result<()> {
    for (name, value) in rate_headers(dialect, rates, &moment) {
        head.insert_header(name, value)?;
    }
    Ok(())
}

/// A moment from now in whole seconds (RFC 3339), never too early.
fn moment(wait: Duration) -> String {
    let then =
        OffsetDateTime::now_utc().saturating_add(wait.try_into().unwrap_or(SignedDuration::MAX));
    let then = match then.nanosecond() {
        0 => then,
        _ => then.saturating_add(SignedDuration::SECOND),
    };
    let then = then.replace_nanosecond(0).unwrap_or(then);
    then.format(&Rfc3339).unwrap_or_default()
}

/// Writes a whole answer.
pub(crate) async fn whole(
    session: &mut ServerSession,
    mut head: Box<ResponseHeader>,
    body: Bytes,
) -> Result<()> {
    head.set_content_length(body.len())?;
    if body.is_empty() {
        session.write_response_header(head).await?;
        return session.finish_body().await;
    }
    session.write_response_header(head).await?;
    session.write_response_body(body, true).await?;
    session.finish_body().await
}

/// Writes a refusal before any byte of an answer, with the words of who denied it if there are any;
/// gives the status that was sent.
pub(crate) async fn refuse(
    session: &mut ServerSession,
    voice: Voice,
    refusal: &Refusal,
    denial: Option<Denial>,
    id: &RequestId,
) -> Result<u16> {
    let own_status = match voice {
        // 401 would make MCP clients begin to log in.
        Voice::Mcp => McpRefusal::from(refusal.clone()).status,
        Voice::Llm(_) | Voice::Text => refusal.status(),
    };
    let status = denial.as_ref().map_or(own_status, |denial| denial.status);
    let mut head = head(status, id)?;
    if let Some(Denial { headers, body, .. }) = denial {
        for (name, value) in &headers {
            // Our own words follow, which have a type of their own.
            let is_of_body = name.as_str().starts_with("content-");
            if name == "x-request-id" || (body.is_empty() && is_of_body) {
                continue;
            }
            head.append_header(name, value)?;
        }
        if !body.is_empty() {
            whole(session, head, body).await?;
            return Ok(status);
        }
    }
    let body = match voice {
        Voice::Llm(dialect) => {
            for (name, value) in refusal_headers(refusal, id.as_str()) {
                head.insert_header(name, value)?;
            }
            if let Some(rates) = &refusal.rates {
                tell(&mut head, dialect, rates)?;
            }
            refusal_body(dialect, refusal, id.as_str())
        }
        Voice::Mcp => {
            head.insert_header("content-type", "application/json")?;
            waypoint_mcp::refusal_message(None, &McpRefusal::from(refusal.clone()))
        }
        Voice::Text => {
            head.insert_header("content-type", "text/plain; charset=utf-8")?;
            if refusal.code == Code::MethodNotAllowed {
                head.insert_header("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")?;
            }
            let text = match refusal.code {
                Code::Forbidden => "RBAC: access denied".into(),
                _ => refusal.message.clone(),
            };
            text.into_owned().into_bytes()
        }
    };
    whole(session, head, Bytes::from(body)).await?;
    Ok(status)
}

//! Refusals in the words of the caller's dialect.
//!
//! The official SDKs choose their exception by the status alone; the body gives it its message,
//! type and code. Neither tells the caller which rule refused.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use waypoint_policy::Refusal;
use waypoint_wire::json::{self as scan, Kind};

use crate::Dialect;
use crate::usage::{LENIENT, nested};

/// Longest `Retry-After` we send. Some SDKs sleep for as long as they are told, however long.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// The body of a refusal: JSON in the dialect's error shape.
#[must_use]
pub fn refusal_body(dialect: Dialect, refusal: &Refusal, request_id: &str) -> Vec<u8> {
    let code = refusal.code.as_str();
    let kind = kind(dialect, refusal.code.status());
    let body = match dialect {
        Dialect::OpenAi => json!({
            "error": {"message": refusal.message, "type": kind, "param": null, "code": code},
        }),
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {"type": kind, "message": refusal.message, "details": {"error_code": code}},
            "request_id": request_id,
        }),
    };
    body.to_string().into_bytes()
}

/// The headers of a refusal, names in lower case: content type, request id under both dialects'
/// names, whether to retry and when.
///
/// `retry-after` is at most 60 s, and never sent without `x-should-retry`; a refusal that must
/// wait longer tells the SDKs not to retry at all.
#[must_use]
pub fn refusal_headers(refusal: &Refusal, request_id: &str) -> Vec<(&'static str, String)> {
    let wait = refusal.retry_after;
    let retry = refusal.code.retryable() && wait.is_none_or(|wait| wait <= RETRY_AFTER_LIMIT);
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-request-id", request_id.to_owned()),
        ("request-id", request_id.to_owned()),
        ("x-should-retry", retry.to_string()),
    ];
    if let Some(wait) = wait.filter(|_| retry) {
        // Whole seconds, rounded up: a client that is too early is refused again.
        let seconds = wait.as_millis().div_ceil(1000);
        headers.push(("retry-after", seconds.to_string()));
        headers.push(("retry-after-ms", wait.as_millis().to_string()));
    }
    headers
}

/// One event that ends a stream with a refusal, in a shape that the SDKs of both dialects raise:
/// they look at the event's name, at `error`, or at the top level, each at its own place.
///
/// `sequence_number` is the number the next event of a Responses stream would have.
#[must_use]
pub fn error_frame(dialect: Dialect, refusal: &Refusal, sequence_number: u64) -> Bytes {
    let code = refusal.code.as_str();
    let data = json!({
        "type": "error",
        "code": code,
        "message": refusal.message,
        "param": null,
        "sequence_number": sequence_number,
        "error": {
            "type": kind(dialect, refusal.code.status()),
            "code": code,
            "message": refusal.message,
            "param": null,
        },
    });
    format!("event: error\ndata: {data}\n\n").into()
}

/// The dialect's error type for a status.
fn kind(dialect: Dialect, status: u16) -> &'static str {
    match (dialect, status) {
        (Dialect::OpenAi, 403) => "permission_error",
        (Dialect::OpenAi, 429) => "rate_limit_error",
        (Dialect::OpenAi, 502) => "api_error",
        (Dialect::OpenAi, 500..) => "server_error",
        (Dialect::OpenAi, _) => "invalid_request_error",
        (Dialect::Anthropic, 401) => "authentication_error",
        (Dialect::Anthropic, 402) => "billing_error",
        (Dialect::Anthropic, 403) => "permission_error",
        (Dialect::Anthropic, 404) => "not_found_error",
        (Dialect::Anthropic, 408 | 504) => "timeout_error",
        (Dialect::Anthropic, 409) => "conflict_error",
        (Dialect::Anthropic, 413) => "request_too_large",
        (Dialect::Anthropic, 429) => "rate_limit_error",
        (Dialect::Anthropic, 503 | 529) => "overloaded_error",
        (Dialect::Anthropic, 500..) => "api_error",
        (Dialect::Anthropic, _) => "invalid_request_error",
    }
}

/// Whether an upstream's error body already has the dialect's shape.
#[must_use]
pub fn is_error_in_dialect(dialect: Dialect, body: &[u8]) -> bool {
    let Ok(body) = scan::parse_object(body, &LENIENT) else {
        return false;
    };
    let Some(error) = nested(&body, "error") else {
        return false;
    };
    let is_text = |name| {
        error
            .value_of(name)
            .is_some_and(|value| value.kind == Kind::String)
    };
    match dialect {
        Dialect::OpenAi => is_text("message"),
        Dialect::Anthropic => {
            let outer = body.value_of("type").and_then(|value| value.as_str());
            outer.as_deref() == Some("error") && is_text("type") && is_text("message")
        }
    }
}

#[cfg(test)]
mod tests;

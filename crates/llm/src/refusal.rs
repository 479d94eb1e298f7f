//! Refusals in the words of the caller's dialect.
//!
//! The official SDKs choose their exception by the status alone; the body gives it its message,
//! type and code. Neither tells the caller which rule refused.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use waypoint_policy::{Code, Refusal};
use waypoint_wire::json::{self as scan, Kind};
use waypoint_wire::sse;

use crate::Dialect;
use crate::usage::{LENIENT, nested};

/// Longest `Retry-After` we send. Some SDKs sleep for as long as they are told, however long.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// OpenAI's error body.
#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<()>,
    code: &'a str,
}

/// Anthropic's error body; `details.error_code` is where its clients look for a code.
#[derive(Serialize)]
struct AnthropicBody<'a> {
    r#type: &'a str,
    error: AnthropicError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'a str,
    message: &'a str,
    details: AnthropicDetails<'a>,
}

#[derive(Serialize)]
struct AnthropicDetails<'a> {
    error_code: &'a str,
}

/// The data of an error event: what OpenAI's responses have at the top level, and under `error`
/// what OpenAI's chat and Anthropic's messages have there.
#[derive(Serialize)]
struct Frame<'a> {
    r#type: &'a str,
    code: &'a str,
    message: &'a str,
    param: Option<()>,
    sequence_number: u64,
    error: OpenAiError<'a>,
}

/// The body of a refusal: JSON in the dialect's error shape.
#[must_use]
pub fn refusal_body(dialect: Dialect, refusal: &Refusal, request_id: &str) -> Vec<u8> {
    let code = code(dialect, refusal.code);
    let message = &*refusal.message;
    let r#type = kind(dialect, refusal);
    match dialect {
        Dialect::OpenAi => json(&OpenAiBody {
            error: OpenAiError {
                message,
                r#type,
                param: None,
                code,
            },
        }),
        Dialect::Anthropic => json(&AnthropicBody {
            r#type: "error",
            error: AnthropicError {
                r#type,
                message,
                details: AnthropicDetails { error_code: code },
            },
            request_id,
        }),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers always serialize")
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
        // Rounded up: a client that is too early is refused again.
        let milliseconds = wait.as_nanos().div_ceil(1_000_000);
        let seconds = milliseconds.div_ceil(1000);
        headers.push(("retry-after", seconds.to_string()));
        headers.push(("retry-after-ms", milliseconds.to_string()));
    }
    headers
}

/// One event that ends a stream with a refusal, in a shape that the SDKs of both dialects raise:
/// they look at the event's name, at `error`, or at the top level, each at its own place.
///
/// `sequence_number` is the number the next event of a Responses stream would have.
#[must_use]
pub fn error_frame(dialect: Dialect, refusal: &Refusal, sequence_number: u64) -> Bytes {
    let code = code(dialect, refusal.code);
    let message = &*refusal.message;
    let data = json(&Frame {
        r#type: "error",
        code,
        message,
        param: None,
        sequence_number,
        error: OpenAiError {
            message,
            r#type: kind(dialect, refusal),
            param: None,
            code,
        },
    });
    let mut frame = Vec::with_capacity(data.len() + 32);
    sse::write_event(&mut frame, Some("error"), &data);
    frame.into()
}

/// The code as the dialect's clients know it: Anthropic's have a class of their own for it.
fn code(dialect: Dialect, code: Code) -> &'static str {
    match (dialect, code) {
        (Dialect::Anthropic, Code::QuotaExhausted) => "enforced_spend_limit_reached",
        _ => code.as_str(),
    }
}

/// The dialect's error type for a refusal.
fn kind(dialect: Dialect, refusal: &Refusal) -> &'static str {
    match (dialect, refusal.status()) {
        (Dialect::OpenAi, _) if refusal.code == Code::QuotaExhausted => "insufficient_quota",
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

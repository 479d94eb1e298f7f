//! JSON-RPC 2.0 messages, read as strictly as an MCP gateway must.
//!
//! Servers disagree about every doubtful message: which of two keys counts,
//! whether a message with `method` and `result` is a request, whether
//! `"Method"` is `"method"`. A message that leaves such a choice is refused,
//! so that what was decided on is what the server runs.
//! Source: JSON-RPC 2.0; MCP 2025-11-25 and 2026-07-28, "Base Protocol: Messages".

use std::borrow::Cow;

use crate::json::{self, JsonError, Kind, Object, Options, Surrogates, UniqueKeys, Value};

#[cfg(test)]
mod tests;

/// Largest magnitude of an integer id: what every JSON implementation keeps exactly.
const MAX_ID: i64 = (1 << 53) - 1;

const TOP_KEYS: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// Keys of `params` that MCP gives a meaning.
const PARAM_KEYS: &[&str] = &[
    "_meta",
    "argument",
    "arguments",
    "capabilities",
    "clientInfo",
    "context",
    "cursor",
    "inputResponses",
    "level",
    "name",
    "notifications",
    "progressToken",
    "protocolVersion",
    "ref",
    "requestId",
    "requestState",
    "task",
    "taskId",
    "uri",
];

/// The id of a request or response: a string, or an integer within ±(2^53−1).
#[derive(Debug, Clone, Copy)]
pub struct Id<'a> {
    value: Value<'a>,
}

impl<'a> Id<'a> {
    /// The token as it was written; echo these bytes.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.value.raw
    }

    /// The id by meaning, however it was escaped.
    #[must_use]
    pub fn key(&self) -> IdKey {
        match self.value.as_i64() {
            Some(number) => IdKey::Number(number),
            None => IdKey::Text(self.value.as_str().unwrap_or_default().into()),
        }
    }

    /// Whether this is the id that was written as `raw`.
    #[must_use]
    pub fn is(&self, raw: &[u8]) -> bool {
        self.raw() == raw || Some(self.key()) == IdKey::of(raw)
    }

    fn of(value: Value<'a>) -> Option<Self> {
        let fits = match value.kind {
            Kind::String => value.as_str().is_some(),
            Kind::Number => {
                value.raw != b"-0"
                    && value
                        .as_i64()
                        .is_some_and(|number| (-MAX_ID..=MAX_ID).contains(&number))
            }
            _ => false,
        };
        fits.then_some(Self { value })
    }
}

/// What an id means: `"a"` and `"\u0061"` are one id, `1` and `"1"` are two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdKey {
    /// An integer.
    Number(i64),
    /// A string, unescaped.
    Text(Box<str>),
}

impl IdKey {
    /// Reads a raw token, as [`Id::raw`] gave it.
    #[must_use]
    pub fn of(raw: &[u8]) -> Option<Self> {
        let value = json::validate(raw, &Options::default()).ok()?;
        Id::of(value).map(|id| id.key())
    }
}

/// One message.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// A call that expects an answer.
    Request {
        /// Its id.
        id: Id<'a>,
        /// Method name, unescaped.
        method: Cow<'a, str>,
        /// Parameters by name.
        params: Option<Object<'a>>,
    },
    /// A call without an answer.
    Notification {
        /// Method name, unescaped.
        method: Cow<'a, str>,
        /// Parameters by name.
        params: Option<Object<'a>>,
    },
    /// The answer to a call; exactly one of `result` and `error` is set.
    Response {
        /// The id of the call. Absent only in an error answered to a message
        /// that had none that could be read; [`parse`] never accepts that.
        id: Option<Id<'a>>,
        /// What came out.
        result: Option<Value<'a>>,
        /// The members of `result`, where that is an object and came from a server.
        fields: Option<Object<'a>>,
        /// An error object.
        error: Option<Value<'a>>,
    },
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonRpcError {
    /// Not JSON, or JSON that we refuse.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// An array of messages, which no revision after 2025-03-26 has.
    #[error("batches are not supported")]
    Batch,
    /// A JSON value that is not an object.
    #[error("a message must be an object")]
    NotObject,
    /// `jsonrpc` is missing or not `"2.0"`.
    #[error("jsonrpc must be \"2.0\"")]
    Version,
    /// `method` is not a string.
    #[error("method must be a string")]
    Method,
    /// `id` is neither a string nor an integer within ±(2^53−1).
    #[error("id must be a string or an integer within 2^53")]
    Id,
    /// `params` is not an object.
    #[error("params must be an object")]
    Params,
    /// Not exactly one of request, notification, result and error.
    #[error("neither a request nor a notification nor a response")]
    Shape,
    /// A key that some parsers take for another one.
    #[error("key at byte {offset} can be mistaken for another")]
    LookAlike {
        /// Its opening quote.
        offset: usize,
    },
}

impl JsonRpcError {
    /// `-32700` (parse error) for what is not JSON, else `-32600` (invalid request).
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::Json(error) if error.is_syntax() => -32700,
            _ => -32600,
        }
    }
}

/// Reads a message that a client sends, under the strict profile.
///
/// Beyond the form of the message: no key twice in any object, nesting up to
/// 64, no unpaired surrogate, and no key of the message or of `params` that
/// folds onto a known one ([`json::folds_to`]).
///
/// # Errors
/// [`JsonRpcError`]; answer it with status 400 and a null id.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, JsonRpcError> {
    message(bytes, &Options::default(), Side::Client)
}

/// Reads a message that a server sends, leniently where only its content is concerned.
///
/// Values below the keys of the message and of its result, error or params may
/// repeat keys, nest to 512 and hold unpaired surrogates, because servers put
/// foreign text there. An error may lack an id or have a null one.
///
/// # Errors
/// [`JsonRpcError`].
pub fn parse_answer(bytes: &[u8]) -> Result<Message<'_>, JsonRpcError> {
    let options = Options {
        max_depth: 512,
        unique_keys: UniqueKeys::TwoLevels,
        surrogates: Surrogates::Any,
    };
    message(bytes, &options, Side::Server)
}

/// Refuses a key of `object` that folds onto one of `known` without being it.
///
/// # Errors
/// [`JsonRpcError::LookAlike`].
pub fn refuse_look_alikes(object: &Object<'_>, known: &[&str]) -> Result<(), JsonRpcError> {
    for member in object.members() {
        if known.iter().any(|known| json::folds_to(&member.key, known)) {
            return Err(JsonRpcError::LookAlike {
                offset: member.key_range.start,
            });
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn message<'a>(
    bytes: &'a [u8],
    options: &Options,
    side: Side,
) -> Result<Message<'a>, JsonRpcError> {
    // What is looked into is found in the same pass: a client's parameters, a server's result.
    let inner_key = match side {
        Side::Client => "params",
        Side::Server => "result",
    };
    let (top, inner) =
        json::parse_nested(bytes, options, inner_key).map_err(|error| match error {
            // Only a whole, valid document gets this far.
            JsonError::NotObject if first_byte(bytes) == Some(b'[') => JsonRpcError::Batch,
            JsonError::NotObject => JsonRpcError::NotObject,
            other => JsonRpcError::Json(other),
        })?;
    refuse_look_alikes(&top, TOP_KEYS)?;
    let text = |key| top.value_of(key).map(|value| value.as_str());
    if text("jsonrpc").flatten().as_deref() != Some("2.0") {
        return Err(JsonRpcError::Version);
    }
    let id = top.value_of("id");
    let result = top.value_of("result");
    let error = top.value_of("error");
    let Some(method) = text("method") else {
        return response(id, result, inner, error, side);
    };
    let method = method.ok_or(JsonRpcError::Method)?;
    if result.is_some() || error.is_some() {
        return Err(JsonRpcError::Shape);
    }
    let params = match (side, top.value_of("params")) {
        (_, None) => None,
        (Side::Client, Some(_)) => Some(inner.ok_or(JsonRpcError::Params)?),
        (Side::Server, Some(params)) => {
            Some(json::object(params).map_err(|_| JsonRpcError::Params)?)
        }
    };
    if let (Some(params), Side::Client) = (&params, side) {
        refuse_look_alikes(params, PARAM_KEYS)?;
    }
    match id {
        None => Ok(Message::Notification { method, params }),
        Some(id) => Ok(Message::Request {
            id: Id::of(id).ok_or(JsonRpcError::Id)?,
            method,
            params,
        }),
    }
}

fn response<'a>(
    id: Option<Value<'a>>,
    result: Option<Value<'a>>,
    fields: Option<Object<'a>>,
    error: Option<Value<'a>>,
    side: Side,
) -> Result<Message<'a>, JsonRpcError> {
    if result.is_some() == error.is_some() {
        return Err(JsonRpcError::Shape);
    }
    let nameless = side == Side::Server && error.is_some();
    let id = match id {
        None if nameless => None,
        Some(id) if nameless && id.is_null() => None,
        None => return Err(JsonRpcError::Shape),
        Some(id) => Some(Id::of(id).ok_or(JsonRpcError::Id)?),
    };
    Ok(Message::Response {
        id,
        result,
        fields: fields.filter(|_| side == Side::Server),
        error,
    })
}

fn first_byte(bytes: &[u8]) -> Option<u8> {
    bytes
        .iter()
        .copied()
        .find(|byte| !byte.is_ascii_whitespace())
}

//! What an MCP client is told when the gateway says no.

use std::{borrow::Cow, fmt, time::Duration};

use waypoint_policy::{Code, Refusal};
use waypoint_wire::jsonrpc::JsonRpcError;

use crate::{
    call::Call,
    era::{Era, LEGACY_VERSIONS, MODERN_VERSIONS},
};

/// The longest wait that a client is told of; some sleep for as long as they are told.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// How a denied tool, prompt or resource is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Denial {
    /// As if it did not exist: status 200 and the error of an unknown name.
    #[default]
    Hide,
    /// Status 403 and an error that says so.
    Explicit,
}

/// An answer to a message that was not forwarded, or whose answer can not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpRefusal {
    /// HTTP status.
    pub status: u16,
    /// `error.code` of JSON-RPC.
    pub error: i64,
    /// `error.message`.
    pub message: Cow<'static, str>,
    /// `error.data`, as JSON.
    pub data: Option<Box<str>>,
    /// Id of the request as it was written; null without one.
    pub id: Option<Box<[u8]>>,
    /// The reason, for metrics and audit; also the status of a refused GET.
    pub code: Code,
    /// When to try again, up to 60 s.
    pub retry_after: Option<Duration>,
}

impl McpRefusal {
    fn new(code: Code, status: u16, error: i64, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            error,
            message: message.into(),
            data: None,
            id: None,
            code,
            retry_after: None,
        }
    }

    /// A message that is not a valid request: `-32600`, status 400.
    pub(crate) fn request(message: &'static str) -> Self {
        Self::new(Code::BadRequest, 400, -32600, message)
    }

    /// Parameters that are missing or of a wrong type: `-32602`, status 400.
    pub(crate) fn params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, 400, -32602, message)
    }

    /// A method of no revision of this era: `-32601`, with 404 where the revision says so.
    pub(crate) fn method(era: Era) -> Self {
        let status = match era {
            Era::Legacy => 200,
            Era::Modern => 404,
        };
        Self::new(Code::MethodUnknown, status, -32601, "Method not found")
    }

    /// A version nobody published: `-32022`, status 400, with the versions we know.
    pub(crate) fn version(requested: &str) -> Self {
        let mut data = String::from("{\"supported\":[");
        for (index, version) in MODERN_VERSIONS.iter().chain(LEGACY_VERSIONS).enumerate() {
            if index > 0 {
                data.push(',');
            }
            quote(&mut data, version);
        }
        data.push_str("],\"requested\":");
        quote(&mut data, shorten(requested));
        data.push('}');
        Self {
            data: Some(data.into()),
            ..Self::new(
                Code::VersionUnsupported,
                400,
                -32022,
                "Unsupported protocol version",
            )
        }
    }

    /// Policy denies what `call` names.
    ///
    /// Hidden, the answer to a denied name is the one an unknown name would get
    /// from us: `-32602` with status 200, or `-32002` for resources of the
    /// legacy era (MCP 2025-11-25, Resources, "Error Handling"). Never 401 or
    /// 404, which make clients authenticate anew or drop their session.
    #[must_use]
    pub fn denied(call: &Call, denial: Denial) -> Self {
        let name = call.name().or(call.task_id()).unwrap_or_default();
        let method = call.ask.items().first().map(|item| item.method);
        let mut refusal = match method {
            Some("prompts/get") => Self::unknown("Unknown prompt: ", name),
            Some("resources/read") => {
                let mut refusal = Self::unknown("Resource not found", "");
                if call.era == Era::Legacy {
                    refusal.error = -32002;
                }
                let mut data = String::from("{\"uri\":");
                quote(&mut data, shorten(name));
                data.push('}');
                refusal.data = Some(data.into());
                refusal
            }
            Some(_) => Self::unknown("Unknown tool: ", name),
            None if call.task_id().is_some() => Self::unknown("Unknown task: ", name),
            None => Self::from(Refusal::new(Code::Forbidden)),
        };
        if denial == Denial::Explicit && refusal.status == 200 {
            refusal = Self {
                status: 403,
                data: Some(reason(refusal.code)),
                message: Cow::Owned(format!("Not permitted: {}", shorten(name))),
                error: -32602,
                ..refusal
            };
        }
        refusal.id.clone_from(&call.id);
        refusal
    }

    fn unknown(what: &str, name: &str) -> Self {
        let message = format!("{what}{}", shorten(name));
        Self::new(Code::ToolDenied, 200, -32602, message)
    }

    /// The same refusal, echoing this id.
    #[must_use]
    pub fn with_id(mut self, id: &[u8]) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The JSON-RPC error response.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        refusal_message(self.id.as_deref(), self)
    }
}

/// A header that is missing, repeated, or says something else than the body: `-32020`, status 400.
pub(crate) fn mismatch(header: &'static str) -> McpRefusal {
    let message = format!("Header mismatch: {header} must be given once and agree with the body");
    McpRefusal::new(Code::HeaderMismatch, 400, -32020, message)
}

impl From<JsonRpcError> for McpRefusal {
    fn from(error: JsonRpcError) -> Self {
        let code = match error.code() {
            -32700 => Code::BadJson,
            _ => Code::BadRequest,
        };
        Self::new(code, 400, error.code(), error.to_string())
    }
}

impl From<Refusal> for McpRefusal {
    /// The status is that of the refusal. Codes that MCP defines are used for
    /// what they mean; everything else is `-32603`, told apart by `data.code`.
    /// A missing identity is 403 here: 401 would make clients start OAuth.
    fn from(refusal: Refusal) -> Self {
        let error = match refusal.code {
            Code::BadJson => -32700,
            Code::BadRequest
            | Code::BodyTooLarge
            | Code::MediaType
            | Code::LengthRequired
            | Code::SessionUnknown => -32600,
            Code::MethodUnknown => -32601,
            Code::Forbidden | Code::ToolDenied => -32602,
            Code::HeaderMismatch => -32020,
            Code::VersionUnsupported => -32022,
            _ => -32603,
        };
        let status = match refusal.status() {
            401 => 403,
            status => status,
        };
        Self {
            data: Some(reason(refusal.code)),
            retry_after: refusal
                .retry_after
                .filter(|wait| *wait <= RETRY_AFTER_LIMIT),
            ..Self::new(refusal.code, status, error, refusal.message)
        }
    }
}

impl fmt::Display for McpRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.code, self.message, self.error)
    }
}

impl std::error::Error for McpRefusal {}

/// The JSON-RPC error response to the request with this id, as it was written; null without one.
#[must_use]
pub fn refusal_message(id: Option<&[u8]>, refusal: &McpRefusal) -> Vec<u8> {
    let mut text = String::from("{\"jsonrpc\":\"2.0\",\"id\":");
    let id = id.and_then(|id| std::str::from_utf8(id).ok());
    text.push_str(id.unwrap_or("null"));
    text.push_str(",\"error\":{\"code\":");
    text.push_str(&refusal.error.to_string());
    text.push_str(",\"message\":");
    quote(&mut text, &refusal.message);
    if let Some(data) = &refusal.data {
        text.push_str(",\"data\":");
        text.push_str(data);
    }
    text.push_str("}}");
    text.into_bytes()
}

fn reason(code: Code) -> Box<str> {
    format!("{{\"code\":\"{code}\"}}").into()
}

/// At most 256 bytes of what a caller sent, for an answer.
fn shorten(text: &str) -> &str {
    let mut end = text.len().min(256);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Appends `text` as a JSON string that is also safe in a script and an event stream.
fn quote(out: &mut String, text: &str) {
    use fmt::Write as _;
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

//! What a scripted server says: bytes, and what happens between them.

use std::fmt::Write as _;

use serde_json::Value;

use super::Gate;

/// One thing a server does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Waits for the test.
    Wait(Gate),
    /// Says nothing until the reader closes.
    Stall,
    /// Sends these bytes over and over until the reader closes.
    Endless(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// What a server does with one request, in order. The connection is kept at the end unless a step
/// says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub(super) steps: Vec<Step>,
    is_chunked: bool,
}

impl Reply {
    /// These bytes as they are.
    #[must_use]
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::default().then(Step::Send(bytes.into()))
    }

    /// A whole answer with `Content-Length`.
    #[must_use]
    pub fn whole(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len().to_string();
        let mut bytes = head(status, headers, &[("content-length", &length)]).into_bytes();
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// A whole answer of JSON.
    #[must_use]
    pub fn json(value: &Value) -> Self {
        Self::status(200, value)
    }

    /// A whole answer of JSON with a status.
    #[must_use]
    pub fn status(status: u16, value: &Value) -> Self {
        Self::whole(
            status,
            &[("content-type", "application/json")],
            value.to_string(),
        )
    }

    /// The head of a chunked answer, to be followed by [`Reply::chunk`]s and [`Reply::end`].
    #[must_use]
    pub fn chunked(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut reply = Self::raw(head(status, headers, &[("transfer-encoding", "chunked")]));
        reply.is_chunked = true;
        reply
    }

    /// The head of an event stream.
    #[must_use]
    pub fn stream() -> Self {
        Self::chunked(200, &[("content-type", "text/event-stream")])
    }

    /// A whole event stream of unnamed events.
    #[must_use]
    pub fn sse<T: AsRef<str>>(data: &[T]) -> Self {
        let events = data.iter().fold(Self::stream(), |reply, data| {
            reply.chunk(format!("data: {}\n\n", data.as_ref()))
        });
        events.end()
    }

    /// Adds a chunk.
    #[must_use]
    pub fn chunk(self, bytes: impl AsRef<[u8]>) -> Self {
        debug_assert!(self.is_chunked, "a chunk in an answer with a length");
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.then(Step::Send(chunk))
    }

    /// Ends a chunked answer.
    #[must_use]
    pub fn end(self) -> Self {
        self.then(Step::Send(b"0\r\n\r\n".to_vec()))
    }

    /// Ends a chunked answer with a trailer.
    #[must_use]
    pub fn end_with(self, trailer: &str) -> Self {
        self.then(Step::Send(format!("0\r\n{trailer}\r\n\r\n").into_bytes()))
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Send(bytes.into()))
    }

    /// Adds a step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Holds what follows back until the gate opens.
    #[must_use]
    pub fn wait(self, gate: &Gate) -> Self {
        self.then(Step::Wait(gate.clone()))
    }
}

fn head(status: u16, headers: &[(&str, &str)], framing: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers.iter().chain(framing) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head
}

//! A streamed answer on its way through: watched, metered, and ended in a way clients notice.

use bytes::Bytes;
use waypoint_policy::{Operation, Refusal};
use waypoint_wire::json;
use waypoint_wire::sse::{self, Splitter, SseError};

use crate::usage::{LENIENT, Reported, nested};
use crate::{Call, Dialect, Source, Usage, refusal};

mod peek;
mod run;

use run::Run;

/// Longest event unless configured. An image in a terminal Responses event takes megabytes.
pub const DEFAULT_EVENT_LIMIT_BYTES: usize = 16 << 20;

/// One streamed answer.
///
/// Bytes go in as they arrive and come out as whole events, unchanged; consecutive events of one
/// chunk come out as one piece. The one event that is held back is the usage report that we
/// asked for and the caller did not.
#[derive(Debug)]
pub struct Stream {
    splitter: Splitter,
    dialect: Dialect,
    operation: Operation,
    hide_usage: bool,
    reported: Reported,
    is_final: bool,
    usage: Usage,
    output_bytes: u64,
    /// Events that brought some of it.
    output_events: u64,
    events: u64,
    last: Bytes,
    end: Option<End>,
}

/// How the upstream has ended its stream, if it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By the dialect's terminator; only blanks may follow.
    Terminator,
    /// By the terminator, and something followed it.
    Closed,
    /// By an error event; a terminator may follow.
    Error,
}

/// Why a stream cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Not an event stream we can hold, such as an event beyond the limit.
    #[error("the upstream's event stream is broken: {0}")]
    Sse(#[from] SseError),
}

/// The upstream ended its stream without the dialect's terminator: the answer is incomplete, and
/// most SDKs would take it for a whole one. An error frame has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream ended before its terminator")]
pub struct Truncated;

impl Stream {
    /// The answer to `call`, with events of at most [`DEFAULT_EVENT_LIMIT_BYTES`].
    #[must_use]
    pub fn new(call: &Call) -> Self {
        Self::with_limit(call, DEFAULT_EVENT_LIMIT_BYTES)
    }

    /// The answer to `call`, with events of at most `event_limit_bytes`.
    #[must_use]
    pub fn with_limit(call: &Call, event_limit_bytes: usize) -> Self {
        Self {
            splitter: Splitter::new(event_limit_bytes),
            dialect: call.dialect,
            operation: call.operation,
            hide_usage: call.operation == Operation::Chat && !call.wants_usage,
            reported: Reported::default(),
            is_final: false,
            usage: Usage::default(),
            output_bytes: 0,
            output_events: 0,
            events: 0,
            last: Bytes::new(),
            end: None,
        }
    }

    /// Takes the next bytes from the upstream and appends to `out` what the caller gets.
    ///
    /// After the terminator only blanks are passed on.
    ///
    /// # Errors
    /// [`StreamError`] if an event is beyond the limit. What was appended before is whole events,
    /// so an error frame may follow it.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), StreamError> {
        if self.is_terminated() {
            self.pass_blanks(&chunk, out);
            return Ok(());
        }
        let mut run = Run::new(chunk.clone(), out);
        self.splitter.push(chunk);
        while let Some(event) = self.splitter.next()? {
            if self.shows(&event) {
                run.pass(&event);
                self.last = event;
            }
            if self.is_terminated() {
                drop(run);
                let rest = self.splitter.take_rest();
                self.pass_blanks(&rest, out);
                break;
            }
        }
        Ok(())
    }

    /// The upstream has closed its stream. A last event without its blank line is completed if it
    /// is the terminator; anything else incomplete is dropped.
    ///
    /// # Errors
    /// [`Truncated`] if neither a terminator nor an error event was seen.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), Truncated> {
        let rest = self.splitter.take_rest();
        if self.end.is_none() && !rest.is_empty() {
            let ending: &[u8] = if rest.ends_with(b"\n") {
                b"\n"
            } else {
                b"\n\n"
            };
            let event = Bytes::from([&*rest, ending].concat());
            if peek::is_whole(&event) && self.shows(&event) && self.end.is_some() {
                out.push(event);
            }
        }
        if self.end.is_some() {
            Ok(())
        } else {
            Err(Truncated)
        }
    }

    /// Tokens so far. The source is [`Source::Estimated`] until the provider's final count.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Whether the upstream has signalled the end, by its terminator or by an error event.
    #[must_use]
    pub fn saw_terminator(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the upstream has sent an error event.
    #[must_use]
    pub fn saw_error(&self) -> bool {
        self.end == Some(End::Error)
    }

    /// Bytes of output text, arguments and visible reasoning so far, as escaped in JSON.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Tokens of output so far, as far as can be seen: four bytes of text each, within 18 % for
    /// prose, code and JSON, but at least one for each event, which is how scripts with short
    /// tokens come.
    #[must_use]
    pub fn output_tokens(&self) -> u64 {
        self.output_bytes.div_ceil(4).max(self.output_events)
    }

    /// The event that ends this stream with a refusal; the stream is closed after it.
    #[must_use]
    pub fn error_frame(&self, refusal: &Refusal) -> Bytes {
        let next = peek::sequence_number(&self.last).map_or(self.events, |last| last + 1);
        refusal::error_frame(self.dialect, refusal, next)
    }

    /// Looks at one event; `false` keeps it from the caller.
    fn shows(&mut self, event: &[u8]) -> bool {
        if peek::is_blank(event) {
            return true;
        }
        self.events += 1;
        match self.operation {
            Operation::Messages => {
                self.message_event(event);
                true
            }
            Operation::Responses => {
                self.response_event(event);
                true
            }
            _ => self.chat_event(event),
        }
    }

    /// OpenAI chat: nameless events, `[DONE]` at the end, usage on any chunk.
    fn chat_event(&mut self, event: &[u8]) -> bool {
        if peek::is_done(event) {
            self.end = Some(End::Terminator);
            return true;
        }
        if peek::may_be_error(event) && holds_error(event) {
            self.end = Some(End::Error);
            return true;
        }
        self.count_output(event);
        if !peek::has_usage(event) {
            return true;
        }
        let event = sse::parse(event);
        let Ok(chunk) = json::parse_object(&event.data, &LENIENT) else {
            return true;
        };
        if !self.reported.read(&chunk) {
            return true;
        }
        self.is_final = true;
        self.refresh();
        let only_usage = chunk.value_of("choices").is_some_and(|choices| {
            choices.kind == json::Kind::Array && peek::is_blank(peek::inside(choices.raw))
        });
        !(self.hide_usage && only_usage)
    }

    /// Anthropic messages: named events; usage at the start and, cumulative, in each delta of the
    /// message. What the start says of the output is a placeholder.
    fn message_event(&mut self, event: &[u8]) {
        match &*peek::name(event) {
            b"content_block_delta" => self.count_output(event),
            b"message_start" => {
                self.read_usage(event, Some("message"));
            }
            b"message_delta" => {
                let read = self.read_usage(event, None);
                self.is_final |= read;
                self.refresh();
            }
            b"message_stop" => self.end = Some(End::Terminator),
            b"error" => self.end = Some(End::Error),
            _ => {}
        }
    }

    /// OpenAI responses: named events; the last one repeats the whole response with its usage.
    fn response_event(&mut self, event: &[u8]) {
        let name = peek::name(event);
        match &*name {
            b"response.completed" | b"response.incomplete" | b"response.failed" => {
                self.is_final |= self.read_usage(event, Some("response"));
                self.refresh();
                self.end = Some(End::Terminator);
            }
            b"error" => self.end = Some(End::Error),
            name if name.ends_with(b".delta") => self.count_output(event),
            _ => {}
        }
    }

    fn is_terminated(&self) -> bool {
        matches!(self.end, Some(End::Terminator | End::Closed))
    }

    /// Passes what is blank at the start of `bytes`, as long as nothing else has come.
    fn pass_blanks(&mut self, bytes: &Bytes, out: &mut Vec<Bytes>) {
        let blank = bytes.len() - bytes.trim_ascii_start().len();
        if blank > 0 && self.end == Some(End::Terminator) {
            out.push(bytes.slice(..blank));
        }
        if blank < bytes.len() {
            self.end = Some(End::Closed);
        }
    }

    fn read_usage(&mut self, event: &[u8], holder: Option<&str>) -> bool {
        let event = sse::parse(event);
        let Ok(data) = json::parse_object(&event.data, &LENIENT) else {
            return false;
        };
        let read = match holder {
            None => self.reported.read(&data),
            Some(holder) => nested(&data, holder).is_some_and(|holder| self.reported.read(&holder)),
        };
        self.refresh();
        read
    }

    fn count_output(&mut self, event: &[u8]) {
        let bytes = peek::output_bytes(event);
        if bytes > 0 {
            self.output_bytes += bytes as u64;
            self.output_events += 1;
            if !self.is_final {
                self.estimate();
            }
        }
    }

    fn refresh(&mut self) {
        self.usage = self.reported.usage(self.dialect);
        let uncounted = self.usage.output.is_none() && self.output_bytes > 0;
        if !self.is_final || uncounted {
            self.estimate();
        }
    }

    fn estimate(&mut self) {
        self.usage.output = self.usage.output.max(Some(self.output_tokens()));
        self.usage.source = Source::Estimated;
    }
}

/// Whether an event of a chat stream is an error instead of a chunk.
fn holds_error(event: &[u8]) -> bool {
    let event = sse::parse(event);
    if event.event.is_some_and(|name| name == b"error") {
        return true;
    }
    json::parse_object(&event.data, &LENIENT)
        .is_ok_and(|data| data.value_of("error").is_some_and(|error| !error.is_null()))
}

#[cfg(test)]
mod tests;

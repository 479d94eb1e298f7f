//! Cuts a byte stream into whole events, wherever its chunks begin and end.

use bytes::{Bytes, BytesMut};

use super::SseError;

/// How the line before the current position ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// In the middle of a line.
    Inside,
    /// At the start of a line; the last one ended in LF or in a lone CR.
    Start,
    /// At the start of a line; the last one ended in CRLF.
    StartCrlf,
    /// Behind the CR of a line that had text: LF would belong to it.
    Return,
    /// Behind the CR of an empty line in a CRLF stream: LF ends the event.
    BlankReturn,
}

/// Cuts a byte stream into events without copying those that lie inside one chunk.
///
/// Every byte pushed comes out again, in order, in exactly one event or in
/// [`Splitter::take_rest`], and where the cuts fall depends on the bytes
/// alone. An event ends with its blank line. The one doubtful case is a blank
/// line that ends in CR: after a CRLF line the LF is awaited, elsewhere the
/// event ends at the CR at once and a following LF opens the next event,
/// where it means nothing.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// The beginning of an event whose end was not in its chunk; already scanned.
    head: BytesMut,
    /// Bytes not taken yet; the first `scanned` of them are known to end no event.
    chunk: Bytes,
    scanned: usize,
    /// What was pushed while `chunk` was not used up.
    waiting: BytesMut,
    line: Line,
    failed: bool,
}

impl Splitter {
    /// A splitter for events of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            head: BytesMut::new(),
            chunk: Bytes::new(),
            scanned: 0,
            waiting: BytesMut::new(),
            line: Line::Start,
            failed: false,
        }
    }

    /// Adds the bytes that came next. Take the events before pushing more:
    /// beyond the limit, what waits is an error rather than memory.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed || chunk.is_empty() {
            return;
        }
        if self.chunk.is_empty() {
            self.chunk = chunk;
            self.scanned = 0;
            return;
        }
        if self.pending() > self.limit {
            self.fail();
            return;
        }
        self.waiting.extend_from_slice(&chunk);
    }

    /// The next whole event with its blank line, byte for byte; `None` until more is pushed.
    ///
    /// # Errors
    /// [`SseError::TooLong`], and again at every call after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end at the first None; this one goes on"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, SseError> {
        if self.failed {
            return Err(SseError::TooLong { limit: self.limit });
        }
        let end = loop {
            if let Some(end) = self.scan() {
                break end;
            }
            self.head.extend_from_slice(&self.chunk);
            self.chunk = std::mem::take(&mut self.waiting).freeze();
            self.scanned = 0;
            if self.head.len() > self.limit {
                self.fail();
                return Err(SseError::TooLong { limit: self.limit });
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
        };
        self.scanned = 0;
        if self.head.len() + end > self.limit {
            self.fail();
            return Err(SseError::TooLong { limit: self.limit });
        }
        let tail = self.chunk.split_to(end);
        if self.head.is_empty() {
            return Ok(Some(tail));
        }
        let mut event = std::mem::take(&mut self.head);
        event.extend_from_slice(&tail);
        Ok(Some(event.freeze()))
    }

    /// How many bytes wait: an unfinished event and events not taken yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.head.len() + self.chunk.len() + self.waiting.len()
    }

    /// Everything that waits, at the end of a stream. The standard discards an
    /// unfinished event, so a caller must not treat it as one.
    pub fn take_rest(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.head);
        let chunk = std::mem::take(&mut self.chunk);
        self.scanned = 0;
        self.line = Line::Start;
        let waiting = std::mem::take(&mut self.waiting);
        if rest.is_empty() && waiting.is_empty() {
            return chunk;
        }
        rest.extend_from_slice(&chunk);
        rest.extend_from_slice(&waiting);
        rest.freeze()
    }

    fn fail(&mut self) {
        self.failed = true;
        self.head = BytesMut::new();
        self.chunk = Bytes::new();
        self.waiting = BytesMut::new();
    }

    /// Offset in `chunk` behind the end of the current event.
    fn scan(&mut self) -> Option<usize> {
        let bytes = &self.chunk;
        let mut at = self.scanned;
        while let Some(&byte) = bytes.get(at) {
            match (self.line, byte) {
                (Line::Start | Line::StartCrlf | Line::BlankReturn, b'\n') => {
                    self.line = Line::Start;
                    return Some(at + 1);
                }
                (Line::BlankReturn, _) => {
                    // The CR ended the event by itself; this byte opens the next.
                    self.line = Line::Start;
                    return Some(at);
                }
                (Line::StartCrlf, b'\r') => self.line = Line::BlankReturn,
                (Line::Start, b'\r') => {
                    // A following LF is half of this line ending, not a line.
                    self.line = Line::Return;
                    return Some(at + 1);
                }
                (Line::Return, b'\n') => self.line = Line::StartCrlf,
                (Line::Return, b'\r') => {
                    self.line = Line::Return;
                    return Some(at + 1);
                }
                (Line::Inside, b'\n') => self.line = Line::Start,
                (Line::Inside, b'\r') => self.line = Line::Return,
                (Line::Inside | Line::Start | Line::StartCrlf | Line::Return, _) => {
                    self.line = Line::Inside;
                    let rest = bytes.get(at..).unwrap_or_default();
                    let Some(step) = memchr::memchr2(b'\n', b'\r', rest) else {
                        break;
                    };
                    at += step;
                    continue;
                }
            }
            at += 1;
        }
        self.scanned = bytes.len();
        None
    }
}

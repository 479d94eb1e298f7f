//! A second, cheaper look into one container of a checked document.

use super::{
    JsonError, Kind, Surrogates, Value,
    scan::{number_end, slice, space_end},
    text,
};

/// Steps over the members or items of one container that was checked before.
///
/// It trusts the grammar to the extent that unchecked bytes give wrong items
/// or an error, never a panic or an endless loop.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    value: Value<'a>,
    at: usize,
    started: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(value: Value<'a>) -> Result<Self, JsonError> {
        let closed = matches!(
            (value.raw.first(), value.raw.last()),
            (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))
        );
        if !closed || value.raw.len() < 2 {
            return Err(JsonError::UnexpectedEnd);
        }
        Ok(Self {
            value,
            at: 1,
            started: false,
        })
    }

    /// The next member: where its key opens and ends in the container's bytes, and its value.
    pub(super) fn member(&mut self) -> Result<Option<(usize, text::End, Value<'a>)>, JsonError> {
        if !self.more()? {
            return Ok(None);
        }
        let bytes = self.value.raw;
        let start = self.at;
        if bytes.get(start) != Some(&b'"') {
            return Err(self.unexpected());
        }
        let end = text::string_end(bytes, start + 1, Surrogates::Any)?;
        self.at = space_end(bytes, end.quote + 1);
        if bytes.get(self.at) != Some(&b':') {
            return Err(self.unexpected());
        }
        self.at = space_end(bytes, self.at + 1);
        Ok(Some((start, end, self.step()?)))
    }

    /// The next item of an array.
    pub(super) fn item(&mut self) -> Result<Option<Value<'a>>, JsonError> {
        if !self.more()? {
            return Ok(None);
        }
        self.step().map(Some)
    }

    /// The container that is stepped through; in an entered one its bytes go on behind it.
    pub(super) fn value(&self) -> Value<'a> {
        self.value
    }

    /// A walk through the object that stands here, whose end is not known yet; `None` for any
    /// other value. [`leave`](Self::leave) takes it back.
    pub(super) fn enter(&self) -> Option<Self> {
        let raw = self.value.raw.get(self.at..)?;
        (raw.first() == Some(&b'{')).then(|| Self {
            value: Value {
                kind: Kind::Object,
                raw,
                start: self.value.start + self.at,
            },
            at: 1,
            started: false,
        })
    }

    /// Steps behind the object that was walked through to its end, and gives it.
    pub(super) fn leave(&mut self, inner: Option<&Self>) -> Result<Value<'a>, JsonError> {
        let closed = |inner: &&Self| inner.value.raw.get(inner.at) == Some(&b'}');
        let inner = inner.filter(closed).ok_or_else(|| self.unexpected())?;
        let start = self.at;
        self.at += inner.at + 1;
        let mut value = slice(self.value.raw, start, self.at)?;
        value.start += self.value.start;
        Ok(value)
    }

    /// Whether another entry follows; if so, stands at its first byte.
    pub(super) fn more(&mut self) -> Result<bool, JsonError> {
        let bytes = self.value.raw;
        self.at = space_end(bytes, self.at);
        if let None | Some(b'}' | b']') = bytes.get(self.at) {
            return Ok(false);
        }
        if self.started {
            if bytes.get(self.at) != Some(&b',') {
                return Err(self.unexpected());
            }
            self.at = space_end(bytes, self.at + 1);
        }
        self.started = true;
        Ok(true)
    }

    /// Steps over the value that stands here.
    pub(super) fn step(&mut self) -> Result<Value<'a>, JsonError> {
        let bytes = self.value.raw;
        let start = self.at;
        self.at = match bytes.get(start) {
            Some(b'{' | b'[') => container_end(bytes, start)?,
            Some(b'"') => text::string_end(bytes, start + 1, Surrogates::Any)?.quote + 1,
            Some(b'-' | b'0'..=b'9') => number_end(bytes, start)?,
            Some(b't' | b'n') => start + 4,
            Some(b'f') => start + 5,
            _ => return Err(self.unexpected()),
        };
        let mut value = slice(bytes, start, self.at)?;
        value.start += self.value.start;
        Ok(value)
    }

    fn unexpected(&self) -> JsonError {
        JsonError::Unexpected {
            offset: self.value.start + self.at,
        }
    }
}

/// Offset behind the container that opens at `at`.
fn container_end(bytes: &[u8], mut at: usize) -> Result<usize, JsonError> {
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = text::string_end(bytes, at + 1, Surrogates::Any)?.quote,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(JsonError::UnexpectedEnd)
}

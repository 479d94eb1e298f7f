//! The scanner: one pass over a document, without recursion.

use std::borrow::Cow;

use super::{
    JsonError, Kind, Member, Options, UniqueKeys, Value,
    keys::{Keys, Opened},
    text, view,
};

/// An object or array that is still open.
#[derive(Clone, Copy)]
enum Frame {
    Array,
    /// With its keys where they must be unique.
    Object(Option<Opened>),
}

struct Scanner<'a, 'o> {
    /// The same as `bytes`.
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    options: &'o Options,
    keys: Keys,
    frames: Vec<Frame>,
    /// Where the keys open and end whose values come next in the two outermost containers.
    key: [(usize, text::End); 2],
}

/// What to collect while a document is checked.
pub(super) struct Index<'a, 'k> {
    /// Members of the outermost object.
    pub(super) top: Vec<Member<'a>>,
    /// Members of the object that is its value under `inner_key`.
    pub(super) inner: Vec<Member<'a>>,
    pub(super) inner_key: &'k str,
}

/// Checks `bytes` as one document; collects members on the way if asked to.
pub(super) fn document<'a>(
    bytes: &'a [u8],
    options: &Options,
    mut index: Option<&mut Index<'a, '_>>,
) -> Result<Value<'a>, JsonError> {
    let text = simdutf8::compat::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::ByteOrderMark);
    }
    if u32::try_from(bytes.len()).is_err() {
        return Err(JsonError::TooLarge);
    }
    let mut scanner = Scanner {
        text,
        bytes,
        at: 0,
        options,
        keys: Keys::new(),
        frames: Vec::with_capacity(8),
        key: [(0, text::End::default()); 2],
    };
    let value = scanner.value(&mut index)?;
    scanner.space();
    if scanner.at < bytes.len() {
        return Err(JsonError::TrailingData { offset: scanner.at });
    }
    Ok(value)
}

impl<'a> Scanner<'a, '_> {
    fn value(&mut self, index: &mut Option<&mut Index<'a, '_>>) -> Result<Value<'a>, JsonError> {
        self.space();
        let first = self.at;
        let mut starts = [first; 2];
        loop {
            if let Some(start) = self
                .frames
                .len()
                .checked_sub(1)
                .and_then(|n| starts.get_mut(n))
            {
                *start = self.at;
            }
            if self.begin()? {
                continue;
            }
            // A value is complete; so may be the ones around it.
            loop {
                let Some(&frame) = self.frames.last() else {
                    return slice(self.bytes, first, self.at);
                };
                if self.frames.len() <= 2
                    && let Frame::Object(_) = frame
                    && let Some(index) = index
                {
                    self.collect(index, &starts)?;
                }
                self.space();
                match (self.bytes.get(self.at), frame) {
                    (Some(b','), Frame::Array) => {
                        self.at += 1;
                        self.space();
                        break;
                    }
                    (Some(b','), Frame::Object(keys)) => {
                        self.at += 1;
                        self.space();
                        self.member_key(keys)?;
                        self.space();
                        break;
                    }
                    (Some(b'}'), Frame::Object(_)) | (Some(b']'), Frame::Array) => self.end(),
                    (Some(_), _) => return Err(JsonError::Unexpected { offset: self.at }),
                    (None, _) => return Err(JsonError::UnexpectedEnd),
                }
            }
        }
    }

    /// Notes the member that is complete now, in one of the two outermost objects.
    fn collect(&self, index: &mut Index<'a, '_>, starts: &[usize; 2]) -> Result<(), JsonError> {
        let [top, inner] = self.key;
        if self.frames.len() == 1 {
            index.top.push(self.member(top, starts[0])?);
        } else if matches!(self.frames.first(), Some(Frame::Object(_)))
            && !index.inner_key.is_empty()
            && self.key(top)? == index.inner_key
        {
            index.inner.push(self.member(inner, starts[1])?);
        }
        Ok(())
    }

    /// The member with this key, whose value goes from `start` to here.
    fn member(&self, key: (usize, text::End), start: usize) -> Result<Member<'a>, JsonError> {
        Ok(Member {
            key: self.key(key)?,
            key_range: key.0..key.1.quote + 1,
            value: slice(self.bytes, start, self.at)?,
        })
    }

    fn key(&self, (start, end): (usize, text::End)) -> Result<Cow<'a, str>, JsonError> {
        view::key(self.text.get(start + 1..end.quote), end, start)
    }

    /// Reads the beginning of a value: `true` if another value comes first
    /// (inside the container that was opened), `false` if it is complete.
    fn begin(&mut self) -> Result<bool, JsonError> {
        match self.bytes.get(self.at) {
            Some(b'"') => {
                self.at =
                    text::string_end(self.bytes, self.at + 1, self.options.surrogates)?.quote + 1;
                Ok(false)
            }
            Some(b'{') => {
                let unique = match self.options.unique_keys {
                    UniqueKeys::TopLevel => self.frames.is_empty(),
                    UniqueKeys::TwoLevels => self.frames.len() <= 1,
                    UniqueKeys::Everywhere => true,
                };
                let keys = unique.then(|| self.keys.open());
                self.open(Frame::Object(keys))?;
                if self.bytes.get(self.at) == Some(&b'}') {
                    self.end();
                    return Ok(false);
                }
                self.member_key(keys)?;
                self.space();
                Ok(true)
            }
            Some(b'[') => {
                self.open(Frame::Array)?;
                if self.bytes.get(self.at) == Some(&b']') {
                    self.end();
                    return Ok(false);
                }
                Ok(true)
            }
            Some(b'-' | b'0'..=b'9') => {
                self.at = number_end(self.bytes, self.at)?;
                Ok(false)
            }
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) => Err(JsonError::Unexpected { offset: self.at }),
            None => Err(JsonError::UnexpectedEnd),
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), JsonError> {
        if self.frames.len() >= self.options.max_depth {
            return Err(JsonError::TooDeep {
                limit: self.options.max_depth,
            });
        }
        self.frames.push(frame);
        self.at += 1;
        self.space();
        Ok(())
    }

    fn end(&mut self) {
        self.at += 1;
        if let Some(Frame::Object(Some(keys))) = self.frames.pop() {
            self.keys.close(&keys);
        }
    }

    /// Reads a key and its colon.
    fn member_key(&mut self, keys: Option<Opened>) -> Result<(), JsonError> {
        let start = self.at;
        match self.bytes.get(start) {
            Some(b'"') => {}
            Some(_) => return Err(JsonError::Unexpected { offset: start }),
            None => return Err(JsonError::UnexpectedEnd),
        }
        let end = text::string_end(self.bytes, start + 1, self.options.surrogates)?;
        if let Some(keys) = keys
            && !self.keys.insert(&keys, self.bytes, start + 1, end)?
        {
            return Err(JsonError::DuplicateKey { offset: start });
        }
        if let Some(key) = self
            .frames
            .len()
            .checked_sub(1)
            .and_then(|n| self.key.get_mut(n))
        {
            *key = (start, end);
        }
        self.at = end.quote + 1;
        self.space();
        match self.bytes.get(self.at) {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(JsonError::Unexpected { offset: self.at }),
            None => Err(JsonError::UnexpectedEnd),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<bool, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(false);
        }
        if word.starts_with(rest) {
            return Err(JsonError::UnexpectedEnd);
        }
        Err(JsonError::Unexpected { offset: self.at })
    }

    #[inline]
    fn space(&mut self) {
        self.at = space_end(self.bytes, self.at);
    }
}

#[inline]
pub(super) fn space_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

pub(super) fn number_end(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    let bad = JsonError::Number { offset: start };
    let digits = |mut at: usize| {
        while let Some(b'0'..=b'9') = bytes.get(at) {
            at += 1;
        }
        at
    };
    let some_digits = |at: usize| {
        let end = digits(at);
        if end > at {
            Ok(end)
        } else if at >= bytes.len() {
            Err(JsonError::UnexpectedEnd)
        } else {
            Err(bad)
        }
    };
    let mut at = start;
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => some_digits(at)?,
    };
    if let Some(b'0'..=b'9') = bytes.get(at) {
        return Err(bad);
    }
    if bytes.get(at) == Some(&b'.') {
        at = some_digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = some_digits(at)?;
    }
    Ok(at)
}

/// The value at `start..end` of a document; its kind shows in its first byte.
pub(super) fn slice(bytes: &[u8], start: usize, end: usize) -> Result<Value<'_>, JsonError> {
    let raw = bytes.get(start..end).ok_or(JsonError::UnexpectedEnd)?;
    let kind = match raw.first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't') => Kind::True,
        Some(b'f') => Kind::False,
        Some(b'n') => Kind::Null,
        Some(_) => Kind::Number,
        None => return Err(JsonError::UnexpectedEnd),
    };
    Ok(Value { kind, raw, start })
}

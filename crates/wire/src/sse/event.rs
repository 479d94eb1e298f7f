//! One event: reading its fields and writing one.

use std::borrow::Cow;

/// The fields of one event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event type; absent means `message`.
    pub event: Option<&'a [u8]>,
    /// All data lines, joined by LF. Borrowed when there is only one.
    pub data: Cow<'a, [u8]>,
    /// The last `id`; one with a NUL is ignored.
    pub id: Option<&'a [u8]>,
    /// Reconnection time in milliseconds.
    pub retry: Option<u64>,
    has_data: bool,
}

impl Event<'_> {
    /// Whether it has a data line at all; without one a client sees nothing.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.has_data
    }

    /// Whether clients see it as a message: no type, an empty one, or `message`.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(self.event, None | Some(b"" | b"message"))
    }
}

/// Reads the bytes of one event, as [`super::Splitter::next`] returns them.
///
/// A leading byte order mark is skipped; unknown fields and comments are ignored.
#[must_use]
pub fn parse(raw: &[u8]) -> Event<'_> {
    let mut event = Event::default();
    for line in Lines::of(raw) {
        let Some((name, value)) = field(line.text) else {
            continue;
        };
        match name {
            b"data" => {
                if event.has_data {
                    let data = event.data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                } else {
                    event.data = Cow::Borrowed(value);
                    event.has_data = true;
                }
            }
            b"event" => event.event = Some(value),
            b"id" if !value.contains(&0) => event.id = Some(value),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                event.retry = std::str::from_utf8(value)
                    .ok()
                    .and_then(|digits| digits.parse().ok())
                    .or(event.retry);
            }
            _ => {}
        }
    }
    event
}

/// Appends an event of this type with these data; line breaks in the data become data lines.
///
/// Line breaks in `event` would end its line, so they are left out.
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, data: &[u8]) {
    out.reserve(data.len() + 32);
    if let Some(event) = event {
        out.extend_from_slice(b"event: ");
        out.extend(event.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        out.push(b'\n');
    }
    write_data(out, data);
    out.push(b'\n');
}

/// The event `raw` with other data; every other line keeps its bytes and its place.
#[must_use]
pub fn replace_data(raw: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    let mut written = false;
    for line in Lines::of(raw) {
        if !matches!(field(line.text), Some((b"data", _))) {
            out.extend_from_slice(line.whole);
        } else if !written {
            write_data(&mut out, data);
            written = true;
        }
    }
    out
}

fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        out.extend_from_slice(b"data:\n");
    }
    for line in (Lines { rest: data }) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.text);
        out.push(b'\n');
    }
    if let Some(b'\n' | b'\r') = data.last() {
        out.extend_from_slice(b"data: \n");
    }
}

/// Name and value of a line; `None` for empty lines and comments.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(colon) = memchr::memchr(b':', line) else {
        return (!line.is_empty()).then_some((line, b"".as_slice()));
    };
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    (!name.is_empty()).then(|| (name, value.strip_prefix(b" ").unwrap_or(value)))
}

/// Lines that end in LF, CR or CRLF.
struct Lines<'a> {
    rest: &'a [u8],
}

struct Line<'a> {
    text: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Lines<'a> {
    fn of(raw: &'a [u8]) -> Self {
        Self {
            rest: raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw),
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (text, after) = match memchr::memchr2(b'\n', b'\r', self.rest) {
            Some(end) => {
                let crlf = self.rest.get(end..end + 2) == Some(b"\r\n");
                (end, end + if crlf { 2 } else { 1 })
            }
            None => (self.rest.len(), self.rest.len()),
        };
        let (whole, rest) = self.rest.split_at_checked(after)?;
        self.rest = rest;
        Some(Line {
            text: whole.get(..text)?,
            whole,
        })
    }
}

//! Cheap looks at one raw event. Most events of a stream are small deltas; none of these parses
//! JSON unless the event has an unusual shape.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use memchr::{memchr, memchr2};
use waypoint_wire::{json, sse};

use crate::usage::LENIENT;

static USAGE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static DELTA: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\"delta\":"));

/// Only line ends and spaces.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

/// What is between the brackets of an array or object.
pub(super) fn inside(raw: &[u8]) -> &[u8] {
    raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()
}

/// `data: [DONE]`, OpenAI chat's terminator.
pub(super) fn is_done(event: &[u8]) -> bool {
    const MARK: &[u8] = b"[DONE]";
    let first = event.strip_prefix(b"data:").unwrap_or_default();
    let near = first.trim_ascii_start().starts_with(MARK) || event.trim_ascii_end().ends_with(MARK);
    near && sse::parse(event).data.trim_ascii() == b"[DONE]"
}

/// Whether nothing is missing from an event's data: it is the terminator, or complete JSON.
pub(super) fn is_whole(event: &[u8]) -> bool {
    is_done(event) || json::validate(&sse::parse(event).data, &LENIENT).is_ok()
}

/// Whether an event begins as errors in chat streams do: with a name, or with `error` or `type`
/// as the first key.
pub(super) fn may_be_error(event: &[u8]) -> bool {
    if event.starts_with(b"event:") {
        return true;
    }
    let Some(data) = event.strip_prefix(b"data:") else {
        return false;
    };
    let Some(object) = data.trim_ascii_start().strip_prefix(b"{") else {
        return false;
    };
    let first = object.trim_ascii_start();
    first.starts_with(b"\"error\"") || first.starts_with(b"\"type\"")
}

/// Whether there is a key `usage` whose value is not `null`. A quote inside a JSON string is
/// escaped, so text that speaks of usage is not found.
pub(super) fn has_usage(event: &[u8]) -> bool {
    USAGE.find_iter(event).any(|at| {
        let after = event.get(at + USAGE.needle().len()..).unwrap_or_default();
        let value = after.trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    })
}

/// The event's name; without one the `type` of its data, which says the same in both dialects.
pub(super) fn name(event: &[u8]) -> Cow<'_, [u8]> {
    if let Some(rest) = event.strip_prefix(b"event:") {
        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        return Cow::Borrowed(name.strip_prefix(b" ").unwrap_or(name));
    }
    if let Some(name) = event.strip_prefix(b"data: {\"type\":\"")
        && let Some(end) = memchr(b'"', name)
        && memchr2(b'\n', b'\r', event.trim_ascii_end()).is_none()
    {
        return Cow::Borrowed(name.get(..end).unwrap_or_default());
    }
    let event = sse::parse(event);
    if let Some(name) = event.event {
        return Cow::Owned(name.to_vec());
    }
    let kind = json::parse_object(&event.data, &LENIENT)
        .ok()
        .and_then(|data| Some(data.value_of("type")?.as_str()?.into_owned()));
    Cow::Owned(kind.unwrap_or_default().into_bytes())
}

/// Bytes of the string values under every `delta` of an event, keys that only label them aside.
pub(super) fn output_bytes(event: &[u8]) -> usize {
    let mut bytes = 0;
    let mut rest = event;
    while let Some(at) = DELTA.find(rest) {
        let value = rest.get(at + DELTA.needle().len()..).unwrap_or_default();
        let (counted, read) = strings(value);
        bytes += counted;
        rest = value.get(read..).unwrap_or_default();
    }
    bytes
}

/// Sums the string values of the JSON value at the start of `text`; also how far it read.
fn strings(text: &[u8]) -> (usize, usize) {
    let (mut bytes, mut depth, mut at) = (0, 0_usize, 0);
    let mut labels = false;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let length = string_length(text.get(at + 1..).unwrap_or_default());
                let string = text.get(at + 1..at + 1 + length).unwrap_or_default();
                at = (at + length + 2).min(text.len());
                if depth > 0 && text.get(at) == Some(&b':') {
                    labels = matches!(string, b"type" | b"role" | b"id" | b"signature");
                    continue;
                }
                if !labels {
                    bytes += length;
                }
                labels = false;
                if depth == 0 {
                    break;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            // A value that is neither string, object nor array.
            b',' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    (bytes, at)
}

/// Bytes up to the closing quote.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    text.len()
}

/// The `sequence_number` of a Responses event.
pub(super) fn sequence_number(event: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"sequence_number\":";
    let digits = event.get(memmem::find(event, KEY)? + KEY.len()..)?;
    let digits = digits.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    let number: u64 = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()?;
    number.checked_add(1)?;
    Some(number)
}

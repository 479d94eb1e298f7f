//! Strings inside JSON: where they end, what they say, and which keys look alike.

use std::borrow::Cow;

use super::{JsonError, Surrogates};

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// High bit set in each byte of `word` that ends a run of plain text. Bytes
/// above the lowest one set may be wrong; the lowest never is.
#[inline(always)]
fn special(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & HIGH
}

#[inline(always)]
fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// Offset from `at` on of the first quote, backslash or control character.
#[inline]
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    // Keys and short values end in the first words; prose is worth wide steps.
    for _ in 0..4 {
        let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return tail(bytes, at);
        };
        let found = special(word(chunk));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let plain = rest.get(..end)?;
    if has_control(plain) {
        let control = plain.iter().position(|&byte| byte < 0x20)?;
        return Some(at + control);
    }
    (end < rest.len()).then_some(at + end)
}

/// Whether a control character is among `text`.
#[inline]
fn has_control(text: &[u8]) -> bool {
    // Branch-free over each chunk, so that the compiler uses vectors.
    let among = |chunk: &[u8]| {
        chunk
            .iter()
            .fold(false, |among, &byte| among | (byte < 0x20))
    };
    let (chunks, rest) = text.as_chunks::<32>();
    chunks.iter().any(|chunk| among(chunk)) || among(rest)
}

#[inline]
fn tail(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let found = rest
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
    Some(at + found)
}

/// Where a string ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Offset of the closing quote.
    pub(super) quote: usize,
    /// Whether anything before it was escaped.
    pub(super) escaped: bool,
}

/// Checks the string whose first byte after the quote is `at`.
#[inline]
pub(super) fn string_end(
    bytes: &[u8],
    mut at: usize,
    surrogates: Surrogates,
) -> Result<End, JsonError> {
    let mut escaped = false;
    loop {
        let Some(end) = plain_end(bytes, at) else {
            return Err(JsonError::UnexpectedEnd);
        };
        at = match bytes.get(end) {
            Some(b'"') => {
                return Ok(End {
                    quote: end,
                    escaped,
                });
            }
            Some(b'\\') => {
                escaped = true;
                escape_end(bytes, end, surrogates)?
            }
            _ => return Err(JsonError::Control { offset: end }),
        };
    }
}

/// Offset behind the escape whose backslash is at `at`.
fn escape_end(bytes: &[u8], at: usize, surrogates: Surrogates) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let bad = JsonError::Escape { offset: at };
            let unit = hex(bytes, at + 2).ok_or(bad)?;
            if !(0xd800..=0xdfff).contains(&unit) || surrogates == Surrogates::Any {
                return Ok(at + 6);
            }
            let paired = unit < 0xdc00
                && bytes.get(at + 6..at + 8) == Some(b"\\u")
                && matches!(hex(bytes, at + 8), Some(0xdc00..=0xdfff));
            if paired {
                Ok(at + 12)
            } else {
                Err(JsonError::Surrogate { offset: at })
            }
        }
        Some(_) => Err(JsonError::Escape { offset: at }),
        None => Err(JsonError::UnexpectedEnd),
    }
}

fn hex(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |unit, &byte| {
        let digit = char::from(byte).to_digit(16)?;
        Some(unit << 4 | digit)
    })
}

/// The text between the quotes of a checked string; `None` where it holds an unpaired surrogate.
pub(super) fn unescape(inner: &str) -> Option<Cow<'_, str>> {
    let bytes = inner.as_bytes();
    let Some(first) = memchr::memchr(b'\\', bytes) else {
        return Some(Cow::Borrowed(inner));
    };
    let mut text = String::with_capacity(inner.len());
    let mut at = 0;
    let mut next = Some(first);
    while let Some(backslash) = next {
        text.push_str(inner.get(at..backslash)?);
        at = backslash + 2;
        match bytes.get(backslash + 1)? {
            b'b' => text.push('\u{8}'),
            b'f' => text.push('\u{c}'),
            b'n' => text.push('\n'),
            b'r' => text.push('\r'),
            b't' => text.push('\t'),
            b'u' => {
                let (unit, end) = code_point(bytes, backslash)?;
                text.push(unit);
                at = end;
            }
            &byte @ (b'"' | b'\\' | b'/') => text.push(char::from(byte)),
            _ => return None,
        }
        next = memchr::memchr(b'\\', bytes.get(at..)?).map(|found| at + found);
    }
    text.push_str(inner.get(at..)?);
    Some(Cow::Owned(text))
}

fn code_point(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let unit = hex(bytes, at + 2)?;
    if !(0xd800..=0xdbff).contains(&unit) {
        return Some((char::from_u32(unit)?, at + 6));
    }
    if bytes.get(at + 6..at + 8)? != b"\\u" {
        return None;
    }
    let low = hex(bytes, at + 8)?.checked_sub(0xdc00)?;
    if low > 0x3ff {
        return None;
    }
    let point = 0x10000 + ((unit - 0xd800) << 10) + low;
    Some((char::from_u32(point)?, at + 12))
}

/// Whether a lenient parser could take `key` for `known` although it is another key.
///
/// Folds ASCII case and the two characters whose simple case folding is an
/// ASCII letter, U+017F (ſ) and U+212A (K), as Go's `encoding/json` does
/// (CVE-2026-27896 in a Go MCP library).
#[must_use]
pub fn folds_to(key: &str, known: &str) -> bool {
    if key == known || key.len() < known.len() {
        return false;
    }
    let fold = |letter: char| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(known.chars().map(fold))
}

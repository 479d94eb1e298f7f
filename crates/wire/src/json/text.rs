//! Strings inside JSON: where they end, what they say, and which keys look alike.

use std::borrow::Cow;
use std::cmp::Ordering;

use wide::u8x16;

use super::{JsonError, Surrogates};

/// Bytes that are looked at together.
const WIDE: usize = 32;

/// A bit for each byte of `chunk`, from the lowest on: whether it ends a run of plain text, as
/// quotes, backslashes and control characters do.
#[inline(always)]
fn special(chunk: [u8; 16]) -> u32 {
    let chunk = u8x16::new(chunk);
    let quote = chunk.simd_eq(u8x16::splat(b'"'));
    let backslash = chunk.simd_eq(u8x16::splat(b'\\'));
    let control = chunk.simd_le(u8x16::splat(0x1f));
    (quote | backslash | control).to_bitmask()
}

/// As [`special`], of the bytes from `at` on; behind the last one come zeros, which are.
#[inline(always)]
fn special_wide(bytes: &[u8], at: usize) -> u32 {
    let rest = bytes.get(at..).unwrap_or_default();
    let chunk = rest.first_chunk().copied().unwrap_or_else(|| {
        let mut chunk = [0; WIDE];
        for (place, byte) in chunk.iter_mut().zip(rest) {
            *place = *byte;
        }
        chunk
    });
    match chunk.as_chunks() {
        ([low, high], _) => special(*low) | special(*high) << 16,
        _ => 0,
    }
}

/// Offset from `at` on of the first byte that a string may not hold as it is.
#[inline]
pub(super) fn special_from(bytes: &[u8], mut at: usize) -> Option<usize> {
    while at < bytes.len() {
        let found = special_wide(bytes, at);
        if found != 0 {
            let end = at + found.trailing_zeros() as usize;
            return (end < bytes.len()).then_some(end);
        }
        at += WIDE;
    }
    None
}

/// Where a string ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Offset of the closing quote.
    pub(super) quote: usize,
    /// Whether anything before it was escaped.
    pub(super) escaped: bool,
}

/// Checks the string whose first byte after the quote is `at`.
#[inline(always)]
pub(super) fn string_end(
    bytes: &[u8],
    at: usize,
    surrogates: Surrogates,
) -> Result<End, JsonError> {
    // Most keys and many values end here.
    if let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = special(*chunk);
        let quote = at + found.trailing_zeros() as usize;
        if found != 0 && bytes.get(quote) == Some(&b'"') {
            return Ok(End {
                quote,
                escaped: false,
            });
        }
    }
    long_string_end(bytes, at, surrogates)
}

fn long_string_end(bytes: &[u8], mut at: usize, surrogates: Surrogates) -> Result<End, JsonError> {
    let mut escaped = false;
    loop {
        let mut found = u64::from(special_wide(bytes, at));
        let mut behind = WIDE;
        while found != 0 {
            let end = at + found.trailing_zeros() as usize;
            match bytes.get(end) {
                Some(b'"') => {
                    return Ok(End {
                        quote: end,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    let next = match bytes.get(end + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => end + 2,
                        _ => escape_end(bytes, end, surrogates)?,
                    };
                    // What the escape holds is not special.
                    found &= u64::MAX << (next - at);
                    behind = behind.max(next - at);
                }
                Some(_) => return Err(JsonError::Control { offset: end }),
                None => return Err(JsonError::UnexpectedEnd),
            }
        }
        at += behind;
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
#[inline]
pub fn folds_to(key: &str, known: &str) -> bool {
    // The two characters are longer than the letters that they fold to.
    match key.len().cmp(&known.len()) {
        Ordering::Less => false,
        Ordering::Equal => key != known && key.eq_ignore_ascii_case(known),
        Ordering::Greater => !key.is_ascii() && folds_to_shorter(key, known),
    }
}

fn folds_to_shorter(key: &str, known: &str) -> bool {
    let fold = |letter: char| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(known.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One byte after the other, with the same look at escapes.
    fn naive(bytes: &[u8], mut at: usize, surrogates: Surrogates) -> Result<End, JsonError> {
        let mut escaped = false;
        loop {
            match bytes.get(at) {
                None => return Err(JsonError::UnexpectedEnd),
                Some(b'"') => return Ok(End { quote: at, escaped }),
                Some(b'\\') => {
                    escaped = true;
                    at = escape_end(bytes, at, surrogates)?;
                }
                Some(..0x20) => return Err(JsonError::Control { offset: at }),
                Some(_) => at += 1,
            }
        }
    }

    proptest! {
        #[test]
        fn strings_end_where_a_look_at_each_byte_finds_it(
            text in r#"([a-z]{0,40}(\\\\|\\"|"|\\n|\\u00e9|\\ud83d\\ude00|\\ud83d|\\x|é|\x01|\x1f|\x7f|[ -~]){0,3}){0,6}"#,
            start in 0usize..4,
            paired: bool,
        ) {
            let surrogates = if paired { Surrogates::Paired } else { Surrogates::Any };
            let bytes = text.as_bytes();
            prop_assert_eq!(
                string_end(bytes, start, surrogates),
                naive(bytes, start, surrogates)
            );
        }
    }
}

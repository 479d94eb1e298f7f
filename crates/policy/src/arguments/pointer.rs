//! Where a value is: JSON Pointer (RFC 6901), and `*` for every element of an array.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// The most segments; bodies nest no deeper.
const SEGMENTS_MAX: usize = 64;

/// Such as `/repository/owner`, or `/items/*/path`.
///
/// A segment is a key of an object, or the index of an array's element. `*` is every element of an
/// array, and never a key. The empty pointer is the arguments as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Segment {
    /// A key, unescaped; also the index it spells, if it is one.
    Key(Box<str>, Option<usize>),
    /// `*`
    Every,
}

/// Why text is no pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It begins with something else.
    #[error("a JSON Pointer begins with `/` (RFC 6901)")]
    NoSlash,
    /// `~` before something else than `0` and `1`.
    #[error("`~` is written `~0` and `/` in a key `~1` (RFC 6901)")]
    Escape,
    /// More segments than anything nests.
    #[error("more than {SEGMENTS_MAX} segments")]
    TooDeep,
}

impl Pointer {
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let mut segments = Vec::new();
        if !text.is_empty() {
            let rest = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
            for segment in rest.split('/') {
                segments.push(match segment {
                    "*" => Segment::Every,
                    other => Segment::Key(unescape(other)?.into(), index(other)),
                });
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(PointerError::TooDeep);
        }
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
        })
    }
}

fn unescape(segment: &str) -> Result<String, PointerError> {
    let mut key = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((plain, escape)) = rest.split_once('~') {
        key.push_str(plain);
        key.push(match escape.bytes().next() {
            Some(b'0') => '~',
            Some(b'1') => '/',
            _ => return Err(PointerError::Escape),
        });
        rest = escape.get(1..).unwrap_or_default();
    }
    key.push_str(rest);
    Ok(key)
}

/// RFC 6901 §4: digits without a leading zero.
fn index(segment: &str) -> Option<usize> {
    let digits = segment.bytes().all(|b| b.is_ascii_digit());
    let leading = segment.len() > 1 && segment.starts_with('0');
    (digits && !leading).then(|| segment.parse().ok()).flatten()
}

/// As it was written.
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

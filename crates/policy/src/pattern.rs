//! Names with `*`.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

#[cfg(test)]
mod tests;

/// Longest pattern, in bytes.
const MAX_BYTES: usize = 2048;

/// Why a text is not a [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing was given; use `*` for everything.
    #[error("a pattern is not empty; use * for everything")]
    Empty,
    /// The pattern is longer than 2048 bytes.
    #[error("a pattern has at most {MAX_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes that were given.
        bytes: usize,
    },
}

/// A name, or a glob in which `*` stands for any run of characters, also none and also `/`.
///
/// There is no escape: a pattern with `*` is always a glob. Upper and lower case differ.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The name, if the pattern is one name and no glob.
    #[must_use]
    pub fn as_exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern matches every text.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.bytes().all(|b| b == b'*')
    }

    /// Whether the pattern matches the whole of `text`. Linear in both lengths.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return *self.0 == *text;
        };
        let Some(mut text) = text.strip_prefix(head) else {
            return false;
        };
        // Taking the first place where each middle part fits never loses a match: a later place
        // only leaves less text for the parts after it.
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            match text.find(part).and_then(|at| text.get(at + part.len()..)) {
                Some(after) => text = after,
                None => return false,
            }
        }
        text.ends_with(tail)
    }

    /// The text before the first `*`; the whole of an exact pattern.
    pub(crate) fn literal_prefix(&self) -> &str {
        self.0.split_once('*').map_or(&*self.0, |(head, _)| head)
    }

    /// The text after the last `*`; the whole of an exact pattern.
    pub(crate) fn literal_suffix(&self) -> &str {
        self.0.rsplit_once('*').map_or(&*self.0, |(_, tail)| tail)
    }

    /// The same pattern for host names: lower case, without the dot that ends a rooted name.
    pub(crate) fn for_hosts(&self) -> Self {
        let lower = self.0.to_ascii_lowercase();
        match lower.strip_suffix('.') {
            Some(bare) if !bare.is_empty() => Self(bare.into()),
            _ => Self(lower.into()),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            0 => Err(PatternError::Empty),
            bytes if bytes > MAX_BYTES => Err(PatternError::TooLong { bytes }),
            _ => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

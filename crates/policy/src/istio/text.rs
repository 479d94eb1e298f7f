//! Text as Istio's policies write it: exact, `prefix*`, `*suffix`, or `*` for anything.

use std::fmt;

/// How one value is matched. Upper and lower case differ.
///
/// A star means something at the very beginning or end only: `a*b` is the text `a*b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// The text itself.
    Exact(Box<str>),
    /// `abc*`
    Prefix(Box<str>),
    /// `*abc`
    Suffix(Box<str>),
    /// `*`: there is some text.
    Present,
}

impl TextMatch {
    /// Reads a value; total.
    #[must_use]
    pub fn new(value: &str) -> Self {
        match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(""), _) => Self::Present,
            // Istio looks at the front first.
            (Some(suffix), _) => Self::Suffix(suffix.into()),
            (None, Some(prefix)) => Self::Prefix(prefix.into()),
            (None, None) => Self::Exact(value.into()),
        }
    }

    /// The same for text that is compared in lower case.
    #[must_use]
    pub fn lower(value: &str) -> Self {
        Self::new(&value.to_ascii_lowercase())
    }

    /// Whether `text` matches; [`Present`](Self::Present) needs some.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => text == exact.as_bytes(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            Self::Present => !text.is_empty(),
        }
    }

    /// As [`matches`](Self::matches), where ASCII case does not count; the value is in lower case.
    #[must_use]
    pub fn matches_any_case(&self, text: &[u8]) -> bool {
        let part = |part: &str, text: Option<&[u8]>| {
            text.is_some_and(|text| text.eq_ignore_ascii_case(part.as_bytes()))
        };
        match self {
            Self::Exact(exact) => part(exact, Some(text)),
            Self::Prefix(prefix) => part(prefix, text.get(..prefix.len())),
            Self::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.len());
                part(suffix, start.and_then(|start| text.get(start..)))
            }
            Self::Present => !text.is_empty(),
        }
    }
}

/// The value as it was written.
impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Present => f.write_str("*"),
        }
    }
}

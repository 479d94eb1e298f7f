//! Edits by splicing: named byte ranges change, every other byte stays.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

/// Replace `range` of a body with `text`; an empty range inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) text: Cow<'static, [u8]>,
}

impl Edit {
    pub(crate) fn new(range: Range<usize>, text: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            range,
            text: text.into(),
        }
    }

    pub(crate) fn insert(at: usize, text: &'static [u8]) -> Self {
        Self::new(at..at, text)
    }
}

/// Applies edits to a body. Ranges must not overlap and lie within it; one that does not is left
/// out. Without edits the body itself is shared, not copied.
pub(crate) fn splice(body: &Bytes, mut edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|edit| edit.range.start);
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut spliced = Vec::with_capacity(body.len() + added);
    let mut copied = 0;
    for edit in &edits {
        let Some(before) = body.get(copied..edit.range.start) else {
            continue;
        };
        if edit.range.end < edit.range.start || edit.range.end > body.len() {
            continue;
        }
        spliced.extend_from_slice(before);
        spliced.extend_from_slice(&edit.text);
        copied = edit.range.end;
    }
    spliced.extend_from_slice(body.get(copied..).unwrap_or_default());
    spliced.into()
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

#[cfg(test)]
mod tests;

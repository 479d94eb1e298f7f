//! Changing parts of a message while every other byte stays.

use std::ops::Range;

use waypoint_wire::json::Value;

/// Replacements in one message, in any order, without overlap.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    edits: Vec<(Range<usize>, Vec<u8>)>,
}

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Puts `text` in place of the bytes at `range`.
    pub(crate) fn replace(&mut self, range: Range<usize>, text: Vec<u8>) {
        self.edits.push((range, text));
    }

    /// Leaves only `kept` of the items of `array`, each with its own bytes.
    pub(crate) fn keep(&mut self, array: Value<'_>, kept: &[Value<'_>]) {
        let mut text = Vec::with_capacity(array.raw.len());
        text.push(b'[');
        for (index, item) in kept.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(item.raw);
        }
        text.push(b']');
        self.replace(array.range(), text);
    }

    /// The message with all replacements made.
    pub(crate) fn apply(mut self, message: &[u8]) -> Vec<u8> {
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut out = Vec::with_capacity(message.len() + 64);
        let mut at = 0;
        for (range, text) in self.edits {
            out.extend_from_slice(message.get(at..range.start).unwrap_or_default());
            out.extend_from_slice(&text);
            at = range.end;
        }
        out.extend_from_slice(message.get(at..).unwrap_or_default());
        out
    }
}

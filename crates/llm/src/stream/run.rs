//! Consecutive events of one chunk, joined again so that they leave as one piece.

use std::ops::Range;

use bytes::Bytes;

/// Collects passed events; what lies side by side in the chunk is one slice of it.
#[derive(Debug)]
pub(super) struct Run<'o> {
    chunk: Bytes,
    range: Range<usize>,
    out: &'o mut Vec<Bytes>,
}

impl<'o> Run<'o> {
    pub(super) fn new(chunk: Bytes, out: &'o mut Vec<Bytes>) -> Self {
        Self {
            chunk,
            range: 0..0,
            out,
        }
    }

    /// Passes an event. It may be a slice of the chunk or have its own memory.
    pub(super) fn pass(&mut self, event: &Bytes) {
        let start = (event.as_ptr() as usize).wrapping_sub(self.chunk.as_ptr() as usize);
        let end = start.wrapping_add(event.len());
        if start >= self.chunk.len() || end > self.chunk.len() {
            self.flush();
            self.out.push(event.clone());
        } else if start == self.range.end {
            self.range.end = end;
        } else {
            self.flush();
            self.range = start..end;
        }
    }

    fn flush(&mut self) {
        if !self.range.is_empty() {
            self.out.push(self.chunk.slice(self.range.clone()));
        }
        self.range = 0..0;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

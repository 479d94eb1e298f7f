//! What callers are told of their limits.

use std::time::Duration;

use super::Count;

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// What can be used at once when nothing has been.
    pub limit: u64,
    /// What can be used now.
    pub remaining: u64,
    /// How long until all of it is there again.
    pub reset: Duration,
}

/// What is left for a caller: of several limits on the same, of the one with the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of calls.
    pub requests: Option<Left>,
    /// Of tokens of both kinds.
    pub tokens: Option<Left>,
    /// Of input tokens.
    pub input: Option<Left>,
    /// Of output tokens.
    pub output: Option<Left>,
}

impl Rates {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts a limit of calls in.
    pub fn add_requests(&mut self, left: Left) {
        tighten(&mut self.requests, left);
    }

    /// Counts a limit of tokens in.
    pub fn add_tokens(&mut self, count: Count, left: Left) {
        let which = match count {
            Count::Total => &mut self.tokens,
            Count::Input => &mut self.input,
            Count::Output => &mut self.output,
        };
        tighten(which, left);
    }
}

fn tighten(known: &mut Option<Left>, left: Left) {
    if known.is_none_or(|known| left.remaining < known.remaining) {
        *known = Some(left);
    }
}

//! When tokens that let a request in end, while its answer goes on.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::context::Context;
use crate::jwt;

/// What is rounded away between clocks: a timer must not ring before the end.
const ROUNDING: Duration = Duration::from_millis(1);

/// Ends that are still to come; none for a request without a token, which costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Ends(Vec<SystemTime>);

impl Ends {
    /// Of the token that says who is calling, and of the one that policies look at.
    pub(crate) fn of(context: &Context) -> Self {
        let proven = context.proven.iter().map(|proven| proven.expires);
        let claims = context.claims.iter().filter_map(|claims| jwt::end(claims));
        Self(proven.chain(claims).collect())
    }

    /// Whether a token has ended since this was last asked.
    pub(crate) fn take(&mut self) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let (now, before) = (SystemTime::now(), self.0.len());
        self.0.retain(|end| now <= *end);
        self.0.len() < before
    }

    /// When to ask next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let next = self.0.iter().min()?;
        let left = next.duration_since(SystemTime::now()).unwrap_or_default();
        // An end that no timer can wait for is none.
        Instant::now().checked_add(left.checked_add(ROUNDING)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_told_once() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let mut ends = Ends(vec![now + hour, now - hour]);
        assert!(ends.next().unwrap() <= Instant::now() + ROUNDING);
        assert!(ends.take());
        assert!(!ends.take());
        assert!(ends.next().unwrap() > Instant::now() + hour / 2);
        // What clocks can say and timers cannot.
        let far = now.checked_add(Duration::from_secs(1 << 60));
        assert!(!Ends(far.into_iter().collect()).take());
        assert_eq!(Ends::default().next(), None);
    }
}

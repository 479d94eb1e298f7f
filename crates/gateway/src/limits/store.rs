//! The buckets of all limits, found by key without a lock.

use std::sync::Arc;

use waypoint_policy::limit::{Bucket, Entry, Meter, Now, UsageLimit};

/// Buckets kept at once: some 100 MiB. Calls that need one more are refused.
const MAX: usize = 262_144;
/// How often a bucket that is just being forgotten is looked for again.
const LOOKS: usize = 10_000;

/// A bucket, and what its words count.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bucket: Bucket,
    tokens: Option<Meter>,
    requests: Option<Meter>,
}

impl Held {
    fn of(limit: &UsageLimit) -> Self {
        Self {
            bucket: Bucket::default(),
            tokens: limit.tokens.as_ref().map(|tokens| tokens.meter()),
            requests: limit.requests.as_ref().map(|requests| requests.meter()),
        }
    }

    /// Whether a new bucket would say the same.
    fn is_unused(&self, now: Now) -> bool {
        let unused = |meter: Option<Meter>, word| meter.is_none_or(|m| m.is_unused(word, now));
        unused(self.tokens, &self.bucket.tokens) && unused(self.requests, &self.bucket.requests)
    }
}

/// Why a call has no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotEntered {
    /// As many calls as allowed are running.
    Full,
    /// There are too many buckets.
    Unavailable,
}

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct Buckets(papaya::HashMap<Box<[u8]>, Arc<Held>>);

impl Buckets {
    /// The bucket with this key, in use until [`Bucket::leave`].
    pub(super) fn enter(&self, key: &[u8], limit: &UsageLimit) -> Result<Arc<Held>, NotEntered> {
        let most = limit.concurrency.filter(|_| limit.is_enforced());
        let buckets = self.0.pin();
        for _ in 0..LOOKS {
            let held = match buckets.get(key) {
                Some(held) => held,
                None if buckets.len() >= MAX => return Err(NotEntered::Unavailable),
                None => buckets.get_or_insert_with(key.into(), || Arc::new(Held::of(limit))),
            };
            match held.bucket.enter(most) {
                Entry::Entered => return Ok(Arc::clone(held)),
                Entry::Full => return Err(NotEntered::Full),
                Entry::Retired => std::hint::spin_loop(),
            }
        }
        Err(NotEntered::Unavailable)
    }

    /// Forgets what nobody uses and nobody would miss.
    pub(super) fn sweep(&self, now: Now) {
        let buckets = self.0.pin();
        for (key, held) in &buckets {
            if !held.is_unused(now) || !held.bucket.retire() {
                continue;
            }
            // From here on nobody can use it; somebody may have, since it was looked at.
            match held.is_unused(now) {
                true => drop(buckets.remove(key)),
                false => held.bucket.restore(),
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.pin().len()
    }
}

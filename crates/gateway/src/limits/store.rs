//! The buckets of all limits, found by key without a lock.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use waypoint_policy::limit::{Bucket, Entry, Meter, Now, UsageLimit};

/// Buckets kept at once: some 100 MiB. Calls that need one more are refused.
const MAX: usize = 262_144;
/// How often a bucket that is just being forgotten is looked for again.
const LOOKS: usize = 10_000;
/// Longer keys are kept as their digest: names are the caller's text, and may be megabytes.
const KEY_MAX_BYTES: usize = 256;

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
#[derive(Debug)]
pub(super) struct Buckets {
    of: papaya::HashMap<Box<[u8]>, Arc<Held>>,
    most: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self::of_most(MAX)
    }
}

impl Buckets {
    /// None yet, and at most so many.
    pub(super) fn of_most(most: usize) -> Self {
        Self {
            of: papaya::HashMap::new(),
            most,
        }
    }

    /// The bucket with this key, in use until [`Bucket::leave`].
    pub(super) fn enter(&self, key: &[u8], limit: &UsageLimit) -> Result<Arc<Held>, NotEntered> {
        let most = limit.concurrency.filter(|_| limit.is_enforced());
        let digest = (key.len() > KEY_MAX_BYTES).then(|| digest(&SHA256, key));
        let key = digest.as_ref().map_or(key, AsRef::as_ref);
        let buckets = self.of.pin();
        for _ in 0..LOOKS {
            let held = match buckets.get(key) {
                Some(held) => held,
                None if buckets.len() >= self.most => return Err(NotEntered::Unavailable),
                None => buckets.get_or_insert_with(key.into(), || Arc::new(Held::of(limit))),
            };
            match held.bucket.enter(most) {
                Entry::Entered => return Ok(Arc::clone(held)),
                Entry::Full => return Err(NotEntered::Full),
                // Whoever forgets it may wait for this very processor.
                Entry::Retired => std::thread::yield_now(),
            }
        }
        Err(NotEntered::Unavailable)
    }

    /// Forgets what nobody uses and nobody would miss.
    pub(super) fn sweep(&self, now: Now) {
        let buckets = self.of.pin();
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
        self.of.pin().len()
    }

    #[cfg(test)]
    pub(super) fn key_bytes(&self) -> usize {
        self.of.pin().keys().map(|key| key.len()).sum()
    }
}

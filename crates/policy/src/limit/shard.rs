//! Some buckets side by side: found without a lock, added and forgotten under one.

use super::sync::{AtomicU32, AtomicUsize, Mutex, Ordering};
use super::{Bucket, Digest, Entry, Kinds, NotEntered, Now};

/// The buckets of one part of all digests.
#[derive(Debug)]
pub(super) struct Shard {
    buckets: Box<[Bucket]>,
    /// How far from its place a bucket was ever put.
    reach: AtomicU32,
    /// Held by who adds or forgets.
    changing: Mutex<()>,
}

impl Shard {
    /// A shard with so many buckets, a power of two.
    pub(super) fn new(buckets: usize) -> Self {
        Self {
            buckets: (0..buckets).map(|_| Bucket::free()).collect(),
            reach: AtomicU32::new(0),
            changing: Mutex::new(()),
        }
    }

    pub(super) fn get(&self, place: usize) -> Option<&Bucket> {
        self.buckets.get(place)
    }

    /// Where the bucket with this digest seems to be.
    pub(super) fn look(&self, digest: Digest) -> Option<usize> {
        self.find(digest).map(|(place, _)| place)
    }

    /// Enters the bucket with this digest, which is made where there is none; `len` counts all
    /// there are, `most` of them at most. `seen` is where it was when it was looked for.
    pub(super) fn enter(
        &self,
        (digest, seen): (Digest, Option<usize>),
        (kinds, users): (Kinds, Option<u32>),
        (len, most): (&AtomicUsize, usize),
    ) -> Result<usize, NotEntered> {
        let seen = seen.and_then(|place| Some((place, self.get(place)?)));
        if let Some((place, bucket)) = seen {
            match bucket.enter(users) {
                // It may have become another's before it was entered, but not since.
                Entry::Entered if bucket.is(digest) => return Ok(place),
                Entry::Entered => bucket.leave(),
                Entry::Full if bucket.is(digest) => return Err(NotEntered::Full),
                Entry::Full | Entry::Retired => {}
            }
        }
        let _changing = self.changing.lock();
        // Now nobody else changes whose they are, or retires one.
        if let Some((place, bucket)) = self.find(digest) {
            return match bucket.enter(users) {
                Entry::Entered => Ok(place),
                Entry::Full => Err(NotEntered::Full),
                Entry::Retired => Err(NotEntered::Unavailable),
            };
        }
        if users == Some(0) {
            return Err(NotEntered::Full);
        }
        if len.fetch_add(1, Ordering::AcqRel) >= most {
            len.fetch_sub(1, Ordering::AcqRel);
            return Err(NotEntered::Unavailable);
        }
        let free = (0..self.buckets.len()).find_map(|distance| {
            let place = self.place(digest, distance);
            let bucket = self.buckets.get(place).filter(|bucket| bucket.is_free());
            bucket.map(|bucket| (distance, place, bucket))
        });
        let Some((distance, place, bucket)) = free else {
            len.fetch_sub(1, Ordering::AcqRel);
            return Err(NotEntered::Unavailable);
        };
        let distance = u32::try_from(distance).unwrap_or(u32::MAX);
        self.reach.fetch_max(distance, Ordering::AcqRel);
        bucket.claim(digest, kinds);
        Ok(place)
    }

    /// Forgets what nobody uses and nobody would miss.
    pub(super) fn sweep(&self, now: Now, len: &AtomicUsize) {
        let _changing = self.changing.lock();
        for bucket in &self.buckets {
            if bucket.is_free() || !bucket.is_unused(now) || !bucket.retire() {
                continue;
            }
            // From here on nobody can use it; somebody may have, since it was looked at.
            if bucket.is_unused(now) {
                bucket.clear();
                len.fetch_sub(1, Ordering::AcqRel);
            } else {
                bucket.restore();
            }
        }
    }

    fn find(&self, digest: Digest) -> Option<(usize, &Bucket)> {
        let reach = self.reach.load(Ordering::Acquire);
        let mut places = (0..=reach).map(|distance| {
            let distance = usize::try_from(distance).unwrap_or(usize::MAX);
            self.place(digest, distance)
        });
        places.find_map(|place| {
            let bucket = self.buckets.get(place)?;
            bucket.is(digest).then_some((place, bucket))
        })
    }

    fn place(&self, digest: Digest, distance: usize) -> usize {
        let places = self.buckets.len();
        (digest.place(places) + distance) & places.saturating_sub(1)
    }
}

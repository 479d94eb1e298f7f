//! All buckets of a process, found by the digest of their key.

use std::{fmt, hash::Hasher, sync::OnceLock};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::sync::{AtomicUsize, Ordering};
use super::{Bucket, Digest, Kinds, Now, shard::Shard};

/// Shards are made when they are first needed: few buckets need little memory.
const SHARDS: usize = 2048;
/// Buckets of a shard, 16 KiB. Filled to the cap, half of them are in use.
const BUCKETS: usize = 256;

/// All buckets: at most so many, each in one line of the cache.
///
/// Entering one that exists takes no lock; making and forgetting them takes that of one shard in
/// 2,048.
pub struct Table {
    shards: Box<[OnceLock<Shard>]>,
    len: AtomicUsize,
    most: usize,
    secret: [u64; 2],
}

/// Where a bucket is, for as long as it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    shard: u32,
    place: u32,
}

/// What was found when a bucket was looked for.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    digest: Digest,
    shard: usize,
    place: Option<usize>,
}

/// Why a call has no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEntered {
    /// As many calls as allowed are running.
    Full,
    /// There are too many buckets.
    Unavailable,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = f.debug_struct("Table");
        table.field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// The most buckets a table can hold: 32 MiB.
    pub const MOST: usize = SHARDS * BUCKETS / 2;

    /// An empty table for at most so many buckets. The secret is random: names are callers' text,
    /// and who knew it could make two that share a bucket.
    #[must_use]
    pub fn new(most: usize, secret: [u64; 2]) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| OnceLock::new()).collect(),
            len: AtomicUsize::new(0),
            most: most.min(Self::MOST),
            secret,
        }
    }

    /// Looks for the bucket with this key. To do so for several before the first is entered has
    /// the memory of all of them fetched at once.
    #[must_use]
    pub fn look(&self, key: &[u8]) -> Looked {
        let digest = self.digest(key);
        let shard = digest.shard(self.shards.len());
        let found = self.shards.get(shard).and_then(OnceLock::get);
        Looked {
            digest,
            shard,
            place: found.and_then(|shard| shard.look(digest)),
        }
    }

    /// Enters the bucket that was looked for, which is made where there is none; it is in use until
    /// [`Bucket::leave`]. `users` is how many may use it at the same time.
    ///
    /// # Errors
    /// [`NotEntered`]; nothing has changed.
    pub fn enter(
        &self,
        looked: Looked,
        kinds: Kinds,
        users: Option<u32>,
    ) -> Result<Slot, NotEntered> {
        let shard = self.shards.get(looked.shard);
        let shard = shard.ok_or(NotEntered::Unavailable)?;
        let shard = shard.get_or_init(|| Shard::new(BUCKETS));
        let seen = (looked.digest, looked.place);
        let place = shard.enter(seen, (kinds, users), (&self.len, self.most))?;
        let narrow = |number| u32::try_from(number).map_err(|_| NotEntered::Unavailable);
        Ok(Slot {
            shard: narrow(looked.shard)?,
            place: narrow(place)?,
        })
    }

    /// The bucket that was entered.
    #[must_use]
    pub fn bucket(&self, slot: Slot) -> Option<&Bucket> {
        let shard = self.shards.get(usize::try_from(slot.shard).ok()?)?;
        shard.get()?.get(usize::try_from(slot.place).ok()?)
    }

    /// Forgets buckets that nobody uses and nobody would miss.
    pub fn sweep(&self, now: Now) {
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            shard.sweep(now, &self.len);
        }
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn digest(&self, key: &[u8]) -> Digest {
        let [first, second] = self.secret;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(key);
        let hash = hasher.finish128();
        Digest::new([hash.h1, hash.h2])
    }
}

#[cfg(test)]
mod tests;

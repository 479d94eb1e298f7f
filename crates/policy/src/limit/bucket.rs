//! What one key of one limit has used, in one line of the cache.

use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::{Now, Period, UsageLimit, meter};

/// Set in [`Bucket::users`] while nobody may use it: it is free, or being forgotten.
const RETIRED: u32 = 1 << 31;

/// The words of one key. Who uses them has entered, so that none is forgotten while calls are
/// still to be settled; the same number is that of calls at the same time.
#[derive(Debug)]
#[repr(align(64))]
pub struct Bucket {
    /// Whose it is; zeros while it is free. Changed only by who holds the shard's lock, and only
    /// while it is retired.
    key: [AtomicU64; 2],
    users: AtomicU32,
    /// [`Kinds`].
    kinds: AtomicU32,
    /// For the meter of tokens.
    pub tokens: AtomicU64,
    /// For the meter of requests.
    pub requests: AtomicU64,
    /// For the meter of cost.
    pub cost: AtomicU64,
}

/// What a bucket is found by: 128 bits that stand for its name. Never both zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u64; 2]);

/// How entering a bucket went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is in use until [`Bucket::leave`].
    Entered,
    /// As many calls as allowed are running.
    Full,
    /// It has been forgotten; there is, or will be, another.
    Retired,
}

/// What the words of a bucket count, which tells when it can be forgotten: a byte for each, 0 for
/// none, 1 for a window, and the calendar's number from 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// Of the buckets of a limit.
    #[must_use]
    pub fn of(limit: &UsageLimit) -> Self {
        let kind = |period: Option<Period>| match period {
            None => 0,
            Some(Period::Window(_)) => 1,
            Some(Period::Calendar(calendar)) => 2 + calendar as u32,
        };
        let [tokens, requests, cost] = limit.periods().map(kind);
        Self(tokens | requests << 8 | cost << 16)
    }
}

impl Digest {
    /// Of two words that tell buckets apart.
    #[must_use]
    pub fn new(words: [u64; 2]) -> Self {
        match words {
            [0, 0] => Self([1, 0]),
            words => Self(words),
        }
    }

    /// Where to look for it: of so many places, a power of two, one.
    pub(super) fn place(self, places: usize) -> usize {
        // The upper half has chosen the shard.
        usize::try_from(self.0[0] & u64::from(u32::MAX)).unwrap_or(0) & places.saturating_sub(1)
    }

    /// Its shard, of so many, a power of two.
    pub(super) fn shard(self, shards: usize) -> usize {
        usize::try_from(self.0[0] >> 32).unwrap_or(0) & shards.saturating_sub(1)
    }
}

impl Bucket {
    /// One that is nobody's.
    pub(super) fn free() -> Self {
        Self {
            key: [AtomicU64::new(0), AtomicU64::new(0)],
            users: AtomicU32::new(RETIRED),
            kinds: AtomicU32::new(0),
            tokens: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            cost: AtomicU64::new(0),
        }
    }

    /// Whether it is this one's, as far as is known: who has entered knows it for sure.
    pub(super) fn is(&self, digest: Digest) -> bool {
        let [first, second] = &self.key;
        Digest([
            first.load(Ordering::Acquire),
            second.load(Ordering::Acquire),
        ]) == digest
    }

    /// Whether it is nobody's. For who holds the shard's lock.
    pub(super) fn is_free(&self) -> bool {
        self.is(Digest([0, 0]))
    }

    /// Makes a free one this one's, in use by one. For who holds the shard's lock.
    pub(super) fn claim(&self, digest: Digest, kinds: Kinds) {
        for (word, value) in self.key.iter().zip(digest.0) {
            word.store(value, Ordering::Release);
        }
        self.kinds.store(kinds.0, Ordering::Release);
        // Last: from here on anybody may enter.
        self.users.store(1, Ordering::Release);
    }

    /// Makes a retired one nobody's. For who holds the shard's lock.
    pub(super) fn clear(&self) {
        let words = [&self.tokens, &self.requests, &self.cost];
        for word in words.into_iter().chain(&self.key) {
            word.store(0, Ordering::Release);
        }
    }

    /// Begins to use it, unless `most` do already.
    pub fn enter(&self, most: Option<u32>) -> Entry {
        let most = most.unwrap_or(RETIRED - 1).min(RETIRED - 1);
        let entered = self
            .users
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |users| {
                (users < most).then_some(users + 1)
            });
        match entered {
            Ok(_) => Entry::Entered,
            Err(users) if users >= RETIRED => Entry::Retired,
            Err(_) => Entry::Full,
        }
    }

    /// Ends what [`enter`](Self::enter) began.
    pub fn leave(&self) {
        self.users.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many use it.
    #[must_use]
    pub fn users(&self) -> u32 {
        self.users.load(Ordering::Acquire) & !RETIRED
    }

    /// Whether a new one would say the same.
    pub(super) fn is_unused(&self, now: Now) -> bool {
        let kinds = self.kinds.load(Ordering::Acquire).to_le_bytes();
        let words = [&self.tokens, &self.requests, &self.cost];
        let mut words = words.into_iter().zip(kinds);
        words.all(|(word, kind)| meter::is_unused(kind, word.load(Ordering::Acquire), now))
    }

    /// Forgets it, if nobody uses it: from here on nobody can enter.
    pub(super) fn retire(&self) -> bool {
        let unused = self
            .users
            .compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire);
        unused.is_ok()
    }

    /// Takes [`retire`](Self::retire) back: it turned out to be needed.
    pub(super) fn restore(&self) {
        self.users.fetch_and(!RETIRED, Ordering::AcqRel);
    }
}

//! What one key of one limit has used.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Set in [`Bucket::users`] when a bucket is to be forgotten.
const RETIRED: u32 = 1 << 31;

/// The words of one key. Who uses them has entered, so that none is forgotten while calls are
/// still to be settled; the same number is that of calls at the same time.
#[derive(Debug, Default)]
pub struct Bucket {
    /// For the meter of tokens.
    pub tokens: AtomicU64,
    /// For the meter of requests.
    pub requests: AtomicU64,
    users: AtomicU32,
}

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

impl Bucket {
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

    /// Forgets it, if nobody uses it: from here on nobody can enter.
    pub fn retire(&self) -> bool {
        let unused = self
            .users
            .compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire);
        unused.is_ok()
    }

    /// Takes [`retire`](Self::retire) back: it turned out to be needed.
    pub fn restore(&self) {
        self.users.fetch_and(!RETIRED, Ordering::AcqRel);
    }
}

//! One bucket of the store, as this process knows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use waypoint_policy::limit::Calendar;

use super::Number;
use super::ledger::Ledger;
use super::measure::Measure;
use super::script::hex;

/// What tells buckets apart here: the digest of the caller's key, what is counted, and in which
/// period of the calendar (0 of what has none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AccountId {
    pub(super) digest: [u8; 16],
    pub(super) number: Number,
    pub(super) period: u32,
}

impl AccountId {
    /// Its key in the store. Nothing of it is a caller's text, and all of a Gateway are in one slot
    /// of a cluster.
    fn key(&self, tag: &str, measure: Measure) -> String {
        let kind = match measure {
            Measure::Rate { .. } => "window",
            Measure::Slots { .. } => "now",
            Measure::Budget { calendar, .. } => match calendar {
                Calendar::Hour => "hour",
                Calendar::Day => "day",
                Calendar::Week => "week",
                Calendar::Month => "month",
            },
        };
        let (digest, number) = (hex(&self.digest), self.number.as_str());
        format!("{tag}{digest}:{number}:{kind}:{}", self.period)
    }
}

/// One bucket, and what this process has taken of it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: AccountId,
    /// Its key in the store.
    pub(super) key: String,
    /// The name of the ledger there; no other ever has it.
    pub(super) field: String,
    /// When its period ends, in seconds since 1970; 0 of what has none.
    pub(super) ends_s: u64,
    ledger: Mutex<Ledger>,
    /// Held while the store is asked, so that one asks for all.
    pub(super) flight: tokio::sync::Mutex<()>,
    /// The cost of all calls that wait for the store.
    pub(super) waiting: AtomicU64,
}

impl Account {
    pub(super) fn new(
        id: AccountId,
        (tag, field): (&str, String),
        ends_s: u64,
        measure: Measure,
        now_ns: i64,
    ) -> Self {
        Self {
            id,
            key: id.key(tag, measure),
            field,
            ends_s,
            ledger: Mutex::new(Ledger::new(measure, now_ns)),
            flight: tokio::sync::Mutex::default(),
            waiting: AtomicU64::new(0),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that waits, until it is dropped.
    pub(super) fn wait(&self, cost: u64) -> Waiting<'_> {
        self.waiting.fetch_add(cost, Ordering::Relaxed);
        Waiting {
            account: self,
            cost,
        }
    }
}

/// A call that waits for the store.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    account: &'a Account,
    cost: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.account.waiting.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

//! What a call holds of one bucket of the store.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use waypoint_policy::limit::{Exceeded, Left, StoreFailure};

use super::account::{Account, AccountId};
use super::measure::Measure;
use super::{Inner, Number, Want, Why};

/// How far the taking of a hold has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was taken.
    Nothing,
    /// The store is being asked for it.
    Begun,
    /// It was taken.
    Taken,
}

/// What a call holds. Whoever drops it without settling has used all of it; slots come back.
#[derive(Debug)]
pub(crate) struct Hold {
    inner: Arc<Inner>,
    pub(super) account: Arc<Account>,
    pub(super) measure: Measure,
    pub(super) failure: StoreFailure,
    pub(super) stage: Stage,
    /// Whether the call was not told yet that it has it.
    is_pending: bool,
    units: u64,
    pub(super) cost: u64,
    /// What was used of it in periods that have ended.
    earlier: u64,
    /// By how many processes the limit was divided when it was taken.
    shares: u64,
    /// What the ledger had forgiven then.
    forgiven: u64,
}

impl Hold {
    pub(super) fn new(
        inner: &Arc<Inner>,
        account: Arc<Account>,
        measure: Measure,
        want: &Want<'_>,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            account,
            measure,
            failure: want.failure,
            stage: Stage::Nothing,
            is_pending: true,
            units: want.units,
            cost: measure.cost(want.units),
            earlier: 0,
            shares: 1,
            forgiven: 0,
        }
    }

    /// Takes it from the lease, if that is enough.
    pub(super) fn take(&mut self) {
        let mut ledger = self.account.ledger();
        if ledger.take(self.cost) {
            self.forgiven = ledger.forgiven;
            self.stage = Stage::Taken;
        }
    }

    /// The store did not give it, or nobody knows whether it has.
    pub(super) fn give_up(&mut self) {
        self.account.ledger().cancel(self.cost);
        self.stage = Stage::Nothing;
        self.inner.list(&self.account);
    }

    /// The call has it.
    pub(super) fn keep(&mut self) {
        self.is_pending = false;
        self.forgiven = self.account.ledger().forgiven;
        self.inner.list(&self.account);
    }

    /// Takes all of it whether it is there or not.
    pub(super) fn charge_all(&mut self, shares: u64, now: i64) {
        let mut ledger = self.account.ledger();
        ledger.measure = self.measure;
        self.cost = ledger.charge(self.cost, shares, now);
        self.stage = Stage::Taken;
    }

    /// Takes it as one of so many processes that share what is left; else says what is missing.
    pub(super) fn take_share(&mut self, shares: u64, now: i64) -> Result<(), u64> {
        let mut ledger = self.account.ledger();
        ledger.measure = self.measure;
        ledger.take_share(self.cost, shares, now)?;
        self.shares = shares;
        self.stage = Stage::Taken;
        Ok(())
    }

    /// How long until what is missing may be there.
    pub(super) fn exceeded(&self, missing: u64) -> Exceeded {
        Exceeded::For(self.inner.wait(&self.account, self.measure, missing))
    }

    /// What it is counted in.
    pub(crate) fn number(&self) -> Number {
        self.account.id.number
    }

    /// How much is held, in units, with what was used of periods that have ended.
    pub(crate) fn units(&self) -> u64 {
        self.earlier.saturating_add(self.units)
    }

    /// Takes more, all or nothing.
    ///
    /// # Errors
    /// There is no more, or nobody can say; what was held is held.
    pub(crate) async fn grow(&mut self, units: u64) -> Result<(), Why> {
        let taken = self.of_now(units).ok_or(Why::Unavailable)?;
        let mut holds = [taken];
        let [taken] = &mut holds;
        if taken.cost > self.measure.room() {
            return Err(Why::Exceeded(Exceeded::Forever));
        }
        taken.take();
        if taken.stage == Stage::Nothing {
            let inner = Arc::clone(&self.inner);
            inner.ask(&mut holds).await.map_err(|not| not.why)?;
        }
        let [mut taken] = holds;
        taken.keep();
        self.join(taken);
        Ok(())
    }

    /// Takes more whether it is there or not.
    pub(crate) fn charge(&mut self, units: u64) {
        let Some(mut taken) = self.of_now(units) else {
            return;
        };
        taken.charge_all(1, self.inner.now_ns());
        taken.keep();
        self.join(taken);
    }

    /// Uses as much again, whether it is there or not, and beside what is held.
    pub(crate) fn spend(&self) {
        if let Some(mut spent) = self.of_now(self.units()) {
            spent.charge_all(1, self.inner.now_ns());
            spent.keep();
        }
    }

    /// A hold of the same bucket that has taken nothing yet; in a new period of the new bucket.
    fn of_now(&self, units: u64) -> Option<Self> {
        let AccountId { digest, number, .. } = self.account.id;
        Some(Self {
            inner: Arc::clone(&self.inner),
            account: self.inner.account(digest, number, self.measure)?,
            measure: self.measure,
            failure: self.failure,
            stage: Stage::Nothing,
            is_pending: true,
            units,
            cost: self.measure.cost(units),
            earlier: 0,
            shares: 1,
            forgiven: 0,
        })
    }

    fn join(&mut self, mut more: Self) {
        if Arc::ptr_eq(&more.account, &self.account) {
            self.units = self.units.saturating_add(more.units);
            self.cost = self.cost.saturating_add(more.cost);
            self.shares = self.shares.min(more.shares);
            self.forgiven = self.forgiven.min(more.forgiven);
            more.cost = 0;
        } else {
            // What was held of the period that has ended was used there.
            more.earlier = self.units();
            std::mem::swap(self, &mut more);
            more.cost = 0;
        }
    }

    /// Replaces what was held by what was used. What goes beyond it is owed; may be repeated.
    pub(crate) fn settle(&mut self, used: u64) {
        let now = self.inner.now_ns();
        let used = used.saturating_sub(self.earlier);
        if used > self.units {
            self.charge(used - self.units);
            return;
        }
        let cost = self.measure.cost(used).min(self.cost);
        let back = self.cost - cost;
        let mut ledger = self.account.ledger();
        ledger.refund(back, self.shares, self.forgiven, now);
        drop(ledger);
        (self.units, self.cost) = (used, cost);
        self.inner.list(&self.account);
    }

    /// What is left of the bucket, as far as is known here.
    pub(crate) fn left(&self) -> Left {
        let now = self.inner.now_ns();
        let mut ledger = self.account.ledger();
        ledger.measure = self.measure;
        let remaining = self.measure.units(ledger.left(now));
        let reset = match self.measure {
            Measure::Rate { .. } => Duration::from_nanos(ledger.ahead(now)),
            Measure::Budget { .. } | Measure::Slots { .. } => {
                self.inner.wait(&self.account, self.measure, 0)
            }
        };
        let limit = self.measure.capacity();
        Left {
            limit,
            remaining: remaining.min(limit),
            reset,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        match self.stage {
            Stage::Nothing => {}
            Stage::Begun => {
                self.give_up();
            }
            Stage::Taken if self.is_pending || self.measure.is_slots() => {
                let now = self.inner.now_ns();
                let mut ledger = self.account.ledger();
                ledger.refund(self.cost, self.shares, self.forgiven, now);
                drop(ledger);
                self.inner.list(&self.account);
            }
            Stage::Taken => {}
        }
    }
}

impl Inner {
    /// Forgets accounts that would say the same anew.
    pub(super) fn sweep(&self) {
        let (now, now_s) = (self.now_ns(), self.unix_s());
        for shard in &self.accounts {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|_, account| {
                // Who holds something of it, or has it listed, has it from here, under this lock.
                if Arc::strong_count(account) > 1 {
                    return true;
                }
                let ledger = account.ledger();
                let has_ended = account.ends_s > 0 && account.ends_s + ENDED_S < now_s;
                !(has_ended || ledger.is_unused(now))
            });
            let swept = before - shard.len();
            self.count
                .fetch_sub(swept, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// How long an account outlives its period.
const ENDED_S: u64 = 3600;

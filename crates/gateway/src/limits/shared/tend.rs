//! Beside the calls: keeps the connection, says what is owed, gives back what is not needed, and
//! states everything again when the store has lost it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Inner;
use super::account::Account;
use super::client::Down;
use super::ledger::{Ledger, Statement};

/// How often what is owed is said.
const TICK: Duration = Duration::from_millis(250);
const BEAT: Duration = Duration::from_secs(2);
const SWEEP: Duration = Duration::from_secs(10);
/// How long a store that failed is left alone, at first and at most.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A connection that lasted this long is no failure again.
const STEADY: Duration = Duration::from_secs(10);
/// Buckets of one statement.
const BATCH: usize = 64;

/// Runs for as long as anybody uses the store.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut pause = PAUSE;
    loop {
        let opened = inner.link.open(async |_| inner.beat("").await).await;
        if opened.is_ok() {
            let began = Instant::now();
            inner.keep().await;
            if began.elapsed() >= STEADY {
                pause = PAUSE;
            }
        }
        if inner.is_done() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl Inner {
    /// Whether nobody can use it any more.
    fn is_done(self: &Arc<Self>) -> bool {
        self.is_closing.load(Ordering::Acquire) && Arc::strong_count(self) == 1
    }

    /// Tends all accounts until the connection is lost, or nobody uses them any more.
    async fn keep(self: &Arc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beat, mut swept) = (None::<Instant>, Instant::now());
        loop {
            tokio::select! {
                // It may have been told of an earlier connection.
                () = self.link.lost.notified() => if !self.link.is_up() {
                    return;
                },
                () = self.wake.notified() => {}
                _ = tick.tick() => self.link.look(),
            }
            if self.has_lost.swap(false, Ordering::AcqRel) {
                self.list_all();
            }
            if self.is_done() {
                self.give_back().await;
                return;
            }
            let epoch = self.epoch.load(Ordering::Acquire);
            let now = self.now_ns();
            let tended = self.say_all(|ledger| ledger.tend(epoch, now)).await;
            if tended.is_err() {
                return;
            }
            // Who is counted has said everything.
            let is_due = beat.is_none_or(|beat| beat.elapsed() >= BEAT) || self.is_restating();
            if is_due && !self.owes_epoch(epoch) {
                beat = Some(Instant::now());
                if self.beat(&self.process).await.is_err() {
                    return;
                }
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.sweep();
            }
        }
    }

    /// Whether anything is still to be said that the store has lost.
    fn owes_epoch(&self, epoch: u64) -> bool {
        let is_new = self.epoch.load(Ordering::Acquire) != epoch;
        let mut active = self.active().clone().into_iter();
        is_new || active.any(|account| account.ledger().has_lost(epoch))
    }

    /// Lists every account that has anything to lose.
    fn list_all(&self) {
        for shard in &self.accounts {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for account in shard.values() {
                let mut ledger = account.ledger();
                if ledger.is_begun() && !ledger.is_listed {
                    ledger.is_listed = true;
                    self.active().push(Arc::clone(account));
                }
            }
        }
    }

    /// Gives all leases back, in the time that one question may take.
    pub(super) async fn give_back(&self) {
        let now = self.now_ns();
        let given = self.say_all(|ledger| ledger.give_back(now));
        // What is not given back comes back by itself, or with the period.
        let _ = timeout(self.link.timeout(), given).await;
    }

    /// Says what the listed accounts have to say, some at a time.
    async fn say_all(&self, what: impl Fn(&mut Ledger) -> Option<Statement>) -> Result<(), Down> {
        let listed = std::mem::take(&mut *self.active());
        let mut said = Ok(());
        for some in listed.chunks(BATCH) {
            if said.is_ok() {
                said = self.say_some(some, &what).await;
            }
            for account in some {
                let mut ledger = account.ledger();
                ledger.is_listed = !ledger.is_quiet();
                if ledger.is_listed {
                    self.active().push(Arc::clone(account));
                }
            }
        }
        said
    }

    async fn say_some(
        &self,
        some: &[Arc<Account>],
        what: impl Fn(&mut Ledger) -> Option<Statement>,
    ) -> Result<(), Down> {
        let mut flights = Vec::new();
        let mut said = Vec::new();
        for account in some {
            // Who asks for more says the rest with it.
            let Ok(flight) = account.flight.try_lock() else {
                continue;
            };
            if let Some(statement) = what(&mut account.ledger()) {
                flights.push(flight);
                said.push((&**account, statement));
            }
        }
        if said.is_empty() {
            return Ok(());
        }
        self.state(&said).await?;
        Ok(())
    }
}

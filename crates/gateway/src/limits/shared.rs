//! Buckets in a Valkey or Redis server that several gateways share.
//!
//! Each process keeps a ledger for each bucket it uses ([`Ledger`](ledger::Ledger)): what it has
//! used, and what the store has recorded of it. What is recorded beyond what is used is its lease,
//! from which calls take without asking. When that is not enough it states the total that it needs,
//! with what its last second suggests for the next; the store replaces what it had recorded of that
//! ledger, if all buckets of the call have room ([`take.lua`](script::TAKE)). Totals instead of
//! differences: whatever becomes of a statement, the next one says the whole again, so an answer
//! that was lost leaks nothing and bytes that arrive late change nothing.
//!
//! Units of calendar periods and calls at the same time are counted as they are. Rates are counted
//! in the time in which they come back (GCRA), so that a limit that changes prices only what comes.
//!
//! What can be used beyond a limit: what runs goes on when the provider counts more than was held
//! (as with local buckets); after the store has lost its data, what processes had used that are gone,
//! or that do not restate their ledgers within seconds (for so long nothing is given to those that
//! have known it before, but what their leases hold); of slots, calls of a process that could not reach the store for 30 s; and what
//! `storeFailure` lets pass. What is leased elsewhere cannot be used: at most a second's use of each
//! process, and of the rest never more than a sixteenth at once.

mod account;
mod client;
mod hold;
mod ledger;
mod measure;
pub(super) mod part;
mod script;
mod take;
mod tend;
#[cfg(test)]
mod tests;

use std::array;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rand::RngCore as _;
use smallvec::SmallVec;
use tokio::sync::Notify;
use waypoint_config::LimitStore;
use waypoint_policy::ObjectName;
use waypoint_policy::limit::{Exceeded, Left, Meter, StoreFailure};

use super::{CONCURRENCY_WAIT, unix_seconds};
use crate::exchange::Connector;
use account::{Account, AccountId};
pub(crate) use client::StoreMetrics;
use client::{Down, Link};
pub(crate) use hold::Hold;
use ledger::Statement;
use measure::Measure;
use script::{Answer, BEAT, Header, Status, TAKE, hex, say};

/// Buckets known at once; calls that need one more are refused.
const MAX: usize = 262_144;
/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 16;
/// How long processes may take to say what a store has lost, by its own clock: longer than it takes
/// the last of them to notice.
const RESTATED: Duration = Duration::from_secs(7);

/// What of a call is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Number {
    /// Tokens.
    Tokens,
    /// Calls.
    Requests,
    /// What they cost.
    Cost,
    /// Calls at the same time.
    Concurrency,
}

impl Number {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests => "requests",
            Self::Cost => "cost",
            Self::Concurrency => "concurrency",
        }
    }
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// In a period.
    Meter(Meter),
    /// At the same time.
    Slots(u32),
}

impl From<Amount> for Measure {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Meter(meter) => meter.into(),
            Amount::Slots(limit) => Self::Slots {
                limit: limit.into(),
            },
        }
    }
}

/// What a call wants of one bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    /// The name of the bucket; the store never sees it.
    pub(crate) key: &'a [u8],
    /// What is counted.
    pub(crate) number: Number,
    /// How much there is.
    pub(crate) amount: Amount,
    /// How much is wanted.
    pub(crate) units: u64,
    /// What holds while the store cannot be asked.
    pub(crate) failure: StoreFailure,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// There is not enough.
    Exceeded(Exceeded),
    /// The store cannot be asked, or there are too many buckets.
    Unavailable,
}

/// What stood against a call; nothing of it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotTaken {
    /// Which of the wants, by index.
    pub(crate) index: usize,
    /// Why.
    pub(crate) why: Why,
    /// What is left of that.
    pub(crate) left: Left,
}

/// The buckets of one store. Dropping it ends its task when what is held has been settled.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    /// What the keys of this Gateway begin with.
    tag: String,
    /// What this process is called at the store.
    process: String,
    replicas: u32,
    accounts: [Mutex<HashMap<AccountId, Arc<Account>>>; SHARDS],
    count: AtomicUsize,
    /// Accounts ever made.
    made: AtomicU64,
    /// Accounts that may have something to say.
    active: Mutex<Vec<Arc<Account>>>,
    started: Instant,
    /// Microseconds since 1970 by the store's clock when this process began.
    began_us: AtomicI64,
    epoch: AtomicU64,
    /// Processes that the store has last counted.
    alive: AtomicU32,
    has_lost: AtomicBool,
    /// How many processes have to restate what the store has lost; 0 of none.
    missing: AtomicU32,
    is_closing: AtomicBool,
    wake: Notify,
}

impl Shared {
    /// The buckets of a Gateway in a store. Connects by itself, for as long as it is used.
    pub(crate) fn new(
        settings: &LimitStore,
        gateway: &ObjectName,
        connector: Arc<Connector>,
        metrics: StoreMetrics,
    ) -> Self {
        let mut process = [0; 8];
        rand::rng().fill_bytes(&mut process);
        let began_us = unix_seconds().saturating_mul(1_000_000);
        let inner = Arc::new(Inner {
            link: Link::new(settings.clone(), connector, metrics),
            tag: format!("waypoint:1:{{{gateway}}}:"),
            process: hex(&process),
            replicas: settings.replicas.get(),
            accounts: array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            active: Mutex::default(),
            started: Instant::now(),
            began_us: AtomicI64::new(i64::try_from(began_us).unwrap_or(i64::MAX)),
            epoch: AtomicU64::new(0),
            alive: AtomicU32::new(0),
            has_lost: AtomicBool::new(false),
            missing: AtomicU32::new(0),
            is_closing: AtomicBool::new(false),
            wake: Notify::new(),
        });
        tokio::spawn(tend::run(Arc::clone(&inner)));
        Self { inner }
    }

    /// Takes what a call wants of all buckets, or of none. Does not wait where leases are enough.
    ///
    /// # Errors
    /// The first want that cannot be met.
    pub(crate) fn take(
        &self,
        wants: &[Want<'_>],
    ) -> impl Future<Output = Result<SmallVec<[Hold; 2]>, NotTaken>> {
        Inner::take(&self.inner, wants)
    }

    /// How many buckets are known.
    pub(crate) fn buckets(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Gives all leases back, as well as can be done in the time that one question may take.
    pub(crate) async fn close(&self) {
        self.inner.give_back().await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.is_closing.store(true, Ordering::Release);
        self.inner.link.retire();
        self.inner.wake.notify_one();
    }
}

impl Inner {
    /// Nanoseconds since this process began.
    fn now_ns(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Seconds since 1970 by the store's clock.
    fn unix_s(&self) -> u64 {
        let began = self.began_us.load(Ordering::Relaxed);
        let now = began.saturating_add(self.now_ns() / 1000);
        now.max(0).unsigned_abs() / 1_000_000
    }

    /// How many processes a limit is divided among while the store is down.
    fn shares(&self) -> u64 {
        self.alive.load(Ordering::Relaxed).max(self.replicas).into()
    }

    /// The account of a bucket in the present period.
    fn account(&self, digest: [u8; 16], number: Number, measure: Measure) -> Option<Arc<Account>> {
        let (period, ends_s) = match measure {
            Measure::Budget { calendar, .. } => calendar.at(self.unix_s()),
            Measure::Rate { .. } | Measure::Slots { .. } => (0, 0),
        };
        let id = AccountId {
            digest,
            number,
            period,
        };
        let [first, ..] = digest;
        let shard = self.accounts.get(usize::from(first) % SHARDS)?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = shard.get(&id) {
            return Some(Arc::clone(account));
        }
        if self.count.load(Ordering::Relaxed) >= MAX {
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let field = format!("{}.{number:x}", self.process);
        let named = (self.tag.as_str(), field);
        let account = Arc::new(Account::new(id, named, ends_s, measure, self.now_ns()));
        shard.insert(id, Arc::clone(&account));
        Some(account)
    }

    /// Puts an account on the list of the background task.
    fn list(&self, account: &Arc<Account>) {
        let mut ledger = account.ledger();
        if ledger.is_quiet() || ledger.is_listed {
            return;
        }
        ledger.is_listed = true;
        drop(ledger);
        self.active().push(Arc::clone(account));
    }

    fn active(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Account>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something of several buckets: whether all gave what was asked for, and what each is
    /// missing that has no room. The flights of all are held.
    async fn state(
        &self,
        said: &[(&Account, Statement)],
    ) -> Result<(bool, SmallVec<[Option<u64>; 2]>), Down> {
        let now_s = self.unix_s();
        let epoch_key = self.epoch_key();
        let known = self.epoch.load(Ordering::Acquire);
        let fill = |command: &mut redis::Cmd| {
            command.arg(said.len() + 1).arg(&epoch_key);
            for (account, _) in said {
                command.arg(&account.key);
            }
            command.arg(known);
            for (account, statement) in said {
                say(command, account, statement, now_s);
            }
        };
        let numbers = self.link.ask(&TAKE, fill).await?;
        let answer = Answer::read(numbers, said.len()).ok_or(Down::Answer)?;
        self.note(answer.header);
        let now = self.now_ns();
        let mut missing = SmallVec::new();
        for ((account, statement), (status, told)) in said.iter().zip(answer.buckets()) {
            if status != Status::Old {
                account
                    .ledger()
                    .acknowledge(&told, statement.measure, answer.header.epoch, now);
            }
            let lacks = statement.measure.of_stated(told.missing);
            missing.push((status == Status::NoRoom).then_some(lacks));
        }
        Ok((answer.is_taken, missing))
    }

    /// Says that this process is alive and has nothing else to say, or only looks, and hears of the
    /// others.
    async fn beat(&self, process: &str) -> Result<(), Down> {
        let (epoch_key, alive_key) = (self.epoch_key(), format!("{}alive", self.tag));
        let known = self.epoch.load(Ordering::Acquire);
        let fill = |command: &mut redis::Cmd| {
            command.arg(2).arg(&epoch_key).arg(&alive_key);
            command.arg(process).arg(known);
        };
        let numbers = self.link.ask(&BEAT, fill).await?;
        let &[now_us, epoch, alive] = numbers.as_slice() else {
            return Err(Down::Answer);
        };
        self.note(Header {
            now_us,
            epoch: u64::try_from(epoch).map_err(|_| Down::Answer)?,
        });
        let alive = u32::try_from(alive).unwrap_or(0);
        let missing = self.missing.load(Ordering::Acquire);
        let epoch_ends = epoch.saturating_add(RESTATED.as_micros().try_into().unwrap_or(i64::MAX));
        if missing == 0 || alive >= missing || now_us >= epoch_ends {
            self.missing.store(0, Ordering::Release);
            self.alive.store(alive, Ordering::Relaxed);
        }
        Ok(())
    }

    fn epoch_key(&self) -> String {
        format!("{}epoch", self.tag)
    }

    /// Takes over the store's clock, and sees whether it has lost its data.
    fn note(&self, header: Header) {
        let began = header.now_us.saturating_sub(self.now_ns() / 1000);
        self.began_us.store(began, Ordering::Relaxed);
        let before = self.epoch.swap(header.epoch, Ordering::AcqRel);
        if before != header.epoch && before != 0 {
            tracing::warn!("limit store has lost its data; what is known here is stated again");
            let all = self.alive.load(Ordering::Relaxed).max(1);
            self.missing.store(all, Ordering::Release);
            self.has_lost.store(true, Ordering::Release);
            self.wake.notify_one();
        }
    }

    /// Whether others have not said yet what the store has lost.
    fn is_restating(&self) -> bool {
        self.missing.load(Ordering::Acquire) > 0
    }

    /// How long until there may be room.
    fn wait(&self, account: &Account, measure: Measure, missing: u64) -> Duration {
        match measure {
            Measure::Rate { .. } => Duration::from_nanos(missing),
            Measure::Budget { .. } => {
                let left = account.ends_s.saturating_sub(self.unix_s());
                Duration::from_secs(left.max(1))
            }
            Measure::Slots { .. } => CONCURRENCY_WAIT,
        }
    }
}

//! Usage limits: what a call may use is reserved before it is made, and settled when it has ended.

mod estimate;
mod reservation;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use waypoint_config::{LimitStore, Snapshot};
use waypoint_llm::{Price, Usage, cost};
use waypoint_policy::limit::{
    Exceeded, ExhaustedStatus, Kinds, Looked, NotEntered, Now, Rates, Slot, Store, Subject, Table,
    Tokens, UnknownModel, UsageLimit, bucket_key,
};
use waypoint_policy::{By, Code, Mode, ObjectName, Refusal, RuleName};

use crate::exchange::Connector;
pub(crate) use estimate::Estimate;
use estimate::Estimates;
use reservation::Part;
pub use reservation::{Reservation, Used};
use shared::Shared;
pub(crate) use shared::StoreMetrics;
use shared::part::{self, Asked};

/// How often buckets that are full again are forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// Waits up to this are a matter of rate, longer ones of quota: no SDK is told to sleep longer.
const SHORT: Duration = Duration::from_secs(60);
/// When a call may have ended that keeps another out.
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// What a call will use, as far as is known before it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// The part of the input that is certain: the rest is a guess of ours.
    pub least_input: u64,
    /// Where the output is a guess of ours: with how little of it the call may begin. A guess never
    /// makes a call too large for a limit, and keeps none waiting for which enough is left.
    pub least_output: Option<u64>,
    /// What its tokens cost; `None` where nobody knows, or nothing of it costs anything.
    pub price: Option<Price>,
    /// Whether it has a price at all, known or not: calls of MCP and lists of models have none.
    pub is_billed: bool,
}

impl Ask {
    /// What is asked of a limit: of a guess, what it ever has room for.
    fn within(self, limit: &UsageLimit) -> Self {
        let mut fitting = self;
        if let Some(tokens) = &limit.tokens {
            fitting = fitting.shrunk((0, tokens.meter().capacity()), |ask| {
                tokens.count.of(ask.input, ask.output)
            });
        }
        if let Some(money) = &limit.cost {
            fitting = fitting.shrunk((0, money.meter().capacity()), |ask| {
                ask.cost(ask.input, ask.output)
            });
        }
        fitting
    }

    /// The same with its guesses made so small that it fits into `room`, as far as that is
    /// possible: the output first, down to `least`.
    fn shrunk(self, (least, room): (u64, u64), units: impl Fn(Self) -> u64) -> Self {
        let mut ask = self;
        if units(ask) <= room {
            return ask;
        }
        let least = match self.least_output {
            Some(_) => least.min(self.output),
            None => self.output,
        };
        ask.output = most(least, self.output, |output| {
            units(Self { output, ..self }) <= room
        });
        if units(ask) > room {
            let least = self.least_input.min(self.input);
            ask.input = most(least, self.input, |input| {
                units(Self { input, ..ask }) <= room
            });
        }
        ask
    }

    /// The units of tokens that were used.
    fn tokens_of(&self, tokens: &Tokens, used: Used) -> u64 {
        let (input, output) = self.known(used);
        tokens.count.of(input, output)
    }

    /// The micro-USD that were used.
    fn cost_of(&self, used: Used) -> u64 {
        let (input, output) = self.known(used);
        used.cost.unwrap_or_else(|| self.cost(input, output))
    }

    fn known(&self, used: Used) -> (u64, u64) {
        let input = used.input.unwrap_or(self.input);
        (input, used.output.unwrap_or(self.output))
    }

    /// What so many tokens cost, in micro-USD.
    fn cost(&self, input: u64, output: u64) -> u64 {
        let usage = Usage {
            input: Some(input),
            output: Some(output),
            ..Usage::default()
        };
        self.price.as_ref().map_or(0, |price| cost(price, &usage))
    }
}

/// The largest number of a range that fits, or the smallest of all.
fn most(least: u64, most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (least, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match fits(middle) {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    low
}

/// A limit of which much is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The limit.
    pub limit: Arc<UsageLimit>,
    /// The highest of its thresholds that is reached, in percent.
    pub at: u8,
}

/// All buckets of the process. Configurations come and go; buckets stay, by the names of limits.
#[derive(Debug)]
pub struct Limits {
    table: Table,
    estimates: Estimates,
    started: Instant,
    /// Seconds from 1970 to `started`, by the clock as it was last looked at: reading two clocks for
    /// each call would cost as much as the rest.
    started_unix_s: AtomicU64,
    shared: ArcSwapOption<Kept>,
}

/// The buckets of a store, and what they were made for.
#[derive(Debug)]
struct Kept {
    settings: LimitStore,
    gateway: ObjectName,
    shared: Shared,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            table: Table::new(Table::MOST, [rand::random(), rand::random()]),
            estimates: Estimates::default(),
            started: Instant::now(),
            started_unix_s: AtomicU64::new(unix_seconds()),
            shared: ArcSwapOption::empty(),
        }
    }
}

impl Limits {
    /// The present, as meters count it.
    fn now(&self) -> Now {
        let elapsed = self.started.elapsed();
        let started = self.started_unix_s.load(Ordering::Relaxed);
        Now {
            monotonic_ns: i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX),
            unix_s: started.saturating_add(elapsed.as_secs()),
        }
    }

    /// Looks at the clock, which may have been set.
    fn look_at_clock(&self) {
        let started = unix_seconds().saturating_sub(self.started.elapsed().as_secs());
        self.started_unix_s.store(started, Ordering::Relaxed);
    }

    /// What is known of the calls to a provider's model.
    pub(crate) fn estimate(&self, provider: &str, model: &str) -> Arc<Estimate> {
        self.estimates.of(provider, model)
    }

    /// Keeps shared limits where a configuration says. What is kept in the same place already
    /// stays as it is.
    pub(crate) fn share(
        &self,
        snapshot: &Snapshot,
        connector: &Arc<Connector>,
        metrics: &StoreMetrics,
    ) {
        let settings = snapshot.parameters.limit_store.as_ref();
        let kept = self.shared.load();
        let is_same = match (&*kept, settings) {
            (None, None) => true,
            (Some(kept), Some(settings)) => {
                kept.settings == *settings && kept.gateway == snapshot.gateway
            }
            _ => false,
        };
        if is_same {
            return;
        }
        let kept = settings.map(|settings| {
            let gateway = &snapshot.gateway;
            let connector = Arc::clone(connector);
            Arc::new(Kept {
                settings: settings.clone(),
                gateway: gateway.clone(),
                shared: Shared::new(settings, gateway, connector, metrics.clone()),
            })
        });
        if kept.is_none() {
            metrics.up.reset();
        }
        self.shared.store(kept);
    }

    /// Gives back what was taken of shared limits in advance.
    pub(crate) async fn close(&self) {
        if let Some(kept) = self.shared.load_full() {
            kept.shared.close().await;
        }
    }

    /// Takes what a call will use from the bucket of each of its limits, or from none. Waits for a
    /// store only where one of them is shared; local ones are taken before that.
    ///
    /// Limits on trial that would refuse are told to `would_deny`.
    ///
    /// # Errors
    /// The refusal of the first limit, by name and local ones first, that has no room.
    pub fn reserve<'l>(
        self: &Arc<Self>,
        limits: impl IntoIterator<Item = &'l Arc<UsageLimit>>,
        subject: &Subject<'_>,
        ask: Ask,
        would_deny: &mut Vec<Arc<RuleName>>,
    ) -> impl Future<Output = Result<Reservation, Refusal>> {
        let mut asked = Vec::new();
        let local = limits.into_iter().filter(|limit| match limit.store {
            Store::Local => true,
            Store::Shared(failure) => {
                asked.push(Asked::new(limit, failure, subject, ask.within(limit)));
                false
            }
        });
        let reserved = self.reserve_local(local, subject, ask, would_deny);
        async move {
            let mut reservation = reserved?;
            if !asked.is_empty() {
                let kept = self.shared.load_full();
                let shared = kept.as_ref().map(|kept| &kept.shared);
                // Boxed: rarely waited for.
                let taken = Box::pin(part::take(shared, asked, would_deny)).await;
                reservation.share(taken?);
            }
            Ok(reservation)
        }
    }

    fn reserve_local<'l>(
        self: &Arc<Self>,
        limits: impl IntoIterator<Item = &'l Arc<UsageLimit>>,
        subject: &Subject<'_>,
        ask: Ask,
        would_deny: &mut Vec<Arc<RuleName>>,
    ) -> Result<Reservation, Refusal> {
        let now = self.now();
        let look = |limit: &'l Arc<UsageLimit>| {
            let key = bucket_key(limit, subject);
            (limit, self.table.look(key.as_bytes()))
        };
        let looked: SmallVec<[_; 4]> = limits.into_iter().map(look).collect();
        let mut reservation = Reservation::new(Arc::clone(self), looked.len());
        for (limit, looked) in looked {
            // Dropping what has been reserved gives it back.
            let refused = match self.enter(limit, looked) {
                Err(refusal) => Some(refusal),
                Ok(slot) => {
                    let part = reservation.add(Part::new(limit, slot, ask.within(limit)));
                    self.take(limit, part, now).err()
                }
            };
            match (refused, limit.mode) {
                (None, _) => {}
                (Some(refusal), Mode::Enforce) => return Err(refusal),
                (Some(_), Mode::DryRun) => {
                    reservation.give_up(limit, now);
                    would_deny.push(Arc::new(limit.rule_name()));
                }
            }
        }
        Ok(reservation)
    }

    fn enter(&self, limit: &UsageLimit, looked: Looked) -> Result<Slot, Refusal> {
        let most = limit.concurrency;
        if most == Some(0) {
            return Err(exhausted(limit, "calls at the same time"));
        }
        // One on trial is entered in any case, and looked at afterwards.
        let most = most.filter(|_| limit.is_enforced());
        let entered = self.table.enter(looked, Kinds::of(limit), most);
        entered.map_err(|why| {
            let refusal = match why {
                NotEntered::Full => Refusal::new(Code::RateLimited)
                    .with_message(message(limit, "calls at the same time", None))
                    .with_retry_after(CONCURRENCY_WAIT),
                NotEntered::Unavailable => return unavailable(limit),
            };
            refusal.decided_by(by(limit))
        })
    }

    /// Takes one call from one bucket; what was taken before a refusal stays in `part`, to be given
    /// back with it.
    fn take(&self, limit: &UsageLimit, part: &mut Part, now: Now) -> Result<(), Refusal> {
        let bucket = self.table.bucket(part.slot);
        let bucket = bucket.ok_or_else(|| Refusal::new(Code::LimitUnavailable))?;
        if let Some(most) = limit.concurrency
            && bucket.users() > most
        {
            // Of one on trial: what is in force is not even entered.
            return Err(Refusal::new(Code::RateLimited));
        }
        let told = |what, exceeded, rates| refusal(limit, what, exceeded).with_rates(rates);
        if let Some(requests) = &limit.requests {
            let meter = requests.meter();
            let taken = meter.take(&bucket.requests, now, 1).map_err(|exceeded| {
                let mut rates = Rates::default();
                rates.add_requests(meter.left(&bucket.requests, now));
                told("requests", exceeded, rates)
            })?;
            part.requests = Some(taken);
        }
        if let Some(tokens) = &limit.tokens {
            let meter = tokens.meter();
            let units = |ask: Ask| tokens.count.of(ask.input, ask.output);
            let taken = part
                .take(meter, &bucket.tokens, now, units)
                .map_err(|exceeded| {
                    let mut rates = Rates::default();
                    rates.add_tokens(tokens.count, meter.left(&bucket.tokens, now));
                    told("tokens", exceeded, rates)
                })?;
            part.tokens = Some(taken);
        }
        if let Some(money) = &limit.cost {
            let is_unknown = part.ask.is_billed && part.ask.price.is_none();
            if is_unknown && money.unknown_model == UnknownModel::Reject {
                return Err(price_unknown(limit));
            }
            let units = |ask: Ask| ask.cost(ask.input, ask.output);
            let taken = part.take(money.meter(), &bucket.cost, now, units);
            let taken = taken.map_err(|exceeded| told("money", exceeded, Rates::default()))?;
            part.cost = Some(taken);
        }
        Ok(())
    }

    /// Forgets buckets that are full again, for as long as the process runs.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP);
        loop {
            interval.tick().await;
            self.look_at_clock();
            // Beside the workers: there may be many.
            let limits = Arc::clone(&self);
            let swept = tokio::task::spawn_blocking(move || limits.table.sweep(limits.now()));
            if swept.await.is_err() {
                return;
            }
        }
    }

    /// How many buckets there are.
    pub(crate) fn buckets(&self) -> usize {
        let shared = self.shared.load();
        let shared = shared.as_ref().map_or(0, |kept| kept.shared.buckets());
        self.table.len() + shared
    }
}

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn refusal(limit: &UsageLimit, what: &str, exceeded: Exceeded) -> Refusal {
    if limit.is_stop() {
        return exhausted(limit, what);
    }
    let refusal = match exceeded {
        Exceeded::Forever => Refusal::new(Code::RequestExceedsLimit).with_message(format!(
            "the request needs more {what} than limit {} ever has",
            limit.name
        )),
        Exceeded::For(wait) if wait <= SHORT => Refusal::new(Code::RateLimited)
            .with_message(message(limit, what, Some(wait)))
            .with_retry_after(wait),
        Exceeded::For(wait) => quota(limit).with_message(message(limit, what, Some(wait))),
    };
    refusal.decided_by(by(limit))
}

/// The refusal of a limit that [stops everything](UsageLimit::is_stop).
pub(crate) fn stopped(limit: &UsageLimit) -> Refusal {
    exhausted(limit, "requests")
}

/// The refusal of a call whose price nobody knows.
fn price_unknown(limit: &UsageLimit) -> Refusal {
    let message = format!(
        "limit {} is of money, and the price of this model is not known",
        limit.name
    );
    Refusal::new(Code::PriceUnknown)
        .with_message(message)
        .decided_by(by(limit))
}

/// The refusal of a limit that cannot be counted.
fn unavailable(limit: &UsageLimit) -> Refusal {
    Refusal::new(Code::LimitUnavailable)
        .with_message(format!("limit {} cannot be counted now", limit.name))
        .with_retry_after(CONCURRENCY_WAIT)
        .decided_by(by(limit))
}

fn exhausted(limit: &UsageLimit, what: &str) -> Refusal {
    quota(limit)
        .with_message(message(limit, what, None))
        .decided_by(by(limit))
}

/// The refusal for long, with the limit's own status.
fn quota(limit: &UsageLimit) -> Refusal {
    let refusal = Refusal::new(Code::QuotaExhausted);
    match limit.exhausted_status {
        ExhaustedStatus::TooManyRequests => refusal,
        status => refusal.with_status(status.as_u16()),
    }
}

/// The limit's name and when there is room again; never how much was used, or by whom.
fn message(limit: &UsageLimit, what: &str, wait: Option<Duration>) -> String {
    let name = &limit.name;
    match wait {
        None => format!("limit {name} is exceeded: no more {what}"),
        Some(wait) => {
            let seconds = wait.as_millis().div_ceil(1000);
            let verb = if what == "money" { "is" } else { "are" };
            format!("limit {name} is exceeded: there {verb} {what} again in {seconds} s")
        }
    }
}

fn by(limit: &UsageLimit) -> By {
    By::Rule(Arc::new(limit.rule_name()))
}

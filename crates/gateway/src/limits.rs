//! Usage limits: what a call may use is reserved before it is made, and settled when it has ended.

mod estimate;
mod reservation;
#[expect(dead_code, reason = "calls do not take from it yet")]
pub(crate) mod shared;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use waypoint_policy::limit::{
    Exceeded, Now, OnExceeded, Rates, Subject, Tokens, UsageLimit, bucket_key,
};
use waypoint_policy::{By, Code, Effect, Mode, Refusal, RuleName};

pub(crate) use estimate::Estimate;
use estimate::Estimates;
pub use reservation::Reservation;
use reservation::{Part, TokenPart};
use store::{Buckets, Held, NotEntered};

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
    /// Whether the output is a guess of ours: a guess never makes a call too large for a limit.
    pub is_guess: bool,
}

impl Ask {
    /// What is asked of a limit with this capacity.
    fn within(self, tokens: &Tokens, capacity: u64) -> Self {
        if !self.is_guess {
            return self;
        }
        let room = capacity.saturating_sub(tokens.count.of(self.input, 0));
        let output = self.output.min(room);
        Self { output, ..self }
    }
}

/// All buckets of the process. Configurations come and go; buckets stay, by the names of limits.
#[derive(Debug)]
pub struct Limits {
    buckets: Buckets,
    estimates: Estimates,
    started: Instant,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buckets: Buckets::default(),
            estimates: Estimates::default(),
            started: Instant::now(),
        }
    }
}

impl Limits {
    /// The present, as meters count it.
    fn now(&self) -> Now {
        let elapsed = self.started.elapsed().as_nanos();
        Now {
            monotonic_ns: i64::try_from(elapsed).unwrap_or(i64::MAX),
            unix_s: unix_seconds(),
        }
    }

    /// What is known of the calls to a provider's model.
    pub(crate) fn estimate(&self, provider: &str, model: &str) -> Arc<Estimate> {
        self.estimates.of(provider, model)
    }

    /// Takes what a call will use from the bucket of each of its limits, or from none.
    ///
    /// Limits on trial that would refuse are told to `would_deny`.
    ///
    /// # Errors
    /// The refusal of the first limit, by name, that has no room.
    pub fn reserve<'l>(
        self: &Arc<Self>,
        limits: impl IntoIterator<Item = &'l UsageLimit>,
        subject: &Subject<'_>,
        ask: Ask,
        would_deny: &mut Vec<Arc<RuleName>>,
    ) -> Result<Reservation, Refusal> {
        let now = self.now();
        let mut reservation = Reservation::new(Arc::clone(self));
        for limit in limits {
            // Dropping what has been reserved gives it back.
            let refused = match self.enter(limit, subject) {
                Err(refusal) => Some(refusal),
                Ok(held) => {
                    // One on trial cuts nothing.
                    let on_exceeded = match limit.mode {
                        Mode::Enforce => limit.on_exceeded,
                        Mode::DryRun => OnExceeded::Reject,
                    };
                    let part = Part::new(limit, held, on_exceeded);
                    let part = reservation.add(part);
                    take(limit, part, now, ask).err()
                }
            };
            match (refused, limit.mode) {
                (None, _) => {}
                (Some(refusal), Mode::Enforce) => return Err(refusal),
                (Some(_), Mode::DryRun) => {
                    reservation.give_up(limit, now);
                    would_deny.push(Arc::new(rule_name(limit)));
                }
            }
        }
        Ok(reservation)
    }

    fn enter(&self, limit: &UsageLimit, subject: &Subject<'_>) -> Result<Arc<Held>, Refusal> {
        let most = limit.concurrency;
        if most == Some(0) {
            return Err(exhausted(limit, "calls at the same time"));
        }
        let key = bucket_key(limit, subject);
        self.buckets.enter(&key, limit).map_err(|why| {
            let refusal = match why {
                NotEntered::Full => Refusal::new(Code::RateLimited)
                    .with_message(message(limit, "calls at the same time", None))
                    .with_retry_after(CONCURRENCY_WAIT),
                NotEntered::Unavailable => Refusal::new(Code::LimitUnavailable),
            };
            refusal.decided_by(by(limit))
        })
    }

    /// Forgets buckets that are full again, for as long as the process runs.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP);
        loop {
            interval.tick().await;
            // Beside the workers: there may be many.
            let limits = Arc::clone(&self);
            let swept = tokio::task::spawn_blocking(move || limits.buckets.sweep(limits.now()));
            if swept.await.is_err() {
                return;
            }
        }
    }

    /// How many buckets there are.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }
}

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Whether a limit stops everything it is about, at once.
pub(crate) fn is_stop(limit: &UsageLimit) -> bool {
    limit.mode == Mode::Enforce
        && (limit.tokens.is_some_and(|tokens| tokens.limit == 0)
            || limit.requests.is_some_and(|requests| requests.limit == 0)
            || limit.concurrency == Some(0))
}

/// Takes one call from one bucket; what was taken before a refusal stays in `part`, to be given
/// back with it.
fn take(limit: &UsageLimit, part: &mut Part, now: Now, ask: Ask) -> Result<(), Refusal> {
    if let Some(most) = limit.concurrency
        && part.held.bucket.users() > most
    {
        // Of one on trial: what is in force is not even entered.
        return Err(Refusal::new(Code::RateLimited));
    }
    if let Some(requests) = &limit.requests {
        let meter = requests.meter();
        let taken = meter.take(&part.held.bucket.requests, now, 1);
        let taken = taken.map_err(|exceeded| {
            let mut rates = Rates::default();
            rates.add_requests(meter.left(&part.held.bucket.requests, now));
            refusal(limit, "requests", exceeded).with_rates(rates)
        })?;
        part.requests = Some((meter, taken));
    }
    if let Some(tokens) = &limit.tokens {
        let meter = tokens.meter();
        let ask = ask.within(tokens, meter.capacity());
        let units = tokens.count.of(ask.input, ask.output);
        let taken = meter.take(&part.held.bucket.tokens, now, units);
        let taken = taken.map_err(|exceeded| {
            let mut rates = Rates::default();
            rates.add_tokens(tokens.count, meter.left(&part.held.bucket.tokens, now));
            refusal(limit, "tokens", exceeded).with_rates(rates)
        })?;
        part.tokens = Some(TokenPart {
            meter,
            count: tokens.count,
            ask,
            taken,
        });
    }
    Ok(())
}

fn refusal(limit: &UsageLimit, what: &str, exceeded: Exceeded) -> Refusal {
    if is_stop(limit) {
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
        Exceeded::For(wait) => {
            Refusal::new(Code::QuotaExhausted).with_message(message(limit, what, Some(wait)))
        }
    };
    refusal.decided_by(by(limit))
}

/// The refusal of a limit that [stops everything](is_stop).
pub(crate) fn stopped(limit: &UsageLimit) -> Refusal {
    exhausted(limit, "requests")
}

fn exhausted(limit: &UsageLimit, what: &str) -> Refusal {
    Refusal::new(Code::QuotaExhausted)
        .with_message(message(limit, what, None))
        .decided_by(by(limit))
}

/// The limit's name and when there is room again; never how much was used, or by whom.
fn message(limit: &UsageLimit, what: &str, wait: Option<Duration>) -> String {
    let name = &limit.name;
    match wait {
        None => format!("limit {name} is exceeded: no more {what}"),
        Some(wait) => {
            let seconds = wait.as_millis().div_ceil(1000);
            format!("limit {name} is exceeded: there are {what} again in {seconds} s")
        }
    }
}

fn by(limit: &UsageLimit) -> By {
    By::Rule(Arc::new(rule_name(limit)))
}

fn rule_name(limit: &UsageLimit) -> RuleName {
    RuleName {
        kind: "UsageLimit",
        policy: limit.name.clone(),
        rule: Arc::from(""),
        effect: Effect::Deny,
        mode: limit.mode,
    }
}

//! What one call holds of its limits, settled exactly once: when it is dropped.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use waypoint_policy::limit::{
    Cut, Exceeded, Meter, Now, OnExceeded, Rates, Slot, Taken, UsageLimit,
};
use waypoint_policy::{Code, Mode, Refusal};

use super::shared::part::SharedPart;
use super::{Ask, Limits, Warning, by};

/// Output tokens that a running stream takes at a time: what it can go beyond its limit.
pub(super) const LEASE: u64 = 128;

/// What a call used; what is not known counts as it was estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Input tokens.
    pub input: Option<u64>,
    /// Output tokens.
    pub output: Option<u64>,
    /// Micro-USD; from the tokens where it is not known.
    pub cost: Option<u64>,
}

/// What became of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was not sent: nothing was used.
    Unsent,
    /// It was sent, and nobody knows what it used.
    Sent,
    /// It was a call, and used no tokens.
    Refused,
    /// It used this.
    Used(Used),
}

/// What a call holds. Dropping it settles: what was not used goes back, what was used beyond it is
/// owed.
#[derive(Debug)]
pub struct Reservation {
    limits: Arc<Limits>,
    /// On the heap: a reservation moves often.
    parts: Vec<Part>,
    /// Of the limits that several gateways share.
    shared: Vec<SharedPart>,
    outcome: Outcome,
    cut: Option<Cut>,
}

/// What is held of one limit.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) limit: Arc<UsageLimit>,
    pub(super) slot: Slot,
    /// What was estimated when it was taken.
    pub(super) ask: Ask,
    pub(super) tokens: Option<Taken>,
    pub(super) requests: Option<Taken>,
    pub(super) cost: Option<Taken>,
}

impl Part {
    /// A part that holds nothing but its bucket, which it leaves when it is settled.
    pub(super) fn new(limit: &Arc<UsageLimit>, slot: Slot, ask: Ask) -> Self {
        Self {
            limit: Arc::clone(limit),
            slot,
            ask,
            tokens: None,
            requests: None,
            cost: None,
        }
    }

    /// Takes what is asked for, or of a guess what is left.
    pub(super) fn take(
        &mut self,
        meter: Meter,
        word: &AtomicU64,
        now: Now,
        units: impl Fn(Ask) -> u64,
    ) -> Result<Taken, Exceeded> {
        let taken = meter.take(word, now, units(self.ask));
        let (Err(Exceeded::For(_)), Some(least)) = (&taken, self.ask.least_output) else {
            return taken;
        };
        let left = u64::try_from(meter.remaining(word, now)).unwrap_or(0);
        let less = self.ask.shrunk((least, left), &units);
        // Of the input nothing is guessed away: it is used in any case.
        if less.input < self.ask.input || units(less) > left {
            return taken;
        }
        self.ask = less;
        meter.take(word, now, units(less))
    }

    fn settle(&self, limits: &Limits, outcome: Outcome, now: Now) {
        let Some(bucket) = limits.table.bucket(self.slot) else {
            return;
        };
        if let (Some(taken), Some(tokens)) = (self.tokens, &self.limit.tokens) {
            let units = match outcome {
                Outcome::Unsent | Outcome::Refused => 0,
                Outcome::Sent => taken.units,
                Outcome::Used(used) => self.ask.tokens_of(tokens, used),
            };
            tokens.meter().settle(&bucket.tokens, now, taken, units);
        }
        if let (Some(taken), Some(money)) = (self.cost, &self.limit.cost) {
            let units = match outcome {
                Outcome::Unsent | Outcome::Refused => 0,
                Outcome::Sent => taken.units,
                Outcome::Used(used) => self.ask.cost_of(used),
            };
            money.meter().settle(&bucket.cost, now, taken, units);
        }
        if let (Some(taken), Some(requests), Outcome::Unsent) =
            (self.requests, &self.limit.requests, outcome)
        {
            requests.meter().settle(&bucket.requests, now, taken, 0);
        }
        // Last: a bucket that nobody uses may be forgotten.
        bucket.leave();
    }

    /// The highest threshold that is reached by any of its numbers.
    fn warning(&self, limits: &Limits, now: Now) -> Option<Warning> {
        if self.limit.warn_at.is_empty() {
            return None;
        }
        let bucket = limits.table.bucket(self.slot)?;
        let percent =
            |meter: Option<Meter>, word| meter.map_or(0, |meter| meter.used_percent(word, now));
        let [tokens, requests, cost] = self.limit.meters();
        let users = u64::from(bucket.users()) * 100;
        let concurrency = self.limit.concurrency.map(u64::from);
        let used = percent(tokens, &bucket.tokens)
            .max(percent(requests, &bucket.requests))
            .max(percent(cost, &bucket.cost))
            .max(concurrency.map_or(0, |most| users.checked_div(most).unwrap_or(100)));
        let mut reached = self.limit.warn_at.iter().rev();
        let at = *reached.find(|&&at| u64::from(at) <= used)?;
        Some(Warning {
            limit: Arc::clone(&self.limit),
            at,
        })
    }

    /// Takes what a stream has used beyond what is held.
    fn grow(&mut self, limits: &Limits, used: Used) -> Result<(), Refusal> {
        let Some(bucket) = limits.table.bucket(self.slot) else {
            return Ok(());
        };
        // One on trial cuts nothing.
        let cuts = self.limit.on_exceeded == OnExceeded::Cut && self.limit.mode == Mode::Enforce;
        let more = |meter: Meter, mut taken: Taken, word, used: u64, lease: u64| {
            let missing = used.saturating_sub(taken.units);
            if missing == 0 {
                return Ok(taken);
            }
            let units = missing.div_ceil(lease).saturating_mul(lease);
            let now = limits.now();
            let _leased = match cuts {
                true => meter.take(word, now, units)?,
                false => meter.charge(word, now, units),
            };
            taken.units = taken.units.saturating_add(units);
            Ok(taken)
        };
        if let (Some(taken), Some(tokens)) = (self.tokens, &self.limit.tokens) {
            let used = self.ask.tokens_of(tokens, used);
            let grown = more(tokens.meter(), taken, &bucket.tokens, used, LEASE);
            self.tokens = Some(grown.map_err(|exceeded| cut(&self.limit, "tokens", exceeded))?);
        }
        if let (Some(taken), Some(money)) = (self.cost, &self.limit.cost) {
            let lease = self.ask.cost(0, LEASE).max(1);
            let used = self.ask.cost_of(used);
            let grown = more(money.meter(), taken, &bucket.cost, used, lease);
            self.cost = Some(grown.map_err(|exceeded| cut(&self.limit, "money", exceeded))?);
        }
        Ok(())
    }
}

impl Reservation {
    /// One that holds nothing yet, with room for so many parts.
    pub(super) fn new(limits: Arc<Limits>, parts: usize) -> Self {
        Self {
            limits,
            parts: Vec::with_capacity(parts),
            shared: Vec::new(),
            outcome: Outcome::Unsent,
            cut: None,
        }
    }

    /// Settles what is held of one limit as if the call had not been made.
    pub(super) fn give_up(&mut self, limit: &Arc<UsageLimit>, now: Now) {
        self.parts.retain(|part| {
            let stays = !Arc::ptr_eq(&part.limit, limit);
            if !stays {
                part.settle(&self.limits, Outcome::Unsent, now);
            }
            stays
        });
    }

    pub(super) fn add(&mut self, part: Part) -> &mut Part {
        let at = self.parts.len();
        self.parts.push(part);
        &mut self.parts[at]
    }

    /// Holds this of shared limits too.
    pub(super) fn share(&mut self, shared: Vec<SharedPart>) {
        self.shared = shared;
    }

    /// The limits of which much is used.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> {
        let is_warned = |part: &&Part| !part.limit.warn_at.is_empty();
        let now = self.parts.iter().any(|part| is_warned(&part));
        let now = now.then(|| self.limits.now());
        let parts = self.parts.iter();
        let local = parts.filter_map(move |part| part.warning(&self.limits, now?));
        local.chain(self.shared.iter().filter_map(SharedPart::warning))
    }

    /// How the stream is cut whose limit has refused to [`grow`](Self::grow).
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Whether a stream may have to end as if it were complete.
    pub(crate) fn may_finish(&self) -> bool {
        let local = self.parts.iter().map(|part| &part.limit);
        let mut limits = local.chain(self.shared.iter().map(|part| &part.limit));
        limits.any(|limit| limit.on_exceeded == OnExceeded::Cut && limit.cut == Cut::Finish)
    }

    /// The call goes to another target, where it is counted anew: it is one call.
    pub(crate) fn moved(mut self) {
        let now = self.limits.now();
        for part in &mut self.parts {
            let bucket = self.limits.table.bucket(part.slot);
            if let (Some(taken), Some(requests), Some(bucket)) =
                (part.requests.take(), &part.limit.requests, bucket)
            {
                requests.meter().settle(&bucket.requests, now, taken, 0);
            }
        }
        self.shared.iter_mut().for_each(SharedPart::moved);
    }

    /// The call is on its way: what it uses cannot be known until it answers.
    pub fn sent(&mut self) {
        self.outcome = Outcome::Sent;
    }

    /// The upstream did not do it.
    pub(crate) fn refused(&mut self) {
        self.outcome = Outcome::Refused;
    }

    /// The call used this.
    pub fn used(&mut self, used: Used) {
        self.outcome = Outcome::Used(used);
    }

    /// The same call is made again. Where nobody knows what became of the try before, it may have
    /// been made and billed: it keeps what it held, and what the next one uses is counted beside it.
    pub(crate) fn again(&mut self) {
        if self.outcome != Outcome::Sent {
            return;
        }
        let now = self.limits.now();
        for part in &self.parts {
            let Some(bucket) = self.limits.table.bucket(part.slot) else {
                continue;
            };
            let [tokens, _, cost] = part.limit.meters();
            let numbers = [
                (tokens, part.tokens, &bucket.tokens),
                (cost, part.cost, &bucket.cost),
            ];
            for (meter, taken, word) in numbers {
                if let (Some(meter), Some(taken)) = (meter, taken) {
                    let _lost = meter.charge(word, now, taken.units);
                }
            }
        }
        self.shared.iter().for_each(SharedPart::again);
        // The next one has not been sent yet.
        self.outcome = Outcome::Refused;
    }

    /// What is left of the limits in force.
    pub(crate) fn rates(&self) -> Rates {
        let now = self.limits.now();
        let mut rates = Rates::default();
        for part in self.parts.iter().filter(|part| part.limit.is_enforced()) {
            let Some(bucket) = self.limits.table.bucket(part.slot) else {
                continue;
            };
            if let Some(requests) = &part.limit.requests {
                rates.add_requests(requests.meter().left(&bucket.requests, now));
            }
            if let Some(tokens) = &part.limit.tokens {
                rates.add_tokens(tokens.count, tokens.meter().left(&bucket.tokens, now));
            }
        }
        for part in self.shared.iter().filter(|part| part.limit.is_enforced()) {
            part.tell(&mut rates);
        }
        rates
    }

    /// Settles now, and says what is left.
    pub fn settle(mut self) -> Rates {
        self.settle_all();
        let rates = self.rates();
        // Nothing is left for the end of it.
        self.parts.clear();
        self.shared.clear();
        rates
    }

    fn settle_all(&mut self) {
        if !self.parts.is_empty() {
            let now = self.limits.now();
            for part in &self.parts {
                part.settle(&self.limits, self.outcome, now);
            }
        }
        for part in &mut self.shared {
            part.settle(self.outcome);
        }
    }

    /// Takes more for a stream that has used so much, where it holds less. Its input, when the
    /// provider has counted it, may be more than was estimated.
    ///
    /// # Errors
    /// The refusal of a limit that cuts streams and has no more.
    pub(crate) async fn grow(&mut self, input: Option<u64>, output: u64) -> Result<(), Refusal> {
        let used = Used {
            input,
            output: Some(output),
            cost: None,
        };
        for part in &mut self.parts {
            let grown = part.grow(&self.limits, used);
            if let Err(refusal) = grown {
                self.cut = Some(part.limit.cut);
                return Err(refusal);
            }
        }
        for part in &mut self.shared {
            if let Err(refusal) = part.grow(used).await {
                self.cut = Some(part.limit.cut);
                return Err(refusal);
            }
        }
        Ok(())
    }
}

/// The refusal that ends a running stream.
pub(super) fn cut(limit: &UsageLimit, what: &str, exceeded: Exceeded) -> Refusal {
    let verb = if what == "money" { "is" } else { "are" };
    let message = format!(
        "limit {} is exceeded: there {verb} no more {what}",
        limit.name
    );
    let refusal = Refusal::new(Code::QuotaExhausted)
        .with_message(message)
        .decided_by(by(limit));
    match exceeded {
        Exceeded::For(wait) => refusal.with_retry_after(wait),
        Exceeded::Forever => refusal,
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle_all();
    }
}

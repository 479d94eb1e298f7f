//! What one call holds of one limit that several gateways share.

use std::sync::Arc;

use smallvec::SmallVec;
use waypoint_policy::limit::{
    Exceeded, Key, Left, OnExceeded, Rates, StoreFailure, Subject, UnknownModel, UsageLimit,
    bucket_key,
};
use waypoint_policy::{Code, Mode, Refusal, RuleName};

use super::super::reservation::{LEASE, Outcome, cut};
use super::super::{
    Ask, CONCURRENCY_WAIT, Used, Warning, by, exhausted, message, price_unknown, refusal,
    unavailable,
};
use super::{Amount, Hold, NotTaken, Number, Shared, Want, Why};

impl Number {
    /// What callers are told it is.
    fn what(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests => "requests",
            Self::Cost => "money",
            Self::Concurrency => "calls at the same time",
        }
    }
}

/// A shared limit of a call that has not been taken yet.
#[derive(Debug)]
pub(in super::super) struct Asked {
    limit: Arc<UsageLimit>,
    ask: Ask,
    failure: StoreFailure,
    key: Key,
}

impl Asked {
    /// What is asked of a limit; `ask` is what it has room for of a guess.
    pub(in super::super) fn new(
        limit: &Arc<UsageLimit>,
        failure: StoreFailure,
        subject: &Subject<'_>,
        ask: Ask,
    ) -> Self {
        Self {
            limit: Arc::clone(limit),
            ask,
            // One on trial has nothing to refuse, and nothing to count later.
            failure: match limit.mode {
                Mode::Enforce => failure,
                Mode::DryRun => StoreFailure::Closed,
            },
            key: bucket_key(limit, subject),
        }
    }

    /// The same with the least output that it may begin with.
    fn least(&self) -> Self {
        let mut ask = self.ask;
        ask.output = ask.least_output.unwrap_or(ask.output).min(ask.output);
        Self {
            limit: Arc::clone(&self.limit),
            ask,
            failure: self.failure,
            key: self.key.clone(),
        }
    }

    /// Whether it may begin with less than is asked for.
    fn is_guess(&self) -> bool {
        let least = self.ask.least_output;
        least.is_some_and(|least| least < self.ask.output)
    }

    fn is_enforced(&self) -> bool {
        self.limit.is_enforced()
    }

    /// Its numbers, in the order in which they are looked at.
    fn wants(&self) -> SmallVec<[Want<'_>; 4]> {
        let limit = &self.limit;
        let slots = limit.concurrency.map(Amount::Slots);
        let requests = limit.requests.map(|requests| requests.meter());
        let tokens = limit.tokens.map(|tokens| {
            let units = tokens.count.of(self.ask.input, self.ask.output);
            (Amount::Meter(tokens.meter()), units)
        });
        let cost = limit.cost.map(|cost| {
            let units = self.ask.cost(self.ask.input, self.ask.output);
            (Amount::Meter(cost.meter()), units)
        });
        let numbers = [
            (Number::Concurrency, slots.map(|slots| (slots, 1))),
            (
                Number::Requests,
                requests.map(|meter| (Amount::Meter(meter), 1)),
            ),
            (Number::Tokens, tokens),
            (Number::Cost, cost),
        ];
        let want = |(number, asked): (Number, Option<(Amount, u64)>)| {
            let (amount, units) = asked?;
            Some(Want {
                key: self.key.as_bytes(),
                number,
                amount,
                units,
                failure: self.failure,
            })
        };
        numbers.into_iter().filter_map(want).collect()
    }

    /// The refusal of a call whose price nobody knows.
    fn price(&self) -> Result<(), Refusal> {
        let is_unknown = self.ask.is_billed && self.ask.price.is_none();
        match self.limit.cost {
            Some(cost) if is_unknown && cost.unknown_model == UnknownModel::Reject => {
                Err(price_unknown(&self.limit))
            }
            _ => Ok(()),
        }
    }

    fn refusal(&self, number: Number, not: &NotTaken) -> Refusal {
        let (limit, what) = (&*self.limit, number.what());
        let exceeded = match not.why {
            Why::Exceeded(exceeded) => exceeded,
            Why::Unavailable => {
                return unavailable(limit);
            }
        };
        match number {
            Number::Concurrency if limit.is_stop() => exhausted(limit, what),
            Number::Concurrency => Refusal::new(Code::RateLimited)
                .with_message(message(limit, what, None))
                .with_retry_after(CONCURRENCY_WAIT)
                .decided_by(by(limit)),
            _ => {
                let mut rates = Rates::default();
                add(&mut rates, limit, number, not.left);
                refusal(limit, what, exceeded).with_rates(rates)
            }
        }
    }
}

/// Counts what is left of a number in.
fn add(rates: &mut Rates, limit: &UsageLimit, number: Number, left: Left) {
    match (number, &limit.tokens) {
        (Number::Requests, _) => rates.add_requests(left),
        (Number::Tokens, Some(tokens)) => rates.add_tokens(tokens.count, left),
        _ => {}
    }
}

/// Takes what a call wants of all its shared limits, or of none. Limits on trial are taken one by
/// one: those that would refuse are told to `would_deny`, and those that cannot be asked are left
/// out.
///
/// # Errors
/// The refusal of the first limit, by name, that has no room.
pub(in super::super) async fn take(
    shared: Option<&Shared>,
    asked: Vec<Asked>,
    would_deny: &mut Vec<Arc<RuleName>>,
) -> Result<Vec<SharedPart>, Refusal> {
    let (enforced, on_trial): (Vec<_>, Vec<_>) = asked.into_iter().partition(Asked::is_enforced);
    let mut wants = SmallVec::<[Want<'_>; 4]>::new();
    let mut owners = SmallVec::<[&Asked; 4]>::new();
    for asked in &enforced {
        asked.price()?;
        for want in asked.wants() {
            wants.push(want);
            owners.push(asked);
        }
    }
    let mut parts = Vec::with_capacity(enforced.len() + on_trial.len());
    if let Some(first) = enforced.first() {
        // The configuration has a store where a limit is shared; one that has just lost it has not.
        let shared = shared.ok_or_else(|| unavailable(&first.limit))?;
        let mut taken = shared.take(&wants).await;
        let less: Vec<Asked>;
        let mut held = enforced.as_slice();
        if let Err(not) = &taken
            && matches!(not.why, Why::Exceeded(Exceeded::For(_)))
            && owners.get(not.index).is_some_and(|asked| asked.is_guess())
        {
            // What is guessed waits for nothing that is left.
            less = enforced.iter().map(Asked::least).collect();
            held = &less;
            let wants: SmallVec<[Want<'_>; 4]> = less.iter().flat_map(Asked::wants).collect();
            taken = shared.take(&wants).await;
        }
        let holds = taken.map_err(|not| match (owners.get(not.index), wants.get(not.index)) {
            (Some(asked), Some(want)) => asked.refusal(want.number, &not),
            _ => Refusal::new(Code::LimitUnavailable),
        })?;
        let mut holds = holds.into_iter();
        for asked in held {
            let count = asked.wants().len();
            parts.push(SharedPart::new(asked, holds.by_ref().take(count)));
        }
    }
    for asked in &on_trial {
        let exceeded = match (asked.price(), shared) {
            (Err(_), _) => true,
            (Ok(()), None) => false,
            (Ok(()), Some(shared)) => match shared.take(&asked.wants()).await {
                Ok(holds) => {
                    parts.push(SharedPart::new(asked, holds));
                    false
                }
                Err(not) => not.why != Why::Unavailable,
            },
        };
        if exceeded {
            would_deny.push(Arc::new(asked.limit.rule_name()));
        }
    }
    Ok(parts)
}

/// What is held of one limit, as [`Part`](super::super::reservation::Part) is of a local one.
#[derive(Debug)]
pub(in super::super) struct SharedPart {
    pub(in super::super) limit: Arc<UsageLimit>,
    ask: Ask,
    tokens: Option<Hold>,
    requests: Option<Hold>,
    cost: Option<Hold>,
    /// Comes back when it is dropped.
    slot: Option<Hold>,
}

impl SharedPart {
    fn new(asked: &Asked, holds: impl IntoIterator<Item = Hold>) -> Self {
        let mut part = Self {
            limit: Arc::clone(&asked.limit),
            ask: asked.ask,
            tokens: None,
            requests: None,
            cost: None,
            slot: None,
        };
        for hold in holds {
            let place = match hold.number() {
                Number::Tokens => &mut part.tokens,
                Number::Requests => &mut part.requests,
                Number::Cost => &mut part.cost,
                Number::Concurrency => &mut part.slot,
            };
            *place = Some(hold);
        }
        part
    }

    /// Replaces what is held by what was used.
    pub(in super::super) fn settle(&mut self, outcome: Outcome) {
        let (ask, limit) = (self.ask, Arc::clone(&self.limit));
        let used = match outcome {
            Outcome::Unsent | Outcome::Refused => Some((0, 0)),
            // All that is held was used.
            Outcome::Sent => None,
            Outcome::Used(used) => {
                let tokens = limit.tokens.as_ref();
                let tokens = tokens.map_or(0, |tokens| ask.tokens_of(tokens, used));
                Some((tokens, ask.cost_of(used)))
            }
        };
        if let Some((tokens, cost)) = used {
            if let Some(hold) = &mut self.tokens {
                hold.settle(tokens);
            }
            if let Some(hold) = &mut self.cost {
                hold.settle(cost);
            }
        }
        if let (Some(hold), Outcome::Unsent) = (&mut self.requests, outcome) {
            hold.settle(0);
        }
        self.slot = None;
    }

    /// The call is counted elsewhere.
    pub(in super::super) fn moved(&mut self) {
        if let Some(hold) = &mut self.requests {
            hold.settle(0);
        }
    }

    /// Keeps what it holds as used, and as much beside it for another try.
    pub(in super::super) fn again(&self) {
        for hold in [&self.tokens, &self.cost].into_iter().flatten() {
            hold.spend();
        }
    }

    /// Counts what is left in.
    pub(in super::super) fn tell(&self, rates: &mut Rates) {
        for hold in [&self.requests, &self.tokens].into_iter().flatten() {
            add(rates, &self.limit, hold.number(), hold.left());
        }
    }

    /// The highest threshold that is reached by any of its numbers.
    pub(in super::super) fn warning(&self) -> Option<Warning> {
        if self.limit.warn_at.is_empty() {
            return None;
        }
        let holds = [&self.tokens, &self.requests, &self.cost, &self.slot];
        let used = holds.into_iter().flatten().map(|hold| {
            let left = hold.left();
            let used = u128::from(left.limit.saturating_sub(left.remaining));
            (used * 100).checked_div(left.limit.into()).unwrap_or(100)
        });
        let used = used.max()?;
        let mut reached = self.limit.warn_at.iter().rev();
        let at = *reached.find(|&&at| u128::from(at) <= used)?;
        Some(Warning {
            limit: Arc::clone(&self.limit),
            at,
        })
    }

    /// Takes what a stream has used beyond what is held.
    ///
    /// # Errors
    /// The refusal of a limit that cuts streams and has no more, or cannot be asked.
    pub(in super::super) async fn grow(&mut self, used: Used) -> Result<(), Refusal> {
        let (ask, limit) = (self.ask, &*self.limit);
        if let (Some(hold), Some(tokens)) = (&mut self.tokens, &limit.tokens) {
            more(limit, hold, ask.tokens_of(tokens, used), LEASE).await?;
        }
        if let Some(hold) = &mut self.cost {
            let lease = ask.cost(0, LEASE).max(1);
            more(limit, hold, ask.cost_of(used), lease).await?;
        }
        Ok(())
    }
}

/// Takes what is missing, in whole leases.
async fn more(limit: &UsageLimit, hold: &mut Hold, used: u64, lease: u64) -> Result<(), Refusal> {
    let missing = used.saturating_sub(hold.units());
    if missing == 0 {
        return Ok(());
    }
    let units = missing.div_ceil(lease).saturating_mul(lease);
    // One on trial cuts nothing.
    if limit.on_exceeded == OnExceeded::Reject || limit.mode == Mode::DryRun {
        hold.charge(units);
        return Ok(());
    }
    // Boxed: the store is asked rarely, and a stream is waited on all the time.
    let grown = Box::pin(hold.grow(units)).await;
    grown.map_err(|why| match why {
        Why::Exceeded(exceeded) => cut(limit, hold.number().what(), exceeded),
        Why::Unavailable => unavailable(limit),
    })
}

//! What one call holds of its limits, settled exactly once: when it is dropped.

use std::sync::Arc;

use smallvec::SmallVec;
use waypoint_policy::limit::{Count, Exceeded, Meter, Now, OnExceeded, Rates, Taken, UsageLimit};
use waypoint_policy::{By, Code, Effect, Mode, ObjectName, Refusal, RuleName};

use super::store::Held;
use super::{Ask, Limits};

/// Output tokens that a running stream takes at a time: what it can go beyond its limit.
const LEASE: u64 = 128;

/// What became of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was not sent: nothing was used.
    Unsent,
    /// It was sent, and nobody knows what it used.
    Sent,
    /// It was a call, and used no tokens.
    Refused,
    /// It used this; what is not known counts as it was estimated.
    Used {
        /// Input tokens.
        input: Option<u64>,
        /// Output tokens.
        output: Option<u64>,
    },
}

/// What a call holds. Dropping it settles: what was not used goes back, what was used beyond it is
/// owed.
#[derive(Debug)]
pub struct Reservation {
    limits: Arc<Limits>,
    parts: SmallVec<[Part; 2]>,
    outcome: Outcome,
}

/// What is held of one limit.
#[derive(Debug)]
pub(super) struct Part {
    name: ObjectName,
    is_enforced: bool,
    pub(super) held: Arc<Held>,
    on_exceeded: OnExceeded,
    pub(super) tokens: Option<TokenPart>,
    pub(super) requests: Option<(Meter, Taken)>,
}

/// The tokens that are held.
#[derive(Debug)]
pub(super) struct TokenPart {
    pub(super) meter: Meter,
    pub(super) count: Count,
    /// What was estimated when it was taken.
    pub(super) ask: Ask,
    pub(super) taken: Taken,
}

impl TokenPart {
    /// The units that so many tokens are.
    fn units(&self, input: Option<u64>, output: Option<u64>) -> u64 {
        let (input, output) = (
            input.unwrap_or(self.ask.input),
            output.unwrap_or(self.ask.output),
        );
        self.count.of(input, output)
    }
}

impl Part {
    /// A part that holds nothing but its bucket, which it leaves when it is settled.
    pub(super) fn new(limit: &UsageLimit, held: Arc<Held>, on_exceeded: OnExceeded) -> Self {
        Self {
            name: limit.name.clone(),
            is_enforced: limit.is_enforced(),
            held,
            on_exceeded,
            tokens: None,
            requests: None,
        }
    }
}

impl Reservation {
    /// One that holds nothing yet.
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            parts: SmallVec::new(),
            outcome: Outcome::Unsent,
        }
    }

    /// Settles what is held of one limit as if the call had not been made.
    pub(super) fn give_up(&mut self, limit: &UsageLimit, now: Now) {
        self.parts.retain(|part| {
            let stays = part.name != limit.name;
            if !stays {
                part.settle(Outcome::Unsent, now);
            }
            stays
        });
    }

    pub(super) fn add(&mut self, part: Part) -> &mut Part {
        let at = self.parts.len();
        self.parts.push(part);
        &mut self.parts[at]
    }

    /// The call is on its way: what it uses cannot be known until it answers.
    pub fn sent(&mut self) {
        self.outcome = Outcome::Sent;
    }

    /// The upstream did not do it.
    pub(crate) fn refused(&mut self) {
        self.outcome = Outcome::Refused;
    }

    /// The call used this; what is not known counts as it was estimated.
    pub fn used(&mut self, input: Option<u64>, output: Option<u64>) {
        self.outcome = Outcome::Used { input, output };
    }

    /// The same call is made again. Where nobody knows what became of the try before, it may have
    /// been made and billed: it keeps what it held, and what the next one uses is counted beside it.
    pub(crate) fn again(&mut self) {
        if self.outcome != Outcome::Sent {
            return;
        }
        let now = self.limits.now();
        for part in &self.parts {
            if let Some(tokens) = &part.tokens {
                let word = &part.held.bucket.tokens;
                let _lost = tokens.meter.charge(word, now, tokens.taken.units);
            }
        }
        // The next one has not been sent yet.
        self.outcome = Outcome::Refused;
    }

    /// What is left of the limits in force.
    pub(crate) fn rates(&self) -> Rates {
        let now = self.limits.now();
        let mut rates = Rates::default();
        for part in self.parts.iter().filter(|part| part.is_enforced) {
            let bucket = &part.held.bucket;
            if let Some((meter, _)) = &part.requests {
                rates.add_requests(meter.left(&bucket.requests, now));
            }
            if let Some(tokens) = &part.tokens {
                rates.add_tokens(tokens.count, tokens.meter.left(&bucket.tokens, now));
            }
        }
        rates
    }

    /// Settles now, and says what is left.
    pub fn settle(mut self) -> Rates {
        let now = self.limits.now();
        for part in &self.parts {
            part.settle(self.outcome, now);
        }
        let rates = self.rates();
        // Nothing is left for the end of it.
        self.parts.clear();
        rates
    }

    /// Takes more for a stream that has used so much, where it holds less. Its input, when the
    /// provider has counted it, may be more than was estimated.
    ///
    /// # Errors
    /// The refusal of a limit that cuts streams and has no more.
    pub(crate) fn grow(&mut self, input: Option<u64>, output: u64) -> Result<(), Refusal> {
        for part in &mut self.parts {
            let Some(tokens) = &mut part.tokens else {
                continue;
            };
            let used = tokens.units(input, Some(output));
            let missing = used.saturating_sub(tokens.taken.units);
            if missing == 0 {
                continue;
            }
            let units = missing.div_ceil(LEASE).saturating_mul(LEASE);
            let now = self.limits.now();
            let word = &part.held.bucket.tokens;
            match part.on_exceeded {
                OnExceeded::Reject => {
                    let _owed = tokens.meter.charge(word, now, units);
                }
                OnExceeded::Cut => {
                    let taken = tokens.meter.take(word, now, units);
                    let _leased = taken.map_err(|exceeded| cut(&part.name, exceeded))?;
                }
            }
            tokens.taken.units = tokens.taken.units.saturating_add(units);
        }
        Ok(())
    }
}

/// The refusal that ends a running stream.
fn cut(name: &ObjectName, exceeded: Exceeded) -> Refusal {
    let refusal = Refusal::new(Code::QuotaExhausted).with_message(format!(
        "limit {name} is exceeded: there are no more tokens"
    ));
    let rule = RuleName {
        kind: "UsageLimit",
        policy: name.clone(),
        rule: Arc::from(""),
        effect: Effect::Deny,
        mode: Mode::Enforce,
    };
    let refusal = refusal.decided_by(By::Rule(Arc::new(rule)));
    match exceeded {
        Exceeded::For(wait) => refusal.with_retry_after(wait),
        Exceeded::Forever => refusal,
    }
}

impl Part {
    fn settle(&self, outcome: Outcome, now: Now) {
        if let Some(tokens) = &self.tokens {
            let used = match outcome {
                Outcome::Unsent | Outcome::Refused => 0,
                Outcome::Sent => tokens.taken.units,
                Outcome::Used { input, output } => tokens.units(input, output),
            };
            let word = &self.held.bucket.tokens;
            tokens.meter.settle(word, now, tokens.taken, used);
        }
        if let (Some((meter, taken)), Outcome::Unsent) = (&self.requests, outcome) {
            meter.settle(&self.held.bucket.requests, now, *taken, 0);
        }
        // Last: a bucket that nobody uses may be forgotten.
        self.held.bucket.leave();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let now = self.limits.now();
        for part in &self.parts {
            part.settle(self.outcome, now);
        }
    }
}

//! What to do with a permitted call: the attempts, in order.

use std::time::Duration;

use waypoint_policy::Permit;

use crate::{Candidate, Retry, Rule, Timeouts};

/// One upstream try that policy has allowed.
#[derive(Debug)]
pub struct Attempt {
    candidate: Candidate,
    permit: Permit,
}

impl Attempt {
    /// Where it goes and which model it asks for.
    #[must_use]
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Proof that this candidate was allowed.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        &self.permit
    }
}

/// The attempts a call may take. Made of permits only: what was not allowed cannot be in it.
#[derive(Debug)]
pub struct Plan {
    targets: Vec<Attempt>,
    attempts: u32,
    timeouts: Timeouts,
    retry: Retry,
}

/// Plans a call over the candidates that policy has allowed, in their order.
///
/// Attempts go round the candidates: a repeat meets another provider first, and the same one
/// again only when all have been tried. Without candidates the plan has no attempts.
#[must_use]
pub fn plan(rule: &Rule, permitted: Vec<(Candidate, Permit)>) -> Plan {
    let targets: Vec<Attempt> = permitted
        .into_iter()
        .map(|(candidate, permit)| Attempt { candidate, permit })
        .collect();
    Plan {
        attempts: if targets.is_empty() {
            0
        } else {
            rule.retry.attempts.saturating_add(1)
        },
        targets,
        timeouts: rule.timeouts,
        retry: rule.retry,
    }
}

impl Plan {
    /// How many attempts there are at most, the first included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The attempt of that number, counted from 0; `None` when they are exhausted.
    #[must_use]
    pub fn attempt(&self, number: u32) -> Option<&Attempt> {
        if number >= self.attempts {
            return None;
        }
        let index = usize::try_from(number).ok()? % self.targets.len().max(1);
        self.targets.get(index)
    }

    /// The distinct targets, in the order of their first attempt.
    #[must_use]
    pub fn targets(&self) -> &[Attempt] {
        &self.targets
    }

    /// How long each part may take.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// What is tried again.
    #[must_use]
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    /// The attempt to make after attempt `failed`, and the pause before it; `None` ends the call.
    ///
    /// Another provider is tried at once. The same one is tried after an exponential pause with
    /// jitter from `random`, and not before `after`, the time it asked for; if that is longer
    /// than what is `left` of the call's time, its attempts are skipped.
    #[must_use]
    pub fn next(
        &self,
        failed: u32,
        after: Option<Duration>,
        left: Duration,
        random: u64,
    ) -> Option<(u32, Duration)> {
        let from = self.attempt(failed)?.candidate.provider;
        let targets = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        // One round suffices: after it the same providers come again.
        let last = failed.saturating_add(targets).min(self.attempts - 1);
        (failed.saturating_add(1)..=last).find_map(|number| {
            if self.attempt(number)?.candidate.provider != from {
                return Some((number, Duration::ZERO));
            }
            let asked = after.unwrap_or_default();
            let repeats = number / targets.max(1);
            (asked < left).then(|| (number, asked.max(pause(&self.retry, repeats, random))))
        })
    }
}

/// `base` doubled with each repeat, at most `max`; the upper half of it is left to chance.
fn pause(retry: &Retry, repeats: u32, random: u64) -> Duration {
    let doubled = 1u32
        .checked_shl(repeats.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let full = retry.base.saturating_mul(doubled).min(retry.max);
    let half = full / 2;
    let share = (random >> 32) as u32; // The upper 32 bits, as a fraction of 2^32.
    let jitter = u64::try_from((half.as_nanos() * u128::from(share)) >> 32).unwrap_or(u64::MAX);
    half.saturating_add(Duration::from_nanos(jitter))
}

#[cfg(test)]
mod tests;

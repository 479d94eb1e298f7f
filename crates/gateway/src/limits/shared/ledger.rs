//! What one process has used of one bucket, and what the store has recorded of that.
//!
//! All amounts are costs (see [`Measure`]); times are nanoseconds of the process's own clock, which
//! is an argument.

use super::measure::Measure;

/// How long a part of the recent past is, of which two are remembered.
pub(super) const WINDOW_NS: i64 = 500_000_000;
/// What is longer unsaid than this was used while the store was down.
const UNSAID_NS: i64 = 2_000_000_000;
/// Slots are stated this often, or the store takes them for those of a process that has gone.
const REFRESH_NS: i64 = 5_000_000_000;
/// How long a ledger stays that says nothing.
const UNUSED_NS: i64 = 120_000_000_000;

/// Totals of one process for one bucket. `granted - used` is its lease where that is positive, and
/// what it owes where it is negative.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What it is a ledger of, as of the last call: limits change.
    pub(super) measure: Measure,
    /// Used so far, running calls included.
    used: u64,
    /// Asked of the store by calls that wait for its answer.
    begun: u64,
    /// What the store has recorded, as of its last answer.
    granted: u64,
    /// The number of the last statement.
    seq: u64,
    /// When that was.
    stated_ns: i64,
    /// Whether it was not answered: nobody knows what the store has recorded.
    is_unsure: bool,
    /// Of the store's last answer.
    epoch: u64,
    /// What all processes use, as of the last answer: of a rate the moment when it has come back.
    acknowledged: i64,
    /// The same, with what this process has used since and not said.
    projected: i64,
    /// Since when something is owed, and, of a rate, when that would have come back if nobody else
    /// had used any.
    owed_since: i64,
    owed_until: i64,
    /// What was owed and came back before it could be said.
    pub(super) forgiven: u64,
    /// The recent past, the older part first: what was used at its beginning, and at most.
    at_start: [u64; 2],
    peak: [u64; 2],
    rolled_ns: i64,
    /// Whether the background task has it on its list.
    pub(super) is_listed: bool,
}

/// What is said to the store, in its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) measure: Measure,
    pub(super) seq: u64,
    pub(super) keep: u64,
    pub(super) want: u64,
    pub(super) more: u64,
    pub(super) chunk: u64,
    pub(super) base: u64,
    pub(super) ahead_us: u64,
    pub(super) epoch: u64,
}

/// What the store says of one bucket, in its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// What is recorded for this process now.
    pub(super) total: u64,
    /// What all have used; of a rate the microseconds until that has come back.
    pub(super) used: u64,
    /// What was missing for what was asked.
    pub(super) missing: u64,
}

impl Ledger {
    pub(super) fn new(measure: Measure, now: i64) -> Self {
        Self {
            measure,
            used: 0,
            begun: 0,
            granted: 0,
            seq: 0,
            stated_ns: now,
            is_unsure: false,
            epoch: 0,
            acknowledged: 0,
            projected: 0,
            owed_since: now,
            owed_until: now,
            forgiven: 0,
            at_start: [0; 2],
            peak: [0; 2],
            rolled_ns: now,
            is_listed: false,
        }
    }

    fn lease(&self) -> u64 {
        self.granted
            .saturating_sub(self.used.saturating_add(self.begun))
    }

    fn owed(&self) -> u64 {
        self.used.saturating_sub(self.granted)
    }

    /// Takes from the lease, if it is enough.
    pub(super) fn take(&mut self, cost: u64) -> bool {
        if self.lease() < cost {
            return false;
        }
        self.used += cost;
        self.peaked();
        true
    }

    /// Sets aside what the store is about to be asked for.
    pub(super) fn begin(&mut self, cost: u64) {
        self.begun = self.begun.saturating_add(cost);
    }

    /// The store did not give what was set aside.
    pub(super) fn cancel(&mut self, cost: u64) {
        self.begun = self.begun.saturating_sub(cost);
    }

    /// The store gave what was set aside.
    pub(super) fn confirm(&mut self, cost: u64) {
        self.cancel(cost);
        self.used = self.used.saturating_add(cost);
        self.peaked();
    }

    /// Uses whether it is there or not, and says how much was counted. What this process uses
    /// unasked counts `times` in what it believes to be left, until the store is asked.
    pub(super) fn charge(&mut self, cost: u64, times: u64, now: i64) -> u64 {
        self.age(now);
        let most = self.measure.owed_max().saturating_sub(self.owed());
        let cost = cost.min(self.lease().saturating_add(most));
        let unsaid = cost.saturating_sub(self.lease());
        if unsaid > 0 {
            if self.owed() == 0 {
                self.owed_since = now;
                self.owed_until = now;
            }
            self.owed_until = self.owed_until.max(now).saturating_add(signed(unsaid));
            self.project(signed(unsaid.saturating_mul(times)), now);
        }
        self.used = self.used.saturating_add(cost);
        self.peaked();
        cost
    }

    /// Takes back what was used. `forgiven` is what had been forgiven when it was taken: it has
    /// come back already, and does not come back twice.
    pub(super) fn refund(&mut self, cost: u64, times: u64, forgiven: u64, now: i64) {
        self.age(now);
        let come_back = self.forgiven.saturating_sub(forgiven);
        let cost = cost.saturating_sub(come_back).min(self.used);
        let unsaid = cost.min(self.owed());
        self.owed_until = self.owed_until.saturating_sub(signed(unsaid));
        self.project(signed(unsaid.saturating_mul(times)).saturating_neg(), now);
        self.used -= cost;
    }

    /// Takes a share of what was left when the store was last asked.
    ///
    /// # Errors
    /// What is missing for it.
    pub(super) fn take_share(&mut self, cost: u64, times: u64, now: i64) -> Result<(), u64> {
        self.age(now);
        let left = match self.measure {
            // Whoever runs elsewhere is not known: a fixed share each.
            Measure::Slots { limit } => {
                let share = signed(limit / times.max(1));
                share.saturating_sub(signed(self.used.saturating_add(cost)))
            }
            _ => {
                let wanted = cost.saturating_sub(self.lease()).saturating_mul(times);
                self.free(now).saturating_sub(signed(wanted))
            }
        };
        if left < 0 {
            return Err(left.unsigned_abs());
        }
        self.charge(cost, times, now);
        Ok(())
    }

    fn project(&mut self, by: i64, now: i64) {
        self.projected = match self.measure.is_rate() {
            true => self.projected.max(now).saturating_add(by),
            false => self.projected.saturating_add(by).max(0),
        };
    }

    /// Forgets what is owed of a rate and has come back meanwhile. Only what could not be said for
    /// long: otherwise the store knows better what has come back.
    fn age(&mut self, now: i64) {
        let owed = self.owed();
        if !self.measure.is_rate() || owed == 0 || now - self.owed_since < UNSAID_NS {
            return;
        }
        let still = self.owed_until.saturating_sub(now).max(0).unsigned_abs();
        let come_back = owed.saturating_sub(still);
        self.used -= come_back;
        self.forgiven = self.forgiven.saturating_add(come_back);
    }

    fn peaked(&mut self) {
        let total = self.used.saturating_add(self.begun);
        let [_, last] = &mut self.peak;
        *last = total.max(*last);
    }

    /// Lets the older part of the recent past go.
    fn roll(&mut self, now: i64) {
        let passed = now - self.rolled_ns;
        if passed < WINDOW_NS {
            return;
        }
        let ([_, start], [_, peak]) = (self.at_start, self.peak);
        let older = passed < 2 * WINDOW_NS;
        self.at_start = [if older { start } else { self.used }, self.used];
        self.peak = [if older { peak } else { self.used }, self.used];
        self.rolled_ns = now;
    }

    /// The total up to which a lease is worth having: what running calls have shown to need, and
    /// what a second like the last would use.
    fn target(&self, now: i64) -> u64 {
        let [start, _] = self.at_start;
        let elapsed = now - self.rolled_ns + WINDOW_NS;
        let net = u128::from(self.used.saturating_sub(start));
        let second = net * 1_000_000_000 / u128::from(elapsed.unsigned_abs().max(1));
        let second = u64::try_from(second).unwrap_or(u64::MAX);
        let [one, two] = self.peak;
        self.used.saturating_add(second).max(one).max(two)
    }

    /// What to say to ask for what was set aside, for those who wait, and for the next second.
    pub(super) fn ask(&mut self, waiting: u64, now: i64) -> Statement {
        self.age(now);
        self.roll(now);
        let total = self.used.saturating_add(self.begun);
        let chunk = self.target(now).saturating_sub(total);
        let keep = self.used.max(self.granted);
        self.statement(keep, Some(total), waiting, chunk, now)
    }

    /// What to say unasked, if anything: what is owed, what of the lease is not needed, what the
    /// store has lost.
    pub(super) fn tend(&mut self, epoch: u64, now: i64) -> Option<Statement> {
        self.age(now);
        self.roll(now);
        let kept = self.used.max(self.granted.min(self.target(now)));
        let (lease, excess) = (self.lease(), self.granted.saturating_sub(kept));
        let is_lost = self.has_lost(epoch);
        let is_due = self.measure.is_slots() && now - self.stated_ns >= REFRESH_NS;
        let is_needed = self.owed() > 0
            || is_lost
            || self.is_unsure
            || (excess > 0 && excess.saturating_mul(2) >= lease)
            || (is_due && self.granted > 0);
        is_needed.then(|| self.statement(kept, None, 0, 0, now))
    }

    /// Whether the store knows nothing of it any more.
    pub(super) fn has_lost(&self, epoch: u64) -> bool {
        self.granted > 0 && self.epoch != epoch
    }

    /// What to say when nothing more will be used in advance.
    pub(super) fn give_back(&mut self, now: i64) -> Option<Statement> {
        self.age(now);
        (self.used != self.granted || self.is_unsure)
            .then(|| self.statement(self.used, None, 0, 0, now))
    }

    fn statement(
        &mut self,
        keep: u64,
        want: Option<u64>,
        more: u64,
        chunk: u64,
        now: i64,
    ) -> Statement {
        self.seq += 1;
        self.stated_ns = now;
        self.is_unsure = true;
        let measure = self.measure;
        let keep = measure.stated(keep);
        // What is asked for is asked for, however little it is.
        let want = want.map_or(keep, |want| measure.stated(want).max(keep + 1));
        Statement {
            measure,
            seq: self.seq,
            keep,
            want,
            more: measure.stated(more),
            chunk: measure.stated(chunk),
            base: measure.stated(self.granted),
            ahead_us: match measure.is_rate() && self.epoch > 0 {
                true => (self.acknowledged - now).max(0).unsigned_abs() / 1000,
                false => 0,
            },
            epoch: self.epoch,
        }
    }

    /// What the store has answered to the last statement.
    pub(super) fn acknowledge(&mut self, said: &Said, measure: Measure, epoch: u64, now: i64) {
        self.is_unsure = false;
        self.granted = measure.of_stated(said.total);
        self.epoch = epoch;
        let used = signed(measure.of_stated(said.used));
        self.acknowledged = match self.measure.is_rate() {
            true => now.saturating_add(used),
            false => used,
        };
        self.projected = self.acknowledged;
        let owed = signed(self.owed());
        self.owed_since = now;
        self.owed_until = now.saturating_add(owed);
        if owed > 0 {
            self.project(owed, now);
        }
    }

    /// What can be had beside the lease; negative is what all together owe.
    fn free(&self, now: i64) -> i64 {
        let used = match self.measure.is_rate() {
            true => self.projected.saturating_sub(now).max(0),
            false => self.projected,
        };
        signed(self.measure.room()).saturating_sub(used)
    }

    /// What can be taken, as far as is known here.
    pub(super) fn left(&self, now: i64) -> u64 {
        let left = self.free(now).saturating_add(signed(self.lease()));
        left.max(0).unsigned_abs()
    }

    /// Nanoseconds until all of a rate has come back, as far as is known here.
    pub(super) fn ahead(&self, now: i64) -> u64 {
        let ahead = self.projected.saturating_sub(now);
        ahead
            .saturating_sub(signed(self.lease()))
            .max(0)
            .unsigned_abs()
    }

    /// Whether there is nothing to tend.
    pub(super) fn is_quiet(&self) -> bool {
        let runs = self.measure.is_slots() && self.used > 0;
        self.used == self.granted && self.begun == 0 && !self.is_unsure && !runs
    }

    /// Whether a new ledger would say the same.
    pub(super) fn is_unused(&self, now: i64) -> bool {
        let nothing = self.used == 0 && self.granted == 0;
        // The store forgets a rate two minutes after it has come back.
        let come_back = self.measure.is_rate() && self.projected.saturating_add(UNUSED_NS) < now;
        self.is_quiet()
            && now - self.rolled_ns.max(self.stated_ns) > UNUSED_NS
            && (nothing || come_back)
    }

    /// Whether anything was ever used or taken.
    pub(super) fn is_begun(&self) -> bool {
        self.used > 0 || self.granted > 0
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.used, self.granted)
    }
}

fn signed(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(i64::MAX)
}

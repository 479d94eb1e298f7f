//! The arithmetic of one number in one period, on one atomic word.

use std::{num::NonZeroU64, time::Duration};

use super::sync::{AtomicU64, Ordering};
use super::{Calendar, Left, Period};

/// The present, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since some moment before any bucket was made; never goes back.
    pub monotonic_ns: i64,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_s: u64,
}

/// A number in a period.
///
/// Of a window the word is the theoretical arrival time (GCRA, ITU-T I.371 Annex A): the moment, in
/// nanoseconds, at which everything used will have come back. Of a calendar period it is the
/// period's number and what was used in it. Zero is the unused bucket of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// Evenly refilled.
    Rate {
        /// What comes back in a window.
        limit: u64,
        /// The window's length, from 1.
        window_ns: i64,
        /// What may be used at once.
        burst: u64,
    },
    /// Anew in each period.
    Budget {
        /// What may be used in a period.
        limit: u64,
        /// The period.
        calendar: Calendar,
    },
}

/// What was taken, to be settled once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what was taken is settled, or lost to the bucket"]
pub struct Taken {
    /// Units.
    pub units: u64,
    /// The period it was taken from, or 0.
    period: u32,
}

/// What cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// It will fit after this time.
    For(Duration),
    /// It is more than there ever is.
    Forever,
}

/// The bits of a word that hold what was used in a calendar period.
const USED_BITS: u32 = 44;
/// The most a budget can count: some 17 million USD, or 17 trillion tokens.
const USED_MAX: u64 = (1 << USED_BITS) - 1;

impl Meter {
    /// A number in a period. `burst` is for windows alone.
    #[must_use]
    pub fn new(limit: u64, period: Period, burst: Option<NonZeroU64>) -> Self {
        match period {
            Period::Window(window) => Self::Rate {
                limit,
                window_ns: i64::try_from(window.as_nanos()).unwrap_or(i64::MAX).max(1),
                burst: burst.map_or(limit, NonZeroU64::get),
            },
            Period::Calendar(calendar) => Self::Budget {
                limit: limit.min(USED_MAX),
                calendar,
            },
        }
    }

    /// Takes `units` if they are there.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing was taken.
    pub fn take(&self, word: &AtomicU64, now: Now, units: u64) -> Result<Taken, Exceeded> {
        match *self {
            Self::Rate { limit: 0, .. } | Self::Budget { limit: 0, .. } => Err(Exceeded::Forever),
            Self::Rate { burst, .. } => {
                if units > burst {
                    return Err(Exceeded::Forever);
                }
                let (cost, room) = (self.nanoseconds(units), self.nanoseconds(burst));
                let present = now.monotonic_ns;
                let mut wait = 0;
                let taken = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
                    // What the word cannot hold is not there: a bucket of centuries is cut short.
                    let next = arrival(bits).max(present).checked_add(cost);
                    wait = next.map_or(i64::MAX, |next| {
                        next.saturating_sub(present).saturating_sub(room)
                    });
                    next.filter(|_| wait <= 0).map(i64::cast_unsigned)
                });
                match taken {
                    Ok(_) => Ok(Taken { units, period: 0 }),
                    Err(_) => Err(Exceeded::For(Duration::from_nanos(wait.unsigned_abs()))),
                }
            }
            Self::Budget { limit, calendar } => {
                if units > limit {
                    return Err(Exceeded::Forever);
                }
                let (period, ends) = calendar.at(now.unix_s);
                let taken = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
                    let used = used(bits, period).saturating_add(units);
                    (used <= limit).then(|| pack(latest(bits, period), used))
                });
                match taken {
                    Ok(before) => Ok(Taken {
                        units,
                        period: latest(before, period),
                    }),
                    Err(_) => {
                        let wait = ends.saturating_sub(now.unix_s).max(1);
                        Err(Exceeded::For(Duration::from_secs(wait)))
                    }
                }
            }
        }
    }

    /// Takes `units` whether they are there or not: what is missing is owed.
    pub fn charge(&self, word: &AtomicU64, now: Now, units: u64) -> Taken {
        let none = Taken {
            units: 0,
            period: self.period(word, now),
        };
        self.settle(word, now, none, units);
        Taken { units, ..none }
    }

    /// Replaces what was taken by what was used. What goes beyond it is owed; what is given back to
    /// a period that has ended is lost.
    pub fn settle(&self, word: &AtomicU64, now: Now, taken: Taken, used_units: u64) {
        if used_units == taken.units {
            return;
        }
        match *self {
            Self::Rate { .. } => {
                let difference = self
                    .nanoseconds(used_units)
                    .saturating_sub(self.nanoseconds(taken.units));
                let present = now.monotonic_ns;
                let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
                    let next = arrival(bits).max(present).saturating_add(difference);
                    Some(next.max(present).cast_unsigned())
                });
            }
            Self::Budget { calendar, .. } => {
                let (period, _) = calendar.at(now.unix_s);
                let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
                    let period = latest(bits, period);
                    let before = used(bits, period);
                    let after = match (period == taken.period, used_units >= taken.units) {
                        (_, true) => before.saturating_add(used_units - taken.units),
                        (true, false) => before.saturating_sub(taken.units - used_units),
                        (false, false) => before,
                    };
                    Some(pack(period, after))
                });
            }
        }
    }

    /// What can still be taken; negative is what is owed.
    #[must_use]
    pub fn remaining(&self, word: &AtomicU64, now: Now) -> i64 {
        let bits = word.load(Ordering::Acquire);
        match *self {
            Self::Rate { limit: 0, .. } => 0,
            Self::Rate {
                limit,
                window_ns,
                burst,
            } => {
                let ahead = arrival(bits).saturating_sub(now.monotonic_ns).max(0);
                let free = i128::from(self.nanoseconds(burst)) - i128::from(ahead);
                let units = (free * i128::from(limit)).div_euclid(i128::from(window_ns));
                i64::try_from(units).unwrap_or(if units < 0 { i64::MIN } else { i64::MAX })
            }
            Self::Budget { limit, calendar } => {
                let (period, _) = calendar.at(now.unix_s);
                let signed = |units| i64::try_from(units).unwrap_or(i64::MAX);
                signed(limit) - signed(used(bits, latest(bits, period)))
            }
        }
    }

    /// How long until all of it is there again.
    #[must_use]
    pub fn reset(&self, word: &AtomicU64, now: Now) -> Duration {
        let bits = word.load(Ordering::Acquire);
        match *self {
            Self::Rate { .. } => {
                let ahead = arrival(bits).saturating_sub(now.monotonic_ns).max(0);
                Duration::from_nanos(ahead.unsigned_abs())
            }
            Self::Budget { calendar, .. } => {
                let (_, ends) = calendar.at(now.unix_s);
                Duration::from_secs(ends.saturating_sub(now.unix_s))
            }
        }
    }

    /// What callers are told of it.
    #[must_use]
    pub fn left(&self, word: &AtomicU64, now: Now) -> Left {
        Left {
            limit: self.capacity(),
            remaining: u64::try_from(self.remaining(word, now)).unwrap_or(0),
            reset: self.reset(word, now),
        }
    }

    /// How much of all that can be used at once is in use or owed: percent, rounded down.
    #[must_use]
    pub fn used_percent(&self, word: &AtomicU64, now: Now) -> u64 {
        let capacity = self.capacity();
        let remaining = u64::try_from(self.remaining(word, now)).unwrap_or(0);
        let used = u128::from(capacity.saturating_sub(remaining));
        let percent = (used * 100).checked_div(capacity.into());
        percent.map_or(100, |percent| u64::try_from(percent).unwrap_or(100))
    }

    /// All that can be used at once.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        match *self {
            Self::Rate { limit: 0, .. } => 0,
            Self::Rate { burst, .. } => burst,
            Self::Budget { limit, .. } => limit,
        }
    }

    fn period(&self, word: &AtomicU64, now: Now) -> u32 {
        match *self {
            Self::Rate { .. } => 0,
            Self::Budget { calendar, .. } => {
                latest(word.load(Ordering::Acquire), calendar.at(now.unix_s).0)
            }
        }
    }

    /// The time in which `units` come back, rounded up: less than 1 ns of each call is kept too
    /// long.
    fn nanoseconds(&self, units: u64) -> i64 {
        match *self {
            Self::Rate {
                limit, window_ns, ..
            } if limit > 0 => {
                let window = window_ns.unsigned_abs();
                // Nearly always: dividing 128 bits takes many times as long.
                if let Some(product) = units.checked_mul(window) {
                    return i64::try_from(product.div_ceil(limit)).unwrap_or(i64::MAX);
                }
                let product = u128::from(units) * u128::from(window);
                i64::try_from(product.div_ceil(u128::from(limit))).unwrap_or(i64::MAX)
            }
            _ => 0,
        }
    }
}

/// Whether a word would say the same anew, if it were forgotten now; `kind` is one of
/// [`super::Kinds`].
pub(super) fn is_unused(kind: u8, bits: u64, now: Now) -> bool {
    let calendar = match kind {
        0 => return true,
        1 => return arrival(bits) <= now.monotonic_ns,
        2 => Calendar::Hour,
        3 => Calendar::Day,
        4 => Calendar::Week,
        _ => Calendar::Month,
    };
    used(bits, calendar.at(now.unix_s).0) == 0
}

fn arrival(bits: u64) -> i64 {
    bits.cast_signed()
}

/// The later of two periods: clocks that are set back do not bring one back.
fn latest(bits: u64, period: u32) -> u32 {
    u32::try_from(bits >> USED_BITS).map_or(period, |of_bits| of_bits.max(period))
}

/// What was used in `period`, by a word that may be of an earlier one.
fn used(bits: u64, period: u32) -> u64 {
    match u64::from(period) > bits >> USED_BITS {
        true => 0,
        false => bits & USED_MAX,
    }
}

fn pack(period: u32, used: u64) -> u64 {
    u64::from(period) << USED_BITS | used.min(USED_MAX)
}

impl Calendar {
    /// The number of the period that holds a moment, from 1970, and the second in which the next
    /// begins.
    #[must_use]
    pub fn at(self, unix_s: u64) -> (u32, u64) {
        let of = |seconds: u64, offset: u64| {
            let number = (unix_s + offset) / seconds;
            (number, (number + 1) * seconds - offset)
        };
        let (number, ends) = match self {
            Self::Hour => of(3600, 0),
            Self::Day => of(86_400, 0),
            // 1970-01-01 was a Thursday.
            Self::Week => of(7 * 86_400, 3 * 86_400),
            Self::Month => {
                let (year, month) = year_and_month(unix_s / 86_400);
                let number = (year - 1970) * 12 + month - 1;
                (number, first_day(number + 1) * 86_400)
            }
        };
        // 20 bits hold the hours until 2089.
        (u32::try_from(number & 0xF_FFFF).unwrap_or(0), ends)
    }
}

/// The civil date of a day since 1970-01-01, as (year, month from 1).
///
/// Counts in eras of 400 years that begin on March 1st of year 0, so that leap days come last.
fn year_and_month(day: u64) -> (u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month)
}

/// The first day, since 1970-01-01, of a month counted from January 1970.
fn first_day(months: u64) -> u64 {
    let (year, month) = (1970 + months / 12, months % 12 + 1);
    let (year, from_march) = match month > 2 {
        true => (year, month - 3),
        false => (year - 1, month + 9),
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

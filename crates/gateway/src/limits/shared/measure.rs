//! What a bucket of the store counts in, and how much of it there is.

use waypoint_policy::limit::{Calendar, Meter};

/// The most that a rate has at once, in nanoseconds: ten years. With the present it stays far below
/// 2^53 microseconds, which is what the store's numbers hold.
const ROOM_MAX_NS: u64 = 10 * 365 * 86_400 * 1_000_000_000;
/// What a ledger owes at most: of a rate nanoseconds (a year), else units. What is beyond it is not
/// remembered.
const OWED_MAX: u64 = 1 << 50;
const OWED_MAX_NS: u64 = 365 * 86_400 * 1_000_000_000;

/// What is counted. Costs are nanoseconds in which they come back where it is a rate, else units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Evenly refilled.
    Rate {
        limit: u64,
        window_ns: u64,
        burst: u64,
    },
    /// Anew in each period.
    Budget { limit: u64, calendar: Calendar },
    /// Calls at the same time.
    Slots { limit: u64 },
}

impl From<Meter> for Measure {
    fn from(meter: Meter) -> Self {
        match meter {
            Meter::Rate {
                limit,
                window_ns,
                burst,
            } => Self::Rate {
                limit,
                window_ns: window_ns.unsigned_abs().max(1),
                burst,
            },
            Meter::Budget { limit, calendar } => Self::Budget { limit, calendar },
        }
    }
}

impl Measure {
    pub(super) fn is_rate(self) -> bool {
        matches!(self, Self::Rate { .. })
    }

    pub(super) fn is_slots(self) -> bool {
        matches!(self, Self::Slots { .. })
    }

    /// What `units` cost; of a rate rounded up.
    pub(super) fn cost(self, units: u64) -> u64 {
        match self {
            Self::Rate {
                limit, window_ns, ..
            } if limit > 0 => {
                let product = u128::from(units) * u128::from(window_ns);
                u64::try_from(product.div_ceil(u128::from(limit))).unwrap_or(u64::MAX)
            }
            Self::Rate { .. } => u64::MAX,
            Self::Budget { .. } | Self::Slots { .. } => units,
        }
    }

    /// How many units can be had at this cost.
    pub(super) fn units(self, cost: u64) -> u64 {
        match self {
            Self::Rate {
                limit, window_ns, ..
            } => {
                let product = u128::from(cost) * u128::from(limit);
                u64::try_from(product / u128::from(window_ns)).unwrap_or(u64::MAX)
            }
            Self::Budget { .. } | Self::Slots { .. } => cost,
        }
    }

    /// What all that can be used at once costs.
    pub(super) fn room(self) -> u64 {
        match self {
            Self::Rate { limit: 0, .. } => 0,
            Self::Rate { burst, .. } => self.cost(burst).min(ROOM_MAX_NS),
            Self::Budget { limit, .. } | Self::Slots { limit } => limit,
        }
    }

    /// All that can be used at once, in units.
    pub(super) fn capacity(self) -> u64 {
        match self {
            Self::Rate { limit: 0, .. } => 0,
            Self::Rate { burst, .. } => burst,
            Self::Budget { limit, .. } | Self::Slots { limit } => limit,
        }
    }

    /// What may be owed.
    pub(super) fn owed_max(self) -> u64 {
        match self {
            Self::Rate { .. } => OWED_MAX_NS,
            Self::Budget { .. } | Self::Slots { .. } => OWED_MAX,
        }
    }

    /// A cost as it is stated, rounded up: rates in microseconds.
    pub(super) fn stated(self, cost: u64) -> u64 {
        match self {
            Self::Rate { .. } => cost.div_ceil(1000),
            Self::Budget { .. } | Self::Slots { .. } => cost,
        }
    }

    /// The cost that a stated number is.
    pub(super) fn of_stated(self, stated: u64) -> u64 {
        match self {
            Self::Rate { .. } => stated.saturating_mul(1000),
            Self::Budget { .. } | Self::Slots { .. } => stated,
        }
    }
}

//! What is said to the store and what it answers: two Lua scripts, each one round trip.

use std::sync::LazyLock;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::account::Account;
use super::ledger::{Said, Statement};
use super::measure::Measure;

/// A script and its name at the store, which is its SHA-1.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) name: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self {
            text,
            name: hex(hash.as_ref()),
        }
    }
}

/// Takes from all buckets of a call, or from none.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));
/// Says that a process is alive.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("beat.lua")));

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long the store keeps what nobody says anything of.
const RATE_MS: u64 = 120_000;
const SLOTS_MS: u64 = 60_000;
const BUDGET_MS: u64 = 3_600_000;

/// Adds what is said of one bucket to a question. `now_s` is the store's time in seconds.
pub(super) fn say(command: &mut redis::Cmd, account: &Account, said: &Statement, now_s: u64) {
    let (kind, limit, ttl_ms) = match said.measure {
        Measure::Rate { .. } => ("rate", said.measure.stated(said.measure.room()), RATE_MS),
        Measure::Budget { limit, .. } => {
            let left_ms = account.ends_s.saturating_sub(now_s).saturating_mul(1000);
            ("budget", limit, BUDGET_MS + left_ms)
        }
        Measure::Slots { limit } => ("slots", limit, SLOTS_MS),
    };
    command.arg(kind).arg(&account.field);
    for number in [
        said.seq,
        said.keep,
        said.want,
        said.more,
        said.chunk,
        said.base,
        limit,
        said.ahead_us,
        said.epoch,
        ttl_ms,
    ] {
        command.arg(number);
    }
}

/// What the store says with every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) now_us: i64,
    pub(super) epoch: u64,
}

/// How taking from several buckets went.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether all gave what was asked for.
    pub(super) is_taken: bool,
    pub(super) header: Header,
    numbers: Vec<i64>,
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It is recorded.
    Recorded,
    /// There was no room for what it asked for; what it keeps is recorded.
    NoRoom,
    /// There was a later one.
    Old,
}

impl Answer {
    const HEADER: usize = 3;
    const EACH: usize = 4;

    /// Reads an answer about so many buckets.
    pub(super) fn read(numbers: Vec<i64>, buckets: usize) -> Option<Self> {
        if numbers.len() != Self::HEADER + Self::EACH * buckets {
            return None;
        }
        let &[taken, now_us, epoch, ..] = numbers.as_slice() else {
            return None;
        };
        Some(Self {
            is_taken: taken == 1,
            header: Header {
                now_us,
                epoch: u64::try_from(epoch).ok()?,
            },
            numbers,
        })
    }

    /// What is said of each bucket, in the order in which they were asked about.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (Status, Said)> {
        let each = self.numbers.iter().skip(Self::HEADER);
        let each: Vec<u64> = each.map(|&n| u64::try_from(n).unwrap_or(0)).collect();
        let said = |one: &[u64]| {
            let &[status, total, used, missing] = one else {
                return None;
            };
            let status = match status {
                0 => Status::Recorded,
                1 => Status::NoRoom,
                _ => Status::Old,
            };
            Some((
                status,
                Said {
                    total,
                    used,
                    missing,
                },
            ))
        };
        let said: Vec<_> = each.chunks(Self::EACH).filter_map(said).collect();
        said.into_iter()
    }
}

//! What calls to a model are likely to use, learned from what they did use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Tokens of 2^16 bytes of a request, before anything is known: four bytes a token.
const RATIO: u32 = 1 << 14;
/// The most that is learned: a token for each byte. What is beyond it did not come from the text,
/// but from pictures or earlier answers that it names, and says nothing of the next request.
const RATIO_MAX: u32 = 1 << 16;
/// The least that is learned, and the least that a request can be: eight bytes a token. Nobody
/// teaches that requests are nearly free, and sends a large one then.
const RATIO_MIN: u32 = 1 << 13;
/// Output of a call that names no bound, before anything is known.
const OUTPUT: u32 = 1024;
/// Bounds of what is learned of the output: no single answer makes reservations vanish, or block
/// everybody.
const OUTPUT_RANGE: std::ops::RangeInclusive<u32> = 64..=8192;
/// Pairs of providers and models that are learned about; others share one.
const MAX: usize = 1024;

/// What is known of the calls to one model.
#[derive(Debug)]
pub(crate) struct Estimate {
    /// Input tokens of 2^16 bytes.
    ratio: AtomicU32,
    /// Output tokens that 19 of 20 answers stay below.
    output: AtomicU32,
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            ratio: AtomicU32::new(RATIO),
            output: AtomicU32::new(OUTPUT),
        }
    }
}

impl Estimate {
    /// The input tokens of a request of this size.
    pub(crate) fn input(&self, bytes: usize) -> u64 {
        let ratio = u64::from(self.ratio.load(Ordering::Relaxed));
        (bytes as u64).saturating_mul(ratio).div_ceil(1 << 16)
    }

    /// The least that a request of this size is: what is beyond that is a guess.
    pub(crate) fn least_input(bytes: usize) -> u64 {
        let ratio = u64::from(RATIO_MIN);
        (bytes as u64).saturating_mul(ratio).div_ceil(1 << 16)
    }

    /// The output tokens of a call that names no bound, or a stream's first.
    pub(crate) fn output(&self) -> u64 {
        u64::from(self.output.load(Ordering::Relaxed))
    }

    /// Learns from a call whose tokens the provider has counted.
    pub(crate) fn learn(&self, bytes: usize, input: u64, output: Option<u64>) {
        if bytes > 0 && input > 0 {
            let seen = input.saturating_mul(1 << 16) / bytes as u64;
            let seen = u32::try_from(seen)
                .unwrap_or(u32::MAX)
                .clamp(RATIO_MIN, RATIO_MAX);
            // An eighth of the way, towards the new one.
            step(&self.ratio, |ratio| {
                let moved = (u64::from(ratio) * 7 + u64::from(seen)).div_ceil(8);
                u32::try_from(moved).unwrap_or(u32::MAX).max(RATIO_MIN)
            });
        }
        if let Some(output) = output {
            let (least, most) = OUTPUT_RANGE.into_inner();
            // Nineteen small steps down balance one large step up where one in twenty is above.
            step(&self.output, |bound| {
                let unit = (bound / 256).max(1);
                let moved = match output > u64::from(bound) {
                    true => bound.saturating_add(unit * 19),
                    false => bound.saturating_sub(unit),
                };
                moved.clamp(least, most)
            });
        }
    }
}

/// Moves a number; of two that meet, either may be lost.
fn step(number: &AtomicU32, moved: impl Fn(u32) -> u32) {
    number.store(moved(number.load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// What is known of all models.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    of: papaya::HashMap<(Box<str>, Box<str>), Arc<Estimate>>,
    others: Arc<Estimate>,
}

impl Estimates {
    pub(super) fn of(&self, provider: &str, model: &str) -> Arc<Estimate> {
        let known = self.of.pin();
        let key = (Box::from(provider), Box::from(model));
        match known.get(&key) {
            Some(estimate) => Arc::clone(estimate),
            None if known.len() >= MAX => Arc::clone(&self.others),
            None => Arc::clone(known.get_or_insert_with(key, Arc::default)),
        }
    }
}

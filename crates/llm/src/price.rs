//! What tokens cost, in whole numbers.

use std::str::FromStr;

use serde::Deserialize;

use crate::Usage;

mod list;

pub use list::list_price;

/// The price of a million tokens of one kind.
///
/// Unit: micro-USD per million tokens, which is pico-USD per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PerMillion(u64);

/// An amount of money, in micro-USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroUsd(pub u64);

/// Why a text is no price, or no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// No decimal number: a sign, an exponent, no digit at all.
    #[error("USD are a decimal number, such as \"2.50\"")]
    NotDecimal,
    /// Not a whole number of micro-USD.
    #[error("USD have at most 6 decimals")]
    TooFine,
    /// Beyond what can be counted.
    #[error("USD are at most {}", u64::MAX / 1_000_000)]
    TooLarge,
}

impl FromStr for PerMillion {
    type Err = PriceError;

    /// Reads USD, such as `2.50`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|MicroUsd(micro)| Self(micro))
    }
}

impl FromStr for MicroUsd {
    type Err = PriceError;

    /// Reads USD, such as `5.00`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let mut digits = whole.bytes().chain(fraction.bytes()).peekable();
        if digits.peek().is_none() || !digits.all(|digit| digit.is_ascii_digit()) {
            return Err(PriceError::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 6 {
            return Err(PriceError::TooFine);
        }
        // Digits only, so nothing but their number can be wrong.
        let micro = format!("{whole}{fraction:0<6}").parse();
        micro.map(Self).map_err(|_| PriceError::TooLarge)
    }
}

impl TryFrom<String> for PerMillion {
    type Error = PriceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Price {
    /// Input that the provider's cache had no part in.
    pub input: PerMillion,
    /// Input that was read from the cache; as `input` when absent.
    pub cached_input: Option<PerMillion>,
    /// Input that was written to the cache; as `input` when absent.
    pub cache_write: Option<PerMillion>,
    /// Output, reasoning included.
    pub output: PerMillion,
}

/// What a call cost.
///
/// Unit: micro-USD, rounded up once, over the sum. What nobody has counted costs nothing; what
/// exceeds a `u64` is its largest value.
#[must_use]
pub fn cost(price: &Price, usage: &Usage) -> u64 {
    let [input, cached, written, output] = [
        usage.input,
        usage.cached_input,
        usage.cache_write,
        usage.output,
    ]
    .map(|tokens| u128::from(tokens.unwrap_or(0)));
    // A provider that reports more from its cache than there was input is billed for what it says.
    let plain = input.saturating_sub(cached + written);
    let pico = [
        (plain, price.input),
        (cached, price.cached_input.unwrap_or(price.input)),
        (written, price.cache_write.unwrap_or(price.input)),
        (output, price.output),
    ]
    .into_iter()
    .map(|(tokens, PerMillion(pico))| tokens.saturating_mul(pico.into()))
    .fold(0, u128::saturating_add);
    u64::try_from(pico.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

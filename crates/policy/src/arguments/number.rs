//! Numbers as they are written, compared exactly.
//!
//! No number becomes an `f64`: 9007199254740993 and 9007199254740992 are two numbers, 100, 100.0
//! and 1e2 are one. Digits are compared where they stand, whatever their count and exponent.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// The largest exponent of a bound, so that no sum of exponents can overflow.
const EXPONENT_MAX: i64 = 1_000_000;
/// What an exponent of a document saturates at: beyond every bound.
const EXPONENT_BEYOND: i64 = 1 << 60;

/// A decimal number of any size.
#[derive(Debug, Clone)]
pub struct Number(Box<str>);

/// Why text is no [`Number`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It has another form.
    #[error("not a decimal number such as 100, -2.5 or 1e6")]
    NotANumber,
    /// Its exponent is out of reason.
    #[error("an exponent beyond {EXPONENT_MAX}")]
    Exponent,
}

impl Number {
    pub(super) fn decimal(&self) -> Decimal<'_> {
        Decimal::read(&self.0)
    }
}

impl FromStr for Number {
    type Err = NumberError;

    /// Reads digits with an optional sign, fraction and exponent; YAML's forms are taken too.
    fn from_str(text: &str) -> Result<Self, NumberError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent_ok = exponent.is_none_or(|exponent| {
            let bare = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !bare.is_empty() && digits(bare)
        });
        let some = !whole.is_empty() || !fraction.is_empty();
        if !(some && digits(whole) && digits(fraction) && exponent_ok) {
            return Err(NumberError::NotANumber);
        }
        let size = exponent.map_or(0, read_exponent);
        if !(-EXPONENT_MAX..=EXPONENT_MAX).contains(&size) {
            return Err(NumberError::Exponent);
        }
        Ok(Self(text.into()))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.decimal().cmp(&other.decimal())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As text, for a JSON number could be rounded by who reads it.
impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The value of a number's text: 0.DIGITS times ten to the power of `point`.
///
/// The digits are those of `whole` and then of `fraction`, without zeros at either end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    point: i64,
}

impl<'a> Decimal<'a> {
    /// Reads text that is known to be a number.
    pub(super) fn read(text: &'a str) -> Self {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut whole = whole.trim_start_matches('0');
        let mut fraction = fraction.trim_end_matches('0');
        let mut point = length(whole);
        if whole.is_empty() {
            let significant = fraction.trim_start_matches('0');
            point = -length(&fraction[..fraction.len() - significant.len()]);
            fraction = significant;
        }
        if fraction.is_empty() {
            whole = whole.trim_end_matches('0');
        }
        Self {
            is_negative: text.starts_with('-'),
            whole,
            fraction,
            point: point.saturating_add(exponent),
        }
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    /// Whether nothing stands behind the point: 1.0 and 1e2 are integers, as in JSON Schema.
    pub(super) fn is_integer(&self) -> bool {
        self.is_zero() || self.point >= length(self.whole).saturating_add(length(self.fraction))
    }

    fn digits(&self) -> impl Iterator<Item = u8> + 'a {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.is_zero(), number.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = || {
            let points = self.point.cmp(&other.point);
            points.then_with(|| self.digits().cmp(other.digits()))
        };
        match (sign(self), sign(other)) {
            (1, 1) => size(),
            (-1, -1) => size().reverse(),
            (own, theirs) => own.cmp(&theirs),
        }
    }
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(EXPONENT_BEYOND)
}

fn read_exponent(text: &str) -> i64 {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    let size = bare.bytes().fold(0i64, |size, digit| {
        let next = size
            .saturating_mul(10)
            .saturating_add(i64::from(digit.wrapping_sub(b'0')));
        next.min(EXPONENT_BEYOND)
    });
    if text.starts_with('-') { -size } else { size }
}

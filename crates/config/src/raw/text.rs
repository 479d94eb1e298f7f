//! Scalars that are parsed as they are read, so that a bad one is reported at its place.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A string of the form `T` reads.
#[derive(Debug, Clone)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<T>(PhantomData<T>);
        impl<T: FromStr<Err: Display>> Visitor<'_> for Parse<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                text.parse()
                    .map_err(|error| E::custom(format_args!("`{text}`: {error}")))
            }
        }
        deserializer.deserialize_str(Parse(PhantomData)).map(Self)
    }
}

impl<T> JsonSchema for Text<T> {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// A duration as Gateway API writes them (GEP-2257): `1h`, `1m30s`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duration(pub(crate) std::time::Duration);

const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration such as 30s, 250ms or 1m30s")]
pub(crate) struct NoDuration;

impl FromStr for Duration {
    type Err = NoDuration;

    fn from_str(text: &str) -> Result<Self, NoDuration> {
        let mut rest = text;
        let mut millis = 0;
        for part in 0.. {
            if rest.is_empty() && part > 0 {
                return Ok(Self(std::time::Duration::from_millis(millis)));
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if part == 4 || !(1..=5).contains(&digits) {
                break;
            }
            let (number, after) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| NoDuration)?;
            let (unit, after) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
                .into_iter()
                .find_map(|(unit, millis)| Some((millis, after.strip_prefix(unit)?)))
                .ok_or(NoDuration)?;
            millis += number * unit;
            rest = after;
        }
        Err(NoDuration)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|Text(duration)| duration)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": DURATION,
            "description": "Such as 30s, 250ms or 1m30s (Gateway API, GEP-2257)."
        })
    }
}

/// A string, or a whole number that stands for its digits.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    struct Either;
    impl Visitor<'_> for Either {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a whole number")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
            Err(E::invalid_type(Unexpected::Float(number), &self))
        }
    }
    deserializer.deserialize_any(Either)
}

#[cfg(test)]
mod tests;

//! What `AgentPolicy` asks of a tool's arguments.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use waypoint_policy::{Number, Scalar, TextPattern};

use super::Text;

/// What is asked of an argument; all fields that are given must hold. A value of another type than
/// a field is about never matches an Allow, and always a Deny.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Constraint {
    /// One of these: strings, numbers, booleans, null.
    #[serde(rename = "in")]
    pub(crate) one_of: Option<Vec<Listed>>,
    /// None of these, but of the type of one of them.
    #[serde(rename = "notIn")]
    pub(crate) none_of: Option<Vec<Listed>>,
    /// A regular expression that is found anywhere in a string, as in JSON Schema; `^` and `$`
    /// are the very beginning and end. No look-around, no backreferences.
    pub(crate) pattern: Option<Text<TextPattern>>,
    /// The smallest number, compared exactly. In quotes, it may have any number of digits.
    pub(crate) min: Option<Bound>,
    /// The largest number, compared exactly. In quotes, it may have any number of digits.
    pub(crate) max: Option<Bound>,
    /// The fewest characters (Unicode scalar values) of a string, or elements of an array.
    pub(crate) min_length: Option<u64>,
    /// The most characters (Unicode scalar values) of a string, or elements of an array.
    pub(crate) max_length: Option<u64>,
    /// The type of the value; 1.0 and 1e2 are integers.
    #[serde(rename = "type")]
    pub(crate) is: Option<Type>,
    /// Default true: where nothing is, neither an Allow nor a Deny matches. False: where nothing
    /// is, both do.
    pub(crate) required: Option<bool>,
}

/// A type of JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Type {
    String,
    Number,
    Integer,
    Boolean,
    Array,
    Object,
    Null,
}

/// A number, or text that holds one.
#[derive(Debug, Clone)]
pub(crate) struct Bound(pub(crate) Number);

/// A string, number, boolean or null.
#[derive(Debug, Clone)]
pub(crate) struct Listed(pub(crate) Scalar);

/// A number as serde hands it over. Those that were rounded on the way are found by their place.
fn number<E: Error>(text: &str) -> Result<Number, E> {
    text.parse()
        .map_err(|error| E::custom(format_args!("`{text}`: {error}")))
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Bound;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Bound, E> {
                number(&value.to_string()).map(Bound)
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Bound, E> {
                number(&value.to_string()).map(Bound)
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Bound, E> {
                number(&value.to_string()).map(Bound)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bound, E> {
                number(text).map(Bound)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Listed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, a boolean or null")
            }
            fn visit_unit<E: Error>(self) -> Result<Listed, E> {
                Ok(Listed(Scalar::Null))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Listed, E> {
                Ok(Listed(Scalar::Bool(value)))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Listed, E> {
                number(&value.to_string()).map(|number| Listed(Scalar::Number(number)))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Listed, E> {
                number(&value.to_string()).map(|number| Listed(Scalar::Number(number)))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Listed, E> {
                number(&value.to_string()).map(|number| Listed(Scalar::Number(number)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Listed, E> {
                Ok(Listed(Scalar::String(text.into())))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for Bound {
    fn schema_name() -> Cow<'static, str> {
        "Bound".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["number", "string"]})
    }
}

impl JsonSchema for Listed {
    fn schema_name() -> Cow<'static, str> {
        "Listed".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean", "null"]})
    }
}

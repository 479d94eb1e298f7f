//! What is asked of one value.

use std::{cmp::Ordering, fmt, str::FromStr};

use regex::{Regex, RegexBuilder};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Number, number::Decimal, read};

/// What a compiled pattern may weigh, in bytes.
const PATTERN_BYTES: usize = 1 << 20;
/// What its cache may grow to at each thread that matches it, in bytes.
const PATTERN_CACHE_BYTES: usize = 256 << 10;

/// What is asked of a value. Fields AND; an absent field asks nothing.
///
/// A value that a field cannot be asked about is of a *wrong type*: a string for `min`, an object
/// for `in`, a string for an `in` of numbers. No Allow matches it, and a Deny does unless another
/// field says no. `type` alone can be asked of every value; beside other fields, another type is a
/// wrong one, for `["evil"]` must not pass where a Deny speaks of the string `evil`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Constraint {
    /// The value is one of these.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<Scalar>>,
    /// The value is of the type of one of these, but none of them.
    #[serde(rename = "notIn", skip_serializing_if = "Option::is_none")]
    pub none_of: Option<Vec<Scalar>>,
    /// The value is a string in which this is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<TextPattern>,
    /// The value is a number that is no smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Number>,
    /// The value is a number that is no larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Number>,
    /// The value is a string of no fewer characters (Unicode scalar values), or an array of no
    /// fewer elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    /// The same, for no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// The value is of this type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub is: Option<JsonType>,
    /// Whether no value at all is fine, for an Allow and for a Deny.
    pub optional: bool,
}

/// A JSON value that is neither an object nor an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names are those of RFC 8259")]
pub enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    String(Box<str>),
}

/// A type of JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of JSON Schema")]
pub enum JsonType {
    String,
    Number,
    /// A number without a fraction: 1.0 and 1e2 are integers.
    Integer,
    Boolean,
    Array,
    Object,
    Null,
}

/// A regular expression that is looked for anywhere in a text, as in JSON Schema: `^` and `$` are
/// its very beginning and end. Time is linear in the text.
#[derive(Debug, Clone)]
pub struct TextPattern(Regex);

/// Text that is no [`TextPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternTooHard(String);

impl TextPattern {
    /// Whether the expression is found in `text`.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl FromStr for TextPattern {
    type Err = PatternTooHard;

    fn from_str(text: &str) -> Result<Self, PatternTooHard> {
        let regex = RegexBuilder::new(text)
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_CACHE_BYTES)
            .build();
        regex.map(Self).map_err(|error| {
            PatternTooHard(match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("the pattern needs more than {limit} bytes")
                }
                // The last line says what; those before it draw where.
                other => {
                    let text = other.to_string();
                    let last = text.lines().last().unwrap_or_default();
                    let last = last.strip_prefix("error: ").unwrap_or(last);
                    format!("not a regular expression: {last}")
                }
            })
        })
    }
}

impl PartialEq for TextPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for TextPattern {}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Serialize for TextPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

/// What came of a constraint, or of one field of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    Fails,
    WrongType,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Fails }
    }
}

/// The kind of a value, by its first byte.
fn kind(value: &RawValue) -> JsonType {
    match value.get().as_bytes().first() {
        Some(b'{') => JsonType::Object,
        Some(b'[') => JsonType::Array,
        Some(b'"') => JsonType::String,
        Some(b't' | b'f') => JsonType::Boolean,
        Some(b'n') => JsonType::Null,
        _ => JsonType::Number,
    }
}

/// The type of a value with its article.
pub(super) fn type_of(value: &RawValue) -> &'static str {
    match kind(value) {
        JsonType::String => "a string",
        JsonType::Number if Decimal::read(value.get()).is_integer() => "an integer",
        JsonType::Number | JsonType::Integer => "a number",
        JsonType::Boolean => "a boolean",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
        JsonType::Null => "null",
    }
}

impl Scalar {
    /// What kind of value it is; numbers are [`JsonType::Number`].
    #[must_use]
    pub fn kind(&self) -> JsonType {
        match self {
            Self::Null => JsonType::Null,
            Self::Bool(_) => JsonType::Boolean,
            Self::Number(_) => JsonType::Number,
            Self::String(_) => JsonType::String,
        }
    }
}

/// Whether a value is listed; a wrong type if nothing of its kind is.
fn listed(list: &[Scalar], value: &RawValue) -> Verdict {
    let kind = kind(value);
    if !list.iter().any(|scalar| scalar.kind() == kind) {
        return Verdict::WrongType;
    }
    let json = value.get();
    let text = match kind {
        JsonType::String => match read::text(value) {
            Some(text) => text,
            None => return Verdict::WrongType,
        },
        _ => "".into(),
    };
    let number = (kind == JsonType::Number).then(|| Decimal::read(json));
    let is = |scalar: &Scalar| match (scalar, kind) {
        (Scalar::Null, JsonType::Null) => true,
        (Scalar::Bool(flag), JsonType::Boolean) => *flag == (json == "true"),
        (Scalar::Number(listed), JsonType::Number) => {
            number.is_some_and(|number| listed.decimal().cmp(&number) == Ordering::Equal)
        }
        (Scalar::String(listed), JsonType::String) => **listed == *text,
        _ => false,
    };
    list.iter().any(is).into()
}

impl Constraint {
    /// What there is to ask of a value that is there. Fields that fail win over wrong types.
    pub(super) fn check(&self, value: &RawValue) -> Verdict {
        let mut verdict = Verdict::Holds;
        for one in [
            self.check_type(value),
            self.check_lists(value),
            self.check_size(value),
            self.check_length(value),
            self.check_pattern(value),
        ] {
            match one {
                Verdict::Fails => return Verdict::Fails,
                Verdict::WrongType => verdict = Verdict::WrongType,
                Verdict::Holds => {}
            }
        }
        verdict
    }

    /// Whether anything but the type is asked.
    fn asks_more(&self) -> bool {
        self.one_of.is_some()
            || self.none_of.is_some()
            || self.pattern.is_some()
            || self.min.is_some()
            || self.max.is_some()
            || self.min_length.is_some()
            || self.max_length.is_some()
    }

    fn check_type(&self, value: &RawValue) -> Verdict {
        let is = match (self.is, kind(value)) {
            (None, _) => true,
            (Some(JsonType::Integer), JsonType::Number) => Decimal::read(value.get()).is_integer(),
            (Some(wanted), kind) => wanted == kind,
        };
        match is {
            false if self.asks_more() => Verdict::WrongType,
            is => is.into(),
        }
    }

    fn check_lists(&self, value: &RawValue) -> Verdict {
        let one_of = self.one_of.as_deref();
        let one_of = one_of.map_or(Verdict::Holds, |list| listed(list, value));
        let none_of = self.none_of.as_deref();
        let none_of = none_of.map_or(Verdict::Holds, |list| match listed(list, value) {
            Verdict::Holds => Verdict::Fails,
            Verdict::Fails => Verdict::Holds,
            Verdict::WrongType => Verdict::WrongType,
        });
        match (one_of, none_of) {
            (Verdict::Fails, _) | (_, Verdict::Fails) => Verdict::Fails,
            (Verdict::WrongType, _) | (_, Verdict::WrongType) => Verdict::WrongType,
            _ => Verdict::Holds,
        }
    }

    fn check_size(&self, value: &RawValue) -> Verdict {
        if self.min.is_none() && self.max.is_none() {
            return Verdict::Holds;
        }
        if kind(value) != JsonType::Number {
            return Verdict::WrongType;
        }
        let number = Decimal::read(value.get());
        let against = |bound: &Number| number.cmp(&bound.decimal());
        let above = self.min.as_ref().is_none_or(|min| against(min).is_ge());
        let below = self.max.as_ref().is_none_or(|max| against(max).is_le());
        (above && below).into()
    }

    fn check_length(&self, value: &RawValue) -> Verdict {
        if self.min_length.is_none() && self.max_length.is_none() {
            return Verdict::Holds;
        }
        let length = match kind(value) {
            JsonType::String => {
                read::text(value).and_then(|text| u64::try_from(text.chars().count()).ok())
            }
            JsonType::Array => read::count(value),
            _ => None,
        };
        let Some(length) = length else {
            return Verdict::WrongType;
        };
        let above = self.min_length.is_none_or(|min| length >= min);
        let below = self.max_length.is_none_or(|max| length <= max);
        (above && below).into()
    }

    fn check_pattern(&self, value: &RawValue) -> Verdict {
        let Some(TextPattern(pattern)) = &self.pattern else {
            return Verdict::Holds;
        };
        match (kind(value), read::text(value)) {
            (JsonType::String, Some(text)) => pattern.is_match(&text).into(),
            _ => Verdict::WrongType,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::String(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::Null => "null",
        })
    }
}

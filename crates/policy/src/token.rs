//! Callers by what a verified token says.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use crate::{Effect, Pattern, istio::Claims};

#[cfg(test)]
mod tests;

/// Some tokens that were verified: of one issuer, with all of these claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// What `iss` is.
    pub issuer: Box<str>,
    /// All of these hold.
    pub claims: Vec<ClaimRule>,
}

/// What one claim says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimRule {
    /// The names that lead to the claim, from the outside in; at least one.
    pub path: Vec<Box<str>>,
    /// The claim, or one element of its list, is one of these. Empty text is none of them.
    pub values: Vec<Pattern>,
}

/// What can be told of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held<'c> {
    /// It is text.
    Text(&'c str),
    /// It is text of several words, as `scope` is (RFC 8693 §4.2).
    Words(&'c str),
    /// It is a list.
    List(&'c [Value]),
    /// There is no such claim.
    Absent,
    /// It is of another type.
    WrongType,
}

impl<'c> Held<'c> {
    /// What stands where these names lead to.
    pub(crate) fn at(claims: &'c Claims, path: &[Box<str>]) -> Self {
        let Some((first, rest)) = path.split_first() else {
            return Self::Absent;
        };
        let mut value = claims.0.get(&**first);
        for name in rest {
            value = match value {
                None => return Self::Absent,
                Some(Value::Object(members)) => members.get(&**name),
                Some(_) => return Self::WrongType,
            };
        }
        let is_words = rest.is_empty() && matches!(&**first, "scope" | "permission");
        match value {
            None => Self::Absent,
            Some(Value::String(text)) if is_words => Self::Words(text),
            Some(Value::String(text)) => Self::Text(text),
            Some(Value::Array(list)) => Self::List(list),
            Some(_) => Self::WrongType,
        }
    }

    /// Every text that is there, and whether there is something that is none.
    pub(crate) fn texts(self, mut each: impl FnMut(&'c str)) -> bool {
        match self {
            Self::Text(text) => each(text),
            Self::Words(text) => text.split(' ').for_each(each),
            Self::List(list) => {
                list.iter().filter_map(Value::as_str).for_each(each);
                return list.iter().any(|value| !value.is_string());
            }
            Self::Absent => {}
            Self::WrongType => return true,
        }
        false
    }
}

impl ClaimRule {
    /// For an Allow, one of the values has to be there; a Deny takes what it cannot read for one.
    fn holds(&self, claims: &Claims, effect: Effect) -> bool {
        let mut found = false;
        let is_odd = Held::at(claims, &self.path).texts(|text| {
            let mut values = self.values.iter();
            found = found || (!text.is_empty() && values.any(|value| value.matches(text)));
        });
        found || (is_odd && effect == Effect::Deny)
    }
}

impl Token {
    /// Whether a request with these claims has such a token.
    pub(crate) fn matches(&self, claims: Option<&Claims>, effect: Effect) -> bool {
        claims.is_some_and(|claims| {
            *self.issuer == *claims.text("iss")
                && self.claims.iter().all(|rule| rule.holds(claims, effect))
        })
    }

    /// What a request has instead, without saying what its token says.
    pub(crate) fn actual(&self, claims: Option<&Claims>) -> &'static str {
        match claims {
            None => "no token",
            Some(claims) if *self.issuer != *claims.text("iss") => "a token of another issuer",
            Some(_) => "a token that says otherwise",
        }
    }
}

/// `role`, or `[team][name]` as Istio writes it.
impl fmt::Display for ClaimRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_slice() {
            [only] => f.write_str(only),
            path => path.iter().try_for_each(|name| write!(f, "[{name}]")),
        }
    }
}

/// `a token of https://issuer with role admin or editor`
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token of {}", self.issuer)?;
        for (index, rule) in self.claims.iter().enumerate() {
            let word = if index == 0 { "with" } else { "and" };
            write!(f, " {word} {rule} {}", crate::explain::list(&rule.values))?;
        }
        Ok(())
    }
}

/// `{"issuer", "claims": {name: values}}`
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Rules<'t>(&'t [ClaimRule]);
        impl Serialize for Rules<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let rules = self.0.iter();
                serializer.collect_map(rules.map(|rule| (rule.to_string(), &rule.values)))
            }
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("issuer", &self.issuer)?;
        map.serialize_entry("claims", &Rules(&self.claims))?;
        map.end()
    }
}

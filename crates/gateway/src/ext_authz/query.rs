//! What a gRPC authorizer has changed in the query of a request.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::CheckError;

/// Parameters that are set in place of all of their name, then those that are removed.
///
/// As Envoy has it, with two differences: names are compared as servers read them, so that
/// `%61dmin=1` does not stay where `admin` goes; and what does not change keeps its place and form.
#[derive(Debug, Default)]
pub(super) struct QueryChanges {
    /// Names and values as they are sent, in order.
    set: Vec<(String, String)>,
    /// Where in `set` a name is.
    places: HashMap<Vec<u8>, usize>,
    remove: HashSet<Vec<u8>>,
}

impl QueryChanges {
    /// What an authorizer asks for.
    ///
    /// # Errors
    /// [`CheckError::Change`] for a parameter that would end the query, or be several: Envoy sends
    /// on what it is told, which is then another request than the one that was allowed.
    pub(super) fn new(
        set: impl IntoIterator<Item = (String, String)>,
        remove: &[String],
    ) -> Result<Self, CheckError> {
        let mut changes = Self {
            remove: remove.iter().map(|name| read(name).into_owned()).collect(),
            ..Self::default()
        };
        for (name, value) in set {
            if name.is_empty() || name.contains('=') || !is_one(&name) {
                return Err(CheckError::Change("the name of a query parameter"));
            }
            if !is_one(&value) {
                return Err(CheckError::Change("the value of a query parameter"));
            }
            let known = read(&name).into_owned();
            // What is both set and removed is not there.
            if changes.remove.contains(&known) {
                continue;
            }
            let next = changes.set.len();
            let place = *changes.places.entry(known).or_insert(next);
            match changes.set.get_mut(place) {
                // The last word counts.
                Some(there) => *there = (name, value),
                None => changes.set.push((name, value)),
            }
        }
        Ok(changes)
    }

    /// The query that goes on; nothing if it stays as it is.
    pub(super) fn apply(&self, query: &str) -> Option<Box<str>> {
        if self.set.is_empty() && self.remove.is_empty() {
            return None;
        }
        let mut is_put = vec![false; self.set.len()];
        let mut pairs: Vec<Cow<'_, str>> = Vec::new();
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            let name = read(name);
            if self.remove.contains(&*name) {
                continue;
            }
            let place = self.places.get(&*name).copied();
            let set = place.and_then(|place| Some((self.set.get(place)?, is_put.get_mut(place)?)));
            match set {
                None => pairs.push(pair.into()),
                Some((_, true)) => {}
                Some((set, is_put)) => {
                    *is_put = true;
                    pairs.push(sent(set));
                }
            }
        }
        let new = self.set.iter().zip(&is_put).filter(|(_, is_put)| !**is_put);
        pairs.extend(new.map(|(set, _)| sent(set)));
        Some(pairs.join("&").into())
    }
}

fn sent((name, value): &(String, String)) -> Cow<'static, str> {
    format!("{name}={value}").into()
}

/// Whether a text stays one part of one parameter (RFC 3986 §3.4).
fn is_one(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'&' && byte != b'#')
}

/// A name as a server reads it (WHATWG URL, "application/x-www-form-urlencoded parsing").
fn read(name: &str) -> Cow<'_, [u8]> {
    if !name.contains(['%', '+']) {
        return name.as_bytes().into();
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.as_bytes();
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        let escaped = match byte {
            b'%' => digit(rest.first()).zip(digit(rest.get(1))),
            _ => None,
        };
        out.push(match (escaped, byte) {
            (Some((high, low)), _) => {
                bytes = rest.get(2..).unwrap_or_default();
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            (None, b'+') => b' ',
            (None, byte) => *byte,
        });
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(set: &[(&str, &str)], remove: &[&str]) -> Result<QueryChanges, CheckError> {
        let set = set
            .iter()
            .map(|(name, value)| (String::from(*name), String::from(*value)));
        let remove: Vec<String> = remove.iter().map(|name| String::from(*name)).collect();
        QueryChanges::new(set, &remove)
    }

    #[test]
    fn parameters_are_set_then_removed() {
        for (case, query, set, remove, expected) in [
            ("nothing", "a=1", &[][..], &[][..], None),
            ("to no query", "", &[("a", "1")], &[], Some("a=1")),
            ("beside others", "b=2", &[("a", "1")], &[], Some("b=2&a=1")),
            (
                "all of a name",
                "a=1&b=2&a=3",
                &[("a", "4")],
                &[],
                Some("a=4&b=2"),
            ),
            (
                "without a value",
                "a&b=2",
                &[("a", "4")],
                &[],
                Some("a=4&b=2"),
            ),
            ("empty", "a=1", &[("a", "")], &[], Some("a=")),
            (
                "the last word",
                "",
                &[("a", "1"), ("b", "2"), ("a", "3")],
                &[],
                Some("a=3&b=2"),
            ),
            ("removed", "a=1&b=2&a=3&a", &[], &["a"], Some("b=2")),
            ("removed to the end", "a=1", &[], &["a"], Some("")),
            ("of no query", "", &[], &["a"], Some("")),
            ("not there", "b=2", &[], &["a"], Some("b=2")),
            (
                "set and removed",
                "a=1&b=2",
                &[("a", "3")],
                &["a"],
                Some("b=2"),
            ),
            ("one name of two", "ab=1&a=2", &[], &["a"], Some("ab=1")),
            (
                "escaped",
                "%61=1&b=2&%41=3",
                &[("a", "4")],
                &[],
                Some("a=4&b=2&%41=3"),
            ),
            (
                "escaped, removed",
                "x=0&%61dm%69n=1",
                &[],
                &["admin"],
                Some("x=0"),
            ),
            ("escaped by who removes", "a=1", &[], &["%61"], Some("")),
            ("a space", "a+b=1&a%20b=2&c", &[], &["a b"], Some("c")),
            (
                "no escape",
                "%6=1&%zz=2&%=3&%6",
                &[],
                &["%6"],
                Some("%zz=2&%=3"),
            ),
            (
                "as they came",
                "&&b=%zz&=&c=a=b",
                &[("a", "x=y")],
                &[],
                Some("&&b=%zz&=&c=a=b&a=x=y"),
            ),
            ("nothing by name", "=1&&a=1", &[], &[""], Some("a=1")),
        ] {
            let changes = changes(set, remove).unwrap();
            assert_eq!(changes.apply(query).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn one_parameter_stays_one() {
        for (name, value) in [
            ("", "1"),
            ("a=b", "1"),
            ("a&b", "1"),
            ("a#", "1"),
            ("a b", "1"),
            ("\u{e4}", "1"),
            ("a", "1&b=2"),
            ("a", "1#b"),
            ("a", "1 HTTP/1.1\r\nx: y"),
            ("a", "\0"),
            ("a", "\u{e4}"),
        ] {
            let changes = changes(&[(name, value)], &[]);
            assert!(
                matches!(changes, Err(CheckError::Change(_))),
                "{name}={value}"
            );
        }
    }
}

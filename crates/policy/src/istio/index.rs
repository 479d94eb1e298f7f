//! Which rules may match a request, found by the field of each that fewest others share.
//!
//! A rule is filed under one of its fields: who calls, from which namespace, which host, which
//! path. Of the fields that name their values it is the one whose values fewest rules name, so
//! that ten thousand rules for one caller are told apart by their paths, and ten thousand callers
//! of one path by who they are. What is found is a candidate; [`matching`](super::matching) has
//! the last word.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::matching::namespaces;
use super::{Attribute, IstioRule, Protocol, Request, Test, TextMatch, Value};

/// Rules that may match, by number.
pub(super) type Found = SmallVec<[u32; 16]>;

/// A field that rules are filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Principal,
    Namespace,
    Host,
    Path,
}

const DIMENSIONS: [Dimension; 4] = [
    Dimension::Principal,
    Dimension::Namespace,
    Dimension::Host,
    Dimension::Path,
];

/// One value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Principal(Box<str>),
    Namespace(Box<str>),
    Host(Box<str>),
    Path(Box<str>),
    PathPrefix(Box<str>),
}

/// Rules of one target and class.
#[derive(Debug, Default)]
pub(super) struct Row {
    principals: HashMap<Box<str>, Vec<u32>>,
    namespaces: HashMap<Box<str>, Vec<u32>>,
    hosts: HashMap<Box<str>, Vec<u32>>,
    paths: HashMap<Box<str>, Vec<u32>>,
    prefixes: HashMap<Box<str>, Vec<u32>>,
    /// Lengths of the keys of `prefixes`, ascending, each once.
    prefix_lengths: Vec<usize>,
    /// Rules that name no value of any field.
    rest: Vec<u32>,
    /// All of them.
    all: Vec<u32>,
}

/// How many rules name each value.
#[derive(Debug, Default)]
pub(super) struct Census(HashMap<Key, usize>);

impl Census {
    pub(super) fn count(&mut self, rule: &IstioRule) {
        for keys in DIMENSIONS.iter().filter_map(|one| keys(rule, *one)) {
            for key in keys {
                *self.0.entry(key).or_default() += 1;
            }
        }
    }

    /// The keys to file a rule under; nothing if it names no value of any field.
    fn choose(&self, rule: &IstioRule) -> Option<Vec<Key>> {
        let dimensions = DIMENSIONS.iter().filter_map(|one| keys(rule, *one));
        dimensions.min_by_key(|keys| {
            let shared = keys.iter().map(|key| self.0.get(key).copied().unwrap_or(0));
            (shared.max().unwrap_or(0), keys.len())
        })
    }
}

impl Row {
    pub(super) fn file(&mut self, number: u32, rule: &IstioRule, census: &Census) {
        self.all.push(number);
        let Some(keys) = census.choose(rule) else {
            self.rest.push(number);
            return;
        };
        for key in keys {
            let (map, text) = match key {
                Key::Principal(text) => (&mut self.principals, text),
                Key::Namespace(text) => (&mut self.namespaces, text),
                Key::Host(text) => (&mut self.hosts, text),
                Key::Path(text) => (&mut self.paths, text),
                Key::PathPrefix(text) => {
                    if let Err(at) = self.prefix_lengths.binary_search(&text.len()) {
                        self.prefix_lengths.insert(at, text.len());
                    }
                    (&mut self.prefixes, text)
                }
            };
            let rules = map.entry(text).or_default();
            // A rule that names a value twice is filed there once.
            if rules.last() != Some(&number) {
                rules.push(number);
            }
        }
    }

    /// Every rule that may match.
    pub(super) fn find(&self, request: &Request<'_>, found: &mut Found) {
        if request.protocol == Protocol::Tcp {
            // Fields of HTTP mean nothing there, so nothing can be told by them.
            found.extend_from_slice(&self.all);
            return;
        }
        found.extend_from_slice(&self.rest);
        let mut take = |map: &HashMap<Box<str>, Vec<u32>>, key: &str| {
            if let Some(rules) = map.get(key) {
                found.extend_from_slice(rules);
            }
        };
        if let Some(id) = request.principal.spiffe() {
            if !self.principals.is_empty() {
                take(
                    &self.principals,
                    id.as_str().strip_prefix("spiffe://").unwrap_or_default(),
                );
            }
            if !self.namespaces.is_empty() {
                for namespace in namespaces(id) {
                    take(&self.namespaces, namespace);
                }
            }
        }
        if !self.hosts.is_empty() {
            match request.host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => take(&self.hosts, &request.host.to_ascii_lowercase()),
                false => take(&self.hosts, request.host),
            }
        }
        if !self.paths.is_empty() {
            take(&self.paths, request.path);
        }
        let lengths = self.prefix_lengths.iter().copied();
        for length in lengths.take_while(|length| *length <= request.path.len()) {
            // Nothing where a character would be cut, which no prefix does.
            if let Some(prefix) = request.path.get(..length) {
                take(&self.prefixes, prefix);
            }
        }
    }
}

/// The values of one field that a matching request must have one of; nothing if the rule leaves it
/// open, or names it by something other than values.
fn keys(rule: &IstioRule, dimension: Dimension) -> Option<Vec<Key>> {
    let test_keys = |test: &Test| keys_of_test(test, dimension);
    if let Some(keys) = rule.when.iter().find_map(test_keys) {
        return Some(keys);
    }
    let side = match dimension {
        Dimension::Principal | Dimension::Namespace => rule.from.as_deref()?,
        Dimension::Host | Dimension::Path => rule.to.as_deref()?,
    };
    let mut all = Vec::new();
    for alternative in side {
        all.extend(alternative.iter().find_map(test_keys)?);
    }
    Some(all)
}

fn keys_of_test(test: &Test, dimension: Dimension) -> Option<Vec<Key>> {
    let belongs = matches!(
        (&test.attribute, dimension),
        (Attribute::Principal, Dimension::Principal)
            | (Attribute::Namespace, Dimension::Namespace)
            | (Attribute::Host, Dimension::Host)
            | (Attribute::Path, Dimension::Path)
    );
    if !belongs {
        return None;
    }
    // An unusable value is as if it were not there; with no other value the field is open.
    let values = test.values.iter().flatten();
    let usable = values.filter(|value| !matches!(value, Value::Unusable(_)));
    let keys: Option<Vec<Key>> = usable.map(|value| key(value, dimension)).collect();
    keys.filter(|keys| !keys.is_empty())
}

fn key(value: &Value, dimension: Dimension) -> Option<Key> {
    match (dimension, value) {
        (Dimension::Principal, Value::Text(TextMatch::Exact(text))) => {
            Some(Key::Principal(text.clone()))
        }
        (Dimension::Namespace, Value::Namespace(pattern)) => {
            pattern.as_exact().map(|name| Key::Namespace(name.into()))
        }
        (Dimension::Host, Value::Text(TextMatch::Exact(text))) => {
            Some(Key::Host(text.to_ascii_lowercase().into()))
        }
        (Dimension::Path, Value::Text(TextMatch::Exact(text))) => Some(Key::Path(text.clone())),
        (Dimension::Path, Value::Text(TextMatch::Prefix(text))) => {
            Some(Key::PathPrefix(text.clone()))
        }
        (Dimension::Path, Value::Template(template)) => {
            Some(Key::PathPrefix(template.literal_prefix().into()))
        }
        _ => None,
    }
}

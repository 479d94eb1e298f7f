//! From a tree of nodes to a raw object, with all that is wrong in it at once.
//!
//! Serde stops at the first error. So the error is noted, the node it is about is taken out of a
//! copy, and the copy is tried again. What is missing only because we took it out is not an
//! error of the author.

use std::collections::{HashMap, HashSet};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::object::{Diagnostics, ENVELOPE, Object};
use crate::suggest;
use crate::yaml::{Node, Position, Value};

/// Errors reported for one object.
const MAX_ERRORS: usize = 25;
/// Tries for one object; more than errors, as unknown fields of lenient kinds are taken out too.
const MAX_ROUNDS: usize = 200;

/// How unknown fields are taken.
pub(crate) struct Leniency {
    /// Names that exist in the kind's own API and change nothing for us.
    pub(crate) ignored: &'static [&'static str],
    /// Below a field of one of these names, an unknown field is an error all the same.
    pub(crate) strict_below: &'static [&'static str],
}

/// What can be read of an object when its errors are taken out.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The object without its errors and without what is read elsewhere.
    pub(crate) node: Node,
    /// Where what was taken out may be missed: whatever was around it, up to the object itself.
    pub(crate) around: HashSet<Position>,
}

/// The raw form of an object.
///
/// # Errors
/// The rest of it, if there is one, after its errors were reported.
pub(crate) fn decode<T: DeserializeOwned>(
    object: &Object,
    leniency: Option<&Leniency>,
    out: &mut Diagnostics,
) -> Result<T, Option<Rest>> {
    let mut node = object.node.clone();
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| !ENVELOPE.contains(&entry.key.as_str()));
    }
    let mut decoder = Decoder {
        object,
        node,
        leniency,
        holes: HashSet::new(),
        gone: HashMap::new(),
        around: HashSet::new(),
        out,
        errors: 0,
    };
    decoder.drop_nulls();
    decoder.run()
}

struct Decoder<'a> {
    object: &'a Object,
    /// What is tried; shrinks with every error.
    node: Node,
    leniency: Option<&'a Leniency>,
    /// Fields we took out: the place of the map they were in, and their name.
    holes: HashSet<(Position, String)>,
    /// Items we took out: the place of the list they were in, and their indexes as written.
    gone: HashMap<Position, Vec<usize>>,
    /// What was around them.
    around: HashSet<Position>,
    out: &'a mut Diagnostics,
    errors: usize,
}

/// A step from a node to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Decoder<'_> {
    fn run<T: DeserializeOwned>(&mut self) -> Result<T, Option<Rest>> {
        for _ in 0..MAX_ROUNDS {
            if self.errors >= MAX_ERRORS {
                break;
            }
            let error = match serde_path_to_error::deserialize(self.node.to_json()) {
                Ok(raw) if self.errors == 0 => return Ok(raw),
                Ok(_) => return Err(Some(self.rest())),
                Err(error) => error,
            };
            let mut path: Vec<Step> = error
                .path()
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Map { key } => Some(Step::Key(key.clone())),
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect();
            let message = error.into_inner().to_string();
            if let Some(field) = quoted_after(&message, "missing field ") {
                self.missing(&path, field);
            } else if let Some(field) = quoted_after(&message, "unknown field ") {
                // The path ends with the field itself, except at the root.
                if path.last() != Some(&Step::Key(field.to_owned())) {
                    path.push(Step::Key(field.to_owned()));
                }
                self.unknown(&path, field, &message);
            } else {
                self.bad(&path, &message);
            }
            if !self.remove(&path) {
                break;
            }
        }
        if self.errors == 0 {
            // Not reached by any object that fits the kind.
            self.report(
                self.node.at,
                "unreadable",
                "too many fields that this kind does not have".into(),
            );
        }
        Err(None)
    }

    fn rest(&self) -> Rest {
        Rest {
            node: self.node.clone(),
            around: self.around.clone(),
        }
    }

    fn missing(&mut self, path: &[Step], field: &str) {
        let holes = self.find(path).map(|node| (node.at, field.to_owned()));
        if holes.is_some_and(|hole| self.holes.contains(&hole)) {
            return;
        }
        let message = format!("`{}` is missing", self.show(path, Some(field)));
        self.report(self.place(path), "missing-field", message);
    }

    fn unknown(&mut self, path: &[Step], field: &str, message: &str) {
        let expected = message
            .split_once(", expected ")
            .map(|(_, list)| list)
            .unwrap_or_default();
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let text = format!(
            "unknown field `{}`{}",
            self.show(path, None),
            suggest::hint(field, &known)
        );
        // What was meant is not missing as well.
        let meant = suggest::nearest(field, &known);
        let parent = path
            .split_last()
            .and_then(|(_, parents)| self.find(parents));
        if let (Some(meant), Some(parent)) = (meant, parent) {
            self.holes.insert((parent.at, meant.to_owned()));
        }
        let Some(leniency) = self.leniency else {
            self.report(self.key_place(path), "unknown-field", text);
            return;
        };
        let below = |step: &Step| matches!(step, Step::Key(key) if leniency.strict_below.contains(&key.as_str()));
        if path.iter().rev().skip(1).any(below) {
            self.report(self.key_place(path), "unknown-field", text);
        } else if !leniency.ignored.contains(&field) {
            let at = self.object.at().moved(self.key_place(path));
            self.out
                .warning(at, "unknown-field", format!("{text} (ignored)"));
        }
    }

    fn bad(&mut self, path: &[Step], message: &str) {
        let secret = self.object.kind.as_str() == "Secret"
            || path
                .iter()
                .any(|step| matches!(step, Step::Key(key) if key == "credential"));
        let (code, message) = phrase(message, secret);
        let message = match path {
            [] => message,
            _ => format!("`{}`: {message}", self.show(path, None)),
        };
        self.report(self.place(path), code, message);
    }

    /// A place in the tree as it was written. Items of lists move when one before them is taken
    /// out, so the copy is asked for the position.
    fn place(&self, path: &[Step]) -> Position {
        let mut node = &self.node;
        let mut place = node.at;
        for step in path {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Map(_)) => node.entry(key).map(|entry| {
                    let later = entry.value.at.line != entry.at.line;
                    (if later { entry.at } else { entry.value.at }, &entry.value)
                }),
                (Step::Index(index), Value::List(items)) => {
                    items.get(*index).map(|item| (item.at, item))
                }
                _ => None,
            };
            let Some((at, inner)) = next else { break };
            (place, node) = (at, inner);
        }
        place
    }

    /// The place of a field's key.
    fn key_place(&self, path: &[Step]) -> Position {
        match path.split_last() {
            Some((Step::Key(key), parents)) => self
                .find(parents)
                .and_then(|parent| parent.entry(key))
                .map_or_else(|| self.place(path), |entry| entry.at),
            _ => self.place(path),
        }
    }

    fn report(&mut self, place: Position, code: &'static str, message: String) {
        let at = self.object.at().moved(place);
        self.errors += 1;
        self.out.error(at, code, message);
    }

    fn find(&self, path: &[Step]) -> Option<&Node> {
        path.iter()
            .try_fold(&self.node, |node, step| match (step, &node.value) {
                (Step::Key(key), Value::Map(_)) => node.get(key),
                (Step::Index(index), Value::List(items)) => items.get(*index),
                _ => None,
            })
    }

    /// Takes a node out of the copy; false for the whole object.
    fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        for depth in 0..=path.len() {
            let outer = &path[..depth];
            self.around
                .extend([self.place(outer), self.key_place(outer)]);
            self.around.extend(self.find(outer).map(|node| node.at));
        }
        let parent =
            parents
                .iter()
                .try_fold(&mut self.node, |node, step| match (step, &mut node.value) {
                    (Step::Key(key), Value::Map(entries)) => entries
                        .iter_mut()
                        .find(|entry| entry.key == *key)
                        .map(|entry| &mut entry.value),
                    (Step::Index(index), Value::List(items)) => items.get_mut(*index),
                    _ => None,
                });
        let Some(parent) = parent else { return false };
        match (last, &mut parent.value) {
            (Step::Key(key), Value::Map(entries)) => {
                let before = entries.len();
                entries.retain(|entry| entry.key != *key);
                self.holes.insert((parent.at, key.clone()));
                entries.len() < before
            }
            (Step::Index(index), Value::List(items)) if *index < items.len() => {
                items.remove(*index);
                let gone = self.gone.entry(parent.at).or_default();
                gone.push(as_written(*index, gone));
                gone.sort_unstable();
                true
            }
            _ => false,
        }
    }

    /// A path as people write it: `spec.rules[0].from`.
    fn show(&self, path: &[Step], field: Option<&str>) -> String {
        let mut text = String::new();
        for (depth, step) in path.iter().enumerate() {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => text.push_str(&format!(".{key}")),
                Step::Index(index) => {
                    let list = self
                        .find(&path[..depth])
                        .and_then(|list| self.gone.get(&list.at));
                    let index = as_written(*index, list.map_or(&[], Vec::as_slice));
                    text.push_str(&format!("[{index}]"));
                }
            }
        }
        match field {
            Some(field) if text.is_empty() => field.to_owned(),
            Some(field) => format!("{text}.{field}"),
            None => text,
        }
    }

    /// A field without a value is as good as absent to Kubernetes. Where absence widens (`from:`),
    /// that must not happen by accident.
    fn drop_nulls(&mut self) {
        let mut found = Vec::new();
        nulls(&self.node, &mut Vec::new(), &mut found);
        for path in found.into_iter().rev() {
            if self.leniency.is_none() && self.errors < MAX_ERRORS {
                let shown = self.show(&path, None);
                let message = match &*shown {
                    // An empty one says something: of an AuthorizationPolicy that it denies all.
                    "spec" => "`spec` has no value; write `spec: {}` for an empty one".to_owned(),
                    _ => format!("`{shown}` has no value; give one or remove it"),
                };
                self.report(self.place(&path), "no-value", message);
            }
            self.remove(&path);
        }
    }
}

fn nulls(node: &Node, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    match &node.value {
        Value::Null if is_listed(path) => {}
        Value::Null => found.push(path.clone()),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                nulls(item, path, found);
                path.pop();
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                path.push(Step::Key(entry.key.clone()));
                nulls(&entry.value, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Whether a path ends at a value that an argument may have, where null is one like any other.
fn is_listed(path: &[Step]) -> bool {
    let [
        ..,
        Step::Key(arguments),
        Step::Key(_),
        Step::Key(list),
        Step::Index(_),
    ] = path
    else {
        return false;
    };
    arguments == "arguments" && ["in", "notIn"].contains(&list.as_str())
}

/// The index an item was written at, given those of the items that were taken out, in order.
fn as_written(index: usize, gone: &[usize]) -> usize {
    gone.iter().fold(
        index,
        |index, gone| if *gone <= index { index + 1 } else { index },
    )
}

/// The word in backticks after the beginning of one of serde's messages.
fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message
        .strip_prefix(start)?
        .strip_prefix('`')?
        .split('`')
        .next()
}

/// One of serde's messages in words of configuration. What was written is left out where it may
/// be a secret.
fn phrase(message: &str, secret: bool) -> (&'static str, String) {
    if let Some(variant) = quoted_after(message, "unknown variant ") {
        let expected = message
            .split_once(", expected ")
            .map(|(_, list)| list)
            .unwrap_or_default();
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let list: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
        return (
            "unknown-value",
            format!("`{variant}` is not one of {}", list.join(", ")),
        );
    }
    let typed = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match typed {
        Some((found, expected)) => {
            let expected = match expected {
                "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number in range",
                "a sequence" => "a list",
                "a map" => "an object",
                _ if expected.starts_with("struct ") => "an object",
                _ => expected,
            };
            let found = match found {
                "sequence" => "a list",
                "map" => "an object",
                _ => found,
            };
            let text = match secret {
                true => format!("expected {expected}"),
                false => format!("expected {expected}, found {found}"),
            };
            ("wrong-type", text)
        }
        None if secret => ("bad-value", "not a valid value".to_owned()),
        None => ("bad-value", message.to_owned()),
    }
}

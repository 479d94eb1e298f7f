//! Objects as they are found in files: kind, name, and the places of their fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use waypoint_policy::ObjectName;

use crate::diagnostic::{Diagnostic, Severity, Skipped};
use crate::kind::{Class, ObjectKind, classify};
use crate::yaml::{self, Node, Position, Value};
use crate::{File, suggest};

/// Parts of every object that are not of its kind.
pub(crate) const ENVELOPE: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// The namespace of objects that name none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// One object of a kind we read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) file: Arc<str>,
    pub(crate) kind: ObjectKind,
    pub(crate) name: ObjectName,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) node: Node,
}

impl Object {
    /// The object itself, as a place.
    pub(crate) fn at(&self) -> At<'_> {
        At {
            file: &self.file,
            node: Some(&self.node),
            place: self.node.at,
        }
    }

    /// Takes these fields for all that is in it beside its envelope.
    pub(crate) fn replace(&mut self, fields: Node) {
        if let (Value::Map(old), Value::Map(new)) = (&mut self.node.value, fields.value) {
            old.retain(|entry| ENVELOPE.contains(&entry.key.as_str()));
            old.extend(new);
        }
    }

    /// Its `spec`, as a place.
    pub(crate) fn spec(&self) -> At<'_> {
        self.at().key("spec")
    }

    /// Its name, as a place.
    pub(crate) fn name_at(&self) -> At<'_> {
        self.at().key("metadata").key("name")
    }
}

/// A place in an object: a field, or the nearest thing around it that was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) file: &'a str,
    node: Option<&'a Node>,
    pub(crate) place: Position,
}

impl<'a> At<'a> {
    /// A node of a file.
    pub(crate) fn node(file: &'a str, node: &'a Node) -> Self {
        Self {
            file,
            node: Some(node),
            place: node.at,
        }
    }

    /// Another position in the same file.
    #[must_use]
    pub(crate) fn moved(self, place: Position) -> Self {
        Self { place, ..self }
    }

    /// Whether a number is there that lost digits when it was read.
    pub(crate) fn is_rounded(self) -> bool {
        matches!(self.node.map(|node| &node.value), Some(Value::Rounded(_)))
    }

    /// A field of this place.
    #[must_use]
    pub(crate) fn key(self, key: &str) -> Self {
        match self.node.and_then(|node| node.entry(key)) {
            // What begins on a later line is found by its key.
            Some(entry) if entry.value.at.line != entry.at.line => Self {
                node: Some(&entry.value),
                place: entry.at,
                ..self
            },
            Some(entry) => Self {
                node: Some(&entry.value),
                place: entry.value.at,
                ..self
            },
            None => Self { node: None, ..self },
        }
    }

    /// An item of this place.
    #[must_use]
    pub(crate) fn index(self, index: usize) -> Self {
        match self.node.map(|node| &node.value) {
            Some(Value::List(items)) if index < items.len() => Self {
                node: items.get(index),
                place: items[index].at,
                ..self
            },
            _ => Self { node: None, ..self },
        }
    }
}

/// Findings, as they are collected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(crate) fn error(&mut self, at: At<'_>, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Error, at, code, message.into());
    }

    pub(crate) fn warning(&mut self, at: At<'_>, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Warning, at, code, message.into());
    }

    /// An error that belongs to no file.
    pub(crate) fn global(&mut self, code: &'static str, message: impl Into<String>) {
        self.list.push(Diagnostic::global(code, message));
    }

    pub(crate) fn push(
        &mut self,
        severity: Severity,
        at: At<'_>,
        code: &'static str,
        message: String,
    ) {
        self.list.push(Diagnostic {
            severity,
            code,
            message,
            file: at.file.to_owned(),
            line: at.place.line,
            col: at.place.col,
        });
    }

    /// Takes over those of other findings that count.
    pub(crate) fn adopt(&mut self, other: Self, counts: impl Fn(&Diagnostic) -> bool) {
        self.list.extend(other.list.into_iter().filter(counts));
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn errors_since(&self, mark: usize) -> bool {
        self.list.iter().skip(mark).any(Diagnostic::is_error)
    }

    /// Whether objects are missing because what defines them could not be read.
    pub(crate) fn lost_objects(&self) -> bool {
        let losing = |d: &Diagnostic| {
            d.code.starts_with("yaml-")
                || [
                    "not-an-object",
                    "bad-name",
                    "unknown-kind",
                    "unknown-version",
                ]
                .contains(&d.code)
        };
        self.list.iter().any(losing)
    }

    /// All findings by place, each once.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by(|a, b| {
            (&a.file, a.line, a.col, a.severity, a.code, &a.message)
                .cmp(&(&b.file, b.line, b.col, b.severity, b.code, &b.message))
        });
        self.list.dedup();
        self.list
    }
}

/// Reads the objects of all files; lists are taken apart.
pub(crate) fn load(files: &[File], out: &mut Diagnostics) -> (Vec<Object>, Vec<Skipped>) {
    let mut objects = Vec::new();
    let mut skipped = Vec::new();
    for file in files {
        let path: Arc<str> = file.path.as_str().into();
        let (documents, faults) = yaml::read(&file.text);
        for fault in faults {
            let at = At {
                file: &path,
                node: None,
                place: fault.at,
            };
            out.error(at, fault.code, fault.message);
        }
        let mut pending: Vec<Node> = documents.into_iter().rev().collect();
        while let Some(node) = pending.pop() {
            if let Some(items) = list_items(&node) {
                pending.extend(items.iter().rev().cloned());
                continue;
            }
            match read_object(&path, node, out) {
                Some(Read::Object(object)) => objects.push(object),
                Some(Read::Skipped(other)) => skipped.push(other),
                None => {}
            }
        }
    }
    (objects, skipped)
}

fn list_items(node: &Node) -> Option<&[Node]> {
    let kind = node.get("kind")?.as_str()?;
    match node.get("items").map(|items| &items.value) {
        Some(Value::List(items)) if kind.ends_with("List") => Some(items),
        _ => None,
    }
}

enum Read {
    Object(Object),
    Skipped(Skipped),
}

fn read_object(file: &Arc<str>, node: Node, out: &mut Diagnostics) -> Option<Read> {
    let at = At::node(file, &node);
    match &node.value {
        // A document of comments only.
        Value::Null => return None,
        Value::Map(_) => {}
        _ => {
            out.error(
                at,
                "not-an-object",
                "a document must be an object with apiVersion and kind",
            );
            return None;
        }
    }
    let text = |key: &str| {
        node.get(key)
            .and_then(Node::as_str)
            .filter(|text| !text.is_empty())
    };
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        for key in ["apiVersion", "kind"] {
            if text(key).is_none() {
                out.error(
                    at.key(key),
                    "not-an-object",
                    format!("`{key}` must be a non-empty string"),
                );
            }
        }
        return None;
    };
    let metadata = node.get("metadata");
    let meta = |key: &str| metadata.and_then(|m| m.get(key)).and_then(Node::as_str);
    let name = meta("name").unwrap_or_default();
    let kind = match classify(api_version, kind) {
        Class::Read(kind) => kind,
        Class::NotEnforced => {
            let advice = format!(
                "{kind} is not enforced yet, refusing to start without it; remove {kind} {name} only \
                 if what it forbids may happen"
            );
            out.error(at.key("kind"), "not-enforced", advice);
            return None;
        }
        Class::UnknownVersion(versions) => {
            let message = format!("{kind} has no version `{api_version}`; use {versions}");
            out.error(at.key("apiVersion"), "unknown-version", message);
            return None;
        }
        Class::UnknownKind(kinds) => {
            let hint = suggest::hint(kind, kinds);
            let message = format!("`{api_version}` has no kind `{kind}`{hint}");
            out.error(at.key("kind"), "unknown-kind", message);
            return None;
        }
        Class::Other => {
            let namespace = meta("namespace").unwrap_or(DEFAULT_NAMESPACE);
            return Some(Read::Skipped(Skipped {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                name: format!("{namespace}/{name}"),
                file: file.to_string(),
                line: node.at.line,
            }));
        }
    };
    if !is_name(name) {
        let message = format!("`metadata.name` must be a lower-case DNS name, not `{name}`");
        out.error(at.key("metadata").key("name"), "bad-name", message);
        return None;
    }
    let namespace = match meta("namespace") {
        _ if kind.is_cluster_scoped() => "",
        None => DEFAULT_NAMESPACE,
        Some(namespace) if is_label(namespace) => namespace,
        Some(namespace) => {
            let message =
                format!("`metadata.namespace` must be a lower-case DNS label, not `{namespace}`");
            out.error(at.key("metadata").key("namespace"), "bad-name", message);
            return None;
        }
    };
    let name = ObjectName::new(namespace, name);
    let mut strings = |key: &'static str| {
        let mut map = BTreeMap::new();
        let Some(Node {
            value: Value::Map(entries),
            ..
        }) = metadata.and_then(|m| m.get(key))
        else {
            return map;
        };
        for entry in entries {
            match entry.value.as_str() {
                Some(text) => {
                    map.insert(entry.key.clone(), text.to_owned());
                }
                None => {
                    let place = at.key("metadata").key(key).key(&entry.key);
                    let message = format!(
                        "`metadata.{key}.{}` must be a string; put it in quotes",
                        entry.key
                    );
                    out.error(place, "wrong-type", message);
                }
            }
        }
        map
    };
    let (labels, annotations) = (strings("labels"), strings("annotations"));
    Some(Read::Object(Object {
        file: file.clone(),
        kind,
        name,
        labels,
        annotations,
        node,
    }))
}

/// A DNS label: RFC 1123 §2.1, lower case.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS name of such labels.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

//! YAML documents as trees of nodes that know their line and column.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

mod scalar;

/// Nodes in one file, with aliases written out.
const MAX_NODES: usize = 1_000_000;
/// Maps and lists inside each other.
const MAX_DEPTH: usize = 128;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Position {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) col: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// A value (YAML 1.2 core schema).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    /// A number that was written with more digits than this one has.
    Rounded(serde_json::Number),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, where it stands, and its value. Keys of one map differ.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

/// Something that is not YAML, or more than we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Position,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Node {
    /// The value of a key of this map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key of this map, with its place.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same without places. Recursion is bounded by the depth that the reader allows.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(value) | Value::Rounded(value) => {
                serde_json::Value::Number(value.clone())
            }
            Value::String(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }

    /// How many nodes and levels this is.
    fn size(&self) -> (usize, usize) {
        let below = |(count, depth): (usize, usize), node: &Node| {
            let (c, d) = node.size();
            (count + c, depth.max(d))
        };
        let (count, depth) = match &self.value {
            Value::List(items) => items.iter().fold((0, 0), below),
            Value::Map(entries) => entries.iter().map(|entry| &entry.value).fold((0, 0), below),
            _ => return (1, 0),
        };
        (count + 1, depth + 1)
    }
}

/// Reads all documents of a file. A document that cannot be read is left out; the next is looked
/// for at the next line that begins with `---`.
pub(crate) fn read(text: &str) -> (Vec<Node>, Vec<Fault>) {
    let mut reader = Reader {
        first_line: 1,
        ..Reader::default()
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let joined = join_surrogates(text);
    let mut rest = &*joined;
    while let Err(fault) = reader.read_stream(rest) {
        // Look on behind the line of the fault.
        let fault_line = fault.at.line;
        let out_of_budget = fault.code == "yaml-too-large";
        reader.faults.push(fault);
        reader.abandon();
        if out_of_budget {
            break;
        }
        let skip = (fault_line + 1).saturating_sub(reader.first_line).max(1);
        let Some((lines, offset)) = next_document(rest, skip) else {
            break;
        };
        reader.first_line += lines;
        rest = &rest[offset..];
    }
    (reader.documents, reader.faults)
}

/// JSON writes characters beyond U+FFFF as two escapes (RFC 8259 §7), YAML does not know these.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    let json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if !text.trim_start().starts_with(['{', '[']) || !text.contains("\\u") || !json() {
        return Cow::Borrowed(text);
    }
    let unit = |at: &str| {
        let digits = at.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let pair = unit(rest).zip(rest.get(6..).and_then(unit));
        let joined = pair.and_then(|(high, low)| {
            let joined = char::decode_utf16([high, low]).next()?.ok()?;
            (u32::from(joined) > 0xffff).then_some(joined)
        });
        match joined {
            Some(joined) => {
                out.push(joined);
                rest = &rest[12..];
            }
            // The escape and what it escapes; both ASCII, as the text is JSON.
            None => {
                let (escape, after) = rest.split_at(rest.len().min(2));
                out.push_str(escape);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Lines and bytes to the first line from `skip` on that begins a document.
fn next_document(text: &str, skip: usize) -> Option<(usize, usize)> {
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if index >= skip && marker {
            return Some((index, offset));
        }
        offset += line.len();
    }
    None
}

/// A map or list that is not closed yet.
#[derive(Debug)]
enum Open {
    List {
        at: Position,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        at: Position,
        anchor: usize,
        entries: Vec<Entry>,
        seen: HashMap<String, Position>,
        key: Option<Key>,
    },
}

#[derive(Debug)]
struct Key {
    text: String,
    at: Position,
    /// A key that was there before; its value is read and dropped.
    repeated: bool,
}

#[derive(Debug, Default)]
struct Reader {
    /// The line of the file at which the text being read begins.
    first_line: usize,
    documents: Vec<Node>,
    faults: Vec<Fault>,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Reader {
    fn abandon(&mut self) {
        self.open.clear();
        self.root = None;
        self.anchors.clear();
    }

    fn read_stream(&mut self, text: &str) -> Result<(), Fault> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| Fault {
                at: self.position(error.marker().line(), error.marker().col()),
                code: "yaml-syntax",
                message: error.info().to_lowercase(),
            })?;
            self.event(event, span)?;
        }
        Ok(())
    }

    fn position(&self, line: usize, col: usize) -> Position {
        Position {
            line: line.max(1) + self.first_line - 1,
            col: col + 1,
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let at = self.position(span.start.line(), span.start.col());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
            Event::DocumentStart(_) => self.abandon(),
            Event::DocumentEnd => {
                self.documents.extend(self.root.take());
                self.abandon();
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).ok_or_else(|| Fault {
                    at,
                    code: "yaml-syntax",
                    message: "alias to an anchor that is not finished in this document".into(),
                })?;
                let (count, depth) = node.size();
                let node = node.clone();
                self.charge(count, depth, at)?;
                self.value(node)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(1, 0, at)?;
                self.scalar(&text, style, anchor, tag.as_deref(), at)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection(tag.as_deref(), at)?;
                self.open.push(Open::List {
                    at,
                    anchor,
                    items: Vec::new(),
                });
            }
            Event::MappingStart(anchor, tag) => {
                self.collection(tag.as_deref(), at)?;
                self.open.push(Open::Map {
                    at,
                    anchor,
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    key: None,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (node, anchor) = match self.open.pop() {
                    Some(Open::List { at, anchor, items }) => (
                        Node {
                            at,
                            value: Value::List(items),
                        },
                        anchor,
                    ),
                    Some(Open::Map {
                        at,
                        anchor,
                        entries,
                        ..
                    }) => (
                        Node {
                            at,
                            value: Value::Map(entries),
                        },
                        anchor,
                    ),
                    None => return Ok(()),
                };
                self.anchor(anchor, &node)?;
                self.value(node)?;
            }
        }
        Ok(())
    }

    fn collection(&mut self, tag: Option<&Tag>, at: Position) -> Result<(), Fault> {
        self.charge(1, 1, at)?;
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && matches!(&*tag.suffix, "map" | "seq")) => {
                Err(unknown_tag(tag, at))
            }
            _ => self.no_key_expected(at),
        }
    }

    /// A map or list cannot be a key.
    fn no_key_expected(&self, at: Position) -> Result<(), Fault> {
        match self.open.last() {
            Some(Open::Map { key: None, .. }) => Err(Fault {
                at,
                code: "yaml-syntax",
                message: "a key must be a string".into(),
            }),
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: Position,
    ) -> Result<(), Fault> {
        if let Some(Open::Map {
            seen,
            key: key @ None,
            ..
        }) = self.open.last_mut()
        {
            let first = seen.get(text).copied();
            if let Some(first) = first {
                self.faults.push(Fault {
                    at,
                    code: "duplicate-key",
                    message: format!("key `{text}` is already set in line {}", first.line),
                });
            } else {
                seen.insert(text.to_owned(), at);
            }
            *key = Some(Key {
                text: text.to_owned(),
                at,
                repeated: first.is_some(),
            });
            return Ok(());
        }
        let value = match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => {
                Value::String(text.to_owned())
            }
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => {
                Value::String(text.to_owned())
            }
            Some(tag)
                if tag.is_yaml_core_schema()
                    && matches!(&*tag.suffix, "int" | "float" | "bool" | "null") =>
            {
                scalar::resolve(text)
            }
            Some(tag) => return Err(unknown_tag(tag, at)),
            None if style == ScalarStyle::Plain => scalar::resolve(text),
            None => Value::String(text.to_owned()),
        };
        let node = Node { at, value };
        self.anchor(anchor, &node)?;
        self.value(node)
    }

    fn anchor(&mut self, anchor: usize, node: &Node) -> Result<(), Fault> {
        if anchor > 0 {
            self.charge(node.size().0, 0, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn value(&mut self, node: Node) -> Result<(), Fault> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some(key) if key.repeated => {}
                Some(Key { text, at, .. }) => entries.push(Entry {
                    key: text,
                    at,
                    value: node,
                }),
                None => {
                    return Err(Fault {
                        at: node.at,
                        code: "yaml-syntax",
                        message: "a key must be a string".into(),
                    });
                }
            },
        }
        Ok(())
    }

    fn charge(&mut self, nodes: usize, depth: usize, at: Position) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(Fault {
                at,
                code: "yaml-too-large",
                message: format!("more than {MAX_NODES} values in one file, aliases written out"),
            });
        }
        if self.open.len() + depth > MAX_DEPTH {
            return Err(Fault {
                at,
                code: "yaml-too-deep",
                message: format!("more than {MAX_DEPTH} maps and lists inside each other"),
            });
        }
        Ok(())
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> Fault {
    Fault {
        at,
        code: "yaml-syntax",
        message: format!("tag `{tag}` is not supported"),
    }
}

#[cfg(test)]
mod tests;

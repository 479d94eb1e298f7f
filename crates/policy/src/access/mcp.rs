//! Which MCP messages a rule is about.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::Action;

/// Some MCP messages: those with one of these methods, and those of the base protocol if it is
/// asked for. Without either it matches none; a rule about all of MCP has no such part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct McpAccess {
    /// Any of these.
    pub methods: Vec<McpMethod>,
    /// Whether messages that use no tool, prompt or resource match, and the GET and DELETE of a
    /// session (`MATCH_BASE_PROTOCOL_METHODS`).
    pub base_protocol: bool,
}

/// A method, and what it may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct McpMethod {
    /// The method, or a family of them.
    pub name: MethodName,
    /// Any of these tools, prompts or URIs, to the letter; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Box<str>>,
}

/// What stands for methods in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodName {
    /// Everything that begins so: `tools`, `prompts` or `resources`.
    Family(&'static str),
    /// One method.
    One(&'static str),
}

/// Text that is no [`MethodName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "one of tools, prompts, resources, tools/list, prompts/list, resources/list, \
     resources/templates/list, tools/call, prompts/get, resources/read, resources/subscribe, \
     resources/unsubscribe"
)]
pub struct UnknownMethodName;

const FAMILIES: [&str; 3] = ["tools", "prompts", "resources"];
const LISTS: [&str; 4] = [
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
];
const ITEMS: [&str; 5] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
];

impl MethodName {
    /// Whether its messages name something, so that `params` can be asked for.
    #[must_use]
    pub fn names_items(self) -> bool {
        matches!(self, Self::One(name) if ITEMS.contains(&name))
    }

    /// The name as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Family(name) | Self::One(name) => name,
        }
    }

    fn matches(self, method: &str) -> bool {
        match self {
            Self::One(name) => name == method,
            Self::Family(name) => (method.strip_prefix(name)).is_some_and(|m| m.starts_with('/')),
        }
    }
}

impl FromStr for MethodName {
    type Err = UnknownMethodName;

    fn from_str(text: &str) -> Result<Self, UnknownMethodName> {
        if let Some(family) = FAMILIES.into_iter().find(|name| *name == text) {
            return Ok(Self::Family(family));
        }
        let one = LISTS.into_iter().chain(ITEMS).find(|name| *name == text);
        one.map(Self::One).ok_or(UnknownMethodName)
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MethodName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl McpAccess {
    /// Whether `action` is an MCP message of these. Asked whether anything may be done at a server,
    /// it is yes where something is.
    pub(super) fn matches(&self, action: &Action<'_>) -> bool {
        match *action {
            Action::Mcp { method, name, .. } => self.item(method, Some(name)),
            Action::McpSession {
                method: Some(method),
                ..
            } => self.item(method, None),
            Action::McpSession { method: None, .. } => {
                self.base_protocol || !self.methods.is_empty()
            }
            Action::Llm { .. } | Action::LlmAny { .. } | Action::Http { .. } => false,
        }
    }

    fn item(&self, method: &str, name: Option<&str>) -> bool {
        // The one form that subscriptions have since 2026-07-28.
        let method = match (method, name) {
            ("subscriptions/listen", Some(_)) => "resources/subscribe",
            _ => method,
        };
        let named = |params: &[Box<str>]| {
            params.is_empty() || name.is_some_and(|name| params.iter().any(|p| **p == *name))
        };
        let mut methods = self.methods.iter();
        methods.any(|known| known.name.matches(method) && named(&known.params))
            || (self.base_protocol && is_base(method))
    }
}

/// Whether a message is of the base protocol: it only keeps a session, or a client, going.
///
/// `server/discover` and `subscriptions/listen` have taken the places of `initialize` and of the
/// GET stream in revision 2026-07-28. An answer of the client has no method.
fn is_base(method: &str) -> bool {
    const PREFIXES: [&str; 3] = ["completion/", "logging/", "notifications/"];
    matches!(
        method,
        "initialize"
            | "server/discover"
            | "tools/list"
            | "ping"
            | "subscriptions/listen"
            | "GET"
            | "DELETE"
            | ""
    ) || PREFIXES.iter().any(|prefix| method.starts_with(prefix))
}

//! `XAccessPolicy` of the Kubernetes SIG for agentic networking.
//!
//! Source: kubernetes-sigs/kube-agentic-networking `api/v1alpha1/accesspolicy_types.go`. A policy
//! is about every request through what it is attached to. It allows a request that one of its
//! rules matches; a request goes on only if all policies that are about it allow it. There is no
//! Deny.

mod explain;
mod mcp;
#[cfg(test)]
mod naive;
mod rule;
mod set;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

pub use mcp::{McpAccess, McpMethod, MethodName, UnknownMethodName};
pub(crate) use set::{Access, AccessSet};

use crate::{ObjectName, ObjectRef, PatternTooHard, SpiffeId, TextPattern};

/// A policy, ready to be indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessPolicy {
    /// Its name.
    pub name: ObjectName,
    /// What it is attached to.
    pub targets: Vec<ObjectRef>,
    /// A request is allowed if one matches. `None` is a policy that was written without rules and
    /// allows any request; an empty list, as rules leave behind that were refused, allows none.
    pub rules: Option<Vec<AccessRule>>,
}

/// One rule: what is absent is any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessRule {
    /// Its name.
    pub name: Arc<str>,
    /// Who asks; `None` is anybody, with an identity or without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the HTTP request looks like.
    pub http: HttpAccess,
    /// What the MCP message asks for; with it, nothing but MCP matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpAccess>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Source {
    /// This identity.
    Spiffe(SpiffeId),
    /// A service account in the own trust domain or an alias of it.
    ServiceAccount {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
    },
}

/// Some HTTP requests. Fields AND; an empty list is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HttpAccess {
    /// Any of these methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Box<str>>,
    /// Any of these paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathAccess>,
    /// All of these header fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderAccess>,
    /// Any of these hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostAccess>,
    /// Any of these ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// Some paths, on the normalized path without the query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PathAccess {
    /// This one.
    Exact(Box<str>),
    /// This one and all below it, segment by segment; without a trailing slash, empty for all.
    Prefix(Box<str>),
    /// Those that the expression matches from end to end.
    Regex(WholePattern),
}

/// One header field. It must be there, and each of its values must match: which of several the
/// destination reads, nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderAccess {
    /// The name in lower case.
    pub name: Box<str>,
    /// What its values are.
    pub value: HeaderValue,
}

/// The name alone: a value may be a secret.
impl Serialize for HeaderAccess {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

/// What the value of a header field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// This text.
    Exact(Box<str>),
    /// Text that the expression matches from end to end.
    Regex(WholePattern),
}

/// Some hosts, without port; in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum HostAccess {
    /// This one.
    Exact(Box<str>),
    /// All below this name, which is kept with its leading dot.
    Below(Box<str>),
}

/// A regular expression that matches a text from end to end, as Envoy takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholePattern {
    text: Box<str>,
    anchored: TextPattern,
}

impl WholePattern {
    /// Whether the expression matches the whole of `text`. Linear in the text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.anchored.matches(text)
    }
}

impl FromStr for WholePattern {
    type Err = PatternTooHard;

    fn from_str(text: &str) -> Result<Self, PatternTooHard> {
        // By itself first: `a)|(b` would leave the group that holds it to both ends.
        text.parse::<TextPattern>()?;
        Ok(Self {
            text: text.into(),
            anchored: format!(r"\A(?:{text})\z").parse()?,
        })
    }
}

impl fmt::Display for WholePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for WholePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

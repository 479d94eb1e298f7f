//! Names of configuration objects, and their numbers in a snapshot.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

#[cfg(test)]
mod tests;

/// A namespaced name; prints as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name inside the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// `namespace/name`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A kind of object that policies are attached to or that are policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Gateway`
    Gateway,
    /// `LLMRoute`
    LlmRoute,
    /// `LLMProvider`
    LlmProvider,
    /// `MCPProxy`; the section is a route of it.
    McpProxy,
    /// `HTTPRoute`
    HttpRoute,
    /// `Service`
    Service,
    /// `ServiceEntry`
    ServiceEntry,
    /// `AgentPolicy`
    AgentPolicy,
    /// `GatewayClass`
    GatewayClass,
    /// `AuthorizationPolicy`
    AuthorizationPolicy,
    /// `XAccessPolicy`
    XAccessPolicy,
    /// `UsageLimit`
    UsageLimit,
}

/// A kind this crate does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind that takes part in policy")]
pub struct UnknownKind;

impl Kind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Gateway,
        Self::LlmRoute,
        Self::LlmProvider,
        Self::McpProxy,
        Self::HttpRoute,
        Self::Service,
        Self::ServiceEntry,
        Self::AgentPolicy,
        Self::GatewayClass,
        Self::AuthorizationPolicy,
        Self::XAccessPolicy,
        Self::UsageLimit,
    ];

    /// The kind as Kubernetes writes it, such as `LLMRoute`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::LlmRoute => "LLMRoute",
            Self::LlmProvider => "LLMProvider",
            Self::McpProxy => "MCPProxy",
            Self::HttpRoute => "HTTPRoute",
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
            Self::AgentPolicy => "AgentPolicy",
            Self::GatewayClass => "GatewayClass",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::XAccessPolicy => "XAccessPolicy",
            Self::UsageLimit => "UsageLimit",
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut kinds = Self::ALL.iter().copied();
        kinds.find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An object, or one named section of it, that a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// Which object of that kind.
    pub name: ObjectName,
    /// A part of the object: a listener of a `Gateway`, a route of an `MCPProxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<Arc<str>>,
}

impl ObjectRef {
    /// The whole object.
    #[must_use]
    pub fn whole(kind: Kind, name: ObjectName) -> Self {
        Self {
            kind,
            name,
            section: None,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        match &self.section {
            Some(section) => write!(f, " section {section}"),
            None => Ok(()),
        }
    }
}

/// The index of an LLM provider in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ProviderId(pub u32);

/// The index of an MCP destination in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServerId(pub u32);

/// An object that at least one policy of a [`PolicySet`](crate::PolicySet) is attached to.
///
/// Given by [`PolicySet::target`](crate::PolicySet::target); means nothing to another set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TargetId(pub u32);

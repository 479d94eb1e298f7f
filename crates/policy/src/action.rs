//! What is asked, in policy words.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::{Arguments, ProviderId, ServerId};

#[cfg(test)]
mod tests;

/// What an LLM call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI responses.
    Responses,
    /// OpenAI embeddings.
    Embeddings,
    /// The models list, or one entry of it.
    Models,
    /// Anthropic messages.
    Messages,
    /// Anthropic token counting.
    CountTokens,
}

/// A name that is no [`Operation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operation is one of chat, responses, embeddings, models, messages, count_tokens")]
pub struct UnknownOperation;

impl Operation {
    /// Every operation.
    pub const ALL: &[Self] = &[
        Self::Chat,
        Self::Responses,
        Self::Embeddings,
        Self::Models,
        Self::Messages,
        Self::CountTokens,
    ];

    /// The name in policies, metrics and audit events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
        }
    }

    /// Whether a model writes output tokens for it.
    #[must_use]
    pub fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Responses | Self::Messages)
    }
}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter().copied();
        all.find(|operation| operation.as_str() == text)
            .ok_or(UnknownOperation)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The block of a rule that speaks about an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `llm`
    Llm,
    /// `mcp`
    Mcp,
    /// `http`
    Http,
}

impl Family {
    /// The name of the block in a rule.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Mcp => "mcp",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a caller asks to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// One LLM call as one candidate would run it.
    Llm {
        /// The provider that would be asked.
        provider: ProviderId,
        /// The model as the caller named it.
        requested: &'a str,
        /// The model as the provider will be asked for it.
        upstream: &'a str,
        /// `None` asks for a list entry: an Allow matches if it would for any operation, a Deny
        /// only if it restricts neither operation nor output.
        operation: Option<Operation>,
        /// The most output tokens the call can cost; `None` if it sets no bound.
        max_output_tokens: Option<u64>,
    },
    /// Anything at all on this provider, for the models list.
    LlmAny {
        /// The provider.
        provider: ProviderId,
    },
    /// An MCP method that names something: a tool, a prompt, a resource.
    Mcp {
        /// The destination.
        server: ServerId,
        /// Such as `tools/call`.
        method: &'a str,
        /// The server's own name of the tool or prompt, or the resource's URI as it was sent.
        name: &'a str,
        /// What the tool is called with; nobody asks for other methods.
        arguments: Arguments<'a>,
    },
    /// `initialize`, `ping`, lists, notifications, GET and DELETE of an MCP server: they follow
    /// from any permitted item on it.
    McpSession {
        /// The destination.
        server: ServerId,
        /// The method of the message, which rules of `XAccessPolicy` look at: also `GET`,
        /// `DELETE`, and nothing for an answer of the client. `None` asks whether the caller may
        /// do anything there, before a message is read.
        method: Option<&'a str>,
    },
    /// A plain HTTP request.
    Http {
        /// The method as it was sent; upper and lower case differ (RFC 9110 §9.1).
        method: &'a str,
        /// The host without port.
        host: &'a str,
        /// The normalized path, without the query.
        path: &'a str,
        /// The port.
        port: u16,
        /// Whether the destination lies outside the mesh.
        external: bool,
    },
}

impl Action<'_> {
    /// Which blocks of a rule speak about it.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Llm { .. } | Self::LlmAny { .. } => Family::Llm,
            Self::Mcp { .. } | Self::McpSession { .. } => Family::Mcp,
            Self::Http { .. } => Family::Http,
        }
    }
}

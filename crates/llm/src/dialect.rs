//! A provider's API shape.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use waypoint_policy::Operation;

/// The API shape a call is written in. Calls are never translated: a call goes only to providers
/// that speak its own dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's API and everything that is compatible with it.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
}

/// Why a dialect name was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    /// A dialect we know of but do not serve.
    #[error("dialect {0:?} is not supported yet; use OpenAI or Anthropic")]
    NotSupportedYet(String),
    /// No dialect of that name.
    #[error("unknown dialect {0:?}; use OpenAI or Anthropic")]
    Unknown(String),
}

impl Dialect {
    /// The operations of this dialect: what it can do at all, and what a provider serves when its
    /// configuration names none. All of them are plain inference; batches, files, stored
    /// responses and the like are absent because their tokens could not be accounted for.
    #[must_use]
    pub fn operations(self) -> &'static [Operation] {
        match self {
            Dialect::OpenAi => &[
                Operation::Chat,
                Operation::Responses,
                Operation::Embeddings,
                Operation::Models,
            ],
            Dialect::Anthropic => &[
                Operation::Messages,
                Operation::CountTokens,
                Operation::Models,
            ],
        }
    }

    /// The name in metrics and audit events: `openai` or `anthropic`
    /// (OpenTelemetry GenAI `gen_ai.provider.name`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
            Dialect::Anthropic => "anthropic",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Dialect {
    type Err = DialectError;

    /// Parses the name used in configuration: `OpenAI` or `Anthropic`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "OpenAI" => Ok(Dialect::OpenAi),
            "Anthropic" => Ok(Dialect::Anthropic),
            "Gemini" | "AzureOpenAI" | "Bedrock" => {
                Err(DialectError::NotSupportedYet(text.to_owned()))
            }
            _ => Err(DialectError::Unknown(text.to_owned())),
        }
    }
}

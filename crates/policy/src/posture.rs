//! What happens where no policy speaks.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{Action, Family, matching::Who};

#[cfg(test)]
mod tests;

/// What happens to actions that no enforced Allow policy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Posture {
    /// Default denials, here as under Graduated, are told of and let pass.
    Observe,
    /// The own namespace may use LLM and MCP, the mesh may talk to itself; external hosts are
    /// denied.
    #[default]
    Graduated,
    /// Denied.
    Strict,
}

/// A name that is no [`Posture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a posture is one of Observe, Graduated, Strict")]
pub struct UnknownPosture;

impl Posture {
    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "Observe",
            Self::Graduated => "Graduated",
            Self::Strict => "Strict",
        }
    }

    /// Whether an uncovered action is within the default. Under Observe the default is that of
    /// Graduated, the posture it leads to.
    pub(crate) fn permits(
        self,
        action: &Action<'_>,
        who: Option<&Who<'_>>,
        settings: &Settings,
    ) -> bool {
        match (self, action.family(), *action) {
            (Self::Strict, _, _) => false,
            (_, Family::Llm | Family::Mcp, _) => who
                .and_then(|who| who.own)
                .is_some_and(|workload| *workload.namespace == *settings.namespace),
            (_, Family::Http, Action::Http { external, .. }) => !external,
            (_, Family::Http, _) => false,
        }
    }
}

impl FromStr for Posture {
    type Err = UnknownPosture;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "Observe" => Ok(Self::Observe),
            "Graduated" => Ok(Self::Graduated),
            "Strict" => Ok(Self::Strict),
            _ => Err(UnknownPosture),
        }
    }
}

impl fmt::Display for Posture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Posture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What the evaluator knows about the waypoint itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// What happens to uncovered actions.
    pub posture: Posture,
    /// The waypoint's namespace.
    pub namespace: Arc<str>,
    /// The own trust domain, then its aliases.
    pub trust_domains: Vec<Box<str>>,
}

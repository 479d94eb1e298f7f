//! Who calls.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::SpiffeId;

#[cfg(test)]
mod tests;

/// Who calls: a workload whose identity was proven, or nobody we know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A workload, by the SPIFFE ID its certificate or its tunnel proved.
    Workload(SpiffeId),
    /// No identity. Never reaches an LLM or MCP action, and matches no rule.
    Anonymous,
}

impl Principal {
    /// The identity, if there is one.
    #[must_use]
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        match self {
            Self::Workload(id) => Some(id),
            Self::Anonymous => None,
        }
    }
}

impl From<SpiffeId> for Principal {
    fn from(id: SpiffeId) -> Self {
        Self::Workload(id)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(id) => id.fmt(f),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// The SPIFFE ID, or `"anonymous"`.
impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

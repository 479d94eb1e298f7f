//! What every attached policy thought of an action, in plain words.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{Decision, Effect, Kind, Mode, ObjectName, ProviderId, ServerId};

#[cfg(test)]
mod tests;
mod trace;

pub(crate) use trace::{list, quoted, trace};

/// Names of providers and servers, which policies know by number alone.
pub trait Names {
    /// The name of a provider as operators write it.
    fn provider(&self, id: ProviderId) -> Cow<'_, str>;
    /// The name of an MCP server as operators write it.
    fn server(&self, id: ServerId) -> Cow<'_, str>;
}

/// The numbers themselves: `provider 3`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ids;

impl Names for Ids {
    fn provider(&self, id: ProviderId) -> Cow<'_, str> {
        format!("provider {}", id.0).into()
    }

    fn server(&self, id: ServerId) -> Cow<'_, str> {
        format!("server {}", id.0).into()
    }
}

/// A decision, and what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The answer that [`decide`](crate::PolicySet::decide) gives.
    pub decision: Decision,
    /// Every rule of every policy attached to the query's targets, by policy and rule.
    pub trace: Vec<TraceEntry>,
}

/// `{"decision","by","code","would_deny","trace"}`
impl Serialize for Explanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.decision.serialize_into(&mut map)?;
        map.serialize_entry("trace", &self.trace)?;
        map.end()
    }
}

/// What a rule does when it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Does {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
    /// It denies unless its external authorizer allows.
    Custom,
    /// It marks the request.
    Audit,
}

impl From<Effect> for Does {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Allow => Self::Allow,
            Effect::Deny => Self::Deny,
        }
    }
}

/// What one rule thought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TraceEntry {
    /// The kind of policy.
    pub kind: Kind,
    /// The policy.
    pub policy: ObjectName,
    /// The rule; empty for a policy that has none.
    pub rule: Arc<str>,
    /// What the rule does.
    pub effect: Does,
    /// Whether its policy is in force.
    pub mode: Mode,
    /// Whether it matched.
    pub outcome: Outcome,
}

/// Whether a rule matched, else the first field that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every field matched.
    Matched,
    /// A field did not match.
    NotMatched {
        /// Where in the rule, such as `from` or `llm[0].models`.
        field: String,
        /// What the rule asks for.
        expected: String,
        /// What the action has.
        actual: String,
    },
}

/// `matched`, or `llm[0].models: expected gpt-4o*, got "o3"`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matched => f.write_str("matched"),
            Self::NotMatched {
                field,
                expected,
                actual,
            } => write!(f, "{field}: expected {expected}, got {actual}"),
        }
    }
}

/// `"matched"`, or `{"field","expected","actual"}`.
impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Matched => serializer.serialize_str("matched"),
            Self::NotMatched {
                field,
                expected,
                actual,
            } => {
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("field", field)?;
                map.serialize_entry("expected", expected)?;
                map.serialize_entry("actual", actual)?;
                map.end()
            }
        }
    }
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (effect, mode) = (self.effect, self.mode);
        write!(f, "{} {} ", self.kind, self.policy)?;
        if !self.rule.is_empty() {
            write!(f, "rule {} ", self.rule)?;
        }
        write!(f, "({effect:?}, {mode:?}): {}", self.outcome)
    }
}

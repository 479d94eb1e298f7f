//! The compiled policies, and the one question every pipeline asks them.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{
    Action, AgentPolicy, By, Code, Decision, Explanation, Names, ObjectRef, Principal, TargetId,
};

/// What happens to actions that no enforced Allow policy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Posture {
    /// Default denials are only told of.
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

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What the action passes that policies can be attached to: the gateway, the route (and its
    /// section), the backend.
    pub targets: &'a [TargetId],
    /// What is asked.
    pub action: Action<'a>,
}

/// The most entries of [`Decision::would_deny`]; the first ones by name and rule are kept.
pub const WOULD_DENY_MAX: usize = 8;

/// All policies of one snapshot, indexed.
pub struct PolicySet {
    policies: Vec<AgentPolicy>,
    settings: Settings,
}

impl PolicySet {
    /// Indexes `policies`.
    #[must_use]
    pub fn compile(policies: Vec<AgentPolicy>, settings: Settings) -> Self {
        Self { policies, settings }
    }

    /// The number of `object`, or nothing if no policy is attached there.
    #[must_use]
    pub fn target(&self, object: &ObjectRef) -> Option<TargetId> {
        let _ = object;
        None
    }

    /// What happens to uncovered actions.
    #[must_use]
    pub fn posture(&self) -> Posture {
        self.settings.posture
    }

    /// The policies, by namespace and name.
    #[must_use]
    pub fn policies(&self) -> &[AgentPolicy] {
        &self.policies
    }

    /// Decides one action.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        let _ = query;
        Decision::deny(Code::Forbidden, By::NoMatch)
    }

    /// Decides one action, and says what every attached policy thought of it; providers and
    /// servers are named by number.
    #[must_use]
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        self.explain_with(query, &crate::Ids)
    }

    /// [`explain`](Self::explain) with the names of providers and servers.
    #[must_use]
    pub fn explain_with(&self, query: &Query<'_>, names: &dyn Names) -> Explanation {
        let _ = names;
        Explanation {
            decision: self.decide(query),
            trace: Vec::new(),
        }
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("policies", &self.policies.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

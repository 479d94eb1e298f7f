//! The evaluator's answer, with the rule that gave it.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};
use smallvec::SmallVec;

use crate::{Code, Effect, Mode, ObjectName, Posture, Refusal};

#[cfg(test)]
mod tests;

/// The name of what decided, or would have: a rule, a whole policy, or a default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleName {
    /// The kind of object, such as `AgentPolicy`; `Posture` or `Default` when no object decided.
    pub kind: &'static str,
    /// The policy; without a namespace when no object decided.
    pub policy: ObjectName,
    /// The rule; empty when the policy as a whole is meant.
    pub rule: Arc<str>,
    /// What the rule does.
    pub effect: Effect,
    /// Whether its policy is in force.
    pub mode: Mode,
}

/// `AgentPolicy ns/name rule review`, `Posture Graduated`.
impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        match self.policy.namespace.is_empty() {
            true => write!(f, " {}", self.policy.name)?,
            false => write!(f, " {}", self.policy)?,
        }
        match self.rule.is_empty() {
            true => Ok(()),
            false => write!(f, " rule {}", self.rule),
        }
    }
}

/// `{"kind","namespace","name","rule"}`; fields that say nothing are left out.
impl Serialize for RuleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.kind)?;
        if !self.policy.namespace.is_empty() {
            map.serialize_entry("namespace", &self.policy.namespace)?;
        }
        map.serialize_entry("name", &self.policy.name)?;
        if !self.rule.is_empty() {
            map.serialize_entry("rule", &self.rule)?;
        }
        map.end()
    }
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A rule.
    Rule(Arc<RuleName>),
    /// The posture: no enforced Allow policy covers the action, or the posture is Observe and
    /// lets pass what the defaults would deny.
    Uncovered(Posture),
    /// The action is covered and no Allow rule matched.
    NoMatch,
    /// An ALLOW `AuthorizationPolicy` is attached, and none of its kind has a rule that matches.
    NoIstioAllow,
    /// The caller has no identity, and the action needs one.
    Identity,
    /// The transport, before any policy was asked; says why.
    Transport(&'static str),
}

impl By {
    pub(crate) const NO_MATCH: &'static str = "no rule allows this";

    /// The kind and the name of what decided; of a rule, the name within its policy.
    #[must_use]
    pub fn kind_and_name(&self) -> (&'static str, &str) {
        match self {
            Self::Rule(rule) => (rule.kind, &rule.rule),
            Self::Uncovered(posture) => ("Posture", posture.as_str()),
            Self::NoMatch => ("Default", Self::NO_MATCH),
            Self::NoIstioAllow => ("Default", "no ALLOW AuthorizationPolicy matches"),
            Self::Identity => ("Identity", "no workload identity"),
            Self::Transport(why) => ("Transport", why),
        }
    }
}

/// `AgentPolicy ns/name rule review`, `Posture Graduated`, `Default no rule allows this`.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            other => {
                let (kind, name) = other.kind_and_name();
                write!(f, "{kind} {name}")
            }
        }
    }
}

/// `{"kind","namespace","name","rule"}` for a rule, else `{"kind","name"}`.
impl Serialize for By {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Self::Rule(rule) = self {
            return rule.serialize(serializer);
        }
        let (kind, name) = self.kind_and_name();
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("kind", kind)?;
        map.serialize_entry("name", name)?;
        map.end()
    }
}

/// The answer to one [`Query`](crate::Query).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    denied: Option<Code>,
    by: By,
    would_deny: WouldDeny,
    tried: Box<[Arc<RuleName>]>,
}

pub(crate) type WouldDeny = SmallVec<[Arc<RuleName>; 2]>;

impl Decision {
    pub(crate) fn allow(by: By) -> Self {
        Self {
            denied: None,
            by,
            would_deny: WouldDeny::new(),
            tried: Box::default(),
        }
    }

    pub(crate) fn deny(code: Code, by: By) -> Self {
        Self {
            denied: Some(code),
            by,
            would_deny: WouldDeny::new(),
            tried: Box::default(),
        }
    }

    pub(crate) fn with_would_deny(mut self, would_deny: WouldDeny) -> Self {
        self.would_deny = would_deny;
        self
    }

    pub(crate) fn with_tried(mut self, tried: Box<[Arc<RuleName>]>) -> Self {
        self.tried = tried;
        self
    }

    /// The DryRun rules that match, whatever they would do.
    #[must_use]
    pub fn tried(&self) -> &[Arc<RuleName>] {
        &self.tried
    }

    /// Whether the action may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.denied.is_none()
    }

    /// What decided.
    #[must_use]
    pub fn by(&self) -> &By {
        &self.by
    }

    /// What would deny the action if it were in force: dry-run policies, and under Observe the
    /// default that was passed over. At most [`WOULD_DENY_MAX`](crate::WOULD_DENY_MAX).
    #[must_use]
    pub fn would_deny(&self) -> &[Arc<RuleName>] {
        &self.would_deny
    }

    /// Why it was denied, in the words of a refusal; nothing if it was allowed.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.denied
    }

    /// The permit that planning needs.
    ///
    /// # Errors
    /// The refusal for the caller if the action was denied.
    pub fn permit(self) -> Result<Permit, Refusal> {
        match self.denied {
            None => Ok(Permit(self)),
            Some(code) => Err(Refusal::new(code).decided_by(self.by)),
        }
    }
}

/// `{"decision","by","code","would_deny"}`; `code` only if denied.
impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_into(&mut map)?;
        map.end()
    }
}

impl Decision {
    pub(crate) fn serialize_into<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let decision = match self.is_allowed() {
            true => "allow",
            false => "deny",
        };
        map.serialize_entry("decision", decision)?;
        map.serialize_entry("by", &self.by)?;
        if let Some(code) = self.denied {
            map.serialize_entry("code", &code)?;
        }
        map.serialize_entry("would_deny", self.would_deny())
    }
}

/// Proof that an action was allowed. Only [`Decision::permit`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit(Decision);

impl Permit {
    /// The decision that allowed it.
    pub fn decision(&self) -> &Decision {
        &self.0
    }
}

//! Where in a request's way it was decided.

use serde::Serialize;

use crate::{By, Kind};

#[cfg(test)]
mod tests;

/// What a request passes, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The request itself and the route.
    Transport,
    /// Istio's policies.
    Istio,
    /// The agents' own policies.
    Agents,
    /// What holds where no policy says anything.
    Posture,
    /// How much callers may use.
    Limits,
}

impl By {
    /// Of the stages a request passes, the last that was asked.
    #[must_use]
    pub fn stage(&self, is_allowed: bool) -> Stage {
        match self {
            Self::Rule(rule) if rule.kind == Kind::AuthorizationPolicy.as_str() => Stage::Istio,
            Self::NoIstioAllow => Stage::Istio,
            Self::Rule(rule) if rule.kind == Kind::UsageLimit.as_str() => Stage::Limits,
            Self::Rule(_) | Self::NoMatch => Stage::Agents,
            Self::Uncovered(_) => Stage::Posture,
            // Of a connection nobody else has a say.
            Self::Transport(_) if is_allowed => Stage::Istio,
            Self::Identity | Self::Transport(_) => Stage::Transport,
        }
    }
}

//! Which families the policies attached to a target speak about.

use crate::{AgentPolicy, Effect, Family, Mode};

/// What the Allow policies attached to one target speak about.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// By family: whether one is in force.
    pub(super) enforced: [bool; 3],
    /// By family: those that are only told of, ascending.
    pub(super) dry: [Vec<usize>; 3],
}

impl Coverage {
    /// Adds `policy`, the one at `place`, which is attached to the target.
    pub(super) fn add(&mut self, place: usize, policy: &AgentPolicy) {
        if policy.effect == Effect::Deny {
            return;
        }
        let all = policy.rules.is_empty();
        for (family, has) in [
            (Family::Llm, policy.rules.iter().any(|r| !r.llm.is_empty())),
            (Family::Mcp, policy.rules.iter().any(|r| !r.mcp.is_empty())),
            (
                Family::Http,
                policy.rules.iter().any(|r| !r.http.is_empty()),
            ),
        ] {
            if !all && !has {
                continue;
            }
            let family = family as usize;
            match policy.mode {
                Mode::Enforce => {
                    if let Some(enforced) = self.enforced.get_mut(family) {
                        *enforced = true;
                    }
                }
                Mode::DryRun => {
                    if let Some(dry) = self.dry.get_mut(family) {
                        dry.push(place);
                    }
                }
            }
        }
    }
}

//! All `XAccessPolicy` objects of a snapshot, by what they are attached to.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::AccessPolicy;
use crate::{Effect, Kind, Mode, ObjectRef, Query, RuleName, TargetId, matching::Who};

/// A policy with the names that decisions give.
#[derive(Debug)]
struct Filed {
    policy: AccessPolicy,
    whole: Arc<RuleName>,
    rules: Vec<Arc<RuleName>>,
}

/// All policies, by namespace and name, filed by target. A question asks those of its own targets,
/// of which configuration allows a bounded number, each of a bounded number of rules; since all of
/// them have to allow, none can be passed over.
#[derive(Debug, Default)]
pub(crate) struct AccessSet {
    filed: Vec<Filed>,
    by_target: HashMap<TargetId, Vec<usize>>,
    headers: Vec<Box<str>>,
}

/// What the policies say about one question.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// The rule that allows it, if any policy is about it; of the first policy by name.
    pub(crate) allowed: Option<Arc<RuleName>>,
    /// The policies that do not allow it, by name.
    pub(crate) refused: SmallVec<[Arc<RuleName>; 1]>,
}

impl AccessSet {
    /// Files policies; their order means nothing.
    pub(crate) fn compile(
        mut policies: Vec<AccessPolicy>,
        mut intern: impl FnMut(&ObjectRef) -> TargetId,
    ) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let mut set = Self::default();
        for (place, policy) in policies.into_iter().enumerate() {
            let mut targets: Vec<TargetId> = policy.targets.iter().map(&mut intern).collect();
            targets.sort_unstable();
            targets.dedup();
            for target in &targets {
                set.by_target.entry(*target).or_default().push(place);
            }
            let rules = policy.rules.iter().flatten();
            let headers = rules.clone().flat_map(|rule| &rule.http.headers);
            set.headers
                .extend(headers.map(|header| header.name.clone()));
            set.filed.push(Filed {
                whole: rule_name(&policy, ""),
                rules: rules.map(|rule| rule_name(&policy, &rule.name)).collect(),
                policy,
            });
        }
        set.headers.sort_unstable();
        set.headers.dedup();
        set
    }

    /// By namespace and name.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &AccessPolicy> {
        self.filed.iter().map(|filed| &filed.policy)
    }

    /// The policies that are attached to any of these, by name.
    pub(super) fn attached(&self, targets: &[TargetId]) -> impl Iterator<Item = &AccessPolicy> {
        let filed = |place: usize| self.filed.get(place).map(|filed| &filed.policy);
        self.places(targets).into_iter().filter_map(filed)
    }

    /// The header fields that rules look at, in lower case and order.
    pub(crate) fn headers(&self) -> &[Box<str>] {
        &self.headers
    }

    /// The places of the policies that are attached to any of these, each once, by name.
    pub(super) fn places(&self, targets: &[TargetId]) -> SmallVec<[usize; 16]> {
        let places = targets
            .iter()
            .filter_map(|target| self.by_target.get(target));
        let mut places: SmallVec<[usize; 16]> = places.flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Asks every policy of the question's targets.
    pub(crate) fn judge(&self, who: Option<&Who<'_>>, query: &Query<'_>) -> Access {
        let mut access = Access::default();
        if self.filed.is_empty() {
            return access;
        }
        let places = self.places(query.targets);
        for filed in places.iter().filter_map(|place| self.filed.get(*place)) {
            match filed.allows(who, query) {
                Some(rule) => {
                    access.allowed.get_or_insert_with(|| Arc::clone(rule));
                }
                None => access.refused.push(Arc::clone(&filed.whole)),
            }
        }
        access
    }
}

impl Filed {
    /// The first rule that matches; the policy itself if it was written without rules.
    fn allows(&self, who: Option<&Who<'_>>, query: &Query<'_>) -> Option<&Arc<RuleName>> {
        let Some(rules) = &self.policy.rules else {
            return Some(&self.whole);
        };
        let mut rules = rules.iter().zip(&self.rules);
        let (_, name) = rules.find(|(rule, _)| rule.failed(who, query).is_none())?;
        Some(name)
    }
}

fn rule_name(policy: &AccessPolicy, rule: &str) -> Arc<RuleName> {
    Arc::new(RuleName {
        kind: Kind::XAccessPolicy.as_str(),
        policy: policy.name.clone(),
        rule: rule.into(),
        effect: Effect::Allow,
        mode: Mode::Enforce,
    })
}

//! All `AuthorizationPolicy` objects of a snapshot, and the question asked of them.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    AuthorizationPolicy, IstioAction, IstioRule, Request,
    index::{Census, Found, Row},
};
use crate::{
    By, Code, Decision, Effect, Kind, Mode, Refusal, RuleName, TargetId, WOULD_DENY_MAX,
    decision::WouldDeny,
};

/// Rules that do the same, and whether they are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Custom,
    Deny,
    Allow,
    DryDeny,
    DryAllow,
    /// Decides nothing, in force or not. Nobody is asked on trial, so there is nothing to tell.
    Audit,
}

impl Class {
    /// Those whose rules are only counted.
    const MARKS: [Self; 3] = [Self::DryDeny, Self::DryAllow, Self::Audit];

    fn of(policy: &AuthorizationPolicy) -> Self {
        match (policy.action, policy.mode) {
            (IstioAction::Deny, Mode::Enforce) => Self::Deny,
            (IstioAction::Allow, Mode::Enforce) => Self::Allow,
            (IstioAction::Deny, Mode::DryRun) => Self::DryDeny,
            (IstioAction::Allow, Mode::DryRun) => Self::DryAllow,
            (IstioAction::Custom, Mode::Enforce) => Self::Custom,
            (IstioAction::Audit, _) | (IstioAction::Custom, Mode::DryRun) => Self::Audit,
        }
    }
}

#[derive(Debug)]
struct RulePlace {
    policy: usize,
    rule: usize,
    name: Arc<RuleName>,
}

/// What is attached to one target.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// An ALLOW policy in force, with rules or without: what none of them allows is denied.
    has_allow: bool,
    /// The providers of CUSTOM policies in force, each once.
    pub(super) providers: Vec<Option<Arc<str>>>,
    /// ALLOW policies on trial, as wholes.
    dry_allow: Vec<usize>,
}

/// All policies, filed.
#[derive(Debug, Default)]
pub(crate) struct IstioSet {
    pub(super) policies: Vec<AuthorizationPolicy>,
    pub(super) attached_to: Vec<Vec<TargetId>>,
    rules: Vec<RulePlace>,
    whole: Vec<Arc<RuleName>>,
    pub(super) targets: HashMap<TargetId, Attached>,
    rows: HashMap<(TargetId, Class), Row>,
    /// Whether any policy decides nothing.
    pub(crate) has_marks: bool,
}

impl IstioSet {
    /// Files policies; their order means nothing.
    pub(crate) fn compile(
        mut policies: Vec<AuthorizationPolicy>,
        mut intern: impl FnMut(&crate::ObjectRef) -> TargetId,
    ) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let mut census = Census::default();
        for rule in policies.iter().flat_map(|policy| &policy.rules) {
            census.count(rule);
        }
        let mut set = Self::default();
        for (place, policy) in policies.iter().enumerate() {
            let mut targets: Vec<TargetId> = Vec::new();
            for object in &policy.targets {
                let target = intern(object);
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
            set.whole.push(Arc::new(rule_name(policy, "")));
            let class = Class::of(policy);
            set.has_marks |= Class::MARKS.contains(&class);
            for target in &targets {
                let attached = set.targets.entry(*target).or_default();
                match class {
                    Class::Allow => attached.has_allow = true,
                    Class::DryAllow => attached.dry_allow.push(place),
                    Class::Custom if !attached.providers.contains(&policy.provider) => {
                        attached.providers.push(policy.provider.clone());
                    }
                    _ => {}
                }
            }
            for (at, rule) in policy.rules.iter().enumerate() {
                let number = u32::try_from(set.rules.len()).unwrap_or(u32::MAX);
                set.rules.push(RulePlace {
                    policy: place,
                    rule: at,
                    name: Arc::new(rule_name(policy, &rule.name)),
                });
                for target in &targets {
                    let row = set.rows.entry((*target, class)).or_default();
                    row.file(number, rule, &census);
                }
            }
            set.attached_to.push(targets);
        }
        set.policies = policies;
        set
    }

    /// By namespace and name.
    pub(crate) fn policies(&self) -> &[AuthorizationPolicy] {
        &self.policies
    }

    /// Whether there is any policy at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Judges one request that these targets' policies apply to.
    pub(crate) fn judge(&self, request: &Request<'_>, targets: &[TargetId]) -> Verdict {
        let mut verdict = Verdict::default();
        if targets
            .iter()
            .all(|target| !self.targets.contains_key(target))
        {
            return verdict;
        }
        let mut found = Found::new();
        let custom = self.custom_denial(request, targets, &mut found);
        verdict.allowed = self.first(Class::Allow, request, targets, &mut found);
        let attached = || targets.iter().filter_map(|target| self.targets.get(target));
        let covered = attached().any(|attached| attached.has_allow);
        let denied = || self.first(Class::Deny, request, targets, &mut found);
        verdict.denied = match custom.or_else(denied) {
            Some(rule) => Some(By::Rule(rule)),
            None if covered && verdict.allowed.is_none() => Some(By::NoIstioAllow),
            None => None,
        };
        self.dry_denies(request, targets, &mut found, &mut verdict.would_deny);
        // An ALLOW policy on trial denies, once it is in force, what no ALLOW rule matches.
        if attached().any(|attached| !attached.dry_allow.is_empty())
            && verdict.allowed.is_none()
            && self
                .first(Class::DryAllow, request, targets, &mut found)
                .is_none()
        {
            let mut policies: Vec<usize> = attached()
                .flat_map(|attached| attached.dry_allow.iter().copied())
                .collect();
            policies.sort_unstable();
            policies.dedup();
            let names = policies.iter().filter_map(|place| self.whole.get(*place));
            verdict.would_deny.extend(names.cloned());
        }
        verdict.would_deny.truncate(WOULD_DENY_MAX);
        verdict
    }

    /// The rules that match and decide nothing, by policy and place.
    pub(crate) fn marked(&self, request: &Request<'_>, targets: &[TargetId]) -> Vec<Arc<RuleName>> {
        let mut found = Found::new();
        let mut matching: Vec<u32> = Vec::new();
        for class in Class::MARKS {
            self.candidates(class, request, targets, &mut found);
            let numbers = found.iter().copied();
            matching.extend(numbers.filter(|number| self.matches(*number, request)));
        }
        matching.sort_unstable();
        matching.dedup();
        let places = matching
            .iter()
            .filter_map(|number| self.rules.get(*number as usize));
        places.map(|place| Arc::clone(&place.name)).collect()
    }

    pub(super) fn candidates(
        &self,
        class: Class,
        request: &Request<'_>,
        targets: &[TargetId],
        found: &mut Found,
    ) {
        found.clear();
        for target in targets {
            if let Some(row) = self.rows.get(&(*target, class)) {
                row.find(request, found);
            }
        }
    }

    /// The first rule of a class that matches, by policy and place.
    fn first(
        &self,
        class: Class,
        request: &Request<'_>,
        targets: &[TargetId],
        found: &mut Found,
    ) -> Option<Arc<RuleName>> {
        self.candidates(class, request, targets, found);
        found.sort_unstable();
        let mut numbers = found.iter().copied();
        let first = numbers.find(|number| self.matches(*number, request))?;
        let (name, _) = self.named(first)?;
        Some(Arc::clone(name))
    }

    fn dry_denies(
        &self,
        request: &Request<'_>,
        targets: &[TargetId],
        found: &mut Found,
        would_deny: &mut WouldDeny,
    ) {
        self.candidates(Class::DryDeny, request, targets, found);
        found.sort_unstable();
        found.dedup();
        let matching = found
            .iter()
            .filter(|number| self.matches(**number, request));
        let places = matching.filter_map(|number| self.rules.get(*number as usize));
        would_deny.extend(
            places
                .take(WOULD_DENY_MAX)
                .map(|place| Arc::clone(&place.name)),
        );
    }

    pub(super) fn matches(&self, number: u32, request: &Request<'_>) -> bool {
        self.rule(number)
            .is_some_and(|(policy, rule)| rule.failed(policy.action, request).is_none())
    }

    fn rule(&self, number: u32) -> Option<(&AuthorizationPolicy, &IstioRule)> {
        let place = self.rules.get(number as usize)?;
        let policy = self.policies.get(place.policy)?;
        Some((policy, policy.rules.get(place.rule)?))
    }

    /// The name of a rule, and the provider of its policy.
    pub(super) fn named(&self, number: u32) -> Option<(&Arc<RuleName>, Option<&Arc<str>>)> {
        let place = self.rules.get(number as usize)?;
        let policy = self.policies.get(place.policy)?;
        Some((&place.name, policy.provider.as_ref()))
    }
}

fn rule_name(policy: &AuthorizationPolicy, rule: &str) -> RuleName {
    RuleName {
        kind: Kind::AuthorizationPolicy.as_str(),
        policy: policy.name.clone(),
        rule: rule.into(),
        effect: match policy.action {
            IstioAction::Deny | IstioAction::Custom => Effect::Deny,
            IstioAction::Allow | IstioAction::Audit => Effect::Allow,
        },
        mode: policy.mode,
    }
}

/// What Istio's policies say about a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Verdict {
    denied: Option<By>,
    allowed: Option<Arc<RuleName>>,
    would_deny: WouldDeny,
}

impl Verdict {
    /// What denies the request, if anything does.
    #[must_use]
    pub fn denied(&self) -> Option<&By> {
        self.denied.as_ref()
    }

    /// The ALLOW rule that matched, if any did; one may have although a DENY rule decided.
    #[must_use]
    pub fn allowed(&self) -> Option<&Arc<RuleName>> {
        self.allowed.as_ref()
    }

    /// Policies on trial that would deny the request.
    #[must_use]
    pub fn would_deny(&self) -> &[Arc<RuleName>] {
        &self.would_deny
    }

    /// The decision, if it has been made here: a denial.
    #[must_use]
    pub fn denial(&self) -> Option<Decision> {
        let denied = Decision::deny(Code::Forbidden, self.denied.clone()?);
        Some(denied.with_would_deny(self.would_deny.clone()))
    }

    /// Whether the request may go on to the other kinds.
    ///
    /// # Errors
    /// The refusal for the caller, if it is denied.
    pub fn permit(&self) -> Result<(), Refusal> {
        match &self.denied {
            None => Ok(()),
            Some(by) => Err(Refusal::new(Code::Forbidden).decided_by(by.clone())),
        }
    }
}

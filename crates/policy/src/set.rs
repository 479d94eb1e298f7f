//! The compiled policies, and the one question every pipeline asks them.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{
    Action, AgentPolicy, By, Caller, Code, Decision, Effect, Explanation, Facts, Family, Ids, Mode,
    Names, ObjectName, ObjectRef, Posture, Principal, Rule, RuleName, Settings, TargetId,
    TraceEntry,
    access::{Access, AccessPolicy, AccessSet},
    decision::WouldDeny,
    explain,
    index::{Class, Found, Index},
    istio::{AuthorizationPolicy, CustomCall, IstioSet, Request, Verdict},
    limit::{LimitSet, UsageLimit},
    matching::{Asked, Who, plain_host},
};

mod coverage;
#[cfg(test)]
pub(crate) mod naive;
#[cfg(test)]
mod tests;

use coverage::Coverage;

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What the action passes that policies can be attached to: the gateway, the route and its
    /// section, the backend.
    pub targets: &'a [TargetId],
    /// What is asked.
    pub action: Action<'a>,
    /// The request it came in.
    pub facts: Facts<'a>,
}

/// The most entries of [`Decision::would_deny`]. The default comes first, then Deny rules, then
/// Allow policies, each by name.
pub const WOULD_DENY_MAX: usize = 8;

/// All policies of one snapshot, indexed so that a decision costs the same however many there are.
pub struct PolicySet {
    settings: Settings,
    /// By namespace and name.
    policies: Vec<AgentPolicy>,
    /// The targets of each policy.
    attached: Vec<Vec<TargetId>>,
    /// By policy, then by place; the index knows rules by their number here.
    rules: Vec<RulePlace>,
    coverage: Vec<Coverage>,
    index: Index,
    /// What Observe passes over.
    no_match: Arc<RuleName>,
    uncovered: Arc<RuleName>,
    /// The name of each DryRun Allow policy as a whole.
    whole: Vec<Arc<RuleName>>,
    /// Whether any policy is DryRun.
    has_trials: bool,
    istio: IstioSet,
    pub(crate) access: AccessSet,
    limits: LimitSet,
}

#[derive(Debug)]
struct RulePlace {
    policy: usize,
    rule: usize,
    name: Arc<RuleName>,
}

impl PolicySet {
    /// Indexes `policies`. Their order means nothing: where several rules would decide, the first
    /// by namespace, name and place is named.
    #[must_use]
    pub fn compile(policies: Vec<AgentPolicy>, settings: Settings) -> Self {
        Self::compile_all(policies, Vec::new(), settings)
    }

    /// As [`compile`](Self::compile), with Istio's policies.
    #[must_use]
    pub fn compile_all(
        mut policies: Vec<AgentPolicy>,
        istio: Vec<AuthorizationPolicy>,
        settings: Settings,
    ) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        policies.iter_mut().for_each(normalize);
        let mut index = Index::default();
        let mut rules = Vec::new();
        let mut attached = Vec::new();
        let mut coverage: Vec<Coverage> = Vec::new();
        let mut whole = Vec::new();
        for (place, policy) in policies.iter().enumerate() {
            let mut targets: Vec<TargetId> = Vec::new();
            for object in &policy.targets {
                let target = index.intern_target(object);
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
            for target in &targets {
                let at = target.0 as usize;
                if coverage.len() <= at {
                    coverage.resize_with(at + 1, Coverage::default);
                }
                if let Some(coverage) = coverage.get_mut(at) {
                    coverage.add(place, policy);
                }
            }
            let class = Class::of(policy);
            for (at, rule) in policy.rules.iter().enumerate() {
                let number = u32::try_from(rules.len()).unwrap_or(u32::MAX);
                index.file(number, rule, class, &targets);
                rules.push(RulePlace {
                    policy: place,
                    rule: at,
                    name: Arc::new(rule_name(policy, &rule.name)),
                });
            }
            attached.push(targets);
            whole.push(Arc::new(rule_name(policy, "")));
        }
        let istio = IstioSet::compile(istio, |object| index.intern_target(object));
        Self {
            has_trials: policies.iter().any(|policy| policy.mode == Mode::DryRun),
            istio,
            access: AccessSet::default(),
            limits: LimitSet::default(),
            policies,
            attached,
            rules,
            coverage,
            index,
            no_match: Arc::new(default_name("Default", By::NO_MATCH)),
            // Observe is judged by the default of Graduated, see `Posture::permits`.
            uncovered: Arc::new(default_name("Posture", Posture::Graduated.as_str())),
            whole,
            settings,
        }
    }

    /// The same set with these policies of the kind `XAccessPolicy`.
    #[must_use]
    pub fn with_access(mut self, policies: Vec<AccessPolicy>) -> Self {
        let index = &mut self.index;
        self.access = AccessSet::compile(policies, |object| index.intern_target(object));
        self
    }

    /// The same set with these limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Vec<UsageLimit>) -> Self {
        let index = &mut self.index;
        self.limits = LimitSet::compile(limits, |object| index.intern_target(object));
        self
    }

    /// The limits, by namespace and name.
    #[must_use]
    pub fn usage_limits(&self) -> &[Arc<UsageLimit>] {
        self.limits.limits()
    }

    /// The limits that an action falls under, by name. As with [`decide`](Self::decide), the cost
    /// grows with these alone.
    #[must_use]
    pub fn limits(&self, query: &Query<'_>) -> SmallVec<[&Arc<UsageLimit>; 4]> {
        let who = Who::new(query.principal, &self.settings);
        let asked = Asked::new(&query.action, "");
        let who = (who.as_ref(), query.facts.claims);
        self.limits.find(who, query.targets, &asked)
    }

    /// The number of `object`, or nothing if no policy is attached there.
    ///
    /// A section is an object of its own: a policy attached to a whole `MCPProxy` applies to a
    /// call through one of its routes if the query has the targets of both.
    #[must_use]
    pub fn target(&self, object: &ObjectRef) -> Option<TargetId> {
        self.index.target(object)
    }

    /// What happens to uncovered actions.
    #[must_use]
    pub fn posture(&self) -> Posture {
        self.settings.posture
    }

    /// What the evaluator knows about the waypoint.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether `caller` is about this identity, whatever token it needs beside it.
    #[must_use]
    pub fn names(&self, caller: &Caller, principal: &Principal) -> bool {
        caller.has_identity(Who::new(principal, &self.settings).as_ref())
    }

    /// The policies, by namespace and name.
    #[must_use]
    pub fn policies(&self) -> &[AgentPolicy] {
        &self.policies
    }

    /// Decides one action.
    ///
    /// 1. `Anonymous` never gets an LLM or MCP action.
    /// 2. A Deny rule that matches denies; without `from` it is about `Anonymous` too.
    /// 3. An `XAccessPolicy` attached to one of the targets denies what none of its rules matches.
    /// 4. An Allow rule that matches allows; none is about `Anonymous`.
    /// 5. If an enforced Allow policy attached to one of the targets has a block of the action's
    ///    family, in whatever rule, or has no rules at all, the action is covered and denied.
    /// 6. If there is an `XAccessPolicy`, it allows: all of them did.
    /// 7. Else the posture decides. Observe lets pass what 3, 5 and 7 would deny.
    ///
    /// The cost does not grow with the number of policies, only with the candidates: rules that
    /// name this caller and a glob beginning or ending like the text that was asked for.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        self.decide_after(&Verdict::default(), query)
    }

    /// Whether Istio's policies say anything at all; if not, a verdict need not be asked for.
    #[must_use]
    pub fn has_istio(&self) -> bool {
        !self.istio.is_empty()
    }

    /// Istio's policies, by namespace and name.
    #[must_use]
    pub fn istio_policies(&self) -> &[AuthorizationPolicy] {
        self.istio.policies()
    }

    /// Policies of the kind `XAccessPolicy`, by namespace and name.
    pub fn access_policies(&self) -> impl Iterator<Item = &AccessPolicy> {
        self.access.policies()
    }

    /// The header fields that [`Query::facts`] must have, in lower case: no policy looks at others.
    #[must_use]
    pub fn header_names(&self) -> &[Box<str>] {
        self.access.headers()
    }

    /// Judges a request by Istio's policies on these targets, once and before
    /// [`decide_after`](Self::decide_after) is asked about what it wants.
    pub fn authorize(&self, request: &Request<'_>, targets: &[TargetId]) -> Verdict {
        self.istio.judge(request, targets)
    }

    /// Whether any of Istio's policies decides nothing: AUDIT, and those on trial.
    #[must_use]
    pub fn has_istio_marks(&self) -> bool {
        self.istio.has_marks
    }

    /// The rules of Istio's policies on these targets that match and decide nothing.
    #[must_use]
    pub fn marked(&self, request: &Request<'_>, targets: &[TargetId]) -> Vec<Arc<RuleName>> {
        self.istio.marked(request, targets)
    }

    /// Which external authorizers CUSTOM rules on these targets ask for; what they say belongs into
    /// [`Request::custom`] when the request is judged.
    #[must_use]
    pub fn custom(&self, request: &Request<'_>, targets: &[TargetId]) -> SmallVec<[CustomCall; 1]> {
        self.istio.custom_calls(request, targets)
    }

    /// What each of Istio's rules on these targets thought of a request.
    #[must_use]
    pub fn explain_istio(&self, request: &Request<'_>, targets: &[TargetId]) -> Vec<TraceEntry> {
        self.istio.trace(request, targets, true)
    }

    /// The same for a request whose headers and token are not known any longer: a rule that could
    /// match with some of them is said not to, for want of what it asks about.
    #[must_use]
    pub fn explain_istio_without_head(
        &self,
        request: &Request<'_>,
        targets: &[TargetId],
    ) -> Vec<TraceEntry> {
        self.istio.trace(request, targets, false)
    }

    /// As [`decide`](Self::decide), for a request that Istio's policies have let pass: under the
    /// Graduated posture an ALLOW rule that matched stands for the caller's own namespace.
    pub fn decide_after(&self, verdict: &Verdict, query: &Query<'_>) -> Decision {
        let who = Who::new(query.principal, &self.settings);
        if who.is_none() && query.action.family() != Family::Http {
            return Decision::deny(Code::IdentityRequired, By::Identity);
        }
        let mut buffer = String::new();
        let host = match query.action {
            Action::Http { host, .. } => plain_host(host, &mut buffer),
            _ => "",
        };
        let asked = Asked::new(&query.action, host);
        let mut found = Found::new();
        self.index.find(
            (who.as_ref(), query.facts.claims),
            query.targets,
            &asked,
            &mut found,
        );
        let mut would_deny = WouldDeny::new();
        let access = self.access.judge(who.as_ref(), query);
        let decision = self.judge(
            verdict,
            query,
            who.as_ref(),
            &asked,
            (&found, &access),
            &mut would_deny,
        );
        would_deny.truncate(WOULD_DENY_MAX);
        let decision = decision.with_would_deny(would_deny);
        match self.has_trials {
            true => decision.with_tried(self.tried(who.is_some(), &found, &asked)),
            false => decision,
        }
    }

    fn judge(
        &self,
        verdict: &Verdict,
        query: &Query<'_>,
        who: Option<&Who<'_>>,
        asked: &Asked<'_>,
        (found, access): (&Found<'_>, &Access),
        would_deny: &mut WouldDeny,
    ) -> Decision {
        let denied = |by| Decision::deny(denial_code(&query.action), by);
        // No Allow rule is about somebody without an identity.
        let allow = who.and_then(|_| self.first(Class::Allow, found, asked));
        let granted = allow.is_some();
        let posture = self.settings.posture;
        let observed = posture == Posture::Observe;
        // Asked where no rule grants, which is all that it decides about.
        let covered = !granted && self.covers(query.targets, query.action.family());
        let decision = if let Some(rule) = self.first(Class::Deny, found, asked) {
            denied(By::Rule(rule))
        } else if let Some(policy) = access.refused.first().filter(|_| !observed) {
            denied(By::Rule(Arc::clone(policy)))
        } else {
            would_deny.extend(access.refused.iter().cloned());
            if let Some(rule) = allow {
                Decision::allow(By::Rule(rule))
            } else if covered && !observed {
                denied(By::NoMatch)
            } else if covered {
                would_deny.push(self.no_match.clone());
                Decision::allow(By::Uncovered(posture))
            } else if !access.refused.is_empty() {
                Decision::allow(By::Uncovered(posture))
            } else if let Some(rule) = &access.allowed {
                Decision::allow(By::Rule(Arc::clone(rule)))
            } else {
                self.uncovered(verdict, query, who, would_deny)
            }
        };
        self.dry_denies(found, asked, would_deny);
        if decision.is_allowed() && !granted && !covered {
            let none = Found::new();
            let found = if who.is_some() { found } else { &none };
            self.dry_lapses(query, found, asked, would_deny);
        }
        decision
    }

    /// What the posture says where neither kind of policy covers the action.
    fn uncovered(
        &self,
        verdict: &Verdict,
        query: &Query<'_>,
        who: Option<&Who<'_>>,
        would_deny: &mut WouldDeny,
    ) -> Decision {
        let posture = self.settings.posture;
        let within = posture.permits(&query.action, who, &self.settings);
        // Graduated: an Istio ALLOW that matched stands for the caller's own namespace, and is
        // named where the posture would have allowed as well.
        let istio = (verdict.allowed())
            .filter(|_| posture != Posture::Strict)
            .filter(|_| within || query.action.family() != Family::Http);
        if let Some(rule) = istio {
            return Decision::allow(By::Rule(Arc::clone(rule)));
        }
        if !within && posture != Posture::Observe {
            return Decision::deny(denial_code(&query.action), By::Uncovered(posture));
        }
        if !within {
            would_deny.push(self.uncovered.clone());
        }
        Decision::allow(By::Uncovered(posture))
    }

    fn rule(&self, number: u32) -> Option<(&RulePlace, &Rule)> {
        let place = self.rules.get(number as usize)?;
        let rule = self.policies.get(place.policy)?.rules.get(place.rule)?;
        Some((place, rule))
    }

    /// The rules of `class` that match, by bucket, ascending within each.
    fn matching<'s>(
        &'s self,
        class: Class,
        found: &'s Found<'_>,
        asked: &'s Asked<'_>,
    ) -> impl Iterator<Item = impl Iterator<Item = u32>> {
        found.iter().map(move |bucket| {
            let entries = bucket.entries(class).iter();
            let matching = entries.filter(move |entry| {
                let rule = self.rule(entry.rule);
                rule.is_some_and(|(_, rule)| entry.matches(rule, class.effect(), asked))
            });
            matching.map(|entry| entry.rule)
        })
    }

    /// The first rule of `class` that matches.
    fn first(&self, class: Class, found: &Found<'_>, asked: &Asked<'_>) -> Option<Arc<RuleName>> {
        let firsts = self.matching(class, found, asked);
        let number = firsts.filter_map(|mut rules| rules.next()).min()?;
        Some(self.rule(number)?.0.name.clone())
    }

    /// The DryRun rules that match, by policy and place.
    fn tried(&self, is_known: bool, found: &Found<'_>, asked: &Asked<'_>) -> Box<[Arc<RuleName>]> {
        let denies = self.matching(Class::DryDeny, found, asked).flatten();
        let allows = self.matching(Class::DryAllow, found, asked).flatten();
        // No Allow rule is about somebody without an identity.
        let mut rules: Vec<u32> = denies.chain(allows.filter(|_| is_known)).collect();
        rules.sort_unstable();
        rules.dedup();
        let places = rules.iter().filter_map(|&number| self.rule(number));
        places.map(|(place, _)| Arc::clone(&place.name)).collect()
    }

    /// Adds the DryRun Deny rules that match.
    fn dry_denies(&self, found: &Found<'_>, asked: &Asked<'_>, would_deny: &mut WouldDeny) {
        let mut rules: SmallVec<[u32; 16]> = SmallVec::new();
        for matching in self.matching(Class::DryDeny, found, asked) {
            // A rule with several blocks may stand here several times in a row.
            let mut last = None;
            let distinct = matching.filter(|&rule| last.replace(rule) != Some(rule));
            rules.extend(distinct.take(WOULD_DENY_MAX));
        }
        rules.sort_unstable();
        rules.dedup();
        let names = rules.iter().filter_map(|&number| self.rule(number));
        would_deny.extend(
            names
                .take(WOULD_DENY_MAX)
                .map(|(place, _)| place.name.clone()),
        );
    }

    /// Adds the DryRun Allow policies that would cover an action which now passes uncovered, and
    /// have no rule that matches it.
    fn dry_lapses(
        &self,
        query: &Query<'_>,
        found: &Found<'_>,
        asked: &Asked<'_>,
        would_deny: &mut WouldDeny,
    ) {
        let family = query.action.family() as usize;
        let covering = query.targets.iter().filter_map(|&target| {
            let dry = &self.coverage.get(target.0 as usize)?.dry;
            dry.get(family).filter(|policies| !policies.is_empty())
        });
        let mut covering = covering.peekable();
        if covering.peek().is_none() {
            return;
        }
        let matching = self.matching(Class::DryAllow, found, asked).flatten();
        let policies = matching.filter_map(|number| Some(self.rule(number)?.0.policy));
        let mut granting: SmallVec<[usize; 16]> = policies.collect();
        granting.sort_unstable();
        let mut lapses: SmallVec<[usize; 16]> = SmallVec::new();
        for policies in covering {
            let lapsing = policies.iter().copied();
            let lapsing = lapsing.filter(|policy| granting.binary_search(policy).is_err());
            lapses.extend(lapsing.take(WOULD_DENY_MAX));
        }
        lapses.sort_unstable();
        lapses.dedup();
        let names = lapses.iter().filter_map(|&policy| self.whole.get(policy));
        would_deny.extend(names.take(WOULD_DENY_MAX).cloned());
    }

    fn covers(&self, targets: &[TargetId], family: Family) -> bool {
        let mut coverage = targets
            .iter()
            .filter_map(|target| self.coverage.get(target.0 as usize));
        coverage.any(|coverage| coverage.enforced.get(family as usize) == Some(&true))
    }

    /// Decides one action, and says what every attached policy thought of it; providers and
    /// servers are named by number.
    #[must_use]
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        self.explain_with(query, &Ids)
    }

    /// [`explain`](Self::explain) with the names of providers and servers.
    #[must_use]
    pub fn explain_with(&self, query: &Query<'_>, names: &dyn Names) -> Explanation {
        self.explain_after(&Verdict::default(), query, names)
    }

    /// [`explain_with`](Self::explain_with) for a request that Istio's policies have let pass.
    #[must_use]
    pub fn explain_after(
        &self,
        verdict: &Verdict,
        query: &Query<'_>,
        names: &dyn Names,
    ) -> Explanation {
        let mut buffer = String::new();
        let host = match query.action {
            Action::Http { host, .. } => plain_host(host, &mut buffer),
            _ => "",
        };
        let asked = Asked::new(&query.action, host);
        let who = Who::new(query.principal, &self.settings);
        let claims = query.facts.claims;
        let policies = self.policies.iter().zip(&self.attached);
        let attached = policies.filter(|(_, targets)| {
            let mut targets = targets.iter();
            targets.any(|target| query.targets.contains(target))
        });
        Explanation {
            decision: self.decide_after(verdict, query),
            trace: (self.access.trace(who.as_ref(), query).into_iter())
                .chain(attached.flat_map(|(policy, _)| {
                    explain::trace(policy, (who.as_ref(), claims), &asked, names)
                }))
                .collect(),
        }
    }
}

/// Writes hosts as they are compared.
fn normalize(policy: &mut AgentPolicy) {
    let blocks = policy.rules.iter_mut().flat_map(|rule| &mut rule.http);
    for host in blocks.filter_map(|block| block.hosts.as_mut()).flatten() {
        *host = host.for_hosts();
    }
}

fn rule_name(policy: &AgentPolicy, rule: &str) -> RuleName {
    RuleName {
        kind: crate::Kind::AgentPolicy.as_str(),
        policy: policy.name.clone(),
        rule: rule.into(),
        effect: policy.effect,
        mode: policy.mode,
    }
}

fn default_name(kind: &'static str, name: &str) -> RuleName {
    RuleName {
        kind,
        policy: ObjectName::new("", name),
        rule: "".into(),
        effect: Effect::Deny,
        mode: Mode::Enforce,
    }
}

fn denial_code(action: &Action<'_>) -> Code {
    match action {
        Action::Llm { .. } => Code::ModelNotAllowed,
        Action::Mcp { .. } => Code::ToolDenied,
        Action::LlmAny { .. } | Action::McpSession { .. } | Action::Http { .. } => Code::Forbidden,
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("policies", &self.policies.len())
            .field("rules", &self.rules.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

//! What came of a request.

use std::sync::Arc;

use waypoint_policy::istio::Verdict;
use waypoint_policy::limit::UsageLimit;
use waypoint_policy::{By, Code, Explanation, RuleName, Stage, TraceEntry};

/// A decision, and what led to it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) is_allowed: bool,
    pub(super) by: By,
    pub(super) code: Option<Code>,
    pub(super) would_deny: Vec<Arc<RuleName>>,
    pub(super) trace: Vec<TraceEntry>,
    /// `LLMRoute/ns/name`, as audit events have it.
    pub(super) route: Option<String>,
    /// What was asked, in words.
    pub(super) asked: String,
    pub(super) notes: Vec<String>,
    /// What is reserved before it is made, where it is allowed.
    pub(super) limits: Vec<Arc<UsageLimit>>,
}

impl Answer {
    pub(super) fn of(explanation: Explanation, asked: String) -> Self {
        let Explanation { decision, trace } = explanation;
        Self {
            is_allowed: decision.is_allowed(),
            by: decision.by().clone(),
            code: decision.code(),
            would_deny: decision.would_deny().to_vec(),
            trace,
            route: None,
            asked,
            notes: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// A request that reaches no policy.
    pub(super) fn refused(code: Code, why: &'static str, asked: String) -> Self {
        Self {
            is_allowed: false,
            by: By::Transport(why),
            code: Some(code),
            would_deny: Vec::new(),
            trace: Vec::new(),
            route: None,
            asked,
            notes: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// The limits it falls under, which are asked last. How much of them is used is known to the
    /// gateway that runs; but one that stops everything denies.
    pub(super) fn within(&mut self, limits: impl IntoIterator<Item = Arc<UsageLimit>>) {
        if !self.is_allowed {
            return;
        }
        for limit in limits {
            if self.limits.iter().all(|known| known.name != limit.name) {
                self.limits.push(limit);
            }
        }
        if let Some(stop) = self.limits.iter().find(|limit| limit.is_stop()) {
            self.is_allowed = false;
            self.code = Some(Code::QuotaExhausted);
            self.by = By::Rule(Arc::new(stop.rule_name()));
        }
    }

    /// Where it was decided.
    pub(super) fn stage(&self) -> Stage {
        self.by.stage(self.is_allowed)
    }

    /// Whether it was refused before any policy is asked.
    fn is_unasked(&self) -> bool {
        let code = self.code.is_some_and(|code| {
            matches!(
                code,
                Code::BadRequest | Code::RouteNotFound | Code::IdentityRequired
            )
        });
        code && self.stage() == Stage::Transport
    }

    /// What Istio's policies said, which are asked before the agents' own. Whom they deny nobody
    /// else is asked about, so nothing is said of what would have come of that.
    pub(super) fn after(&mut self, verdict: &Verdict, mut trace: Vec<TraceEntry>) {
        if self.is_unasked() {
            return;
        }
        let mut would_deny = verdict.would_deny().to_vec();
        if let Some(by) = verdict.denied() {
            self.is_allowed = false;
            self.by = by.clone();
            self.code = Some(Code::Forbidden);
            self.would_deny.clear();
            self.notes.clear();
            self.limits.clear();
        }
        would_deny.append(&mut self.would_deny);
        self.would_deny = would_deny;
        trace.append(&mut self.trace);
        self.trace = trace;
    }

    pub(super) fn refuse(&mut self, code: Code, why: &'static str) {
        self.is_allowed = false;
        self.code = Some(code);
        self.by = By::Transport(why);
    }

    pub(super) fn through(mut self, route: Option<String>) -> Self {
        self.route = route;
        self
    }
}

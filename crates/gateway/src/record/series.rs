//! The metric handles of one kind of request, found with one look instead of one for each family.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hashbrown::{DefaultHashBuilder, HashTable};
use prometheus::{Histogram, IntCounter};
use waypoint_policy::{By, Code, Operation, RuleName};

use super::RequestRecord;

/// So many kinds are kept; with one more, all are found anew.
const MAX: usize = 4096;

/// How many there are.
const ALL: usize = 18;

/// Where a label has nothing to say.
pub(super) const NONE: &str = "";

/// What a request counts as, in all families.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a> {
    pub(super) listener: &'a str,
    pub(super) route: &'a str,
    /// The class of it.
    pub(super) status: &'a str,
    pub(super) code: &'a str,
    /// Empty where nothing was decided.
    pub(super) decision: &'a str,
    pub(super) mode: &'a str,
    /// The family of the action.
    pub(super) kind: &'a str,
    /// Kind, namespace and name of the policy that decided, or the kind of default that did.
    pub(super) policy: [&'a str; 3],
    /// Whoever it is; as a label it is bounded.
    pub(super) principal: &'a str,
    /// Kind, namespace and name of the policy that decided, and the rule.
    pub(super) rule: [&'a str; 4],
    /// The operation, or the method.
    pub(super) operation: &'a str,
    /// The provider, or the server.
    pub(super) backend: &'a str,
    pub(super) model: &'a str,
}

impl<'a> Labels<'a> {
    /// Where no rule decided.
    pub(super) const NO_RULE: [&'static str; 4] = [NONE; 4];

    pub(super) fn of(record: &'a RequestRecord) -> Self {
        let action = &record.action;
        let id = record.principal.spiffe();
        let (operation, backend) = match action.kind {
            "llm" => (
                action.operation.map(Operation::as_str),
                action.provider.as_ref().map(|name| &*name.name),
            ),
            _ => (action.method_label, action.server.as_deref()),
        };
        Self {
            listener: &record.listener,
            route: record.route.as_deref().unwrap_or(NONE),
            status: match record.status {
                100..200 => "1xx",
                200..300 => "2xx",
                300..400 => "3xx",
                400..500 => "4xx",
                500..600 => "5xx",
                _ => "none",
            },
            code: record.code.map_or(NONE, Code::as_str),
            decision: match record.allowed {
                Some(true) => "allow",
                Some(false) => "deny",
                None => NONE,
            },
            mode: match record.would_deny.is_empty() {
                true => "enforce",
                false => "would_deny",
            },
            kind: action.kind,
            policy: record.by.as_ref().map_or([NONE; 3], policy_labels),
            principal: id.map_or("anonymous", |id| id.as_str()),
            rule: match &record.by {
                Some(By::Rule(rule)) => rule_labels(rule),
                _ => Self::NO_RULE,
            },
            operation: operation.unwrap_or(NONE),
            backend: backend.unwrap_or(NONE),
            model: action.model_label.as_deref().unwrap_or(NONE),
        }
    }

    fn all(&self) -> [&'a str; ALL] {
        let [kind, namespace, policy] = self.policy;
        let [rule_kind, rule_namespace, name, rule] = self.rule;
        [
            self.listener,
            self.route,
            self.status,
            self.code,
            self.decision,
            self.mode,
            self.kind,
            kind,
            namespace,
            policy,
            self.principal,
            rule_kind,
            rule_namespace,
            name,
            rule,
            self.operation,
            self.backend,
            self.model,
        ]
    }
}

/// Kind, namespace and name of a policy, and its rule.
pub(super) fn rule_labels(rule: &RuleName) -> [&str; 4] {
    let policy = &rule.policy;
    [rule.kind, &policy.namespace, &policy.name, &rule.rule]
}

/// Kind, namespace and name of the policy that decided, or the kind of default that did.
fn policy_labels(by: &By) -> [&str; 3] {
    match by {
        By::Rule(rule) => [rule.kind, &rule.policy.namespace, &rule.policy.name],
        By::Uncovered(posture) => ["Posture", NONE, posture.as_str()],
        By::NoMatch => ["Default", NONE, "no_match"],
        By::NoIstioAllow => ["Default", NONE, "no_istio_allow"],
        By::Identity => ["Identity", NONE, "identity"],
        By::Transport(_) => ["Transport", NONE, "transport"],
    }
}

/// What requests with the same labels count into.
#[derive(Debug)]
pub(super) struct Series {
    labels: [Box<str>; ALL],
    pub(super) requests: IntCounter,
    pub(super) decision: Option<IntCounter>,
    pub(super) rule_hits: Option<IntCounter>,
    /// As the caller sees it.
    pub(super) duration: Option<Histogram>,
    // A family shows what was observed, so these are made when there is something to observe.
    pub(super) upstream_duration: OnceLock<Histogram>,
    pub(super) first_token: OnceLock<Histogram>,
    /// By kind of token.
    pub(super) tokens: [OnceLock<Histogram>; 4],
    /// In micro-USD.
    pub(super) cost: OnceLock<IntCounter>,
}

impl Series {
    pub(super) fn new(labels: Labels<'_>, requests: IntCounter) -> Self {
        Self {
            labels: labels.all().map(Box::from),
            requests,
            decision: None,
            rule_hits: None,
            duration: None,
            upstream_duration: OnceLock::new(),
            first_token: OnceLock::new(),
            tokens: Default::default(),
            cost: OnceLock::new(),
        }
    }
}

/// The series found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    hasher: DefaultHashBuilder,
    series: RwLock<HashTable<Arc<Series>>>,
}

impl Found {
    /// The series with these labels; made when it is the first time.
    pub(super) fn get(&self, labels: Labels<'_>, make: impl FnOnce() -> Series) -> Arc<Series> {
        let all = labels.all();
        let hash = self.hasher.hash_one(all);
        let is_it = |known: &Arc<Series>| known.labels.iter().map(|label| &**label).eq(all);
        let known = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.find(hash, is_it) {
            return Arc::clone(found);
        }
        drop(known);
        let made = Arc::new(make());
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        // Made twice at once, both count into the same.
        if known.len() >= MAX {
            known.clear();
        }
        let rehash = |known: &Arc<Series>| {
            let all = known.labels.each_ref().map(|label| &**label);
            self.hasher.hash_one(all)
        };
        known.insert_unique(hash, Arc::clone(&made), rehash);
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<'a>(first: &'a str, last: &'a str) -> Labels<'a> {
        Labels {
            listener: first,
            route: NONE,
            status: NONE,
            code: NONE,
            decision: NONE,
            mode: NONE,
            kind: NONE,
            policy: [NONE; 3],
            principal: NONE,
            rule: Labels::NO_RULE,
            operation: NONE,
            backend: NONE,
            model: last,
        }
    }

    fn series(labels: Labels<'_>) -> Series {
        Series::new(labels, IntCounter::new("n", "of the test").unwrap())
    }

    #[test]
    fn each_combination_counts_for_itself() {
        let found = Found::default();
        for (first, last) in [("a", "b"), ("a", ""), ("", "b"), ("ab", ""), ("a", "b")] {
            let labels = labels(first, last);
            found.get(labels, || series(labels)).requests.inc();
        }
        let twice = found.get(labels("a", "b"), || unreachable!());
        assert_eq!(twice.requests.get(), 2);
        let once = found.get(labels("ab", ""), || unreachable!());
        assert_eq!(once.requests.get(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let found = Found::default();
        for number in 0..=MAX {
            let text = number.to_string();
            let labels = labels(&text, "");
            found.get(labels, || series(labels));
        }
        assert_eq!(found.series.read().unwrap().len(), 1);
    }
}

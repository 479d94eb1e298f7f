//! Rules that no decision depends on: they can never match, or what they say is said already.
//!
//! What is found is proven, by what values say of each other; what cannot be seen that way is not
//! found. A rule that is found can be removed, alone or with all others that are, and no request is
//! decided otherwise ([`Why::NeverOfHttp`]: no HTTP request).

mod contradiction;
mod cover;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::HashMap;

use super::index::{Census, Found, Row};
use super::{
    Attribute, AuthorizationPolicy, IstioAction, IstioRule, Request, Test, TextMatch, Value,
};
use crate::{Mode, ObjectName, ObjectRef, Principal, SpiffeId};
use contradiction::Never;

/// DENY rules that an ALLOW rule is compared with at most. Rules are found by what they name, so
/// that more have to do with it only where they name nothing that tells them apart.
const COMPARED_MAX: usize = 256;

/// A rule that no decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRule {
    /// Its policy.
    pub policy: ObjectName,
    /// Its place in the policy.
    pub index: usize,
    /// Why nothing depends on it.
    pub why: Why,
}

/// Why no decision depends on a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No request satisfies this field, or the field and others together.
    Never {
        /// As it is written, such as `from[0].source.principals`.
        field: Box<str>,
    },
    /// The same of HTTP requests. A DENY rule is about connections of other protocols as well, and
    /// is read there as if it had no field of HTTP.
    NeverOfHttp {
        /// As it is written.
        field: Box<str>,
    },
    /// The same stands in a rule with the same effect, wherever this one is in force.
    Repeats {
        /// The policy of the other rule.
        policy: ObjectName,
        /// The other rule.
        rule: Arc<str>,
    },
    /// Whatever this ALLOW rule allows, a DENY rule denies.
    Denied {
        /// The policy of the DENY rule.
        policy: ObjectName,
        /// The DENY rule.
        rule: Arc<str>,
    },
}

/// The rules of these policies that no decision depends on, by policy and place. `policies` are all
/// there are.
#[must_use]
pub fn dead_rules(policies: &[AuthorizationPolicy]) -> Vec<DeadRule> {
    let mut sorted: Vec<&AuthorizationPolicy> = policies.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let all = All::new(&sorted);
    let deciding = sorted
        .iter()
        .filter(|policy| matches!(policy.action, IstioAction::Allow | IstioAction::Deny));
    let rules = deciding.flat_map(|policy| (0..).zip(&policy.rules).map(move |at| (*policy, at)));
    let mut seen: HashMap<Form, Vec<Place<'_>>> = HashMap::new();
    let mut dead = Vec::new();
    for (policy, (index, rule)) in rules {
        // What cannot be evaluated is an error elsewhere, and has rules of its own.
        if rule.has_unusable() {
            continue;
        }
        let place = Place { policy, rule };
        let why = match rule.never(policy.action) {
            Some(Never::AtAll(test)) => Some(Why::Never {
                field: test.field.clone(),
            }),
            Some(Never::OfHttp(test)) => Some(Why::NeverOfHttp {
                field: test.field.clone(),
            }),
            None => repeated(&mut seen, place).or_else(|| all.denying(place)),
        };
        dead.extend(why.map(|why| DeadRule {
            policy: policy.name.clone(),
            index,
            why,
        }));
    }
    dead
}

/// A rule and its policy.
#[derive(Clone, Copy)]
struct Place<'p> {
    policy: &'p AuthorizationPolicy,
    rule: &'p IstioRule,
}

impl Place<'_> {
    /// Whether this rule is in force wherever the other is.
    fn is_wherever(&self, other: &Self) -> bool {
        let mut targets = other.policy.targets.iter();
        targets.all(|target| self.policy.targets.contains(target))
    }
}

/// What a rule says, whatever the order in which it says it.
#[derive(PartialEq, Eq, Hash)]
struct Form(IstioAction, Mode, String);

impl Form {
    fn of(place: Place<'_>) -> Self {
        let tests = |tests: &[Test]| {
            let mut all: Vec<String> = tests.iter().map(test_form).collect();
            all.sort_unstable();
            all.join("&")
        };
        let side = |side: &Option<Vec<Vec<Test>>>| {
            let list = side.as_deref().unwrap_or_default();
            let mut all: Vec<String> = list.iter().map(|one| tests(one)).collect();
            all.sort_unstable();
            all.dedup();
            all.join("|")
        };
        let IstioRule {
            name: _,
            from,
            to,
            when,
        } = place.rule;
        let text = format!("{};{};{}", side(from), side(to), tests(when));
        let Place { policy, .. } = place;
        Self(policy.action, policy.mode, text)
    }
}

fn test_form(test: &Test) -> String {
    // `Debug` quotes, so that no value can look like two.
    let list = |values: &[Value]| {
        let mut all: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        all.sort_unstable();
        all.dedup();
        all.join(",")
    };
    let values = test.values.as_deref().map(list);
    format!("{:?}={values:?}!{}", test.attribute, list(&test.not_values))
}

/// The rule that says the same where this one is in force, if one came before.
fn repeated<'p>(seen: &mut HashMap<Form, Vec<Place<'p>>>, place: Place<'p>) -> Option<Why> {
    let same = seen.entry(Form::of(place)).or_default();
    let mut others = same.iter().take(COMPARED_MAX);
    if let Some(other) = others.find(|other| other.is_wherever(&place)) {
        return Some(Why::Repeats {
            policy: other.policy.name.clone(),
            rule: Arc::clone(&other.rule.name),
        });
    }
    same.push(place);
    None
}

/// The DENY rules in force, filed as they are for requests.
#[derive(Default)]
struct All<'p> {
    denies: Vec<Place<'p>>,
    rows: HashMap<&'p ObjectRef, Row>,
}

impl<'p> All<'p> {
    fn new(policies: &[&'p AuthorizationPolicy]) -> Self {
        let is_deny = |policy: &&&AuthorizationPolicy| {
            policy.action == IstioAction::Deny && policy.mode == Mode::Enforce
        };
        let denies = policies.iter().filter(is_deny);
        let rules = denies.flat_map(|policy| {
            let rules = policy.rules.iter();
            rules.map(|rule| Place { policy, rule })
        });
        let rules = rules.filter(|place| !place.rule.has_unusable());
        let mut all = Self {
            denies: rules.collect(),
            ..Self::default()
        };
        let mut census = Census::default();
        for place in &all.denies {
            census.count(place.rule);
        }
        for (number, place) in (0..).zip(&all.denies) {
            for target in &place.policy.targets {
                let row = all.rows.entry(target).or_default();
                row.file(number, place.rule, &census);
            }
        }
        all
    }

    /// The DENY rule that denies all that this ALLOW rule in force allows.
    fn denying(&self, place: Place<'_>) -> Option<Why> {
        let Place { policy, rule } = place;
        if policy.action != IstioAction::Allow || policy.mode != Mode::Enforce {
            return None;
        }
        // One request that the rule is about: what denies all of them denies that one.
        let row = self.rows.get(policy.targets.first()?)?;
        let mut found = Found::new();
        rule.example(|request| row.find(request, &mut found));
        found.sort_unstable();
        found.dedup();
        let candidates = found.iter().take(COMPARED_MAX);
        let mut denies = candidates.filter_map(|number| self.denies.get(*number as usize));
        let deny = denies.find(|deny| deny.is_wherever(&place) && rule.is_within(deny.rule))?;
        Some(Why::Denied {
            policy: deny.policy.name.clone(),
            rule: Arc::clone(&deny.rule.name),
        })
    }
}

impl IstioRule {
    fn has_unusable(&self) -> bool {
        self.tests().any(|test| {
            let mut values = test.values.iter().flatten().chain(&test.not_values);
            matches!(test.attribute, Attribute::Unknown(_))
                || values.any(|value| matches!(value, Value::Unusable(_)))
        })
    }

    /// The alternatives of one side, each with all conditions; one when there are none.
    fn alternatives<'r>(&'r self, side: &'r Option<Vec<Vec<Test>>>) -> Vec<Vec<&'r Test>> {
        let list = side.as_deref().unwrap_or_default();
        let whole = |tests: &'r [Test]| tests.iter().chain(&self.when).collect();
        match list {
            [] => vec![whole(&[])],
            list => list.iter().map(|tests| whole(tests)).collect(),
        }
    }

    /// Shows a request that has one value of each field of the first alternatives, as far as rules
    /// are filed by them.
    fn example(&self, mut show: impl FnMut(&Request<'_>)) {
        let from = self.alternatives(&self.from);
        let to = self.alternatives(&self.to);
        let tests = from.first().into_iter().chain(to.first()).flatten();
        let (mut principal, mut namespace) = (None, None);
        let (mut host, mut path) = (String::new(), String::new());
        for test in tests {
            let Some(value) = test.values.iter().flatten().next() else {
                continue;
            };
            match (&test.attribute, value) {
                (Attribute::Principal, Value::Text(text)) => principal = Some(one_of(text)),
                (Attribute::Namespace, Value::Namespace(pattern)) => {
                    namespace = pattern.as_exact();
                }
                (Attribute::Host, Value::Text(text)) => host = one_of(text),
                (Attribute::Path, Value::Text(text)) => path = one_of(text),
                (Attribute::Path, Value::Template(template)) => {
                    path = template.literal_prefix().to_owned();
                }
                _ => {}
            }
        }
        let id = match (principal, namespace) {
            (Some(id), _) => format!("spiffe://{id}").parse::<SpiffeId>().ok(),
            (None, Some(namespace)) => SpiffeId::of_workload("any", namespace, "any").ok(),
            (None, None) => None,
        };
        let principal = id.map_or(Principal::Anonymous, Principal::Workload);
        show(&Request {
            host: &host,
            path: &path,
            ..Request::of(&principal)
        });
    }
}

/// A text that a value matches.
fn one_of(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(text) | TextMatch::Prefix(text) | TextMatch::Suffix(text) => {
            text.to_string()
        }
        TextMatch::Present => String::new(),
    }
}

//! The rows: callers that policies name, and what stands for all others.

use std::collections::BTreeSet;

use waypoint_config::Snapshot;
use waypoint_policy::access::Source;
use waypoint_policy::istio::{Attribute, TextMatch, Value};
use waypoint_policy::{Principal, SpiffeId, SpiffePattern};

/// What stands for every service account that has no row of its own. No Kubernetes name has `_`.
const OTHER: &str = "_any_other_";
/// A namespace that no policy names.
const ELSEWHERE: &str = "_elsewhere_";

/// A row.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) label: String,
    pub(super) principal: Principal,
    is_one: bool,
}

impl Caller {
    /// The identity, if the row is about exactly one.
    pub(super) fn example(&self) -> Option<&str> {
        let id = self.principal.spiffe().filter(|_| self.is_one)?;
        Some(id.as_str())
    }
}

/// The callers that policies name, then what stands for all others.
pub(super) fn callers(snapshot: &Snapshot) -> Vec<Caller> {
    let own = &snapshot.gateway.namespace;
    let settings = snapshot.policy.settings();
    let domain = settings
        .trust_domains
        .first()
        .map_or("cluster.local", |domain| domain);
    let mut exact: BTreeSet<SpiffeId> = BTreeSet::new();
    let mut namespaces: BTreeSet<String> = BTreeSet::from([own.to_string()]);
    let mut prefixes: BTreeSet<String> = BTreeSet::new();
    let rules = snapshot
        .policy
        .policies()
        .iter()
        .flat_map(|policy| &policy.rules);
    for caller in rules.filter_map(|rule| rule.from.as_ref()).flatten() {
        match &caller.spiffe {
            Some(SpiffePattern::Exact(id)) => {
                exact.insert(id.clone());
            }
            Some(SpiffePattern::Prefix(prefix)) => {
                prefixes.insert(prefix.clone());
            }
            None => {}
        }
        if let Some((namespace, name)) = &caller.service_account {
            exact.extend(SpiffeId::of_workload(domain, namespace, name));
            namespaces.insert(namespace.to_string());
        }
        namespaces.extend(caller.namespace.as_ref().map(ToString::to_string));
    }
    for named in istio_sources(snapshot, domain) {
        match named {
            Named::One(id) => {
                exact.insert(id);
            }
            Named::Below(prefix) => {
                prefixes.insert(prefix);
            }
            Named::Namespace(namespace) => {
                namespaces.insert(namespace);
            }
        }
    }
    exact.extend(sources(snapshot, domain));
    exact.extend(
        snapshot
            .listeners
            .iter()
            .filter_map(|listener| listener.developer.clone()),
    );
    namespaces.extend(
        exact
            .iter()
            .filter_map(|id| Some(id.workload()?.namespace.to_owned())),
    );

    let one = |id: SpiffeId| Caller {
        label: short(&id, domain, own),
        principal: id.into(),
        is_one: true,
    };
    let mut callers: Vec<Caller> = exact.into_iter().map(one).collect();
    let mut others: Vec<(String, String)> = Vec::new();
    for prefix in prefixes {
        let id = match prefix.ends_with("/sa/") {
            false if prefix.contains("/ns/") => format!("{prefix}sa/{OTHER}"),
            _ => format!("{prefix}{OTHER}"),
        };
        // The same as "any other in" a namespace that has a row already.
        let covered = id.parse::<SpiffeId>().ok().and_then(|id| {
            let workload = id.workload()?;
            Some(id.trust_domain() == domain && namespaces.contains(workload.namespace))
        });
        if covered != Some(true) {
            others.push((format!("any other of {prefix}*"), id));
        }
    }
    for namespace in &namespaces {
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{OTHER}");
        others.push((format!("any other in {namespace}"), id));
    }
    let id = format!("spiffe://{domain}/ns/{ELSEWHERE}/sa/{OTHER}");
    others.push(("any other workload".into(), id));
    callers.extend(others.into_iter().filter_map(|(label, id)| {
        let principal = Principal::Workload(id.parse().ok()?);
        Some(Caller {
            label,
            principal,
            is_one: false,
        })
    }));
    callers.push(Caller {
        label: "anonymous".into(),
        principal: Principal::Anonymous,
        is_one: false,
    });
    callers
}

/// Whom a rule of Istio's names.
enum Named {
    One(SpiffeId),
    /// All identities that begin so, up to a slash.
    Below(String),
    Namespace(String),
}

/// Whom Istio's policies name.
fn istio_sources(snapshot: &Snapshot, domain: &str) -> impl Iterator<Item = Named> {
    let policies = snapshot.policy.istio_policies().iter();
    let rules = policies.flat_map(|policy| &policy.rules);
    let tests = rules.flat_map(|rule| rule.from.iter().flatten().flatten().chain(&rule.when));
    tests.flat_map(move |test| {
        let values = test.values.iter().flatten().chain(&test.not_values);
        values.filter_map(move |value| named(&test.attribute, value, domain))
    })
}

fn named(attribute: &Attribute, value: &Value, domain: &str) -> Option<Named> {
    match (attribute, value) {
        (Attribute::Principal, Value::Text(TextMatch::Exact(id))) => {
            format!("spiffe://{id}").parse().ok().map(Named::One)
        }
        (Attribute::Principal, Value::Text(TextMatch::Prefix(id))) => {
            let prefix = format!("spiffe://{id}");
            id.ends_with('/').then_some(Named::Below(prefix))
        }
        (Attribute::ServiceAccount, Value::ServiceAccount { namespace, name }) => {
            let id = SpiffeId::of_workload(domain, namespace, name);
            id.into_iter().next().map(Named::One)
        }
        (Attribute::Namespace, Value::Namespace(pattern)) => pattern
            .as_exact()
            .map(|name| Named::Namespace(name.to_owned())),
        _ => None,
    }
}

/// The identities that policies of the kind `XAccessPolicy` name.
fn sources(snapshot: &Snapshot, domain: &str) -> impl Iterator<Item = SpiffeId> {
    let policies = snapshot.policy.access_policies();
    let rules = policies.flat_map(|policy| policy.rules.iter().flatten());
    let sources = rules.filter_map(|rule| rule.source.as_ref());
    sources.filter_map(move |source| match source {
        Source::Spiffe(id) => Some(id.clone()),
        Source::ServiceAccount { namespace, name } => {
            SpiffeId::of_workload(domain, namespace, name).ok()
        }
    })
}

/// The service account of a workload in the Gateway's namespace, `ns/name` of others of our own
/// trust domain, else the whole identity.
fn short(id: &SpiffeId, domain: &str, own: &str) -> String {
    match id.workload().filter(|_| id.trust_domain() == domain) {
        Some(workload) if workload.namespace == own => workload.service_account.to_owned(),
        Some(workload) => format!("{}/{}", workload.namespace, workload.service_account),
        None => id.to_string(),
    }
}

//! Values of `AuthorizationPolicy` that are warned of: no request that is served depends on them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;
use waypoint_policy::istio::Request;

use super::*;

const OBJECTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: apps}
spec:
  gatewayClassName: kgateway-waypoint
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: agents, port: 8080, protocol: HTTP}]
  infrastructure:
    parametersRef: {group: waypoint.kgateway.io, kind: WaypointParameters, name: wp}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: WaypointParameters
metadata: {name: wp, namespace: apps}
spec:
  trustDomains: [td1, td2]
  listeners: {agents: {principal: "spiffe://local/ns/apps/sa/me"}}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: apps}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: apps}
spec:
  parentRefs: [{name: wp}]
  hostnames: [shop.example, "*.below.example"]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
"#;

/// Fields of one rule: the place of each, and the values that may stand there.
const FIELDS: [(&str, &[&str]); 3] = [
    (
        "source.principals",
        &[
            "cluster.local/ns/a/sa/b",
            "cluster.local/ns/a/*",
            "td1/ns/a/sa/b",
            "td2/ns/a/*",
            "other/ns/a/sa/b",
            "*/ns/a/sa/b",
            "local/ns/apps/sa/me",
            "other*",
            "td*",
            "*",
        ],
    ),
    (
        "source.trustDomains",
        &["td1", "cluster.local", "other", "td*", "local", "*"],
    ),
    (
        "operation.hosts",
        &[
            "shop.example",
            "SHOP.example:80",
            "shop.example:*",
            "shop.example.",
            "a.below.example",
            "below.example",
            "other.example",
            "other.example:*",
            "other.example:80",
            "*.example",
            "other*",
        ],
    ),
];

/// The values of each field; `None` for one that is not there.
type Values = [Option<BTreeSet<&'static str>>; 3];

/// A policy of one rule with these values, or of none where a field has nothing left to match.
fn policy(action: &str, values: &Values) -> (Outcome, String) {
    let mut rule = json!({});
    for ((place, _), values) in FIELDS.iter().zip(values) {
        let (side, field) = place.split_once('.').unwrap();
        let list = if side == "source" { "from" } else { "to" };
        if let Some(values) = values {
            if rule[list].is_null() {
                rule[list] = json!([{side: {}}]);
            }
            rule[list][0][side][field] = json!(values);
        }
    }
    let is_gone = values.iter().flatten().any(BTreeSet::is_empty);
    // One that matches nothing here stands beside it: a policy has rules.
    let mut rules = vec![json!({"to": [{"operation": {"ports": ["1"]}}]})];
    rules.extend((!is_gone).then_some(rule));
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "apps"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "wp"}],
            "action": action,
            "rules": rules,
        },
    });
    let text = format!("{policy:#}");
    let files = [file("objects.yaml", OBJECTS), file("policy.json", &text)];
    (compile(&files, &Options::default()), text)
}

/// Whether each request that has a route is denied.
fn decided(snapshot: &Snapshot) -> Vec<(String, bool)> {
    let mut decided = Vec::new();
    for caller in [
        "",
        "spiffe://td1/ns/a/sa/b",
        "spiffe://td2/ns/a/sa/c",
        "spiffe://local/ns/apps/sa/me",
    ] {
        let principal = match caller {
            "" => Principal::Anonymous,
            id => Principal::Workload(id.parse().unwrap()),
        };
        for host in [
            "shop.example",
            "shop.example:80",
            "SHOP.EXAMPLE",
            "shop.example.",
            "shop.example.:80",
            "a.below.example:81",
            "A.b.below.example",
            "below.example",
            "other.example",
            "",
        ] {
            let Some(route) = find(snapshot, "GET", host, "/") else {
                continue;
            };
            let request = Request {
                port: 8080,
                method: "GET",
                host,
                path: "/",
                ..Request::of(&principal)
            };
            let behind = snapshot.hosts_behind(route);
            let named = host.split(':').next().unwrap();
            let verdict = snapshot.authorize(&request, &behind, named);
            let is_denied = verdict.denied().is_some();
            decided.push((format!("{caller} {host}"), is_denied));
        }
    }
    assert!(decided.len() > 20, "requests have routes");
    decided
}

fn values(field: usize) -> impl Strategy<Value = Option<BTreeSet<&'static str>>> {
    let all = FIELDS[field].1;
    let some = prop::collection::btree_set(prop::sample::select(all), 1..5);
    prop::option::weighted(0.8, some)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_depends_on_a_value_that_is_warned_of(
        principals in values(0), domains in values(1), hosts in values(2), allows in any::<bool>(),
    ) {
        let mut values = [principals, domains, hosts];
        if values.iter().all(Option::is_none) {
            return Ok(());
        }
        let action = if allows { "ALLOW" } else { "DENY" };
        let (before, text) = policy(action, &values);
        let warned = before.diagnostics.iter().filter(|d| d.code == "never-matches");
        let warned: BTreeSet<&str> = warned
            .map(|d| text.lines().nth(d.line - 1).unwrap().trim().trim_matches(['"', ',']))
            .collect();
        let before = before.snapshot.unwrap();
        for values in values.iter_mut().flatten() {
            values.retain(|value| !warned.contains(value));
        }
        let after = policy(action, &values).0.snapshot.unwrap();
        prop_assert_eq!(decided(&before), decided(&after), "{:?}", warned);
    }
}

#[test]
fn what_is_warned_of() {
    let all = FIELDS.map(|(_, values)| Some(values.iter().copied().collect()));
    let (outcome, text) = policy("ALLOW", &all);
    let warned = outcome.diagnostics.iter().map(|d| {
        let line = text.lines().nth(d.line - 1).unwrap();
        line.trim().trim_matches(['"', ','])
    });
    assert_eq!(
        warned.collect::<BTreeSet<_>>(),
        BTreeSet::from([
            "cluster.local/ns/a/*",
            "other/ns/a/sa/b",
            "other",
            "below.example",
            "other.example",
            "other.example:*",
            "other.example:80",
        ])
    );
}

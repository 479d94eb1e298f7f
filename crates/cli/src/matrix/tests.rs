mod examples;

use std::path::Path;

use super::*;

/// One of the example configurations, for one of its Gateways.
fn example(name: &str, gateway: Option<&str>) -> std::sync::Arc<Snapshot> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../config/examples")
        .join(name);
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    configuration::load(&[path], gateway.as_ref()).expect("an example compiles")
}

#[test]
fn the_quickstart_example() {
    let snapshot = example("quickstart", None);
    insta::assert_snapshot!(Matrix::of(&snapshot).to_tables(Paint::PLAIN));
}

#[test]
fn the_demo() {
    let snapshot = crate::demo::snapshot();
    insta::assert_snapshot!(Matrix::of(&snapshot).to_tables(Paint::PLAIN));
}

/// Tools of which some may be called with some arguments.
const ARGUMENTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: agents}
spec: {gatewayClassName: kgateway-waypoint, listeners: [{name: a, port: 8080, protocol: HTTP}]}
---
apiVersion: mcp.kgateway.io/v1
kind: MCPProxy
metadata: {name: tools, namespace: agents}
spec: {routes: [{name: github, match: {prefix: /mcp/}, destination: {hostname: mcp.example.com, port: 443, tls: {}}}]}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {name: some, namespace: agents}
spec:
  targetRefs: [{kind: Gateway, name: wp}]
  rules:
  - {name: acme, mcp: [{methods: [{name: tools/call, params: [search]}], arguments: {/owner: {in: [acme]}}}]}
  - {name: free, mcp: [{methods: [{name: tools/call, params: [get, put]}]}]}
  - {name: boss, from: [{serviceAccount: {name: boss}}], mcp: [{methods: [{name: tools/call, params: [search]}]}]}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {name: none, namespace: agents}
spec:
  targetRefs: [{kind: Gateway, name: wp}]
  action: Deny
  rules:
  - {name: secret, mcp: [{methods: [{name: tools/call, params: [get]}], arguments: {/path: {pattern: secret}}}]}
"#;

#[test]
fn what_depends_on_arguments_is_no_plain_allow() {
    let file = waypoint_config::File {
        path: "arguments.yaml".into(),
        text: ARGUMENTS.into(),
    };
    let outcome = waypoint_config::compile(&[file], &waypoint_config::Options::default());
    let snapshot = outcome.snapshot.unwrap();
    let matrix = Matrix::of(&snapshot);
    let json: serde_json::Value = serde_json::from_str(&matrix.to_json().unwrap()).unwrap();
    let cells = json["cells"].as_array().unwrap();
    for (caller, item, decision) in [
        ("boss", "search", "allow"),
        ("boss", "get", "conditional"),
        ("any other in agents", "search", "conditional"),
        ("any other in agents", "put", "allow"),
        ("any other in agents", "*", "deny"),
        ("anonymous", "search", "deny"),
    ] {
        let mut cells = cells.iter();
        let cell = cells.find(|cell| cell["caller"] == caller && cell["item"] == item);
        assert_eq!(cell.unwrap()["decision"], decision, "{caller} {item}");
    }
    assert_eq!(
        matrix.to_csv().matches(",conditional,").count(),
        matrix
            .to_tables(Paint::PLAIN)
            .matches("(by arguments)")
            .count()
    );
    insta::assert_snapshot!(matrix.to_tables(Paint::PLAIN));
}

#[test]
fn the_three_forms_say_the_same() {
    let snapshot = crate::demo::snapshot();
    let matrix = Matrix::of(&snapshot);
    let json: serde_json::Value = serde_json::from_str(&matrix.to_json().unwrap()).unwrap();
    let cells = json["cells"].as_array().unwrap();
    assert_eq!(cells.len(), matrix.callers.len() * matrix.targets.len());
    let allowed = cells.iter().filter(|cell| cell["decision"] == "allow");
    // In tables the methods of a path that are decided alike stand together.
    let shown = allowed.clone().map(|cell| {
        let item = cell["item"].as_str().unwrap();
        let path = item.rsplit(' ').next().unwrap();
        (
            cell["caller"].as_str().unwrap(),
            cell["target"].as_str().unwrap(),
            path,
        )
    });
    let shown: std::collections::BTreeSet<_> = shown.collect();
    let allowed = allowed.count();
    let csv = matrix.to_csv();
    assert_eq!(csv.lines().count(), 1 + cells.len());
    assert_eq!(
        csv.lines().filter(|line| line.contains(",allow,")).count(),
        allowed
    );
    assert_eq!(
        matrix.to_tables(Paint::PLAIN).matches("allow ").count(),
        shown.len()
    );
}

#[test]
fn csv_fields() {
    for (text, expected) in [
        ("plain", "plain"),
        ("a,b", "\"a,b\""),
        ("say \"x\"", "\"say \"\"x\"\"\""),
        ("=1+1", "\"'=1+1\""),
        ("@x", "\"'@x\""),
    ] {
        assert_eq!(csv_field(text), expected);
    }
}

/// What Istio's rules may depend on beside who and what.
const CONDITIONS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: agents}
spec: {gatewayClassName: kgateway-waypoint, listeners: [{name: a, port: 8080, protocol: HTTP}]}
---
apiVersion: mcp.kgateway.io/v1
kind: MCPProxy
metadata: {name: tools, namespace: agents}
spec: {routes: [{name: github, match: {prefix: /mcp/}, destination: {hostname: mcp.example.com, port: 443, tls: {}}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  rules:
  - from: [{source: {principals: [cluster.local/ns/agents/sa/header]}}]
    when: [{key: "request.headers[x-a]", values: ["1", "2*"]}]
  - from: [{source: {principals: [cluster.local/ns/agents/sa/claimed]}}]
    when: [{key: "request.headers[x-spiffe-id]", values: ["*"]}]
  - from: [{source: {principals: [cluster.local/ns/agents/sa/token], requestPrincipals: ["*"]}}]
  - from: [{source: {principals: [cluster.local/ns/agents/sa/address], ipBlocks: [10.0.0.0/8]}}]
  - from: [{source: {principals: [cluster.local/ns/agents/sa/host]}}]
    to: [{operation: {hosts: ["tools.example:*"]}}]
  - from: [{source: {principals: [cluster.local/ns/agents/sa/free]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/agents/sa/free]}}]
    to: [{operation: {hosts: [old.example]}}]
"#;

#[test]
fn what_depends_on_more_is_no_plain_allow() {
    let file = waypoint_config::File {
        path: "conditions.yaml".into(),
        text: CONDITIONS.into(),
    };
    let outcome = waypoint_config::compile(&[file], &waypoint_config::Options::default());
    let snapshot = outcome.snapshot.unwrap();
    let json = Matrix::of(&snapshot).to_json().unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (caller, decision, condition) in [
        ("header", "conditional", Some("x-a: 1 or 2*")),
        // What a caller says of itself is removed, and there is nobody to verify a token.
        ("claimed", "deny", None),
        ("token", "deny", None),
        ("address", "conditional", Some("source.ip: 10.0.0.0/8")),
        ("host", "conditional", Some("host: tools.example:*")),
        ("free", "conditional", Some("unless host: old.example")),
        ("any other in agents", "deny", None),
    ] {
        let mut cells = json["cells"].as_array().unwrap().iter();
        let cell = cells.find(|cell| cell["caller"] == caller).unwrap();
        let said = (cell["decision"].as_str(), cell["condition"].as_str());
        assert_eq!(said, (Some(decision), condition), "{caller}: {cell}");
    }
}

/// What rules of the agents' own kinds may depend on beside who and what.
const OWN_CONDITIONS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: agents}
spec: {gatewayClassName: kgateway-waypoint, listeners: [{name: a, port: 8080, protocol: HTTP}]}
---
apiVersion: mcp.kgateway.io/v1
kind: MCPProxy
metadata: {name: tools, namespace: agents}
spec: {routes: [{name: github, match: {prefix: /mcp/}, destination: {hostname: mcp.example.com, port: 443, tls: {}}}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  jwtRules: [{issuer: "https://i", jwksUri: "https://i/keys"}]
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {name: by-token, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  rules:
  - from: [{jwt: {issuer: "https://i", claims: {role: [engineer]}}}]
    mcp: [{}]
  - from: [{serviceAccount: {name: free}}]
    mcp: [{}]
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {name: no-interns, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  action: Deny
  rules:
  - from: [{jwt: {issuer: "https://i", claims: {level: [intern]}}}]
    mcp: [{}]
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: agents}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: agents}
spec:
  parentRefs: [{name: wp}]
  hostnames: [app.example]
  rules: [{matches: [{path: {value: /app}}], backendRefs: [{name: app, port: 80}]}]
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: http, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  action: Allow
  rules:
  - {name: tools, authorization: {type: Inline, mcp: {methods: [{name: tools}]}}}
  - name: posts
    authorization: {type: Inline, methods: [POST], paths: [{type: PathPrefix, value: /app/v1}], headers: [{name: x-key, value: secret}]}
"#;

#[test]
fn tokens_and_fields_of_requests_are_conditions() {
    let file = waypoint_config::File {
        path: "conditions.yaml".into(),
        text: OWN_CONDITIONS.into(),
    };
    let outcome = waypoint_config::compile(&[file], &waypoint_config::Options::default());
    let snapshot = outcome
        .snapshot
        .unwrap_or_else(|| panic!("{:#?}", outcome.diagnostics));
    let json = Matrix::of(&snapshot).to_json().unwrap();
    assert!(!json.contains("secret"), "{json}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let intern = "a token of https://i with level intern";
    let engineer = format!("a token of https://i with role engineer unless {intern}");
    for (caller, item, decision, condition) in [
        ("any other workload", "*", "conditional", Some(&*engineer)),
        ("any other in agents", "*", "conditional", Some(&*engineer)),
        (
            "free",
            "*",
            "conditional",
            Some(&*format!("unless {intern}")),
        ),
        ("anonymous", "*", "deny", None),
        ("free", "* /app/v1/*", "deny", None),
        ("free", "POST /app", "deny", None),
        (
            "free",
            "POST /app/v1/*",
            "conditional",
            Some("x-key as rule posts has it"),
        ),
    ] {
        let mut cells = json["cells"].as_array().unwrap().iter();
        let is_it = |cell: &&serde_json::Value| cell["caller"] == caller && cell["item"] == item;
        let cell = cells
            .find(is_it)
            .unwrap_or_else(|| panic!("{caller} {item}: {json:#}"));
        let said = (cell["decision"].as_str(), cell["condition"].as_str());
        assert_eq!(said, (Some(decision), condition), "{caller} {item}: {cell}");
    }
}

//! What is done to a request before it is decided, and which stage decides.

use super::*;

/// Istio's policies and the agents' own on one Gateway, a model, a tool server and a service.
const BOTH: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: agents}
spec: {gatewayClassName: kgateway-waypoint, listeners: [{name: a, port: 8080, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: agents}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: agents}
spec: {parentRefs: [{name: wp}], hostnames: [app], rules: [{backendRefs: [{name: app, port: 80}]}]}
---
apiVersion: mcp.kgateway.io/v1
kind: MCPProxy
metadata: {name: tools, namespace: agents}
spec: {routes: [{name: files, match: {prefix: /mcp/}, destination: {hostname: mcp.example.com, port: 443, tls: {}}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: agents}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  rules:
  - from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]
  - when: [{key: "request.headers[x-spiffe-id]", values: ["*"]}]
  - to: [{operation: {paths: ["/mcp*"]}}]
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {name: agents, namespace: agents}
spec:
  targetRefs: [{kind: Gateway, name: wp}]
  rules:
  - {name: read, http: [{methods: [GET]}]}
  - name: listen
    mcp: [{methods: [{name: resources/read, params: ["file://a*"]}, {name: subscriptions/listen, params: ["file://*"]}]}]
"#;

fn both() -> std::sync::Arc<Snapshot> {
    let file = waypoint_config::File {
        path: "both.yaml".into(),
        text: BOTH.into(),
    };
    let outcome = waypoint_config::compile(&[file], &waypoint_config::Options::default());
    std::sync::Arc::new(outcome.snapshot.unwrap())
}

fn explained(request: &str) -> (Answer, String, serde_json::Value) {
    let caller = "spiffe://cluster.local/ns/agents/sa/a";
    let request = Request::parse(&request.replace('@', caller)).unwrap();
    let answer = decide::decide(&both(), &request).unwrap();
    let text = to_text(&answer, &request, Paint::PLAIN);
    let json = serde_json::from_str(&to_json(&answer).unwrap()).unwrap();
    (answer, text, json)
}

#[test]
fn the_last_forwarded_address_is_the_clients() {
    for (case, request, is_allowed) in [
        ("none", r#"{"source_ip": "10.0.0.1"}"#, true),
        ("not the peer's", r#"{"source_ip": "192.0.2.1"}"#, false),
        (
            "forwarded",
            r#"{"source_ip": "192.0.2.1", "headers": {"X-Forwarded-For": "10.0.0.1"}}"#,
            true,
        ),
        (
            "the last of a list",
            r#"{"source_ip": "10.0.0.1", "headers": {"x-forwarded-for": "10.0.0.2, 192.0.2.1"}}"#,
            false,
        ),
        (
            "the last of several, with a port",
            r#"{"headers": {"x-forwarded-for": ["192.0.2.1", "10.0.0.2:80"]}}"#,
            true,
        ),
        (
            "no address at all",
            r#"{"source_ip": "192.0.2.1", "headers": {"x-forwarded-for": "10.0.0.2, x"}}"#,
            false,
        ),
        (
            "what the question says of the client goes first",
            r#"{"remote_ip": "10.0.0.1", "headers": {"x-forwarded-for": "192.0.2.1"}}"#,
            true,
        ),
    ] {
        let request = request.replacen('{', r#"{"principal": "@", "host": "app", "#, 1);
        let (answer, text, _) = explained(&request);
        assert_eq!(answer.is_allowed, is_allowed, "{case}: {text}");
    }
}

#[test]
fn claims_of_identity_are_removed_and_said_to_be() {
    for name in ["x-spiffe-id", "X-Spiffe-Id", "X_SPIFFE_ID"] {
        let request = format!(
            r#"{{"principal": "@", "host": "app", "headers": {{"{name}": "spiffe://a/b", "x-b": "c"}}}}"#
        );
        let (answer, text, _) = explained(&request);
        assert!(!answer.is_allowed, "{text}");
        let note = format!("header {} is removed", name.to_lowercase());
        assert!(text.contains(&note), "{text}");
        assert!(!text.contains("x-b is removed"), "{text}");
    }
    // Nobody asks about another header under such a name.
    let other = r#"{"principal": "@", "host": "app", "remote_ip": "10.0.0.1", "headers": {"x-spiffe": "a"}}"#;
    assert_eq!(explained(other).0.notes, Vec::<String>::new());
}

#[test]
fn what_the_gateway_does_not_serve_is_not_judged() {
    for (asked, path) in [
        ("", "/a%zz"),
        ("", "a"),
        ("", "/a%00"),
        (r#", "mcp": {"server": "files", "name": "x"}"#, "/mcp/%5c"),
        (r#", "mcp": {"server": "files", "name": "x"}"#, "/mcp/..;/x"),
    ] {
        // Also from somebody without an identity, who is told so later.
        for who in [r#""@""#, "null"] {
            let request =
                format!(r#"{{"principal": {who}, "host": "app", "path": "{path}"{asked}}}"#);
            let (answer, text, json) = explained(&request);
            assert_eq!(answer.code, Some(Code::BadRequest), "{text}");
            assert!(answer.trace.is_empty() && !answer.is_allowed, "{text}");
            assert_eq!(json["stage"], "transport", "{text}");
        }
    }
    // Of a connection nobody knows a path, and nothing is decided by a query.
    let allowed =
        r#"{"principal": "@", "host": "app", "remote_ip": "10.0.0.1", "path": "/a?b=%2f"}"#;
    assert!(explained(allowed).0.is_allowed);
    let tcp = r#"{"principal": "@", "protocol": "tcp", "path": "a", "remote_ip": "10.0.0.1"}"#;
    assert!(explained(tcp).0.is_allowed);
}

#[test]
fn one_stage_decides() {
    for (case, request, stage, by) in [
        (
            "no route, whatever the policies say",
            r#"{"principal": "@", "host": "other"}"#,
            "transport",
            "no route for this host and path",
        ),
        (
            "nobody at a route of tools",
            r#"{"principal": null, "path": "/mcp"}"#,
            "transport",
            "no workload identity",
        ),
        (
            "denied by Istio's, and by ours as well",
            r#"{"principal": "@", "host": "app", "method": "POST"}"#,
            "istio",
            "no ALLOW AuthorizationPolicy matches",
        ),
        (
            "allowed by Istio's, denied by ours",
            r#"{"principal": "@", "host": "app", "method": "POST", "remote_ip": "10.0.0.1"}"#,
            "agents",
            "no rule allows this",
        ),
        (
            "allowed by both",
            r#"{"principal": "@", "host": "app", "remote_ip": "10.0.0.1"}"#,
            "agents",
            "read",
        ),
    ] {
        let (_, text, json) = explained(request);
        assert_eq!(json["stage"], stage, "{case}: {text}");
        let said = &json["by"];
        let said = said["rule"].as_str().or(said["name"].as_str());
        assert_eq!(said, Some(by), "{case}: {text}");
        assert_eq!(text.matches("  stage  ").count(), 1, "{case}: {text}");
        // Others are told of apart, where they were not asked.
        let apart = "what others, who were not asked, would have said:";
        assert_eq!(text.contains(apart), stage == "istio", "{case}: {text}");
    }
}

#[test]
fn methods_of_the_revisions_without_sessions() {
    for (case, mcp, is_allowed, by) in [
        (
            "a resource that may be read and listened to",
            r#""method": "subscriptions/listen", "name": "file://a/1""#,
            true,
            "listen",
        ),
        (
            "one that may be listened to only",
            r#""method": "subscriptions/listen", "name": "file://b""#,
            false,
            "no rule allows this",
        ),
        (
            "nothing named: as a session",
            r#""method": "subscriptions/listen""#,
            true,
            "listen",
        ),
        (
            "of both eras",
            r#""method": "server/discover""#,
            true,
            "listen",
        ),
        (
            "of none",
            r#""method": "subscriptions/hear", "name": "file://a/1""#,
            false,
            "no MCP revision has this method",
        ),
    ] {
        let request = format!(r#"{{"principal": "@", "mcp": {{"server": "files", {mcp}}}}}"#);
        let (answer, text, json) = explained(&request);
        assert_eq!(answer.is_allowed, is_allowed, "{case}: {text}");
        let said = &json["by"];
        let said = said["rule"].as_str().or(said["name"].as_str());
        assert_eq!(said, Some(by), "{case}: {text}");
    }
}

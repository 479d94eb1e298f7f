//! Istio's `AuthorizationPolicy`, on the wire.

use std::sync::Arc;

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server::{LEGACY, legacy};
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, http_route, mcp_proxy, object, provider, route, service,
};

const OTHER: &str = "spiffe://cluster.local/ns/elsewhere/sa/eve";

/// A policy on the Gateway.
fn policy(name: &str, spec: &str) -> String {
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]\n";
    object(
        "security.istio.io/v1",
        "AuthorizationPolicy",
        name,
        &format!("{target}{spec}"),
    )
}

fn get(path: &str) -> Request {
    Request::new("GET", path).host("app.example.com")
}

/// A plain backend at every path, and these policies.
async fn start(policies: &str) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let rules = "rules: [{backendRefs: [{name: app, port: 80}]}]";
    let objects = [
        service("app", &upstream, "http"),
        http_route("app", rules),
        policies.to_owned(),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    (upstream, waypoint)
}

#[tokio::test]
async fn denies_come_first_and_an_allow_denies_what_it_does_not_name() {
    let allow = policy(
        "allow",
        "rules:\n- from: [{source: {principals: [\"cluster.local/ns/agents/sa/ann\"]}}]\n  to: [{operation: {methods: [GET], paths: [\"/open/*\"]}}]",
    );
    let deny = policy(
        "deny",
        "action: DENY\nrules:\n- to: [{operation: {paths: [\"/open/secret\"]}}]\n- when: [{key: \"request.headers[X-Blocked]\", values: [\"*\"]}]",
    );
    let (upstream, waypoint) = start(&[allow, deny].concat()).await;
    for (case, who, request, rule) in [
        ("allowed", ANN, get("/open/a"), Ok(())),
        (
            "denied by path",
            ANN,
            get("/open/secret"),
            Err(
                json!({"kind": "AuthorizationPolicy", "namespace": "agents", "name": "deny", "rule": "rule[0]"}),
            ),
        ),
        (
            "denied on the path that would be forwarded",
            ANN,
            get("/x/../open/%73ecret"),
            Err(
                json!({"kind": "AuthorizationPolicy", "namespace": "agents", "name": "deny", "rule": "rule[0]"}),
            ),
        ),
        (
            "denied by a header that is there",
            ANN,
            get("/open/a").header("x-blocked", ""),
            Err(
                json!({"kind": "AuthorizationPolicy", "namespace": "agents", "name": "deny", "rule": "rule[1]"}),
            ),
        ),
        (
            "another path",
            ANN,
            get("/closed"),
            Err(json!({"kind": "Default", "name": "no ALLOW AuthorizationPolicy matches"})),
        ),
        (
            "another caller",
            BOB,
            get("/open/a"),
            Err(json!({"kind": "Default", "name": "no ALLOW AuthorizationPolicy matches"})),
        ),
    ] {
        let before = upstream.seen().len();
        let answer = waypoint.workload(who).call(&request).await.unwrap();
        let event = waypoint.event(&answer).await;
        match rule {
            Ok(()) => assert_eq!((answer.status, &*answer.text()), (200, "hello"), "{case}"),
            Err(by) => {
                assert_eq!(
                    (answer.status, &*answer.text()),
                    (403, "RBAC: access denied"),
                    "{case}"
                );
                assert_eq!(event["by"], by, "{case}");
                assert_eq!(event["flags"][0], "RBAC_ACCESS_DENIED", "{case}: {event}");
                assert_eq!(upstream.seen().len(), before, "{case}");
            }
        }
    }
    // What decided is counted by rule; one that never does stays at 0.
    let metrics = waypoint.metrics().await;
    for (policy, rule, hits) in [
        ("allow", "rule[0]", 1.0),
        ("deny", "rule[0]", 2.0),
        ("deny", "rule[1]", 1.0),
    ] {
        let labels = [
            ("kind", "AuthorizationPolicy"),
            ("policy", policy),
            ("rule", rule),
        ];
        assert_eq!(
            metrics.sum("waypoint_rule_hits_total", &labels),
            hits,
            "{policy} {rule}"
        );
    }
    let dump = waypoint.admin("/config_dump").await.json();
    let hits = dump["rule_hits"].as_array().unwrap();
    assert_eq!(hits.len(), 3, "{dump}");
    assert_eq!(hits[1]["hits"], 2, "{dump}");
    // Without an identity: no principal matches.
    let answer = waypoint.anonymous().call(&get("/open/a")).await.unwrap();
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_policy_without_rules_denies_all_and_one_on_trial_nothing() {
    let none = policy("none", "action: ALLOW");
    let (_upstream, waypoint) = start(&none).await;
    let answer = waypoint.workload(ANN).call(&get("/")).await.unwrap();
    assert_eq!(answer.status, 403);
    let on_trial = "namespace: agents, annotations: {istio.io/dry-run: \"true\"}}";
    let dry = none.replace("namespace: agents}", on_trial);
    assert_ne!(dry, none);
    let (_upstream, waypoint) = start(&dry).await;
    let answer = waypoint.workload(ANN).call(&get("/")).await.unwrap();
    assert_eq!(answer.status, 200);
    let event = waypoint.event(&answer).await;
    assert_eq!(event["mode"], "would_deny", "{event}");
    assert_eq!(event["would_deny"][0]["name"], "none", "{event}");
}

/// What decides nothing is counted where it would: once for each request that it matches.
#[tokio::test]
async fn audit_rules_and_rules_on_trial_are_counted() {
    let on_trial = |policy: String| {
        let annotated = "namespace: agents, annotations: {istio.io/dry-run: \"true\"}}";
        policy.replace("namespace: agents}", annotated)
    };
    let rule =
        "rules: [{to: [{operation: {paths: [\"/a\"]}}]}, {to: [{operation: {paths: [\"/b\"]}}]}]";
    let trial = |name: &str, action: &str| {
        let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]";
        let rules = "rules: [{name: r, http: [{paths: [\"/a\"]}]}]";
        let spec = format!("{target}\naction: {action}\nmode: DryRun\n{rules}");
        object("waypoint.kgateway.io/v1alpha1", "AgentPolicy", name, &spec)
    };
    let policies = [
        policy("audit", &format!("action: AUDIT\n{rule}")),
        on_trial(policy("dry-deny", &format!("action: DENY\n{rule}"))),
        on_trial(policy("dry-allow", &format!("action: ALLOW\n{rule}"))),
        trial("agent-deny", "Deny"),
        trial("agent-allow", "Allow"),
    ];
    let (_upstream, waypoint) = start(&policies.concat()).await;
    for path in ["/a", "/a", "/c"] {
        let answer = waypoint.workload(ANN).call(&get(path)).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        waypoint.event(&answer).await;
    }
    let dump = waypoint.admin("/config_dump").await.json();
    for (kind, name, rule, hits) in [
        ("AuthorizationPolicy", "audit", "rule[0]", 2),
        ("AuthorizationPolicy", "audit", "rule[1]", 0),
        ("AuthorizationPolicy", "dry-deny", "rule[0]", 2),
        ("AuthorizationPolicy", "dry-deny", "rule[1]", 0),
        ("AuthorizationPolicy", "dry-allow", "rule[0]", 2),
        ("AgentPolicy", "agent-deny", "r", 2),
        ("AgentPolicy", "agent-allow", "r", 2),
    ] {
        let labels = [
            ("kind", kind),
            ("namespace", "agents"),
            ("policy", name),
            ("rule", rule),
        ];
        waypoint
            .metric_reaches("waypoint_rule_hits_total", &labels, f64::from(hits))
            .await;
        let wanted =
            json!({"kind": kind, "namespace": "agents", "name": name, "rule": rule, "hits": hits});
        let dumped = dump["rule_hits"].as_array().unwrap();
        assert!(dumped.contains(&wanted), "{wanted}: {dump}");
    }
    let labels = [
        ("kind", "AgentPolicy"),
        ("namespace", "agents"),
        ("policy", "agent-deny"),
    ];
    waypoint
        .metric_reaches("waypoint_would_deny_total", &labels, 2.0)
        .await;
}

/// Policies of one name in two namespaces are told apart wherever decisions are counted.
#[tokio::test]
async fn decisions_are_counted_by_kind_and_namespace() {
    let none = policy(
        "none",
        "action: DENY\nrules: [{to: [{operation: {paths: [\"/a\"]}}]}]",
    );
    let (_upstream, waypoint) = start(&none).await;
    for path in ["/a", "/b"] {
        waypoint.workload(ANN).call(&get(path)).await.unwrap();
    }
    for (kind, namespace, policy, decision) in [
        ("AuthorizationPolicy", "agents", "none", "deny"),
        ("Posture", "", "Graduated", "allow"),
    ] {
        let labels = [
            ("kind", kind),
            ("namespace", namespace),
            ("policy", policy),
            ("decision", decision),
        ];
        waypoint
            .metric_reaches("waypoint_decisions_total", &labels, 1.0)
            .await;
    }
}

/// Whoever could choose by a name of his own which policies count could choose none, or others'.
/// A name can only add denials: what `two` denies is denied to whoever calls it by that name.
#[tokio::test]
async fn policies_of_a_service_are_about_what_goes_there_whatever_it_is_called() {
    let of = |service: &str, name: &str, spec: &str| {
        let target = format!("targetRefs: [{{kind: Service, name: {service}}}]\n");
        let spec = format!("{target}{spec}");
        object(
            "security.istio.io/v1beta1",
            "AuthorizationPolicy",
            name,
            &spec,
        )
    };
    let (one, two) = (
        Upstream::always(Reply::whole(200, &[], "one")).await,
        Upstream::always(Reply::whole(200, &[], "two")).await,
    );
    let models = Upstream::always(chat_answer()).await;
    let rules = "\
rules:
- matches: [{path: {value: /two}}]
  backendRefs: [{name: two, port: 80}]
- backendRefs: [{name: one, port: 80}]
";
    let objects = [
        service("one", &one, "http"),
        service("two", &two, "http"),
        http_route("app", rules),
        provider("openai", "OpenAI", &models, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        of(
            "one",
            "open",
            "rules: [{to: [{operation: {methods: [GET, POST]}}]}]",
        ),
        of("two", "closed", "action: DENY\nrules: [{}]"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let other = waypoint.workload(OTHER);
    for host in [
        "one",
        "two",
        "one.agents.svc.cluster.local",
        "app.example.com",
        "ONE.",
        "one..",
    ] {
        let plain = if host == "two" { 403 } else { 200 };
        for (method, path, status) in [("GET", "/", plain), ("PUT", "/", 403), ("GET", "/two", 403)]
        {
            let request = Request::new(method, path).host(host);
            let answer = other.call(&request).await.unwrap();
            assert_eq!(answer.status, status, "{host} {method} {path}");
        }
        let answer = other.call(&chat("m").host(host)).await.unwrap();
        assert_eq!(answer.status, 403, "a model, by {host}");
    }
}

#[tokio::test]
async fn what_is_judged_is_what_is_forwarded() {
    let deny = policy(
        "deny",
        "action: DENY
rules:
- to: [{operation: {paths: [\"/caf%c3%a9\", \"/a//b\", \"/x%7ey*\"]}}]
- when: [{key: \"request.headers[:authority]\", values: [evil.example]}]
- when: [{key: \"request.headers[:method]\", values: [DELETE]}]
- when: [{key: \"request.headers[x-limited]\", notValues: [\"true\"]}]
  to: [{operation: {paths: [/limited]}}]
- from: [{source: {namespaces: [elsewhere]}}]
",
    );
    let (upstream, waypoint) = start(&deny).await;
    let limited = get("/limited").header("x-limited", "true");
    for (case, request, status) in [
        ("another path", get("/cafe"), 200),
        ("lower-case escapes", get("/caf%c3%a9"), 403),
        ("upper-case escapes", get("/caf%C3%A9"), 403),
        ("slashes as written", get("/a//b"), 403),
        ("another number of slashes", get("/a/b"), 200),
        ("an escape of a plain character", get("/x~y/z"), 403),
        ("a host", get("/").host("evil.example"), 403),
        ("a method", Request::new("DELETE", "/").host("a"), 403),
        ("a header", limited.clone(), 200),
        (
            "a header that goes no further",
            limited.header("connection", "x-limited"),
            403,
        ),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, status, "{case}");
    }
    assert_eq!(upstream.last().header("x-limited"), Some("true"));
    // The same over HTTP/2, where the host has another place.
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let answer = http2.call(&get("/").host("evil.example")).await.unwrap();
    assert_eq!(answer.status, 403);
    // A namespace is one wherever it stands in an identity.
    for id in [OTHER, "spiffe://cluster.local/ns/elsewhere/sa/eve/more"] {
        let answer = waypoint.workload(id).call(&get("/cafe")).await.unwrap();
        assert_eq!(answer.status, 403, "{id}");
    }
}

/// An agent of another namespace may do nothing under the default posture, unless an ALLOW names it.
#[tokio::test]
async fn an_allow_that_names_an_agent_opens_models_and_tools_to_it() {
    let upstream = Upstream::always(chat_answer()).await;
    let tools = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "echo"}]}});
    let server = Upstream::always(Reply::json(&tools)).await;
    let allow = policy(
        "allow",
        "rules:\n- from: [{source: {namespaces: [elsewhere]}}]\n  to: [{operation: {methods: [POST], paths: [\"/ai/v1/chat/*\", \"/mcp/tools\"]}}]",
    );
    let base = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        mcp_proxy("tools", &server, ""),
    ]
    .concat();
    let list = Request::post("/mcp/tools", legacy(1, "tools/list", &json!({})))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", LEGACY);
    let waypoint = Setup::new(&base).start().await;
    let other = waypoint.workload(OTHER);
    assert_eq!(other.call(&chat("m")).await.unwrap().status, 403);
    waypoint.reload(&[base, allow].concat()).await;
    let answer = other.call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let event = waypoint.event(&answer).await;
    assert_eq!(event["by"]["kind"], "AuthorizationPolicy", "{event}");
    let answer = other.call(&list).await.unwrap();
    assert!(answer.text().contains("echo"), "{}", answer.text());
    // The denial of an LLM call has the shape that its SDK raises.
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!((answer.status, answer.code()), (403, "forbidden".into()));
    let answer = waypoint.workload(ANN).call(&list).await.unwrap();
    assert_eq!(
        (answer.status, &*answer.text()),
        (403, "RBAC: access denied")
    );
}

#[tokio::test]
async fn a_stream_ends_when_a_policy_comes_that_denies_it() {
    let gate = Gate::new();
    let held = Reply::stream().chunk(delta("one")).wait(&gate).end();
    let upstream = Upstream::always(held).await;
    let base = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
    ]
    .concat();
    let waypoint = Setup::new(&base).start().await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("one").await.unwrap();
    let deny = policy(
        "quarantine",
        "action: DENY\nrules:\n- from: [{source: {principals: [\"cluster.local/ns/agents/sa/ann\"]}}]",
    );
    waypoint.reload(&[base, deny].concat()).await;
    let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
    assert!(rest.contains("policy_revoked"), "{rest}");
    gate.open();
}

/// What `check` says of policies that Istio's admission would refuse, or that a waypoint passes over.
#[tokio::test]
async fn what_is_wrong_is_said_with_its_place() {
    let bad = "action: DENY\nrules: [{from: [{source: {principals: [\"spiffe://td/ns/a/sa/b\"], ipBlocks: [10.0.0.0/33]}}]}]";
    let mut waypoint = Setup::new(&policy("bad", bad)).spawn();
    assert_eq!(waypoint.ended().await.code(), Some(1));
    let stderr = waypoint.stderr();
    for expected in [
        "without `spiffe://`",
        "`10.0.0.0/33` is neither an IP address nor a CIDR range",
    ] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
}

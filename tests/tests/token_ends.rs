//! Tokens that end while the answers they opened go on.

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Connection, Request};
use waypoint_tests::llm::{chat_stream, delta};
use waypoint_tests::mcp_server::{MODERN, modern};
use waypoint_tests::upstream::{Gate, Reply, Seen, Upstream};
use waypoint_tests::waypoint::{
    ANN, Setup, Waypoint, agent, http_route, mcp_proxy, provider, route, service,
};

use crate::tokens::{AUDIENCE, ISSUER, Signer, claims, now, on_gateway};

/// What clocks may differ by: a token that is over by less still lets in.
const SKEW: u64 = 60;

fn tool(version: &str) -> Request {
    let message = modern(7, "tools/call", &json!({"name": "search", "arguments": {}}));
    Request::post("/mcp/tools/", message)
        .header("mcp-protocol-version", version)
        .header("mcp-method", "tools/call")
        .header("mcp-name", "search")
        .header("accept", "application/json, text/event-stream")
}

fn get(path: &str) -> Request {
    Request::new("GET", path).host("app.example.com")
}

/// A model, a tool and a backend that say `one` and, behind the gate, `two`.
async fn start(gate: &Gate, more: &[String]) -> (Arc<Upstream>, Waypoint) {
    let gate = gate.clone();
    let upstream = Upstream::start(move |seen: &Seen| {
        let (one, two) = match seen.json()["method"].as_str() {
            Some("tools/call") => (
                "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"one\":1}}\n\n"
                    .to_owned(),
                "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[],\"two\":2}}\n\n".to_owned(),
            ),
            _ => (delta("one"), delta("two") + "data: [DONE]\n\n"),
        };
        Reply::stream().chunk(one).wait(&gate).chunk(two).end()
    })
    .await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{kind: LLMProvider, name: openai}]"),
        mcp_proxy("tools", &upstream, ""),
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
    ];
    let waypoint = Setup::new(&[objects.concat(), more.concat()].concat());
    (upstream, waypoint.start().await)
}

/// Sends a request and waits until its answer has begun.
async fn begin(mut connection: Connection, request: &Request, token: &str) -> Connection {
    let request = request
        .clone()
        .header("authorization", &format!("Bearer {token}"));
    connection.send(&request).await.unwrap();
    let head = connection.head().await.unwrap();
    assert_eq!(head.status, 200, "{head:?}");
    connection.read_until("one").await.unwrap();
    connection
}

async fn rest(connection: &mut Connection) -> String {
    String::from_utf8(connection.body().await.unwrap()).unwrap()
}

/// With the token that a decision was built on a stream ends; with one that changed nothing it does
/// not.
#[tokio::test]
async fn a_stream_ends_with_the_token_that_permitted_it() {
    let (gate, signer) = (Gate::new(), Signer::new("one"));
    let rule = format!(
        "jwtRules:\n- issuer: {ISSUER}\n  audiences: [{AUDIENCE}]\n  jwks: '{}'\n",
        Signer::set(&[&signer])
    );
    let role = format!("[{{jwt: {{issuer: {ISSUER}, claims: {{role: [engineer]}}}}}}]");
    let anyone = "- name: any\n  llm: [{models: [free]}]\n  http: [{paths: [/free]}]\n";
    let policies = [
        on_gateway("RequestAuthentication", "tokens", &rule),
        agent(
            "engineers",
            "Allow",
            &format!(
                "- name: role\n  from: {role}\n  llm: [{{models: [m]}}]\n  mcp: [{{}}]\n  http: [{{paths: [/role]}}]\n{anyone}"
            ),
        ),
        // Istio's own, where a token opens one path.
        on_gateway(
            "AuthorizationPolicy",
            "path",
            "action: DENY\nrules:\n- from: [{source: {notRequestPrincipals: [\"*\"]}}]\n  to: [{operation: {paths: [/role]}}]\n",
        ),
    ];
    let (upstream, waypoint) = start(&gate, &policies).await;
    let ann = waypoint.workload(ANN);
    let short = json!({"role": ["engineer"], "exp": now() - SKEW + 8});
    let short = signer.token(&claims(&short));
    let long = signer.token(&claims(&json!({"role": ["engineer"]})));
    let connect = async || ann.connect().await.unwrap();
    // Of these the token is what permits them.
    let mut model = begin(connect().await, &chat_stream("m"), &short).await;
    let mut tool_call = begin(connect().await, &tool(MODERN), &short).await;
    let mut plain = begin(connect().await, &get("/role"), &short).await;
    // Of these it is not.
    let mut lasting = Vec::new();
    for (request, token) in [
        (chat_stream("m"), &long),
        (tool(MODERN), &long),
        (get("/role"), &long),
        (chat_stream("free"), &short),
        (get("/free"), &short),
    ] {
        lasting.push(begin(connect().await, &request, token).await);
    }
    let ended = rest(&mut model).await;
    assert!(ended.contains("policy_revoked"), "{ended}");
    assert!(!ended.contains("[DONE]"), "{ended}");
    let ended = rest(&mut tool_call).await;
    assert!(ended.contains("policy_revoked"), "{ended}");
    assert!(ended.contains("\"id\":7"), "{ended}");
    upstream.abandoned(2).await;
    // The plain one is cut with its next piece, the others end by themselves.
    gate.open();
    let mut cut = Ok(Some(Vec::new()));
    while matches!(cut, Ok(Some(_))) {
        cut = plain.piece().await;
    }
    assert!(cut.is_err(), "cut, and not as if it were whole: {cut:?}");
    for mut connection in lasting {
        let rest = rest(&mut connection).await;
        assert!(rest.contains("two"), "{rest}");
        assert!(!rest.contains("policy_revoked"), "{rest}");
    }
    let event = waypoint
        .event_where("the plain one that was cut", |event| {
            event["code"] == "policy_revoked" && event["action"]["kind"] == "http"
        })
        .await;
    assert_eq!(event["principal"], ANN, "{event}");
    // Nobody is let in by it any more.
    let request = chat_stream("m").header("authorization", &format!("Bearer {short}"));
    assert_eq!(ann.call(&request).await.unwrap().status, 401);
}

/// Whoever is known by a token is so until it ends.
#[tokio::test]
async fn a_caller_known_by_a_token_is_known_until_it_ends() {
    let (gate, signer) = (Gate::new(), Signer::new("one"));
    let (upstream, waypoint) = start(&gate, &[]).await;
    let rule = format!(
        "{{type: ServiceAccount, issuer: \"{ISSUER}\", audiences: [{AUDIENCE}], jwks: '{}'}}",
        Signer::set(&[&signer])
    );
    let mtls = "    mtls: {clientCertificate";
    let taken = format!("    plain: {{tokenPrincipals: [{rule}]}}\n{mtls}");
    waypoint.edit_base(mtls, &taken).await;
    let account = |exp: u64| -> Value {
        claims(&json!({
            "sub": "system:serviceaccount:agents:ann", "exp": exp,
            "kubernetes.io": {"namespace": "agents", "serviceaccount": {"name": "ann", "uid": "4"}},
        }))
    };
    let short = signer.token(&account(now() - SKEW + 8));
    let long = signer.token(&account(now() + 600));
    let anonymous = waypoint.anonymous();
    let connect = async || anonymous.connect().await.unwrap();
    let mut model = begin(connect().await, &chat_stream("m"), &short).await;
    let mut tool_call = begin(connect().await, &tool(MODERN), &short).await;
    let mut lasting = begin(connect().await, &chat_stream("m"), &long).await;
    for ended in [&mut model, &mut tool_call] {
        let ended = rest(ended).await;
        assert!(ended.contains("policy_revoked"), "{ended}");
    }
    upstream.abandoned(2).await;
    gate.open();
    let rest = rest(&mut lasting).await;
    assert!(rest.contains("two") && rest.contains("[DONE]"), "{rest}");
}

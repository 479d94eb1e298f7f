//! `/explain/ID` of the admin port: why a request that has ended was allowed or denied.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::llm::{chat, chat_answer, chat_body};
use waypoint_tests::mcp_server::{MODERN, modern};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::wait::{soon, until};
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, agent, binary, http_route, mcp_proxy, provider, route, service,
};

use crate::tokens::{Signer, claims, on_gateway};

/// What stands where a rule asks for what is not kept.
const NOT_KEPT: &str = "something that is not kept";

/// What the admin port tells of an answer's request.
pub(crate) async fn told(waypoint: &Waypoint, answer: &Answer) -> Value {
    let id = answer.header("x-request-id").unwrap();
    let path = format!("/explain/{id}");
    until("an explanation", async || {
        let answer = waypoint.admin(&path).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

/// Where the rules of Istio's policies are told of otherwise than in this trace; what depends on
/// something that is not kept is not told of at all.
pub(crate) fn differs(told: &Value, trace: &Value) -> Option<String> {
    let istio = |trace: &Value| -> Vec<Value> {
        let entries = trace.as_array().into_iter().flatten();
        let istio = entries.filter(|entry| entry["kind"] == "AuthorizationPolicy");
        istio.cloned().collect()
    };
    let (told, trace) = (istio(&told["trace"]), istio(trace));
    if told.len() != trace.len() {
        return Some(format!("{} rules, not {}", told.len(), trace.len()));
    }
    let mut pairs = told.into_iter().zip(trace);
    pairs.find_map(|(told, said)| {
        let is_open = told["outcome"]["actual"] == NOT_KEPT;
        (!is_open && told != said).then(|| format!("{told}, not {said}"))
    })
}

/// What the command `explain` says of a request, with the configuration in force.
async fn explain(waypoint: &Waypoint, ask: &Value) -> Value {
    let mut command = Command::new(binary());
    command
        .arg("explain")
        .arg("--config")
        .arg(waypoint.config());
    command.args(["--request", "-", "--output", "json"]);
    command.env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(ask.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = soon("the end of explain", child.wait_with_output()).await;
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

fn tool(name: &str, arguments: &Value) -> Request {
    let message = modern(
        7,
        "tools/call",
        &json!({"name": name, "arguments": arguments}),
    );
    Request::post("/mcp/tools/", message)
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", "tools/call")
        .header("mcp-name", name)
        .header("accept", "application/json, text/event-stream")
}

fn get(path: &str) -> Request {
    Request::new("GET", path)
}

const LLM: &str = "\
- name: mini
  from: [{spiffe: \"spiffe://cluster.local/ns/agents/sa/ann\"}]
  llm: [{models: [\"gpt-mini\"], maxOutputTokens: 100}]
- name: any
  from: [{spiffe: \"spiffe://cluster.local/ns/agents/sa/nobody\"}]
  llm: [{models: [\"*\"]}]
";

const TOOLS: &str = "\
- name: search
  from: [{spiffe: \"spiffe://cluster.local/ns/agents/sa/ann\"}]
  mcp:
  - {methods: [{name: tools/call, params: [search]}]}
  - {methods: [{name: tools/call, params: [fetch]}], arguments: {/owner: {in: [acme]}}}
";

const HTTP: &str = "\
- name: closed
  http: [{paths: [\"/closed/*\"]}]
";

const ISTIO: &str = "\
action: DENY
rules:
- to: [{operation: {paths: [\"/istio/*\"]}}]
- when: [{key: \"request.headers[x-secret]\", values: [open-sesame]}]
- when: [{key: \"request.auth.claims[role]\", values: [intruder]}]
";

const TRIAL: &str = "\
action: DENY
rules:
- to: [{operation: {paths: [\"/trial\"]}}]
";

struct Scene {
    waypoint: Waypoint,
    signer: Signer,
    objects: String,
    _upstream: std::sync::Arc<Upstream>,
}

async fn scene() -> Scene {
    let upstream = Upstream::start(|seen| match seen.json()["method"].as_str() {
        Some(_) => Reply::json(&json!({
            "jsonrpc": "2.0", "id": seen.json()["id"], "result": {"content": [], "resultType": "complete"},
        })),
        None if seen.target().starts_with("/v1/chat") => chat_answer(),
        None => Reply::whole(200, &[], "hello"),
    })
    .await;
    let signer = Signer::new("one");
    let jwt = format!(
        "jwtRules:\n- issuer: {}\n  jwks: '{}'\n",
        crate::tokens::ISSUER,
        Signer::set(&[&signer])
    );
    let trial = on_gateway("AuthorizationPolicy", "trial", TRIAL).replace(
        "metadata: {name: trial, namespace: agents}",
        "metadata: {name: trial, namespace: agents, annotations: {istio.io/dry-run: \"true\"}}",
    );
    assert!(trial.contains("dry-run"));
    let objects = [
        provider(
            "openai",
            "OpenAI",
            &upstream,
            "models: [{name: gpt-mini, aliases: [small]}, {name: gpt-large}]",
        ),
        route("llm", "- backendRefs: [{kind: LLMProvider, name: openai}]"),
        mcp_proxy("tools", &upstream, ""),
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
        agent("models", "Allow", LLM),
        agent("tools", "Allow", TOOLS),
        agent("closed", "Deny", HTTP),
        on_gateway("AuthorizationPolicy", "istio", ISTIO),
        on_gateway("RequestAuthentication", "tokens", &jwt),
        trial,
    ]
    .concat();
    let waypoint = Setup::new(&objects).start().await;
    Scene {
        waypoint,
        signer,
        objects,
        _upstream: upstream,
    }
}

/// What is told afterwards is what `explain` says beforehand, and what the audit has.
#[tokio::test]
async fn a_decision_is_explained_as_by_the_command() {
    let scene = scene().await;
    let waypoint = &scene.waypoint;
    let body = |model: &str, more: &Value| Request {
        body: chat_body(model, more).into_bytes(),
        ..chat("m")
    };
    let bounded = json!({"max_completion_tokens": 50});
    let llm = |model: &str, more: Value| {
        let mut llm = json!({"provider": "openai", "model": model, "operation": "chat"});
        if let Some(bound) = more["max_output_tokens"].as_u64() {
            llm["max_output_tokens"] = bound.into();
        }
        json!({"method": "POST", "path": "/ai/v1/chat/completions", "llm": llm})
    };
    let mcp = |name: &str| {
        json!({"method": "POST", "path": "/mcp/tools/",
               "mcp": {"server": "tools", "method": "tools/call", "name": name, "arguments": {}}})
    };
    let path = |path: &str| json!({"path": path});
    for (case, who, request, ask, status, asked) in [
        (
            "a model that is allowed",
            ANN,
            body("gpt-mini", &bounded),
            llm("gpt-mini", json!({"max_output_tokens": 50})),
            200,
            "chat with gpt-mini at LLMProvider agents/openai",
        ),
        (
            "by another name",
            ANN,
            body("small", &bounded),
            llm("small", json!({"max_output_tokens": 50})),
            200,
            "chat with small at LLMProvider agents/openai",
        ),
        (
            "too many tokens",
            ANN,
            body("gpt-mini", &json!({"max_completion_tokens": 500})),
            llm("gpt-mini", json!({"max_output_tokens": 500})),
            403,
            "chat with gpt-mini at LLMProvider agents/openai",
        ),
        (
            "another model",
            ANN,
            body("gpt-large", &bounded),
            llm("gpt-large", json!({"max_output_tokens": 50})),
            403,
            "chat with gpt-large at LLMProvider agents/openai",
        ),
        (
            "a tool that is allowed",
            ANN,
            tool("search", &json!({})),
            mcp("search"),
            200,
            "tools/call search at MCP server tools",
        ),
        (
            "a tool that is not",
            ANN,
            tool("delete", &json!({})),
            mcp("delete"),
            200,
            "tools/call delete at MCP server tools",
        ),
        (
            "a path that is denied",
            BOB,
            get("/closed/a"),
            path("/closed/a"),
            403,
            "GET app.example.com/closed/a",
        ),
        (
            "a path that Istio's policies deny",
            BOB,
            get("/x/../istio/a?b=c"),
            path("/x/../istio/a?b=c"),
            403,
            "GET app.example.com/istio/a",
        ),
        (
            "a policy on trial",
            BOB,
            get("/trial"),
            path("/trial"),
            200,
            "GET app.example.com/trial",
        ),
    ] {
        let answer = waypoint
            .workload(who)
            .call(&request.host("app.example.com"))
            .await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        let told = told(waypoint, &answer).await;
        let event = waypoint.event(&answer).await;
        for field in [
            "decision",
            "by",
            "code",
            "would_deny",
            "route",
            "principal",
            "generation",
        ] {
            let event = match &event[field] {
                Value::Null if field == "would_deny" => json!([]),
                value => value.clone(),
            };
            assert_eq!(told[field], event, "{case}: {field}: {told:#}");
        }
        let mut ask = ask;
        for (field, value) in [
            ("principal", json!(who)),
            ("host", json!("app.example.com")),
            ("source_ip", json!("127.0.0.1")),
            ("dest_ip", json!("127.0.0.1")),
            ("port", json!(waypoint.ports.mtls)),
        ] {
            ask[field] = value;
        }
        let said = explain(waypoint, &ask).await;
        for field in ["decision", "by", "stage", "would_deny"] {
            assert_eq!(
                told[field], said[field],
                "{case}: {field}: {told:#} {said:#}"
            );
        }
        assert_eq!(differs(&told, &said["trace"]), None, "{case}");
        let agents = |trace: &Value| -> Vec<Value> {
            let entries = trace.as_array().unwrap().iter();
            entries
                .filter(|entry| entry["kind"] == "AgentPolicy")
                .cloned()
                .collect()
        };
        // Where Istio's policies have denied, no other was asked.
        let expected = match said["by"]["kind"].as_str() {
            Some("AuthorizationPolicy") => Vec::new(),
            _ => agents(&said["trace"]),
        };
        assert_eq!(agents(&told["trace"]), expected, "{case}");
        assert_eq!(told["asked"], asked, "{case}");
        assert_eq!(told["status"], status, "{case}");
    }
}

/// What is not kept is said to be so, and what decided is said all the same.
#[tokio::test]
async fn nothing_secret_is_kept_or_made_up() {
    let scene = scene().await;
    let waypoint = &scene.waypoint;
    let rule = |told: &Value, rule: &str| -> Value {
        let mut entries = told["trace"].as_array().unwrap().iter();
        let found = entries.find(|entry| entry["rule"] == rule);
        found.unwrap_or_else(|| panic!("no {rule} in {told:#}"))["outcome"].clone()
    };
    let ask = async |client: Client, request: Request| {
        let answer = client.call(&request).await.unwrap();
        let told = told(waypoint, &answer).await;
        let text = told.to_string();
        for secret in [
            "open-sesame-not",
            "sk-secret",
            "?",
            "query",
            "intruder-at",
            "hello",
            "evil corp",
        ] {
            assert!(!text.contains(secret), "{secret}: {told:#}");
        }
        (answer.status, told)
    };
    let ann = || waypoint.workload(ANN);
    // A header that decided, and one that did not.
    let (status, it) = ask(ann(), get("/a?query=1").header("x-secret", "open-sesame")).await;
    assert_eq!((status, rule(&it, "rule[1]")), (403, json!("matched")));
    assert_eq!(it["by"]["rule"], "rule[1]");
    assert_eq!(rule(&it, "rule[2]")["actual"], NOT_KEPT);
    let said = rule(&it, "rule[0]");
    assert_eq!(
        (&said["field"], &said["actual"]),
        (&json!("to[0].operation.paths"), &json!("\"/a\""))
    );
    let header = get("/a")
        .header("x-secret", "open-sesame-not")
        .header("authorization", "sk-secret");
    let (status, it) = ask(ann(), header).await;
    assert_eq!((status, &it["decision"]), (200, &json!("allow")));
    assert_eq!(rule(&it, "rule[1]")["actual"], NOT_KEPT);
    assert!(it["notes"].to_string().contains("not kept"), "{it:#}");
    let bearer = |role: &str| {
        let token = scene
            .signer
            .token(&claims(&json!({"role": role, "email": "intruder-at"})));
        get("/a").header("authorization", &format!("Bearer {token}"))
    };
    let (status, it) = ask(ann(), bearer("intruder")).await;
    assert_eq!((status, rule(&it, "rule[2]")), (403, json!("matched")));
    let (status, it) = ask(ann(), bearer("guest")).await;
    assert_eq!(
        (status, &rule(&it, "rule[2]")["actual"]),
        (200, &json!(NOT_KEPT))
    );
    // Arguments.
    let (_, it) = ask(ann(), tool("fetch", &json!({"owner": "acme"}))).await;
    assert_eq!(
        (&it["decision"], rule(&it, "search")),
        (&json!("allow"), json!("matched"))
    );
    let (_, it) = ask(ann(), tool("fetch", &json!({"owner": "evil corp"}))).await;
    assert_eq!(
        (&it["decision"], &it["code"]),
        (&json!("deny"), &json!("tool_denied"))
    );
    assert_eq!(rule(&it, "search")["actual"], NOT_KEPT);
    assert_eq!(rule(&it, "search")["field"], "mcp[1].arguments[/owner]");
    // What came before any policy was asked.
    let bad = get("/a").header("authorization", "Bearer sk-secret");
    for (case, client, request, status, code, by) in [
        (
            "a bad token",
            ann(),
            bad,
            401,
            "identity_invalid",
            "token: not a JSON Web Token",
        ),
        (
            "nobody",
            waypoint.anonymous(),
            chat("gpt-mini"),
            401,
            "identity_required",
            "no workload identity",
        ),
        (
            "a bad path",
            ann(),
            get("/a%00"),
            400,
            "bad_request",
            "the request is not well formed",
        ),
    ] {
        let (got, it) = ask(client, request).await;
        assert_eq!((got, &it["code"]), (status, &json!(code)), "{case}: {it:#}");
        assert_eq!(
            (&it["decision"], &it["by"]["name"]),
            (&json!("deny"), &json!(by)),
            "{case}"
        );
        assert_eq!(it["trace"], json!([]), "{case}");
    }
    // Too long to be kept.
    let long = format!("/closed/{}", "a".repeat(4000));
    let (status, it) = ask(ann(), get(&long)).await;
    assert_eq!((status, &it["by"]["rule"]), (403, &json!("closed")));
    assert!(
        it.to_string().len() < 2000 && it["notes"].to_string().contains("too long"),
        "{it:#}"
    );
}

/// Another configuration has other rules: they are not asked about requests of before.
#[tokio::test]
async fn rules_of_before_are_not_made_up() {
    let scene = scene().await;
    let waypoint = &scene.waypoint;
    let answer = waypoint
        .workload(ANN)
        .call(&get("/closed/a"))
        .await
        .unwrap();
    let before = told(waypoint, &answer).await;
    assert_eq!(
        before["trace"][0]["outcome"]["field"], "to[0].operation.paths",
        "{before:#}"
    );
    let objects = scene.objects.replace("/closed/*", "/elsewhere/*");
    waypoint.reload(&objects).await;
    let after = told(waypoint, &answer).await;
    for field in ["decision", "by", "code", "asked", "generation"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["trace"], json!([]));
    assert!(
        after["notes"][0]
            .as_str()
            .unwrap()
            .contains("has changed since"),
        "{after:#}"
    );
    let never = "0".repeat(32);
    for id in ["", "x", "../config_dump", &never, &never[1..], "%00"] {
        let answer = waypoint.admin(&format!("/explain/{id}")).await;
        assert_eq!(answer.status, 404, "{id}");
        assert!(
            answer.text().contains("nothing is kept"),
            "{id}: {}",
            answer.text()
        );
    }
    // Not for a page in the operator's browser.
    let client = Client::plain(waypoint.ports.admin);
    let rebound = get(&format!("/explain/{never}")).host("evil.example");
    assert_eq!(client.call(&rebound).await.unwrap().status, 403);
}

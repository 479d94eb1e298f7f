//! The imported form of LLM egress (`gateway.solo.io/v1`): agents call the providers' own names.
//!
//! What is allowed would go to the real providers, so here it is only asked about.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use waypoint_tests::client::{Client, Request};
use waypoint_tests::llm::chat_body;
use waypoint_tests::ports;
use waypoint_tests::wait::soon;
use waypoint_tests::waypoint::{ANN, BOB, Setup, Waypoint, agent, binary};

const IMPORT: &str = "\
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {name: import, namespace: agents}
spec:
  bindAddress: 127.0.0.1
  bindPort: {port}
  proxyNames: [wp]
  httpGateway:
    virtualServices:
    - name: egress
      domains: [api.openai.com, api.anthropic.com]
      routes:
      - matchers: [{prefix: /v1/}]
        routeAction: {single: {upstream: {name: external, namespace: agents}}}
        options: {timeout: 30s, retryPolicy: {retryOn: 5xx, numRetries: 3}}
---
";

/// A waypoint with the import, and the port the import names.
async fn start() -> (Waypoint, u16) {
    let rules = "\
- name: review
  from: [{serviceAccount: {name: ann}}]
  llm:
  - {providers: [api.openai.com], models: [\"gpt-4o*\"], operations: [chat]}
";
    let port = ports::free();
    let import = IMPORT.replace("{port}", &port.to_string());
    let objects = import + &agent("review", "Allow", rules);
    (Setup::new(&objects).start().await, port)
}

fn chat(host: &str, model: &str) -> Request {
    Request::post("/v1/chat/completions", chat_body(model, &json!({})))
        .host(host)
        .header("authorization", "Bearer callers-own")
}

fn messages(host: &str) -> Request {
    let body = chat_body("claude", &json!({"max_tokens": 16}));
    Request::post("/v1/messages", body)
        .host(host)
        .header("anthropic-version", "2026-10-21")
        .header("x-api-key", "callers-own")
}

/// What `explain` says about a call, and whether it is allowed.
async fn explain(waypoint: &Waypoint, question: &Value) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command
        .arg("explain")
        .arg("--config")
        .arg(waypoint.config());
    command.args(["--request", "-"]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(question.to_string().as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let output = soon("an explanation", child.wait_with_output())
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn only_named_hosts_and_paths_lead_out() {
    let (waypoint, _) = start().await;
    let path = |path: &str| Request {
        target: path.into(),
        ..chat("api.openai.com", "gpt-4o")
    };
    for (case, request) in [
        ("another host", chat("api.example.com", "gpt-4o")),
        ("a host below", chat("eu.api.openai.com", "gpt-4o")),
        ("a host above", chat("openai.com", "gpt-4o")),
        ("a host that ends so", chat("notapi.openai.com", "gpt-4o")),
        ("our own name", chat("gateway", "gpt-4o")),
        ("another path", path("/chat/completions")),
        ("another version", path("/v11/chat/completions")),
        ("out of the path", path("/v1/../admin")),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 404, "{case}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["code"], "route_not_found", "{case}: {event}");
        assert_eq!(event["attempts"], 0, "{case}: {event}");
    }
}

#[tokio::test]
async fn what_is_denied_is_refused_in_the_providers_words_and_nothing_is_tried() {
    let (waypoint, port) = start().await;
    let ann = waypoint.workload(ANN);
    let bob = waypoint.workload(BOB);
    let anonymous = waypoint.anonymous();
    // The import's own port asks for no certificate, so nobody has an identity there.
    let own = Client::plain(port);
    let embed = Request {
        target: "/v1/embeddings".into(),
        body: json!({"model": "gpt-4o", "input": "a"})
            .to_string()
            .into_bytes(),
        ..chat("api.openai.com", "gpt-4o")
    };
    let openai = ["error", "code"];
    for (case, client, request, statuses, place) in [
        (
            "another model",
            &ann,
            chat("api.openai.com", "o3"),
            &[403][..],
            &openai[..],
        ),
        ("another operation", &ann, embed, &[403], &openai),
        (
            "another caller",
            &bob,
            chat("api.openai.com", "gpt-4o"),
            &[403],
            &openai,
        ),
        (
            "another provider",
            &ann,
            messages("api.anthropic.com"),
            &[403],
            &["error", "type"],
        ),
        (
            "not this provider's",
            &ann,
            messages("api.openai.com"),
            &[403, 404],
            &["error", "type"],
        ),
        (
            "no identity",
            &anonymous,
            chat("api.openai.com", "gpt-4o"),
            &[401],
            &openai,
        ),
        (
            "no identity, at its own port",
            &own,
            chat("api.openai.com", "gpt-4o"),
            &[401],
            &openai,
        ),
    ] {
        let answer = client.call(&request).await.unwrap();
        assert!(
            statuses.contains(&answer.status),
            "{case}: {} {}",
            answer.status,
            answer.text()
        );
        let said = answer.json();
        let word = place.iter().fold(&said, |value, key| &value[key]);
        assert!(word.is_string(), "{case}: {said}");
        assert!(!answer.text().contains("callers-own"), "{case}: {said}");
        let event = waypoint.event(&answer).await;
        assert_eq!(event["attempts"], 0, "{case}: {event}");
        assert!(
            !event.to_string().contains("callers-own"),
            "{case}: {event}"
        );
    }
}

#[tokio::test]
async fn what_is_allowed_is_what_the_rule_says() {
    let (waypoint, _) = start().await;
    let question = |principal: &str, model: &str| {
        json!({
            "principal": principal, "host": "api.openai.com", "path": "/v1/chat/completions",
            "llm": {"provider": "agents/api.openai.com", "model": model, "operation": "chat"},
        })
    };
    for (case, question, code, word) in [
        ("allowed", question(ANN, "gpt-4o-mini"), 0, "review"),
        ("a model", question(ANN, "o3"), 3, ""),
        ("a caller", question(BOB, "gpt-4o"), 3, ""),
    ] {
        let (found, said) = explain(&waypoint, &question).await;
        assert_eq!(found, Some(code), "{case}: {said}");
        assert!(said.contains(word), "{case}: {said}");
    }
    // By TLS to the provider's own port, with whatever key the caller shows.
    let dump = waypoint.admin("/config_dump").await.json();
    let providers = dump["providers"].as_array().cloned().unwrap_or_default();
    let found: Vec<String> = providers.iter().map(Value::to_string).collect();
    assert_eq!(found.len(), 2, "{dump}");
    for provider in &found {
        assert!(provider.contains("assthrough"), "{provider}");
        assert!(provider.contains("443"), "{provider}");
    }
}

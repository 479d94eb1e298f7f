//! Who may use which provider and model.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_body, error_answer};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, BOB, Setup, agent, provider, route};

use super::ONE;

#[tokio::test]
async fn failover_never_reaches_a_provider_that_is_denied() {
    let first = Upstream::always(error_answer(503, "overloaded", &[])).await;
    let denied = Upstream::always(chat_answer()).await;
    let last = Upstream::always(chat_answer()).await;
    let objects = |providers: &str| {
        [
            provider("first", "OpenAI", &first, ""),
            provider("denied", "OpenAI", &denied, ""),
            provider("last", "OpenAI", &last, ""),
            route("llm", "- backendRefs: [{name: first}, {name: denied, priority: 1}, {name: last, priority: 2}]\n  retry: {attempts: 3, backoff: {base: 1ms}}"),
            agent("some", "Allow", &format!("- {{name: some, llm: [{{providers: [{providers}]}}]}}")),
        ]
        .concat()
    };
    let waypoint = Setup::new(&objects("first, last")).start().await;
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let event = waypoint.event(&answer).await;
    assert_eq!(event["action"]["provider"], "agents/last", "{event}");
    assert_eq!(event["by"]["rule"], "some", "{event}");
    // With nowhere else to go, the failure is the answer.
    waypoint.reload(&objects("first")).await;
    let failed = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(failed.status, 503, "{}", failed.text());
    assert_eq!(denied.connections(), 0);
    assert_eq!(last.seen().len(), 1);
}

#[tokio::test]
async fn a_denied_model_never_falls_through_to_another_rule() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("small", "OpenAI", &upstream, ""),
        provider("all", "OpenAI", &upstream, ""),
        route(
            "llm",
            "- matches: [{models: [\"gpt-*\"]}]\n  backendRefs: [{name: small}, {name: small, model: cheap, priority: 1}]\n- backendRefs: [{name: all}]",
        ),
        agent(
            "ann",
            "Allow",
            &format!(
                "- {{name: ann, from: [{{spiffe: \"{ANN}\"}}], llm: [{{providers: [all]}}, {{providers: [small], models: [gpt-small], operations: [chat], maxOutputTokens: 100}}]}}"
            ),
        ),
        agent(
            "no",
            "Deny",
            "- {name: no-secret, llm: [{models: [\"*secret*\"]}]}",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let limited = |tokens: u64| {
        let more = json!({"max_tokens": tokens});
        Request::post("/ai/v1/chat/completions", chat_body("gpt-small", &more))
    };
    for (case, who, request, status, rule) in [
        ("allowed", ANN, limited(100), 200, "ann"),
        ("too many tokens", ANN, limited(101), 403, ""),
        ("no bound on tokens", ANN, chat("gpt-small"), 403, ""),
        (
            "another model of the first rule",
            ANN,
            chat("gpt-large"),
            403,
            "",
        ),
        ("another rule", ANN, chat("llama"), 200, "ann"),
        (
            "denied by name",
            ANN,
            chat("my-secret-model"),
            403,
            "no-secret",
        ),
        ("another caller", BOB, chat("llama"), 403, ""),
    ] {
        let before = upstream.seen().len();
        let answer = waypoint.workload(who).call(&request).await.unwrap();
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert_eq!(
            upstream.seen().len() - before,
            usize::from(status == 200),
            "{case}"
        );
        let event = waypoint.event(&answer).await;
        if !rule.is_empty() {
            assert_eq!(event["by"]["rule"], rule, "{case}: {event}");
        }
        if status == 403 {
            assert_eq!(answer.code(), "model_not_allowed", "{case}");
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{case}");
            // The rule is the operator's business.
            assert!(
                !answer.text().contains("no-secret") && !answer.text().contains("agents/"),
                "{case}"
            );
            assert_eq!(event["flags"][0], "RBAC_ACCESS_DENIED", "{case}");
        }
    }
    let denied = [("decision", "deny"), ("action", "llm")];
    waypoint
        .metric_reaches("waypoint_decisions_total", &denied, 5.0)
        .await;
}

#[tokio::test]
async fn a_list_of_models_shows_what_may_be_used() {
    let models = r#"{"object":"list","data":[{"id":"gpt-4o", "object":"model"},{"object":"model","id":"gpt-5"},{"id":"o1","object":"model","x":1.0}]}"#;
    let upstream = Upstream::always(Reply::whole(
        200,
        &[("content-type", "application/json")],
        models,
    ))
    .await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
        agent(
            "some",
            "Allow",
            "- {name: some, llm: [{models: [gpt-4o, o1]}]}",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = waypoint
        .workload(ANN)
        .call(&Request::new("GET", "/ai/v1/models"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    // What is kept is kept byte by byte.
    assert!(
        text.contains(r#"{"id":"gpt-4o", "object":"model"}"#),
        "{text}"
    );
    assert!(
        text.contains(r#"{"id":"o1","object":"model","x":1.0}"#),
        "{text}"
    );
    assert!(!text.contains("gpt-5"), "{text}");
    let one = waypoint
        .workload(ANN)
        .call(&Request::new("GET", "/ai/v1/models/gpt-5"))
        .await
        .unwrap();
    assert_eq!((one.status, one.code()), (403, "model_not_allowed".into()));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn dry_run_and_observe_only_record_what_they_would_deny() {
    let upstream = Upstream::always(chat_answer()).await;
    let dry = agent("strict", "Deny", "- {name: none, llm: [{models: [m]}]}")
        .replace("action: Deny", "action: Deny\n  mode: DryRun");
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
        dry,
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200);
    let event = waypoint.event(&answer).await;
    assert_eq!(
        (&event["decision"], &event["mode"]),
        (&json!("allow"), &json!("would_deny")),
        "{event}"
    );
    assert_eq!(event["would_deny"][0]["rule"], "none", "{event}");
    waypoint
        .metric_reaches("waypoint_would_deny_total", &[("rule", "none")], 1.0)
        .await;
    for (posture, status, decision) in [("Observe", 200, "allow"), ("Strict", 403, "deny")] {
        let setup = Setup::new(&objects[..2].concat()).parameters(&format!("posture: {posture}"));
        let waypoint = setup.start().await;
        let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, status, "{posture}");
        let event = waypoint.event(&answer).await;
        assert_eq!(event["decision"], decision, "{posture}: {event}");
        assert_eq!(event["by"]["kind"], "Posture", "{posture}: {event}");
    }
}

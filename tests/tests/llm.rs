//! LLM calls that are answered, and calls that are refused before a byte goes upstream.

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::{
    chat, chat_answer, chat_body, chat_stream, error_answer, messages, messages_answer,
};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, BOB, Setup, agent, provider, route, secret};

const ONE: &str = "- backendRefs: [{name: openai}]";

#[tokio::test]
async fn both_forms_lead_to_the_provider() {
    let upstream = Upstream::always(chat_answer()).await;
    let hosts = "\
apiVersion: waypoint.kgateway.io/v1alpha1
kind: LLMRoute
metadata: {name: by-host, namespace: agents}
spec:
  hostnames: [api.openai.com]
  rules: [{backendRefs: [{name: openai}]}]
---
";
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("by-prefix", ONE),
        hosts.into(),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let ann = waypoint.workload(ANN);
    let by_host = Request::post(
        "/v1/chat/completions?key=callers-own&beta=true&a=b",
        chat_body("m", &json!({})),
    );
    for (case, request, target) in [
        ("prefix", chat("m"), "/v1/chat/completions"),
        (
            "host",
            by_host.clone().host("api.openai.com"),
            "/v1/chat/completions?beta=true",
        ),
        (
            "host and port",
            by_host.clone().host("API.openai.com:80"),
            "/v1/chat/completions?beta=true",
        ),
    ] {
        let answer = ann.call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        let seen = upstream.last();
        assert_eq!(seen.target(), target, "{case}");
        assert_eq!(
            seen.fields("host").collect::<Vec<_>>(),
            [upstream.address.to_string()],
            "{case}"
        );
    }
    let elsewhere = ann.call(&by_host.host("api.example.com")).await.unwrap();
    assert_eq!(
        (elsewhere.status, elsewhere.code()),
        (404, "route_not_found".into())
    );
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn a_provider_may_have_a_path_of_its_own() {
    let upstream = Upstream::always(chat_answer()).await;
    let spec = format!("dialect: OpenAI\nendpoint: {}/openai/v1", upstream.url());
    let object = format!(
        "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: LLMProvider\nmetadata: {{name: openai, namespace: agents}}\nspec:\n  {}\n---\n",
        spec.replace('\n', "\n  ")
    );
    let waypoint = Setup::new(&[object, route("llm", ONE)].concat())
        .start()
        .await;
    let answer = waypoint.developer().call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.only().target(), "/openai/v1/chat/completions");
}

#[tokio::test]
async fn the_callers_key_is_replaced_by_ours() {
    let openai = Upstream::always(chat_answer()).await;
    let anthropic = Upstream::always(messages_answer()).await;
    let by_secret = "credential: {secretRef: {name: keys, key: key}}";
    let objects = [
        provider("openai", "OpenAI", &openai, by_secret),
        provider(
            "anthropic",
            "Anthropic",
            &anthropic,
            "credential: {env: PROVIDER_KEY}",
        ),
        secret("keys", "sk-ours-1"),
        route("llm", "- backendRefs: [{name: openai}, {name: anthropic}]"),
    ]
    .concat();
    let setup = Setup::new(&objects).environment("PROVIDER_KEY", "sk-ours-2");
    let waypoint = setup.start().await;
    for (upstream, request, field, value) in [
        (&openai, chat("m"), "authorization", "Bearer sk-ours-1"),
        (
            &anthropic,
            messages("m", &json!({})),
            "x-api-key",
            "sk-ours-2",
        ),
    ] {
        let request = [
            "authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "cookie",
            "proxy-authorization",
        ]
        .into_iter()
        .fold(request, |request, name| {
            request.header(name, "sk-callers-own")
        })
        .header("openai-organization", "org-callers-own");
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = upstream.last();
        assert_eq!(seen.fields(field).collect::<Vec<_>>(), [value]);
        assert!(!seen.head.contains("callers-own"), "{}", seen.head);
        assert!(
            !answer
                .headers
                .iter()
                .any(|(_, value)| value.contains("sk-"))
        );
    }
    // A new value is used from the next generation on.
    waypoint
        .reload(&objects.replace("sk-ours-1", "sk-ours-3"))
        .await;
    waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(
        openai.last().header("authorization"),
        Some("Bearer sk-ours-3")
    );
}

#[tokio::test]
async fn a_key_in_a_file_is_read_again_when_it_changes() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider(
            "openai",
            "OpenAI",
            &upstream,
            "credential: {file: \"{dir}/key\"}",
        ),
        route("llm", ONE),
    ];
    let setup = Setup::new(&objects.concat()).file("key", "sk-one\n");
    let waypoint = setup.start().await;
    waypoint.developer().call(&chat("m")).await.unwrap();
    assert_eq!(
        upstream.last().header("authorization"),
        Some("Bearer sk-one")
    );
    std::fs::write(waypoint.path("key"), "sk-two\n").unwrap();
    until("the new key", || async {
        waypoint.developer().call(&chat("m")).await.unwrap();
        (upstream.last().header("authorization") == Some("Bearer sk-two")).then_some(())
    })
    .await;
    // Without a key nothing is sent at all.
    std::fs::remove_file(waypoint.path("key")).unwrap();
    let refused = until("the key to be missed", || async {
        let answer = waypoint.developer().call(&chat("m")).await.unwrap();
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "credential_unavailable".into())
    );
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_some())
    );
}

#[tokio::test]
async fn with_passthrough_the_key_is_the_callers_own() {
    let upstream = Upstream::in_turn(vec![
        Reply::whole(
            200,
            &[
                ("content-type", "application/json"),
                ("x-ratelimit-remaining-tokens", "7"),
                ("set-cookie", "a=b"),
            ],
            "{\"choices\":[]}",
        ),
        error_answer(401, "invalid_api_key", &[]),
    ])
    .await;
    let objects = [
        provider(
            "openai",
            "OpenAI",
            &upstream,
            "credential: {passthrough: true}",
        ),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let request = chat("m").header("authorization", "Bearer sk-callers-own");
    let answer = waypoint.developer().call(&request).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        upstream.last().header("authorization"),
        Some("Bearer sk-callers-own")
    );
    // Its limits are the caller's too; cookies are never.
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("7"));
    assert_eq!(answer.header("set-cookie"), None);
    let refused = waypoint.developer().call(&request).await.unwrap();
    assert_eq!(
        (refused.status, refused.code()),
        (401, "invalid_api_key".into())
    );
}

/// A call that is refused, and how.
struct Refused(&'static str, Request, u16, &'static str);

#[tokio::test]
async fn what_is_not_plain_inference_is_refused_before_a_byte_goes_upstream() {
    let openai = Upstream::always(chat_answer()).await;
    let anthropic = Upstream::always(messages_answer()).await;
    let objects = [
        provider(
            "openai",
            "OpenAI",
            &openai,
            "operations: [chat, responses, models]\nmodels: [{name: gpt-4o, aliases: [smart]}]",
        ),
        provider(
            "anthropic",
            "Anthropic",
            &anthropic,
            "operations: [messages]",
        ),
        route(
            "llm",
            "- matches: [{models: [\"gpt-*\", smart, other]}]\n  backendRefs: [{name: openai}]\n- backendRefs: [{name: anthropic}]",
        ),
    ];
    let waypoint = Setup::new(&objects.concat())
        .limits("llmBodyBytes: 1048576")
        .start()
        .await;
    let post = |path: &str, body: &str| Request::post(&format!("/ai{path}"), body);
    let chat_with = |more: Value| post("/v1/chat/completions", &chat_body("gpt-4o", &more));
    let responses = |more: Value| {
        let mut body = json!({"model": "gpt-4o", "input": "hello"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        post("/v1/responses", &body.to_string())
    };
    let big = format!("{{\"model\":\"gpt-4o\",\"a\":\"{}\"}}", "a".repeat(1 << 20));
    let deep = format!(
        "{{\"model\":\"gpt-4o\",\"a\":{}{}}}",
        "[".repeat(100),
        "]".repeat(100)
    );
    for Refused(case, request, status, code) in [
        Refused(
            "an operation that is not listed",
            post("/v1/embeddings", r#"{"model":"gpt-4o","input":"a"}"#),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "counting where only messages are",
            post(
                "/v1/messages/count_tokens",
                &chat_body("claude", &json!({})),
            ),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "files",
            post("/v1/files", "{}"),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "batches",
            post("/v1/batches", "{}"),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "an answer by its id",
            Request::new("GET", "/ai/v1/responses/resp_1"),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "deleting",
            Request::new("DELETE", "/ai/v1/models/gpt-4o"),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "another path",
            post("/v1/chat/completions/x", "{}"),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "upwards",
            post("/v1/chat/completions/../../v1/files", "{}"),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "a model nobody serves",
            post("/v1/chat/completions", &chat_body("other", &json!({}))),
            404,
            "model_not_found",
        ),
        Refused(
            "the dialect of the other provider",
            messages("gpt-4o", &json!({})),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "background",
            responses(json!({"background": true})),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "a kept answer",
            responses(json!({"previous_response_id": "resp_1"})),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "a kept conversation",
            responses(json!({"conversation": "conv_1"})),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "a thread",
            messages("claude", &json!({"thread": {"id": "t"}})),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "other models to fall back on",
            chat_with(json!({"models": ["gpt-5"]})),
            403,
            "operation_not_allowed",
        ),
        Refused(
            "two models",
            post(
                "/v1/chat/completions",
                r#"{"model":"gpt-4o","model":"gpt-5"}"#,
            ),
            400,
            "bad_json",
        ),
        Refused(
            "two models, one escaped",
            post(
                "/v1/chat/completions",
                r#"{"model":"gpt-4o","m\u006fdel":"gpt-5"}"#,
            ),
            400,
            "bad_json",
        ),
        Refused(
            "another spelling",
            post(
                "/v1/chat/completions",
                r#"{"model":"gpt-4o","Model":"gpt-5"}"#,
            ),
            400,
            "bad_request",
        ),
        Refused(
            "no model",
            post("/v1/chat/completions", r#"{"messages":[]}"#),
            400,
            "bad_request",
        ),
        Refused(
            "a model that is no string",
            post("/v1/chat/completions", r#"{"model":["gpt-4o"]}"#),
            400,
            "bad_request",
        ),
        Refused(
            "a list",
            post("/v1/chat/completions", "[]"),
            400,
            "bad_json",
        ),
        Refused(
            "two bodies",
            post("/v1/chat/completions", r#"{"model":"gpt-4o"} {}"#),
            400,
            "bad_json",
        ),
        Refused(
            "invalid UTF-8",
            Request {
                body: b"{\"model\":\"gpt-4o\xff\"}".to_vec(),
                ..chat("m")
            },
            400,
            "bad_json",
        ),
        Refused(
            "half a surrogate pair",
            post("/v1/chat/completions", r#"{"model":"gpt\ud800"}"#),
            400,
            "bad_json",
        ),
        Refused(
            "too deep",
            post("/v1/chat/completions", &deep),
            400,
            "bad_json",
        ),
        Refused("empty", post("/v1/chat/completions", ""), 400, "bad_json"),
        Refused(
            "too large",
            post("/v1/chat/completions", &big),
            413,
            "body_too_large",
        ),
        Refused(
            "another media type",
            chat("gpt-4o")
                .without("content-type")
                .header("content-type", "text/plain"),
            415,
            "media_type",
        ),
        Refused(
            "another charset",
            chat("gpt-4o")
                .without("content-type")
                .header("content-type", "application/json; charset=utf-7"),
            415,
            "media_type",
        ),
        Refused(
            "no media type",
            chat("gpt-4o").without("content-type"),
            415,
            "media_type",
        ),
        Refused(
            "two media types",
            chat("gpt-4o").header("content-type", "application/json"),
            415,
            "media_type",
        ),
        Refused(
            "compressed",
            chat("gpt-4o").header("content-encoding", "gzip"),
            415,
            "media_type",
        ),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        assert_in_dialect(case, &request, &answer);
        let event = waypoint.event(&answer).await;
        assert_eq!(event["code"], code, "{case}");
        assert_eq!(event["attempts"], 0, "{case}");
    }
    assert_eq!((openai.connections(), anthropic.connections()), (0, 0));
    let alias = waypoint.workload(ANN).call(&chat("smart")).await.unwrap();
    assert_eq!(alias.status, 200, "{}", alias.text());
    assert_eq!(openai.only().json()["model"], "gpt-4o");
}

/// Whether a refusal has the shape its caller's SDK reads.
fn assert_in_dialect(case: &str, request: &Request, answer: &Answer) {
    let body = answer.json();
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(answer.header("request-id"), Some(id), "{case}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{case}"
    );
    assert!(answer.header("x-should-retry").is_some(), "{case}");
    assert!(body["error"]["message"].is_string(), "{case}: {body}");
    assert!(body["error"]["type"].is_string(), "{case}: {body}");
    if request.target.contains("/v1/messages") {
        assert_eq!(body["type"], "error", "{case}");
        assert_eq!(body["request_id"], id, "{case}");
    } else {
        assert!(
            body["error"].as_object().unwrap().contains_key("param"),
            "{case}"
        );
    }
}

#[tokio::test]
async fn a_body_of_any_permitted_size_arrives_as_it_was_sent() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    // Spaces, escapes and the order of keys are the caller's.
    let odd = "{ \"messages\" : [ {\"content\":\"\\u00e9\\/\", \"role\":\"user\"} ],\n\"model\":\"m\", \"x\": 1.0e2 }";
    let large = chat_body("m", &json!({"user": "é".repeat(10 << 20)}));
    assert!(large.len() > 20 << 20);
    for body in [odd, &large] {
        let request = Request::post("/ai/v1/chat/completions", body);
        for answer in [
            waypoint.workload(ANN).call(&request).await.unwrap(),
            waypoint
                .workload(ANN)
                .connect_http2()
                .await
                .unwrap()
                .call(&request)
                .await
                .unwrap(),
            waypoint
                .developer()
                .call(&in_chunks(&request))
                .await
                .unwrap(),
        ] {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(
                upstream.last().body == body.as_bytes(),
                "{} bytes changed",
                body.len()
            );
        }
    }
    // 100 MiB are over the limit, by length and by what comes.
    let begun = "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let mut connection = waypoint.developer().connect().await.unwrap();
    connection
        .write(format!("{begun}content-length: 104857600\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(connection.head().await.unwrap().status, 413);
    let mut connection = waypoint.developer().connect().await.unwrap();
    connection
        .write(format!("{begun}transfer-encoding: chunked\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let chunk = [
        b"100000\r\n".to_vec(),
        vec![b' '; 1 << 20],
        b"\r\n".to_vec(),
    ]
    .concat();
    let mut sent = 0;
    while sent < 100 && connection.write(&chunk).await.is_ok() {
        sent += 1;
    }
    // The refusal may be lost when the connection is closed on what was still being sent.
    let refused = connection.head().await.ok().map(|answer| answer.status);
    assert!(matches!(refused, None | Some(413)), "{refused:?}");
    assert_eq!(upstream.seen().len(), 6);
}

#[tokio::test]
async fn a_caller_that_sends_too_much_hears_of_it() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let setup = Setup::new(&objects.concat()).limits("llmBodyBytes: 65536");
    let waypoint = setup.start().await;
    // Most clients read only when they have sent everything, or failed to; a connection that is
    // closed on unread bytes is reset, and the refusal with it.
    let large = chat_body("m", &json!({"user": "a".repeat(2 << 20)}));
    let request = Request::post("/ai/v1/chat/completions", large);
    for request in [request.clone(), in_chunks(&request)] {
        for _ in 0..10 {
            for client in [waypoint.developer(), waypoint.workload(ANN)] {
                let answer = client.call(&request).await.unwrap();
                assert_eq!(
                    (answer.status, answer.code()),
                    (413, "body_too_large".into())
                );
            }
        }
    }
    assert_eq!(upstream.connections(), 0);
}

/// The same request with its body in two chunks.
fn in_chunks(request: &Request) -> Request {
    let (one, two) = request.body.split_at(request.body.len() / 2);
    let mut body = Vec::new();
    for piece in [one, two] {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    Request {
        body,
        ..request.clone()
    }
    .header("transfer-encoding", "chunked")
}

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

#[tokio::test]
async fn usage_is_asked_for_counted_and_hidden_unless_it_was_wanted() {
    use waypoint_tests::llm::{chat_stream_answer, messages_stream_answer, usage_chunk};
    let openai = Upstream::start(|seen| match seen.json()["stream"].as_bool() {
        Some(true) => chat_stream_answer(),
        _ => chat_answer(),
    })
    .await;
    let anthropic = Upstream::start(|seen| match seen.json()["stream"].as_bool() {
        Some(true) => messages_stream_answer(),
        _ => messages_answer(),
    })
    .await;
    let objects = [
        provider("openai", "OpenAI", &openai, ""),
        provider("anthropic", "Anthropic", &anthropic, ""),
        route("llm", "- backendRefs: [{name: openai}, {name: anthropic}]"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let streamed = |options: Value| {
        let mut more = json!({"stream": true});
        if !options.is_null() {
            more["stream_options"] = options;
        }
        Request::post("/ai/v1/chat/completions", chat_body("m", &more))
    };
    let usage = usage_chunk();
    for (case, request, input, output, shown) in [
        ("plain chat", chat("m"), 11, 7, None),
        ("plain messages", messages("m", &json!({})), 13, 5, None),
        (
            "streamed messages",
            messages("m", &json!({"stream": true})),
            13,
            5,
            None,
        ),
        ("streamed chat", chat_stream("m"), 11, 7, Some(false)),
        (
            "usage refused",
            streamed(json!({"include_usage": false})),
            11,
            7,
            Some(false),
        ),
        (
            "other options",
            streamed(json!({"include_obfuscation": false})),
            11,
            7,
            Some(false),
        ),
        ("no options", streamed(json!({})), 11, 7, Some(false)),
        (
            "usage wanted",
            streamed(json!({"include_usage": true})),
            11,
            7,
            Some(true),
        ),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["tokens"]["input"], input, "{case}: {event}");
        assert_eq!(event["tokens"]["output"], output, "{case}: {event}");
        assert_eq!(event["tokens"]["source"], "upstream", "{case}: {event}");
        if let Some(shown) = shown {
            let asked = openai.last().json()["stream_options"]["include_usage"].clone();
            assert_eq!(asked, true, "{case}");
            assert_eq!(
                answer.text().contains(&usage),
                shown,
                "{case}: {}",
                answer.text()
            );
            assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}");
        }
    }
    assert_eq!(
        openai
            .seen()
            .iter()
            .filter(|seen| seen.json()["stream_options"]["include_obfuscation"] == false)
            .count(),
        1
    );
    for (kind, total) in [
        ("input", 11.0 * 6.0 + 13.0 * 2.0),
        ("output", 7.0 * 6.0 + 5.0 * 2.0),
    ] {
        let labels = [("gen_ai_token_type", kind)];
        waypoint
            .metric_reaches("gen_ai_client_token_usage_sum", &labels, total)
            .await;
        assert_eq!(
            waypoint
                .metrics()
                .await
                .sum("gen_ai_client_token_usage_sum", &labels),
            total
        );
    }
}

#[tokio::test]
async fn compressed_answers_are_read_all_the_same() {
    use std::io::Write as _;
    let plain = b"{\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}";
    let stream = [
        waypoint_tests::llm::delta("one"),
        waypoint_tests::llm::usage_chunk(),
        waypoint_tests::llm::DONE.into(),
    ]
    .concat();
    type Coder = fn(&[u8]) -> Vec<u8>;
    let gzip: Coder = |bytes| {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        coder.write_all(bytes).unwrap();
        coder.finish().unwrap()
    };
    let deflate: Coder = |bytes| {
        let mut coder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        coder.write_all(bytes).unwrap();
        coder.finish().unwrap()
    };
    let brotli: Coder = |bytes| {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, 20)
            .write_all(bytes)
            .unwrap();
        out
    };
    let zstandard: Coder = |bytes| zstd::encode_all(bytes, 3).unwrap();
    for (coding, coder) in [
        ("gzip", gzip),
        ("deflate", deflate),
        ("br", brotli),
        ("zstd", zstandard),
    ] {
        let (whole, events) = (coder(plain), coder(stream.as_bytes()));
        let name = coding;
        let upstream = Upstream::start(move |seen| match seen.json()["stream"].as_bool() {
            Some(true) => {
                let head = [
                    ("content-type", "text/event-stream"),
                    ("content-encoding", name),
                ];
                let (one, two) = events.split_at(events.len() / 2);
                Reply::chunked(200, &head).chunk(one).chunk(two).end()
            }
            _ => Reply::whole(
                200,
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", name),
                ],
                &whole,
            ),
        })
        .await;
        let objects = [
            provider("openai", "OpenAI", &upstream, ""),
            route("llm", ONE),
        ];
        let waypoint = Setup::new(&objects.concat()).start().await;
        let client = waypoint.developer();
        let answer = client
            .call(&chat("m").header("accept-encoding", "gzip, br"))
            .await
            .unwrap();
        assert_eq!(
            upstream.last().header("accept-encoding"),
            Some("identity"),
            "{coding}"
        );
        assert_eq!(answer.header("content-encoding"), None, "{coding}");
        assert_eq!(answer.body, plain, "{coding}: {}", answer.text());
        assert_eq!(
            waypoint.event(&answer).await["tokens"]["output"],
            7,
            "{coding}"
        );
        let answer = client.call(&chat_stream("m")).await.unwrap();
        assert!(
            answer.text().ends_with("data: [DONE]\n\n"),
            "{coding}: {}",
            answer.text()
        );
        assert_eq!(
            waypoint.event(&answer).await["tokens"]["output"],
            7,
            "{coding}"
        );
    }
}

#[tokio::test]
async fn interim_answers_and_trailers_do_not_confuse() {
    let body = "{\"choices\":[]}";
    let length = body.len();
    let upstream = Upstream::in_turn(vec![
        Reply::raw(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")),
        Reply::chunked(200, &[("content-type", "application/json"), ("trailer", "x-late")]).chunk(body).end_with("x-late: 1"),
        Reply::raw(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}")).then(waypoint_tests::upstream::Step::Close),
        Reply::whole(200, &[("content-type", "application/json")], body),
    ])
    .await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    for case in ["interim", "trailer", "until close", "plain"] {
        let mut connection = waypoint.developer().connect().await.unwrap();
        let request = chat("m").header("expect", "100-continue");
        let answer = connection.call(&request).await.expect(case);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{case}"
        );
        // The caller is asked to go on by us, at most once, and gets nothing of the upstream's.
        assert!(
            connection.interim.len() <= 1,
            "{case}: {:?}",
            connection.interim
        );
        assert!(
            connection.interim.iter().all(|status| *status == 100),
            "{case}"
        );
        assert_eq!(upstream.last().header("expect"), None, "{case}");
    }
    assert_eq!(upstream.seen().len(), 4);
}

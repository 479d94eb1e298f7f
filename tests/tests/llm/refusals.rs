//! What is refused before a byte goes upstream, in the words of the dialect.

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::{chat, chat_answer, chat_body, messages, messages_answer};
use waypoint_tests::upstream::Upstream;
use waypoint_tests::waypoint::{ANN, Setup, provider, route};

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

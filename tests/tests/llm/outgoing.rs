//! What reaches the provider: where, with which key, and the body as it was sent.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_body, error_answer, messages, messages_answer};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, provider, route, secret};

use super::ONE;

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

//! Upstreams by HTTP/2: many calls on one connection, none of which disturbs the others.

use std::sync::Arc;

use serde_json::json;
use waypoint_tests::certificates::{Authority, Validity};
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_stream, chat_stream_answer, delta};
use waypoint_tests::mcp_server::{self, Form, LEGACY, SESSION, legacy};
use waypoint_tests::upstream::{Gate, Reply, Seen, Speaks, Step, Upstream};
use waypoint_tests::waypoint::{
    ANN, Backend as _, Setup, Waypoint, http_route, mcp_proxy, provider_at, roots, route, secret,
    service,
};

const NAME: &str = "models.localhost";

/// A provider that speaks HTTP/2, and a waypoint whose rule for it has these further fields.
async fn start(
    rule: &str,
    script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> (Arc<Upstream>, Waypoint) {
    let authority = Authority::new();
    let identity = authority.server_for(&[NAME], Validity::Now);
    let upstream = Upstream::speaking(Speaks::tls(&identity, &["h2"]), script).await;
    let endpoint = format!("https://{NAME}:{}", upstream.address().port());
    let objects = [
        provider_at(
            "openai",
            "OpenAI",
            &endpoint,
            "tls: {caCertificateRefs: [{name: provider-roots}]}",
        ),
        roots("provider-roots", &authority),
        route(
            "llm",
            &format!("- backendRefs: [{{name: openai}}]\n  {rule}"),
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    (upstream, waypoint)
}

#[tokio::test]
async fn calls_at_once_share_a_connection_and_answer_in_any_order() {
    let gate = Gate::new();
    let held = gate.clone();
    let (upstream, waypoint) = start("", move |seen| match seen.number {
        // The first call opens the connection that the others find.
        0 => chat_answer(),
        1 => Reply::default().wait(&held).then(whole("late")),
        _ => Reply::json(&json!({"choices": [{"message": {"content": "early"}}]})),
    })
    .await;
    let ann = waypoint.workload(ANN);
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
    let mut waits = ann.connect().await.unwrap();
    waits.send(&chat("m")).await.unwrap();
    upstream.requests(2).await;
    for _ in 0..3 {
        let answer = ann.call(&chat("m")).await.unwrap();
        assert!(answer.text().contains("early"), "{}", answer.text());
    }
    gate.open();
    let answer = waits.answer().await.unwrap();
    assert!(answer.text().contains("late"), "{}", answer.text());
    assert_eq!(upstream.connections(), 1);
}

/// A whole answer of JSON as one step.
fn whole(text: &str) -> Step {
    let body = json!({"choices": [{"message": {"content": text}}]}).to_string();
    let length = body.len();
    Step::Send(
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes(),
    )
}

#[tokio::test]
async fn a_connection_that_takes_no_more_calls_costs_none() {
    // GOAWAY with every answer (RFC 9113 §6.8).
    let (upstream, waypoint) =
        start("retry: {attempts: 0}", |_| chat_answer().then(Step::Close)).await;
    let ann = waypoint.workload(ANN);
    for turn in 0..10 {
        let answer = ann.call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, 200, "{turn}: {}", answer.text());
    }
    assert_eq!(upstream.seen().len(), 10);
}

#[tokio::test]
async fn a_stream_under_way_outlives_the_notice_that_no_more_are_taken() {
    let gate = Gate::new();
    let held = gate.clone();
    let (upstream, waypoint) = start("", move |seen| match seen.number {
        0 => Reply::stream()
            .chunk(delta("one"))
            .then(Step::Close)
            .wait(&held)
            .chunk("data: [DONE]\n\n")
            .end(),
        _ => chat_answer(),
    })
    .await;
    let ann = waypoint.workload(ANN);
    let mut stream = ann.connect().await.unwrap();
    stream.send(&chat_stream("m")).await.unwrap();
    assert_eq!(stream.head().await.unwrap().status, 200);
    stream.read_until("one").await.unwrap();
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
    gate.open();
    let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_reset_stream_is_tried_again_on_the_same_connection() {
    let (upstream, waypoint) = start("", |seen| match seen.number {
        1 => Reply::default().then(Step::Reset),
        _ => chat_answer(),
    })
    .await;
    let ann = waypoint.workload(ANN);
    for attempts in [1, 2] {
        let answer = ann.call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["attempts"], attempts, "{event}");
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (3, 1));
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let short = "timeouts: {request: 2s}";
    let (upstream, waypoint) = start(short, move |seen| match seen.json()["model"].as_str() {
        Some("slow") => Reply::default().then(Step::Stall),
        Some("stream") => Reply::stream().chunk(delta("one")).wait(&held).end(),
        _ => chat_answer(),
    })
    .await;
    let ann = waypoint.workload(ANN);
    let mut stream = ann.connect().await.unwrap();
    stream.send(&chat_stream("stream")).await.unwrap();
    assert_eq!(stream.head().await.unwrap().status, 200);
    stream.read_until("one").await.unwrap();
    let answer = ann.call(&chat("slow")).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (504, "upstream_timeout".into())
    );
    // The upstream hears that nobody waits, and goes on with the others.
    upstream.abandoned(1).await;
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
    gate.open();
    let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
    assert!(rest.contains("stream_truncated"), "{rest}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_stop_its_neighbours() {
    let piece = delta(&"a".repeat(60_000));
    let endless = format!("{:x}\r\n{piece}\r\n", piece.len()).into_bytes();
    let (upstream, waypoint) = start("", move |seen| match seen.json()["model"].as_str() {
        Some("endless") => Reply::stream().then(Step::Endless(endless.clone())),
        _ => chat_stream_answer(),
    })
    .await;
    let ann = waypoint.workload(ANN);
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut connection = ann.connect().await.unwrap();
        connection.send(&chat_stream("endless")).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200);
        stalled.push(connection);
    }
    for _ in 0..20 {
        let answer = ann.call(&chat_stream("m")).await.unwrap();
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
    }
    drop(stalled);
    upstream.abandoned(4).await;
    let grown = waypoint.peak_memory();
    assert!(grown < 512 << 20, "{grown} bytes");
}

#[tokio::test]
async fn sessions_of_an_mcp_server_work_by_http2() {
    let gate = Gate::new();
    let upstream = mcp_server::speaking(Speaks::Http2, Form::Sse, &gate).await;
    let objects = [
        mcp_proxy(
            "tools",
            &upstream,
            "credential: {secretRef: {name: keys, key: key}}",
        )
        .replace("appProtocol: http}", "appProtocol: kubernetes.io/h2c}"),
        secret("keys", "our-token"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let ann = waypoint.workload(ANN);
    let post = |body: &str| {
        Request::post("/mcp/tools/", body).header("accept", "application/json, text/event-stream")
    };
    let hello = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let answer = ann
        .call(&post(&legacy(1, "initialize", &hello)))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.header("mcp-session-id").unwrap().to_owned();
    let with_session = |request: Request| {
        request
            .header("mcp-session-id", &id)
            .header("mcp-protocol-version", LEGACY)
    };
    let mut stream = ann.connect().await.unwrap();
    let listen = Request::new("GET", "/mcp/tools/").header("accept", "text/event-stream");
    stream.send(&with_session(listen)).await.unwrap();
    assert_eq!(stream.head().await.unwrap().status, 200);
    stream.read_until("roots/list").await.unwrap();
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let answer = ann.call(&with_session(post(notification))).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    assert_eq!(upstream.last().body, notification.as_bytes());
    let echo = legacy(7, "tools/call", &json!({"name": "echo", "arguments": {}}));
    let answer = ann.call(&with_session(post(&echo))).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.last().body, echo.as_bytes());
    gate.open();
    stream.read_until("\"last\"").await.unwrap();
    assert!(stream.body().await.unwrap().is_empty());
    let end = Request::new("DELETE", "/mcp/tools/");
    assert_eq!(ann.call(&with_session(end)).await.unwrap().status, 200);
    for seen in upstream.seen().iter().skip(1) {
        assert_eq!(seen.header("mcp-session-id"), Some(SESSION), "{seen:?}");
        assert_eq!(seen.header("authorization"), Some("Bearer our-token"));
        assert!(seen.head.contains(" HTTP/2\r\n"), "{seen:?}");
    }
    assert_eq!(upstream.connections(), 1);
}

/// Pingora takes `:authority` of such a request from its URI or from `host`; we replace the URI by
/// a bare path, and an HTTP/2 caller sends no `host`.
#[tokio::test]
async fn a_caller_by_http2_reaches_a_backend_by_http2() {
    let upstream = Upstream::speaking(Speaks::Http2, |_| Reply::whole(200, &[], "hello")).await;
    let rules = "rules: [{backendRefs: [{name: app, port: 80}]}]";
    let objects = service("app", &upstream, "kubernetes.io/h2c") + &http_route("app", rules);
    let waypoint = Setup::new(&objects)
        .parameters("posture: Observe")
        .start()
        .await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let answer = http2
        .call(&Request::new("GET", "/a").host("shop.example.com"))
        .await
        .unwrap();
    let event = waypoint.event(&answer).await;
    assert_eq!(answer.status, 200, "{event}");
    let last = upstream.last();
    assert_eq!(
        last.fields(":authority").collect::<Vec<_>>(),
        ["shop.example.com"]
    );
}

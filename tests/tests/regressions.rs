//! Faults that were found once, each with what it did to whom.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server::{LEGACY, legacy};
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, agent, mcp_proxy, provider, route};

const ONE: &str = "- backendRefs: [{name: openai}]";

fn list(server: &str) -> Request {
    Request::post(
        &format!("/mcp/{server}"),
        legacy(1, "tools/list", &json!({})),
    )
    .header("accept", "application/json, text/event-stream")
    .header("mcp-protocol-version", LEGACY)
}

/// The next answer used to arrive in place of the first, short of its own first byte.
#[tokio::test]
async fn bytes_sent_while_a_request_is_served_never_become_another_request() {
    let gate = Gate::new();
    let upstream = Upstream::always(
        Reply::default().wait(&gate).then(Step::Send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
                .to_vec(),
        )),
    )
    .await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat("m")).await.unwrap();
    upstream.requests(1).await;
    connection
        .write(b"XGET /mcp/none HTTP/1.1\r\nhost: gateway\r\n\r\n")
        .await
        .unwrap();
    let seen = String::from_utf8(connection.drain().await).unwrap();
    assert_eq!(seen.matches("HTTP/1.1").count(), 0, "{seen}");
    gate.open();
}

/// Twenty small requests used to count as one head that was too large.
#[tokio::test]
async fn the_bound_on_heads_counts_each_request_anew() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat())
        .limits("headerBytes: 8192")
        .start()
        .await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    let request = Request::new("GET", "/nothing/here").header("x-padding", &"p".repeat(4000));
    for turn in 0..20 {
        let answer = connection.call(&request).await.unwrap();
        assert_eq!(answer.status, 404, "request {turn}");
    }
}

/// A call that had been made was made again when its connection broke.
#[tokio::test]
async fn a_call_that_was_read_is_not_made_again_without_a_policy() {
    let upstream = Upstream::in_turn(vec![chat_answer(), Reply::default().then(Step::Close)]).await;
    let retry = "- backendRefs: [{name: openai}]\n  retry: {attempts: 0}";
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", retry),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let ann = waypoint.workload(ANN);
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
    let broken = ann.call(&chat("m")).await.unwrap();
    assert_eq!(
        (broken.status, broken.code()),
        (502, "upstream_reset".into())
    );
    assert_eq!(upstream.seen().len(), 2, "one request each");
}

/// Lists used to pass unfiltered under any status but 2xx, and as an answer to GET.
#[tokio::test]
async fn a_list_is_filtered_whatever_it_travels_as() {
    let tools = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "secret"}]}});
    let allow =
        "- name: echo\n  mcp: [{servers: [tools], methods: [{name: tools/call, params: [echo]}]}]";
    for (case, status, request) in [
        ("a server error", 500, list("tools")),
        ("not found", 404, list("tools")),
        (
            "an answer to GET",
            200,
            Request::new("GET", "/mcp/tools").header("accept", "text/event-stream"),
        ),
    ] {
        let upstream = Upstream::always(Reply::status(status, &tools)).await;
        let objects = [
            mcp_proxy("tools", &upstream, ""),
            agent("tools", "Allow", allow),
        ];
        let waypoint = Setup::new(&objects.concat()).start().await;
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(upstream.seen().len(), 1, "{case}");
        assert!(
            !answer.text().contains("secret"),
            "{case}: {}",
            answer.text()
        );
    }
}

/// A change between a request and the first byte of its stream was never heard.
#[tokio::test]
async fn a_stream_that_began_under_old_rules_is_asked_again() {
    let gate = Gate::new();
    let upstream = Upstream::always(
        Reply::default()
            .wait(&gate)
            .then(Step::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()))
            .then(Step::Send({
                let event = format!("data: {}\n\n", delta("late"));
                format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
            }))
            .then(Step::Stall),
    )
    .await;
    let common = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ]
    .concat();
    let waypoint = Setup::new(&common).start().await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    upstream.requests(1).await;
    let deny = agent("stop", "Deny", "- name: all\n  llm: [{models: [\"*\"]}]");
    waypoint.reload(&[common, deny].concat()).await;
    gate.open();
    let answer = connection.answer().await.unwrap();
    assert!(
        answer.text().contains("policy_revoked"),
        "{}",
        answer.text()
    );
    upstream.abandoned(1).await;
}

/// Text after an IPv6 literal used to be overlooked.
#[tokio::test]
async fn hosts_that_only_begin_like_ours_are_refused() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    for (host, status) in [("[::1]evil.example", 400), ("[::1", 400), ("[::1]:80", 200)] {
        let answer = waypoint
            .developer()
            .call(&chat("m").host(host))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{host}");
    }
    let hidden = chat("m").header("connection", "content-type, keep-alive");
    let answer = waypoint.workload(ANN).call(&hidden).await.unwrap();
    assert_eq!(answer.status, 400, "a field that we read is to be dropped");
}

/// What Pingora itself refuses used to leave no trace.
#[tokio::test]
async fn heads_that_never_become_a_request_leave_an_event() {
    let waypoint = Setup::new("").limits("headerTimeout: 1s").start().await;
    let folded = "GET / HTTP/1.1\r\nhost: gateway\r\nx-a: 1\r\n folded\r\n\r\n";
    let twice = "GET / HTTP/1.1\r\nhost: gateway\r\nhost: other\r\n\r\n";
    for (case, head, status, code) in [
        ("a folded field", folded, 400, "bad_request"),
        ("two hosts", twice, 400, "bad_request"),
        ("no HTTP", "\x16\x03\x01 hello\r\n\r\n", 400, "bad_request"),
        (
            "half a head",
            "GET / HTTP/1.1\r\nhost: ga",
            408,
            "request_timeout",
        ),
    ] {
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        connection.write(head.as_bytes()).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, status, "{case}");
        connection.drain().await;
        let event = waypoint
            .event_where(case, |event| event["code"] == code)
            .await;
        assert_eq!(event["status"], status, "{case}: {event}");
        assert_eq!(event["principal"], ANN, "{case}: {event}");
    }
    let labels = [("code", "bad_request"), ("status", "4xx")];
    waypoint
        .metric_reaches("waypoint_requests_total", &labels, 3.0)
        .await;
}

/// So was CONNECT, and what followed it could have been taken for a request.
#[tokio::test]
async fn connect_is_refused_like_any_other_request() {
    let waypoint = Setup::new("").start().await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    let connect = "CONNECT api.openai.com:443 HTTP/1.1\r\nhost: api.openai.com:443\r\n\r\n";
    let next = "GET /nothing HTTP/1.1\r\nhost: gateway\r\n\r\n";
    let both = [connect, next].concat();
    connection.write(both.as_bytes()).await.unwrap();
    let seen = String::from_utf8(connection.drain().await).unwrap();
    assert!(seen.starts_with("HTTP/1.1 405 "), "{seen}");
    assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
    let lower = seen.to_ascii_lowercase();
    assert!(
        lower.contains("x-request-id: ") && lower.contains("allow: get"),
        "{seen}"
    );
    let event = waypoint
        .event_where("CONNECT", |event| event["code"] == "method_not_allowed")
        .await;
    assert_eq!(event["principal"], ANN, "{event}");
}

/// A connection used to be trusted for as long as it stayed open.
#[tokio::test]
async fn a_trust_domain_that_is_taken_away_ends_its_open_connections() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let setup = Setup::new(&objects.concat()).parameters("trustDomains: [cluster.local]");
    let waypoint = setup.start().await;
    let mut open = waypoint.workload(ANN).connect().await.unwrap();
    assert_eq!(open.call(&chat("m")).await.unwrap().status, 200);
    let base = std::fs::read_to_string(waypoint.config().join("gateway.yaml")).unwrap();
    let changed = base.replace(
        "trustDomains: [cluster.local]",
        "trustDomains: [other.example]",
    );
    assert_ne!(base, changed);
    let before = waypoint.generation().await;
    waypoint.write("gateway.yaml", &changed);
    waypoint.generation_after(before).await;
    let refused = open.call(&chat("m")).await.unwrap();
    assert_eq!(
        (refused.status, refused.code()),
        (401, "identity_invalid".into())
    );
    assert_eq!(upstream.seen().len(), 1);
}

//! Faults that were found once, each with what it did to whom.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server::{LEGACY, legacy};
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, agent, http_route, mcp_proxy, provider, route, service,
};

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

/// What followed a body that could not be read was read as the next request.
#[tokio::test]
async fn nothing_is_read_behind_a_body_that_is_malformed() {
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let head = "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    for (case, body) in [
        ("no size", "zz\r\n".to_owned()),
        ("an endless size", "FFFFFFFFFFFFFFFFF\r\n".to_owned()),
        ("no line break behind a chunk", "2\r\n{}XX".to_owned()),
        (
            "a long size line",
            format!("2;{}\r\n", "x".repeat(64 << 10)),
        ),
        (
            "long trailers",
            format!("2\r\n{{}}\r\n0\r\nx: {}\r\n\r\n", "a".repeat(70_000)),
        ),
    ] {
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        connection.write(head.as_bytes()).await.unwrap();
        // It may be refused, and closed, before all of it is written.
        let _ = connection.write(body.as_bytes()).await;
        let refused = connection.answer().await.unwrap();
        assert_eq!(refused.status, 400, "{case}");
        assert_eq!(refused.header("connection"), Some("close"), "{case}");
        let _ = connection.send(&chat("m")).await;
        let rest = connection.drain().await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "{case}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// A caller without any permission could have bodies kept in memory.
#[tokio::test]
async fn who_may_do_nothing_is_told_so_before_the_body_is_read() {
    let upstream = Upstream::always(chat_answer()).await;
    let allow = format!("- name: ann\n  from: [{{spiffe: \"{ANN}\"}}]\n  llm: [{{}}]");
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
        agent("models", "Allow", &allow),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let mut connection = waypoint.workload(BOB).connect().await.unwrap();
    let head = "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n\
        content-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    connection.write(head.as_bytes()).await.unwrap();
    let refused = connection.head().await.unwrap();
    assert_eq!(refused.status, 403);
    assert_eq!(upstream.seen().len(), 0);
}

/// A Deny for anyone could be evaded by being nobody.
#[tokio::test]
async fn a_deny_without_callers_is_about_nobody_too() {
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let rules = "- name: admin\n  http: [{paths: [\"/admin*\"]}]";
    let objects = [
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
        agent("app", "Deny", rules),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    for (path, status) in [("/admin", 403), ("/else", 200)] {
        let answer = waypoint
            .anonymous()
            .call(&Request::new("GET", path).host("app"))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
}

/// SDKs follow redirects, with the prompt, to where no policy is asked.
#[tokio::test]
async fn redirects_of_providers_and_servers_do_not_reach_callers() {
    let moved = || {
        let headers = [
            ("location", "http://elsewhere.example/"),
            ("content-type", "application/json"),
        ];
        Reply::whole(307, &headers, "{}")
    };
    let (models, tools) = (
        Upstream::always(moved()).await,
        Upstream::always(moved()).await,
    );
    let objects = [
        provider("openai", "OpenAI", &models, ""),
        route("llm", ONE),
        mcp_proxy("tools", &tools, ""),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    for (case, request) in [("a model", chat("m")), ("a tool", list("tools"))] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 502, "{case}");
        assert_eq!(answer.header("location"), None, "{case}");
    }
    assert_eq!(
        (models.seen().len(), tools.seen().len()),
        (1, 1),
        "once each"
    );
}

/// A model was asked for by the caller's name of it, and not by the one that was decided.
#[tokio::test]
async fn a_models_entry_is_asked_for_by_the_providers_name() {
    let entry = json!({"id": "gpt-4o", "object": "model"});
    let upstream = Upstream::always(Reply::json(&entry)).await;
    let models = "models: [{name: gpt-4o, aliases: [smart]}]";
    let objects = [
        provider("openai", "OpenAI", &upstream, models),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let request = Request::new("GET", "/ai/v1/models/smart");
    let answer = waypoint.workload(ANN).call(&request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.only().target(), "/v1/models/gpt-4o");
}

/// Waits longer than the longest backoff were not made, though there was time.
#[tokio::test]
async fn retry_after_is_obeyed_for_as_long_as_there_is_time() {
    let busy = Reply::whole(
        503,
        &[("retry-after", "1"), ("content-type", "application/json")],
        "{}",
    );
    let upstream = Upstream::in_turn(vec![busy, chat_answer()]).await;
    let rule = "- backendRefs: [{name: openai}]\n  timeouts: {request: 20s}\n  retry: {attempts: 1, on: [5xx], backoff: {base: 10ms, max: 50ms}}";
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", rule),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.seen().len(), 2);
}

/// Requests that the end of the process cut off left no event.
#[tokio::test]
async fn what_the_end_of_the_process_cuts_off_leaves_an_event() {
    let upstream = Upstream::always(Reply::chunked(200, &[]).chunk("one").then(Step::Stall)).await;
    let models = Upstream::always(chat_answer()).await;
    let objects = [
        service("app", &upstream, "http"),
        http_route(
            "app",
            "rules: [{matches: [{path: {value: /app}}], backendRefs: [{name: app, port: 80}]}]",
        ),
        provider("openai", "OpenAI", &models, ""),
        route("llm", ONE),
    ];
    let setup = Setup::new(&objects.concat()).parameters("drainTimeout: 1s");
    let mut waypoint = setup.start().await;
    let mut silent = waypoint.workload(ANN).connect().await.unwrap();
    silent
        .send(&Request::new("GET", "/app").host("app"))
        .await
        .unwrap();
    silent.head().await.unwrap();
    silent.read_until("one").await.unwrap();
    let mut half = waypoint.workload(ANN).connect().await.unwrap();
    let head = "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n\
        content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    half.write(head.as_bytes()).await.unwrap();
    waypoint.terminate().await;
    assert_eq!(
        waypoint.ended().await.code(),
        Some(0),
        "{}",
        waypoint.stderr()
    );
    let events = waypoint.audit();
    for action in ["http", "llm"] {
        let event = events
            .iter()
            .find(|event| event["action"]["kind"] == action);
        assert_eq!(
            event.unwrap()["code"],
            "shutting_down",
            "{action}: {events:?}"
        );
    }
}

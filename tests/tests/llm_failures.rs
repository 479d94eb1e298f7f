//! Upstreams that fail before their answer has begun: what is tried again, and what callers are told.

use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::{
    chat, chat_answer, chat_stream, chat_stream_answer, delta, error_answer, messages,
};
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, provider, route};

/// One provider whose rule has these further fields.
async fn start(upstream: &Upstream, rule: &str, limits: &str) -> Waypoint {
    let objects = [
        provider("openai", "OpenAI", upstream, ""),
        route(
            "llm",
            &format!("- backendRefs: [{{name: openai}}]\n  {rule}"),
        ),
    ];
    Setup::new(&objects.concat()).limits(limits).start().await
}

const RETRY: &str = "retry: {attempts: 2, backoff: {base: 1ms, max: 50ms}}";

fn reset() -> Reply {
    Reply::default().then(Step::Reset)
}

/// An upstream's answers, and what comes of them.
struct Row {
    case: &'static str,
    replies: Vec<Reply>,
    request: Request,
    status: u16,
    code: &'static str,
    attempts: usize,
}

fn row(
    case: &'static str,
    replies: Vec<Reply>,
    status: u16,
    code: &'static str,
    attempts: usize,
) -> Row {
    Row {
        case,
        replies,
        request: chat("m"),
        status,
        code,
        attempts,
    }
}

async fn check(rule: &str, rows: Vec<Row>) {
    for Row {
        case,
        replies,
        request,
        status,
        code,
        attempts,
    } in rows
    {
        let upstream = Upstream::in_turn(replies).await;
        let waypoint = start(&upstream, rule, "").await;
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        assert_eq!(upstream.seen().len(), attempts, "{case}");
        assert_bounded_wait(case, &answer);
        let event = waypoint.event(&answer).await;
        assert_eq!(event["attempts"], attempts, "{case}: {event}");
        assert_eq!(event["status"], status, "{case}: {event}");
    }
}

/// Some SDKs sleep for as long as they are told.
fn assert_bounded_wait(case: &str, answer: &Answer) {
    if let Some(wait) = answer.header("retry-after") {
        assert!(
            wait.parse::<f64>().is_ok_and(|wait| wait <= 60.0),
            "{case}: {wait}"
        );
        assert_eq!(answer.header("x-should-retry"), Some("true"), "{case}");
    }
    if answer.status >= 400 {
        assert!(
            answer.header("x-should-retry").is_some(),
            "{case}: {:?}",
            answer.headers
        );
    }
}

#[tokio::test]
async fn transient_failures_are_tried_again() {
    let slow_down = |headers: &[(&str, &str)]| error_answer(429, "rate_limit_exceeded", headers);
    let sse = Row {
        request: chat_stream("m"),
        ..row(
            "a stream",
            vec![error_answer(503, "x", &[]), chat_stream_answer()],
            200,
            "",
            2,
        )
    };
    check(
        RETRY,
        vec![
            row(
                "503",
                vec![error_answer(503, "x", &[]), chat_answer()],
                200,
                "",
                2,
            ),
            row(
                "502 twice",
                vec![
                    error_answer(502, "x", &[]),
                    error_answer(502, "x", &[]),
                    chat_answer(),
                ],
                200,
                "",
                3,
            ),
            row(
                "529",
                vec![error_answer(529, "overloaded_error", &[]), chat_answer()],
                200,
                "",
                2,
            ),
            row("429", vec![slow_down(&[]), chat_answer()], 200, "", 2),
            row(
                "429 with a short wait",
                vec![slow_down(&[("retry-after-ms", "5")]), chat_answer()],
                200,
                "",
                2,
            ),
            row(
                "429 without a wait",
                vec![slow_down(&[("retry-after", "0")]), chat_answer()],
                200,
                "",
                2,
            ),
            row("reset", vec![reset(), chat_answer()], 200, "", 2),
            row(
                "closed without a word",
                vec![Reply::default().then(Step::Close), chat_answer()],
                200,
                "",
                2,
            ),
            row(
                "half a head",
                vec![
                    Reply::raw("HTTP/1.1 200 O").then(Step::Reset),
                    chat_answer(),
                ],
                200,
                "",
                2,
            ),
            row(
                "told to",
                vec![
                    error_answer(400, "x", &[("x-should-retry", "true")]),
                    chat_answer(),
                ],
                200,
                "",
                2,
            ),
            sse,
            row(
                "never well",
                vec![error_answer(503, "still_down", &[])],
                503,
                "still_down",
                3,
            ),
            row("always reset", vec![reset()], 502, "upstream_reset", 3),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_would_fail_again_is_not_tried_again() {
    check(
        RETRY,
        vec![
            row(
                "a bad request",
                vec![error_answer(400, "bad", &[]), chat_answer()],
                400,
                "bad",
                1,
            ),
            row(
                "not found",
                vec![error_answer(404, "model_not_found", &[]), chat_answer()],
                404,
                "model_not_found",
                1,
            ),
            row(
                "no money",
                vec![error_answer(429, "insufficient_quota", &[]), chat_answer()],
                429,
                "insufficient_quota",
                1,
            ),
            row(
                "told not to",
                vec![
                    error_answer(503, "x", &[("x-should-retry", "false")]),
                    chat_answer(),
                ],
                503,
                "x",
                1,
            ),
            row(
                "our key",
                vec![error_answer(401, "invalid_api_key", &[]), chat_answer()],
                502,
                "upstream_auth",
                1,
            ),
            row(
                "our rights",
                vec![error_answer(403, "forbidden", &[]), chat_answer()],
                502,
                "upstream_auth",
                1,
            ),
        ],
    )
    .await;
    check(
        "retry: {attempts: 2, on: [\"429\"], backoff: {base: 1ms}}",
        vec![
            row(
                "a status that is not asked for",
                vec![error_answer(503, "x", &[]), chat_answer()],
                503,
                "x",
                1,
            ),
            row(
                "a reset that is not asked for",
                vec![reset(), chat_answer()],
                502,
                "upstream_reset",
                1,
            ),
            row(
                "one that is",
                vec![error_answer(429, "x", &[]), chat_answer()],
                200,
                "",
                2,
            ),
        ],
    )
    .await;
    check(
        "retry: {attempts: 0}",
        vec![row(
            "never",
            vec![error_answer(503, "x", &[]), chat_answer()],
            503,
            "x",
            1,
        )],
    )
    .await;
}

#[tokio::test]
async fn a_long_wait_is_the_callers_to_decide_and_a_very_long_one_is_not_told() {
    for (case, wait, told, should_retry) in [
        ("as long as a caller may be told", "30", Some("30"), "true"),
        ("hours", "7200", None, "false"),
        ("a date", "Sun, 06 Nov 2094 08:49:37 GMT", None, "false"),
    ] {
        let upstream = Upstream::in_turn(vec![
            error_answer(
                429,
                "rate_limit_exceeded",
                &[
                    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                    ("retry-after", wait),
                ],
            ),
            chat_answer(),
        ])
        .await;
        // The wait is longer than the call may take.
        let rule = "timeouts: {request: 5s}\n  retry: {attempts: 1, backoff: {base: 1ms}}";
        let waypoint = start(&upstream, rule, "").await;
        let answer = waypoint.developer().call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, 429, "{case}");
        assert_eq!(answer.header("retry-after"), told, "{case}");
        assert_eq!(
            answer.header("x-should-retry"),
            Some(should_retry),
            "{case}"
        );
        assert_eq!(upstream.seen().len(), 1, "{case}");
    }
}

#[tokio::test]
async fn nobody_there_leads_to_the_next_provider() {
    let gone = Upstream::always(chat_answer()).await;
    let last = Upstream::always(chat_answer()).await;
    let objects = [
        provider("gone", "OpenAI", &gone, ""),
        provider(
            "last",
            "OpenAI",
            &last,
            "models: [{name: other, aliases: [m]}]",
        ),
        route(
            "llm",
            "- backendRefs: [{name: gone}, {name: last, priority: 1}]\n  retry: {attempts: 1, backoff: {base: 1ms}}",
        ),
        route("alone", "- backendRefs: [{name: gone}]")
            .replace("pathPrefix: /ai", "pathPrefix: /alone"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    gone.stop();
    let answer = waypoint.developer().call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Each attempt names the model as its own provider does.
    assert_eq!(last.only().json()["model"], "other");
    assert_eq!(waypoint.event(&answer).await["attempts"], 2);
    let alone = Request {
        target: "/alone/v1/chat/completions".into(),
        ..chat("m")
    };
    let refused = waypoint.developer().call(&alone).await.unwrap();
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_connect".into())
    );
}

#[tokio::test]
async fn a_kept_connection_that_has_died_costs_no_call() {
    // The answer promises a connection that lives on, and then it is closed.
    let upstream = Upstream::always(chat_answer().then(Step::Close)).await;
    let waypoint = start(&upstream, "retry: {attempts: 0}", "").await;
    for _ in 0..20 {
        let answer = waypoint.developer().call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(upstream.seen().len(), 20);
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = start(&upstream, RETRY, "").await;
    for _ in 0..10 {
        assert_eq!(
            waypoint
                .workload(ANN)
                .call(&chat("m"))
                .await
                .unwrap()
                .status,
            200
        );
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (10, 1));
}

#[tokio::test]
async fn every_wait_has_an_end() {
    let stall = || Reply::default().then(Step::Stall);
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"a\":";
    for (case, rule, replies, status, code, attempts) in [
        (
            "no head",
            "timeouts: {request: 300ms}",
            vec![stall()],
            504,
            "upstream_timeout",
            1,
        ),
        (
            "half a head",
            "timeouts: {request: 300ms}",
            vec![Reply::raw(&head[..30]).then(Step::Stall)],
            504,
            "upstream_timeout",
            1,
        ),
        (
            "half a body",
            "timeouts: {request: 300ms}",
            vec![Reply::raw(head).then(Step::Stall)],
            504,
            "upstream_timeout",
            1,
        ),
        // It may have been billed already: only tried again where that was asked for.
        (
            "one try",
            "timeouts: {request: 20s, perTry: 300ms}",
            vec![stall(), chat_answer()],
            504,
            "upstream_timeout",
            1,
        ),
        (
            "one try of several",
            "timeouts: {request: 20s, perTry: 300ms}\n  retry: {attempts: 1, on: [timeout], backoff: {base: 1ms}}",
            vec![stall(), chat_answer()],
            200,
            "",
            2,
        ),
    ] {
        let upstream = Upstream::in_turn(replies).await;
        let waypoint = start(&upstream, rule, "").await;
        let answer = waypoint.developer().call(&chat("m")).await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        assert_eq!(upstream.seen().len(), attempts, "{case}");
        // What is not waited for any more is told so.
        upstream.abandoned(1).await;
    }
    // A handshake that is never answered is a connection that never comes about.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let objects = [
        format!(
            "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: LLMProvider\nmetadata: {{name: openai, namespace: agents}}\nspec: {{dialect: OpenAI, endpoint: \"https://{address}\"}}\n---\n"
        ),
        route(
            "llm",
            "- backendRefs: [{name: openai}]\n  timeouts: {connect: 300ms}\n  retry: {attempts: 0}",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = waypoint.developer().call(&chat("m")).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_connect".into())
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_becomes_an_error_of_the_dialect() {
    let json = [("content-type", "application/json")];
    let short = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"choices\":[";
    let gzip = [json[0], ("content-encoding", "gzip")];
    let unknown = [json[0], ("content-encoding", "lzma")];
    let bad = "upstream_bad_answer";
    for (case, reply, code) in [
        ("cut JSON", Reply::whole(200, &json, "{\"choices\":["), bad),
        (
            "no JSON",
            Reply::whole(200, &[("content-type", "text/html")], "<html>"),
            bad,
        ),
        ("nothing", Reply::whole(200, &json, ""), bad),
        ("two documents", Reply::whole(200, &json, "{} {}"), bad),
        (
            "no HTTP",
            Reply::raw("220 mail.example ESMTP\r\n").then(Step::Close),
            bad,
        ),
        (
            "two lengths",
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ")
                .then(Step::Close),
            bad,
        ),
        (
            "ended early",
            Reply::raw(short).then(Step::Close),
            "upstream_reset",
        ),
        (
            "reset in the body",
            Reply::raw(short).then(Step::Reset),
            "upstream_reset",
        ),
        (
            "a chunk is missing",
            Reply::chunked(200, &json).chunk("{}").then(Step::Close),
            "upstream_reset",
        ),
        (
            "no gzip at all",
            Reply::whole(200, &gzip, "{\"choices\":[],\"usage\":{}}"),
            bad,
        ),
        ("an unknown coding", Reply::whole(200, &unknown, "{}"), bad),
        ("a stream nobody asked for", chat_stream_answer(), bad),
        (
            "an answer without end",
            Reply::chunked(200, &json).then(Step::Endless(
                b"10000\r\n"
                    .iter()
                    .copied()
                    .chain(vec![b' '; 65536])
                    .chain(*b"\r\n")
                    .collect(),
            )),
            bad,
        ),
        (
            "a page of some proxy",
            Reply::whole(503, &[("content-type", "text/html")], "<html>"),
            "upstream_unavailable",
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let objects = [
            provider("openai", "OpenAI", &upstream, ""),
            provider("anthropic", "Anthropic", &upstream, ""),
            route(
                "llm",
                "- backendRefs: [{name: openai}, {name: anthropic}]\n  retry: {attempts: 0}",
            ),
        ];
        let waypoint = Setup::new(&objects.concat())
            .limits("answerBytes: 1048576")
            .start()
            .await;
        for request in [chat("m"), messages("m", &json!({}))] {
            let answer = waypoint.workload(ANN).call(&request).await.unwrap();
            let is_anthropic = answer.json()["type"] == "error";
            assert_eq!(
                is_anthropic,
                request.target.ends_with("messages"),
                "{case}: {}",
                answer.text()
            );
            assert!(
                (502..=503).contains(&answer.status),
                "{case}: {}",
                answer.status
            );
            assert_eq!(answer.code(), code, "{case}: {}", answer.text());
            assert!(answer.json()["error"]["message"].is_string(), "{case}");
            assert_bounded_wait(case, &answer);
            assert_eq!(waypoint.event(&answer).await["code"], code, "{case}");
        }
    }
}

#[tokio::test]
async fn after_the_first_byte_nothing_is_tried_again() {
    let broken = || Reply::stream().chunk(delta("one")).then(Step::Reset);
    let upstream = Upstream::in_turn(vec![broken(), chat_stream_answer()]).await;
    let waypoint = start(&upstream, RETRY, "").await;
    let answer = waypoint
        .workload(ANN)
        .call(&chat_stream("m"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().starts_with(&delta("one")),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains("\"stream_truncated\""),
        "{}",
        answer.text()
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_ends_the_upstream_call() {
    let upstream: Arc<Upstream> = Upstream::always(Reply::default().then(Step::Stall)).await;
    let waypoint = start(&upstream, RETRY, "").await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat("m")).await.unwrap();
    upstream.requests(1).await;
    drop(connection);
    upstream.abandoned(1).await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let request = chat("m");
    {
        let call = http2.call(&request);
        tokio::pin!(call);
        tokio::select! {
            answer = &mut call => panic!("answered: {answer:?}"),
            _ = upstream.requests(2) => {}
        }
    }
    // The stream alone is gone; the connection lives.
    upstream.abandoned(2).await;
    let gone = |event: &serde_json::Value| {
        event["flags"]
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag == "DOWNSTREAM_DISCONNECTED"))
    };
    waypoint.event_where("a caller that left", gone).await;
    assert_eq!(upstream.seen().len(), 2);
}

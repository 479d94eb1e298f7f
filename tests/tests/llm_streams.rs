//! Streamed answers: every one ends with its terminator or with an error that SDKs raise.

use serde_json::{Value, json};
use waypoint_tests::client::{Request, events};
use waypoint_tests::llm::{
    DONE, chat_body, chat_stream, chat_stream_answer, delta, messages, messages_stream_answer,
    usage_chunk,
};
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, BOB, Setup, Waypoint, agent, provider, route};

fn objects(upstream: &Upstream, timeouts: &str) -> String {
    [
        provider("openai", "OpenAI", upstream, ""),
        provider("anthropic", "Anthropic", upstream, ""),
        route(
            "llm",
            &format!(
                "- backendRefs: [{{name: openai}}, {{name: anthropic}}]\n  timeouts: {timeouts}"
            ),
        ),
    ]
    .concat()
}

async fn start(upstream: &Upstream, timeouts: &str) -> Waypoint {
    Setup::new(&objects(upstream, timeouts)).start().await
}

/// The error that ends a stream, in the shape that every SDK raises.
fn error_frame(case: &str, stream: &str) -> Value {
    let (before, frame) = stream
        .rsplit_once("event: error\n")
        .unwrap_or_else(|| panic!("{case}: no error: {stream:?}"));
    assert!(
        before.is_empty() || before.ends_with("\n\n") || before.ends_with("\r\n\r\n"),
        "{case}: {before:?}"
    );
    assert!(frame.ends_with("\n\n"), "{case}: {frame:?}");
    let data: Value = serde_json::from_str(&events(frame)[0]).unwrap();
    assert_eq!(data["type"], "error", "{case}");
    assert_eq!(data["code"], data["error"]["code"], "{case}");
    for field in ["message", "type"] {
        assert!(data["error"][field].is_string(), "{case}: {data}");
    }
    assert!(
        data["message"].is_string() && data["sequence_number"].is_u64(),
        "{case}: {data}"
    );
    data
}

fn responses() -> Request {
    Request::post(
        "/ai/v1/responses",
        json!({"model": "m", "input": "a", "stream": true}).to_string(),
    )
}

#[tokio::test]
async fn a_stream_that_just_ends_is_ended_with_an_error() {
    let one = delta("one");
    let start_event = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n";
    let created = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":4,\"response\":{}}\n\n";
    let anthropic = messages("m", &json!({"stream": true}));
    let large = format!("data: {}\n\n", "a".repeat(70_000));
    for (case, request, reply, code) in [
        (
            "no terminator",
            chat_stream("m"),
            Reply::stream().chunk(&one).end(),
            "stream_truncated",
        ),
        (
            "nothing at all",
            chat_stream("m"),
            Reply::stream().end(),
            "stream_truncated",
        ),
        (
            "usage, no terminator",
            chat_stream("m"),
            Reply::stream().chunk(&one).chunk(usage_chunk()).end(),
            "stream_truncated",
        ),
        (
            "half an event",
            chat_stream("m"),
            Reply::stream().chunk(&one).chunk("data: {\"cho").end(),
            "stream_truncated",
        ),
        (
            "closed",
            chat_stream("m"),
            Reply::stream().chunk(&one).then(Step::Close),
            "stream_truncated",
        ),
        (
            "reset",
            chat_stream("m"),
            Reply::stream().chunk(&one).then(Step::Reset),
            "stream_truncated",
        ),
        (
            "silence",
            chat_stream("m"),
            Reply::stream().chunk(&one).then(Step::Stall),
            "stream_idle",
        ),
        (
            "an event that is too large",
            chat_stream("m"),
            Reply::stream().chunk(&one).chunk(&large).then(Step::Stall),
            "upstream_bad_answer",
        ),
        (
            "no message_stop",
            anthropic.clone(),
            Reply::stream().chunk(start_event).end(),
            "stream_truncated",
        ),
        (
            "silence of messages",
            anthropic,
            Reply::stream().chunk(start_event).then(Step::Stall),
            "stream_idle",
        ),
        (
            "no response.completed",
            responses(),
            Reply::stream().chunk(created).end(),
            "stream_truncated",
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let timeouts = "{streamIdle: 400ms}";
        let setup = Setup::new(&objects(&upstream, timeouts)).limits("sseEventBytes: 65536");
        let waypoint = setup.start().await;
        // Both versions end the body properly: an answer that is cut off raises other errors.
        let http1 = waypoint.workload(ANN).call(&request).await.unwrap();
        let http2 = waypoint
            .workload(ANN)
            .connect_http2()
            .await
            .unwrap()
            .call(&request)
            .await
            .unwrap();
        for answer in [http1, http2] {
            assert_eq!(answer.status, 200, "{case}: {}", answer.text());
            assert_eq!(
                answer.header("content-type"),
                Some("text/event-stream"),
                "{case}"
            );
            let error = error_frame(case, &answer.text());
            assert_eq!(error["code"], code, "{case}");
            if case == "no response.completed" {
                assert_eq!(error["sequence_number"], 5, "{error}");
            }
            let event = waypoint.event(&answer).await;
            assert_eq!(event["code"], code, "{case}: {event}");
        }
        waypoint
            .metric_reaches("waypoint_streams_ended_total", &[("how", code)], 2.0)
            .await;
        assert_eq!(
            waypoint.metrics().await.sum("waypoint_streams", &[]),
            0.0,
            "{case}"
        );
    }
}

#[tokio::test]
async fn whole_streams_pass_as_they_are() {
    let comment = ": ping\n\n";
    let crlf = "data: {\"choices\":[{\"delta\":{\"content\":\"crlf\"}}]}\r\n\r\n";
    let completed = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":11,\"output_tokens\":7}}}\n\n";
    let incomplete = completed.replace("response.completed", "response.incomplete");
    let own_error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let chat = [comment, &delta("é\u{1F600}"), crlf, &usage_chunk(), DONE].concat();
    let wanting = Request::post(
        "/ai/v1/chat/completions",
        chat_body(
            "m",
            &json!({"stream": true, "stream_options": {"include_usage": true}}),
        ),
    );
    for (case, request, stream) in [
        ("chat", wanting, chat),
        ("responses", responses(), completed.into()),
        ("incomplete responses", responses(), incomplete),
        (
            "an error of the upstream's own",
            messages("m", &json!({"stream": true})),
            own_error.into(),
        ),
    ] {
        // Cut at every kind of place, in the middle of a character too.
        for size in [1, 7, 4096] {
            let pieces = stream.as_bytes().chunks(size);
            let reply = pieces.fold(Reply::stream(), Reply::chunk).end();
            let upstream = Upstream::always(reply).await;
            let waypoint = start(&upstream, "{}").await;
            let answer = waypoint.workload(ANN).call(&request).await.unwrap();
            assert_eq!(answer.text(), stream, "{case} in pieces of {size}");
        }
    }
}

#[tokio::test]
async fn events_are_passed_on_when_they_come() {
    let gate = Gate::new();
    let reply = Reply::stream()
        .chunk(delta("one"))
        .wait(&gate)
        .chunk(delta("two"))
        .chunk(DONE)
        .end();
    let upstream = Upstream::always(reply).await;
    let waypoint = start(&upstream, "{}").await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    let head = connection.head().await.unwrap();
    assert_eq!(
        (head.status, head.header("x-accel-buffering")),
        (200, Some("no"))
    );
    connection.read_until("one").await.unwrap();
    assert_eq!(
        waypoint
            .metrics()
            .await
            .sum("waypoint_streams", &[("kind", "llm")]),
        1.0
    );
    gate.open();
    let rest = connection.read_until("[DONE]").await.unwrap();
    assert!(rest.contains("two"), "{rest}");
    assert!(connection.body().await.unwrap().is_empty());
    // The connection is good for another call.
    assert_eq!(
        connection.call(&chat_stream("m")).await.unwrap().status,
        200
    );
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_upstream_stream() {
    let reply = Reply::stream().chunk(delta("one")).then(Step::Stall);
    let upstream = Upstream::always(reply).await;
    let waypoint = start(&upstream, "{}").await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    connection.head().await.unwrap();
    connection.read_until("one").await.unwrap();
    drop(connection);
    upstream.abandoned(1).await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let mut stream = http2.open(&chat_stream("m")).await.unwrap();
    stream.piece().await.unwrap();
    drop(stream);
    upstream.abandoned(2).await;
    // While it is writing, too.
    let endless = format!("{:x}\r\n{}\r\n", delta("more").len(), delta("more"));
    let upstream =
        Upstream::always(Reply::stream().then(Step::Endless(endless.into_bytes()))).await;
    waypoint.reload(&objects(&upstream, "{}")).await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    connection.head().await.unwrap();
    connection.read_until("more").await.unwrap();
    drop(connection);
    upstream.abandoned(1).await;
    waypoint
        .metric_reaches(
            "waypoint_streams_ended_total",
            &[("how", "downstream_gone")],
            3.0,
        )
        .await;
    let event = waypoint
        .event_where("a caller that left", |event| {
            event["flags"][0] == "DOWNSTREAM_DISCONNECTED"
        })
        .await;
    assert_eq!(event["status"], 200, "{event}");
}

#[tokio::test]
async fn a_slow_reader_slows_the_upstream_and_fills_no_memory() {
    let piece = delta(&"a".repeat(60_000));
    let endless = format!("{:x}\r\n{piece}\r\n", piece.len());
    let upstream =
        Upstream::always(Reply::stream().then(Step::Endless(endless.into_bytes()))).await;
    let waypoint = start(&upstream, "{}").await;
    let mut readers = Vec::new();
    let before = waypoint.peak_memory();
    for _ in 0..8 {
        let mut connection = waypoint.developer().connect().await.unwrap();
        connection.send(&chat_stream("m")).await.unwrap();
        connection.head().await.unwrap();
        readers.push(connection);
    }
    upstream.requests(8).await;
    // Others are served meanwhile, and nothing piles up behind those that do not read.
    for _ in 0..50 {
        assert_eq!(
            waypoint
                .anonymous()
                .call(&chat_stream("m"))
                .await
                .unwrap()
                .status,
            401
        );
    }
    let grown = waypoint.peak_memory().saturating_sub(before);
    assert!(
        grown < 256 << 20,
        "{grown} bytes for 8 readers that do not read"
    );
    // Each still gets what was sent to it, in order.
    for mut reader in readers {
        let text = reader.read_until("\n\n").await.unwrap();
        assert!(text.starts_with("data: {"), "{text:.40}");
    }
}

#[tokio::test]
async fn a_stream_ends_when_it_is_no_longer_permitted() {
    let gate = Gate::new();
    let reply = Reply::stream()
        .chunk(delta("one"))
        .wait(&gate)
        .chunk(delta("two"))
        .chunk(DONE)
        .end();
    let upstream = Upstream::always(reply).await;
    let with = |agents: &str| {
        let rules = format!("- {{name: some, from: [{agents}], llm: [{{operations: [chat]}}]}}");
        [objects(&upstream, "{}"), agent("some", "Allow", &rules)].concat()
    };
    let (ann, bob) = (
        format!("{{spiffe: \"{ANN}\"}}"),
        format!("{{spiffe: \"{BOB}\"}}"),
    );
    let waypoint = Setup::new(&with(&format!("{ann}, {bob}"))).start().await;
    let mut streams = Vec::new();
    for who in [ANN, BOB] {
        let mut connection = waypoint.workload(who).connect().await.unwrap();
        connection.send(&chat_stream("m")).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200);
        connection.read_until("one").await.unwrap();
        streams.push(connection);
    }
    let (mut of_bob, mut of_ann) = (streams.pop().unwrap(), streams.pop().unwrap());
    waypoint.reload(&with(&ann)).await;
    let ended = String::from_utf8(of_bob.body().await.unwrap()).unwrap();
    assert_eq!(error_frame("bob", &ended)["code"], "policy_revoked");
    upstream.abandoned(1).await;
    let refused = waypoint
        .workload(BOB)
        .call(&chat_stream("m"))
        .await
        .unwrap();
    assert_eq!(
        (refused.status, refused.code()),
        (403, "model_not_allowed".into())
    );
    gate.open();
    let rest = String::from_utf8(of_ann.body().await.unwrap()).unwrap();
    assert!(rest.ends_with(DONE) && !rest.contains("error"), "{rest}");
    let event = waypoint
        .event_where("bob's stream", |event| event["code"] == "policy_revoked")
        .await;
    assert_eq!(
        (&event["principal"], &event["status"]),
        (&json!(BOB), &json!(200)),
        "{event}"
    );
    // A route that is gone permits nothing either.
    let gate = Gate::new();
    let upstream = Upstream::always(Reply::stream().chunk(delta("one")).wait(&gate).end()).await;
    waypoint.reload(&objects(&upstream, "{}")).await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    connection.head().await.unwrap();
    connection.read_until("one").await.unwrap();
    waypoint.reload("").await;
    let ended = String::from_utf8(connection.body().await.unwrap()).unwrap();
    assert_eq!(error_frame("no route", &ended)["code"], "policy_revoked");
}

#[tokio::test]
async fn streams_of_both_dialects_share_one_connection() {
    let upstream = Upstream::start(|seen| {
        if seen.target().ends_with("messages") {
            messages_stream_answer()
        } else {
            chat_stream_answer()
        }
    })
    .await;
    let waypoint = start(&upstream, "{}").await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push((http2.open(&chat_stream("m")).await.unwrap(), DONE));
        open.push((
            http2
                .open(&messages("m", &json!({"stream": true})))
                .await
                .unwrap(),
            "message_stop",
        ));
    }
    for (mut stream, terminator) in open {
        let mut text = String::new();
        while let Some(piece) = stream.piece().await.unwrap() {
            text.push_str(&String::from_utf8_lossy(&piece));
        }
        assert!(text.trim_end().contains(terminator.trim_end()), "{text}");
    }
}

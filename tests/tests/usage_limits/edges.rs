//! What a limit makes of guesses, of several targets, and of streams that end in other ways.

use super::*;

#[tokio::test]
async fn a_call_that_goes_to_another_target_is_one_call() {
    let broken = Upstream::always(error_answer(500, "scripted", &[])).await;
    let good = Upstream::always(chat_answer()).await;
    let objects = [
        provider("broken", "OpenAI", &broken, ""),
        provider("good", "OpenAI", &good, ""),
        route(
            "llm",
            "- backendRefs: [{name: broken}, {name: good, priority: 1}]\n  retry: {attempts: 1, on: [5xx], backoff: {base: 1ms, max: 2ms}}",
        ),
        usage_limit(
            "one",
            "requests: {limit: 1, calendar: Month}\nconcurrency: 1",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = call(&waypoint, ANN, &chat("m")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(call(&waypoint, ANN, &chat("m")).await.status, 429);
    assert_eq!((broken.seen().len(), good.seen().len()), (1, 1));
}

#[tokio::test]
async fn guesses_wait_for_nothing_that_is_left() {
    let upstream = Upstream::start(|seen| match seen.json()["stream"].as_bool() {
        Some(true) => chat_stream_answer(),
        _ => chat_answer(),
    })
    .await;
    let limit = usage_limit(
        "day",
        "tokens: {limit: 400, calendar: Month, count: Output}",
    );
    let waypoint = start(&upstream, &limit).await;
    // Nobody says how much it may be, and 1024 is usual.
    for number in 1..=4 {
        let answer = call(&waypoint, ANN, &chat("m")).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
        let stream = call(&waypoint, ANN, &chat_stream("m")).await;
        assert!(stream.text().ends_with(DONE), "{number}: {}", stream.text());
    }
    // What a caller says is meant.
    assert_eq!(call(&waypoint, ANN, &chat_of(399)).await.status, 429);
    // Several answers are several times as much.
    let many = chat_body("m", &json!({"n": 128}));
    let many = Request::post("/ai/v1/chat/completions", many);
    let refused = call(&waypoint, ANN, &many).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
}

/// Each event is a token at least, however little it brings.
#[tokio::test]
async fn short_tokens_are_tokens() {
    let upstream = Upstream::start(|_| {
        let piece = delta("x");
        let stream = (0..2000).fold(Reply::stream(), |stream, _| stream.chunk(&piece));
        stream.then(Step::Stall)
    })
    .await;
    let limit = usage_limit(
        "few",
        "tokens: {limit: 500, calendar: Month, count: Output}\nonExceeded: Cut",
    );
    let waypoint = start(&upstream, &limit).await;
    let answer = call(&waypoint, ANN, &chat_stream("m")).await;
    let text = answer.text();
    assert!(text.contains("insufficient_quota"), "{text}");
    let shown = text.matches("\"content\":\"x\"").count();
    assert!((300..=500).contains(&shown), "{shown}");
}

/// Only what a limit cuts ends as if it were complete.
#[tokio::test]
async fn a_truncated_answer_does_not_look_complete() {
    let start_event = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "model": "m", "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": {"input_tokens": 100_000, "output_tokens": 1}}});
    let event = format!("event: message_start\ndata: {start_event}\n\n");
    let upstream = Upstream::always(Reply::stream().chunk(event).then(Step::Close)).await;
    let limit = usage_limit(
        "few",
        "tokens: {limit: 5000, calendar: Month}\nonExceeded: Cut\ncutWith: Finish",
    );
    let waypoint = start(&upstream, &limit).await;
    let request = messages("m", &json!({"stream": true}));
    let answer = call(&waypoint, ANN, &request).await;
    let text = answer.text();
    assert!(text.contains("stream_truncated"), "{text}");
    assert!(!text.contains("message_stop"), "{text}");
}

//! What is tried again, and what is not.

use waypoint_tests::llm::{
    chat, chat_answer, chat_stream, chat_stream_answer, delta, error_answer,
};
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::ANN;

use super::{RETRY, Row, check, reset, row, start};

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

//! Servers that fail.

use serde_json::json;
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, mcp_proxy};

use super::{call_tool, message};

#[tokio::test]
async fn a_server_that_fails_is_answered_for() {
    for (case, reply, status, code) in [
        (
            "does not accept us",
            Reply::whole(
                401,
                &[("www-authenticate", "Bearer resource_metadata=\"x\"")],
                "",
            ),
            502,
            "upstream_auth",
        ),
        (
            "resets",
            Reply::default().then(Step::Reset),
            502,
            "upstream_reset",
        ),
        (
            "is silent",
            Reply::default().then(Step::Stall),
            504,
            "upstream_timeout",
        ),
        (
            "is silent in its answer",
            Reply::raw(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
            )
            .then(Step::Stall),
            504,
            "upstream_timeout",
        ),
        (
            "answers half",
            Reply::whole(
                200,
                &[("content-type", "application/json")],
                "{\"jsonrpc\":\"2.0\"",
            ),
            502,
            "upstream_bad_answer",
        ),
        (
            "gives two sessions",
            Reply::whole(
                200,
                &[
                    ("content-type", "application/json"),
                    ("mcp-session-id", "a"),
                    ("mcp-session-id", "b"),
                ],
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}",
            ),
            502,
            "upstream_bad_answer",
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let waypoint = Setup::new(&mcp_proxy("tools", &upstream, "timeouts: {request: 300ms}"))
            .start()
            .await;
        let answer = waypoint
            .workload(ANN)
            .call(&call_tool(false, "echo"))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        // The error belongs to the request it answers.
        assert_eq!(answer.json()["id"], 7, "{case}");
        assert_eq!(answer.header("www-authenticate"), None, "{case}");
        assert_eq!(
            upstream.seen().len(),
            1,
            "{case}: a call may have had its effect"
        );
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_for_its_request() {
    let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\n\n";
    let large = format!("data: {}\n\n", "a".repeat(70_000));
    for (case, reply, code) in [
        (
            "reset",
            Reply::stream().chunk(progress).then(Step::Reset),
            "upstream_reset",
        ),
        (
            "silence",
            Reply::stream().chunk(progress).then(Step::Stall),
            "stream_idle",
        ),
        (
            "an event that is too large",
            Reply::stream()
                .chunk(progress)
                .chunk(&large)
                .then(Step::Stall),
            "upstream_bad_answer",
        ),
        (
            "no JSON",
            Reply::stream()
                .chunk(progress)
                .chunk("data: {\"json\n\n")
                .then(Step::Stall),
            "upstream_bad_answer",
        ),
        (
            "an answer to somebody else",
            Reply::stream()
                .chunk(progress)
                .chunk("data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n\n")
                .then(Step::Stall),
            "upstream_bad_answer",
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let setup = Setup::new(&mcp_proxy(
            "tools",
            &upstream,
            "timeouts: {streamIdle: 400ms}",
        ));
        let waypoint = setup.limits("sseEventBytes: 65536").start().await;
        let answer = waypoint
            .workload(ANN)
            .call(&call_tool(false, "echo"))
            .await
            .unwrap();
        let text = answer.text();
        assert!(text.starts_with(progress), "{case}: {text}");
        let error = message(&answer);
        assert_eq!(
            (&error["id"], &error["error"]["data"]["code"]),
            (&json!(7), &json!(code)),
            "{case}: {text}"
        );
    }
}

//! Answers that cannot be used.

use serde_json::json;
use waypoint_tests::llm::{chat, chat_stream_answer, messages};
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, provider, route};

use super::assert_bounded_wait;

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

//! What comes back: usage, codings, and what may surround an answer.

use serde_json::{Value, json};
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer, chat_body, chat_stream, messages, messages_answer};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, provider, route};

use super::ONE;

#[tokio::test]
async fn usage_is_asked_for_counted_and_hidden_unless_it_was_wanted() {
    use waypoint_tests::llm::{chat_stream_answer, messages_stream_answer, usage_chunk};
    let openai = Upstream::start(|seen| match seen.json()["stream"].as_bool() {
        Some(true) => chat_stream_answer(),
        _ => chat_answer(),
    })
    .await;
    let anthropic = Upstream::start(|seen| match seen.json()["stream"].as_bool() {
        Some(true) => messages_stream_answer(),
        _ => messages_answer(),
    })
    .await;
    let objects = [
        provider("openai", "OpenAI", &openai, ""),
        provider("anthropic", "Anthropic", &anthropic, ""),
        route("llm", "- backendRefs: [{name: openai}, {name: anthropic}]"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let streamed = |options: Value| {
        let mut more = json!({"stream": true});
        if !options.is_null() {
            more["stream_options"] = options;
        }
        Request::post("/ai/v1/chat/completions", chat_body("m", &more))
    };
    let usage = usage_chunk();
    for (case, request, input, output, shown) in [
        ("plain chat", chat("m"), 11, 7, None),
        ("plain messages", messages("m", &json!({})), 13, 5, None),
        (
            "streamed messages",
            messages("m", &json!({"stream": true})),
            13,
            5,
            None,
        ),
        ("streamed chat", chat_stream("m"), 11, 7, Some(false)),
        (
            "usage refused",
            streamed(json!({"include_usage": false})),
            11,
            7,
            Some(false),
        ),
        (
            "other options",
            streamed(json!({"include_obfuscation": false})),
            11,
            7,
            Some(false),
        ),
        ("no options", streamed(json!({})), 11, 7, Some(false)),
        (
            "usage wanted",
            streamed(json!({"include_usage": true})),
            11,
            7,
            Some(true),
        ),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["tokens"]["input"], input, "{case}: {event}");
        assert_eq!(event["tokens"]["output"], output, "{case}: {event}");
        assert_eq!(event["tokens"]["source"], "upstream", "{case}: {event}");
        if let Some(shown) = shown {
            let asked = openai.last().json()["stream_options"]["include_usage"].clone();
            assert_eq!(asked, true, "{case}");
            assert_eq!(
                answer.text().contains(&usage),
                shown,
                "{case}: {}",
                answer.text()
            );
            assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}");
        }
    }
    assert_eq!(
        openai
            .seen()
            .iter()
            .filter(|seen| seen.json()["stream_options"]["include_obfuscation"] == false)
            .count(),
        1
    );
    for (kind, total) in [
        ("input", 11.0 * 6.0 + 13.0 * 2.0),
        ("output", 7.0 * 6.0 + 5.0 * 2.0),
    ] {
        let labels = [("gen_ai_token_type", kind)];
        waypoint
            .metric_reaches("gen_ai_client_token_usage_sum", &labels, total)
            .await;
        assert_eq!(
            waypoint
                .metrics()
                .await
                .sum("gen_ai_client_token_usage_sum", &labels),
            total
        );
    }
}

#[tokio::test]
async fn compressed_answers_are_read_all_the_same() {
    use std::io::Write as _;
    let plain = b"{\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}";
    let stream = [
        waypoint_tests::llm::delta("one"),
        waypoint_tests::llm::usage_chunk(),
        waypoint_tests::llm::DONE.into(),
    ]
    .concat();
    type Coder = fn(&[u8]) -> Vec<u8>;
    let gzip: Coder = |bytes| {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        coder.write_all(bytes).unwrap();
        coder.finish().unwrap()
    };
    let deflate: Coder = |bytes| {
        let mut coder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        coder.write_all(bytes).unwrap();
        coder.finish().unwrap()
    };
    let brotli: Coder = |bytes| {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, 20)
            .write_all(bytes)
            .unwrap();
        out
    };
    let zstandard: Coder = |bytes| zstd::encode_all(bytes, 3).unwrap();
    for (coding, coder) in [
        ("gzip", gzip),
        ("deflate", deflate),
        ("br", brotli),
        ("zstd", zstandard),
    ] {
        let (whole, events) = (coder(plain), coder(stream.as_bytes()));
        let name = coding;
        let upstream = Upstream::start(move |seen| match seen.json()["stream"].as_bool() {
            Some(true) => {
                let head = [
                    ("content-type", "text/event-stream"),
                    ("content-encoding", name),
                ];
                let (one, two) = events.split_at(events.len() / 2);
                Reply::chunked(200, &head).chunk(one).chunk(two).end()
            }
            _ => Reply::whole(
                200,
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", name),
                ],
                &whole,
            ),
        })
        .await;
        let objects = [
            provider("openai", "OpenAI", &upstream, ""),
            route("llm", ONE),
        ];
        let waypoint = Setup::new(&objects.concat()).start().await;
        let client = waypoint.developer();
        let answer = client
            .call(&chat("m").header("accept-encoding", "gzip, br"))
            .await
            .unwrap();
        assert_eq!(
            upstream.last().header("accept-encoding"),
            Some("identity"),
            "{coding}"
        );
        assert_eq!(answer.header("content-encoding"), None, "{coding}");
        assert_eq!(answer.body, plain, "{coding}: {}", answer.text());
        assert_eq!(
            waypoint.event(&answer).await["tokens"]["output"],
            7,
            "{coding}"
        );
        let answer = client.call(&chat_stream("m")).await.unwrap();
        assert!(
            answer.text().ends_with("data: [DONE]\n\n"),
            "{coding}: {}",
            answer.text()
        );
        assert_eq!(
            waypoint.event(&answer).await["tokens"]["output"],
            7,
            "{coding}"
        );
    }
}

#[tokio::test]
async fn interim_answers_and_trailers_do_not_confuse() {
    let body = "{\"choices\":[]}";
    let length = body.len();
    let upstream = Upstream::in_turn(vec![
        Reply::raw(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")),
        Reply::chunked(200, &[("content-type", "application/json"), ("trailer", "x-late")]).chunk(body).end_with("x-late: 1"),
        Reply::raw(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}")).then(waypoint_tests::upstream::Step::Close),
        Reply::whole(200, &[("content-type", "application/json")], body),
    ])
    .await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", ONE),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    for case in ["interim", "trailer", "until close", "plain"] {
        let mut connection = waypoint.developer().connect().await.unwrap();
        let request = chat("m").header("expect", "100-continue");
        let answer = connection.call(&request).await.expect(case);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{case}"
        );
        // The caller is asked to go on by us, at most once, and gets nothing of the upstream's.
        assert!(
            connection.interim.len() <= 1,
            "{case}: {:?}",
            connection.interim
        );
        assert!(
            connection.interim.iter().all(|status| *status == 100),
            "{case}"
        );
        assert_eq!(upstream.last().header("expect"), None, "{case}");
    }
    assert_eq!(upstream.seen().len(), 4);
}

//! What the official SDKs make of a limit: which error they raise, and whether they try again.

use serde_json::json;
use waypoint_tests::clients::{Outcome, Sdk};
use waypoint_tests::llm::{chat_answer, delta, messages_answer};
use waypoint_tests::upstream::{Reply, Seen, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, provider, route, usage_limit};

const SDKS: [(Sdk, &str, &str); 4] = [
    (Sdk::OpenAiPython, "/ai/v1", "chat"),
    (Sdk::OpenAiNode, "/ai/v1", "chat"),
    (Sdk::AnthropicPython, "/ai", "messages"),
    (Sdk::AnthropicNode, "/ai", "messages"),
];

/// Answers in either dialect; a stream never ends by itself.
fn script(seen: &Seen) -> Reply {
    let is_chat = seen.target().ends_with("/chat/completions");
    let is_stream = seen.json()["stream"] == true;
    let text = "word ".repeat(16);
    let piece = match is_chat {
        true => delta(&text),
        false => format!(
            "event: content_block_delta\ndata: {}\n\n",
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
        ),
    };
    let begin = match is_chat {
        true => Reply::stream(),
        false => Reply::stream()
            .chunk(format!(
                "event: message_start\ndata: {}\n\n",
                json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
                    "role": "assistant", "model": "m", "content": [], "stop_reason": null,
                    "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}}})
            ))
            .chunk(format!(
                "event: content_block_start\ndata: {}\n\n",
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            )),
    };
    match (is_stream, is_chat) {
        (true, _) => (0..100)
            .fold(begin, |stream, _| stream.chunk(&piece))
            .then(Step::Stall),
        (false, true) => chat_answer(),
        (false, false) => messages_answer(),
    }
}

/// Plays one scenario with each SDK, each with buckets of its own.
async fn play(limit: &str, options: &[&str], streams: bool, check: impl Fn(Sdk, &[Outcome])) {
    let upstream = Upstream::start(script).await;
    for (sdk, path, scenario) in SDKS {
        let scenario = if streams { "stream" } else { scenario };
        let objects = [
            provider("openai", "OpenAI", &upstream, ""),
            provider("anthropic", "Anthropic", &upstream, ""),
            route(
                "llm",
                "- backendRefs: [{name: openai}, {name: anthropic}]\n  retry: {attempts: 0}",
            ),
            usage_limit("agents", limit),
        ];
        let waypoint = Setup::new(&objects.concat()).start().await;
        let credentials = waypoint
            .authority
            .credentials(waypoint.path("").as_path(), &waypoint.authority.agent(ANN))
            .unwrap();
        let url = format!("https://127.0.0.1:{}{path}", waypoint.ports.mtls);
        let scenarios = [scenario, scenario];
        let outcomes = sdk.run(&url, Some(&credentials), options, &scenarios);
        check(sdk, &outcomes.await.unwrap());
    }
}

#[tokio::test]
async fn a_short_wait_is_waited_for() {
    let limit = "requests: {limit: 60, window: 1m, burst: 1}";
    let check = |sdk, outcomes: &[Outcome]| {
        let [first, second] = outcomes else {
            panic!("{outcomes:#?}");
        };
        assert!(first.ok && second.ok, "{sdk:?}: {outcomes:#?}");
        assert!(second.requests <= 3, "{sdk:?}: {outcomes:#?}");
    };
    play(limit, &["--max-retries", "2"], false, check).await;
}

#[tokio::test]
async fn an_exhausted_quota_is_an_error_at_once() {
    let limit = "requests: {limit: 1, calendar: Month}";
    let check = |sdk, outcomes: &[Outcome]| {
        let second = &outcomes[1];
        assert!(outcomes[0].ok && !second.ok, "{sdk:?}: {outcomes:#?}");
        assert_eq!(second.status, Some(429), "{sdk:?}: {second:#?}");
        let class = second.error_class.iter().chain(&second.error_bases);
        let mut classes = class.map(String::as_str);
        assert!(
            classes.any(|class| class == "RateLimitError"),
            "{sdk:?}: {second:#?}"
        );
        assert_eq!(second.requests, 1, "{sdk:?}: {second:#?}");
        let said = second.message.as_deref().unwrap_or_default();
        assert!(said.contains("agents/agents"), "{sdk:?}: {said}");
    };
    play(limit, &["--max-retries", "2"], false, check).await;
}

#[tokio::test]
async fn what_never_fits_is_an_error_at_once() {
    let check = |sdk, outcomes: &[Outcome]| {
        for outcome in outcomes {
            assert!(!outcome.ok, "{sdk:?}: {outcome:#?}");
            assert_eq!(outcome.status, Some(413), "{sdk:?}: {outcome:#?}");
            assert_eq!(outcome.requests, 1, "{sdk:?}: {outcome:#?}");
        }
    };
    let limit = "tokens: {limit: 5, window: 1h}";
    play(limit, &["--max-retries", "2"], false, check).await;
}

#[tokio::test]
async fn a_cut_stream_raises() {
    let check = |sdk, outcomes: &[Outcome]| {
        let cut = &outcomes[0];
        assert!(!cut.ok, "{sdk:?}: {cut:#?}");
        let mut classes = cut.error_class.iter().chain(&cut.error_bases);
        assert!(
            classes.any(|class| class == "APIError"),
            "{sdk:?}: {cut:#?}"
        );
        let said = format!("{:?} {:?}", cut.message, cut.kind);
        assert!(
            said.contains("insufficient_quota") || said.contains("limit agents/agents"),
            "{sdk:?}: {cut:#?}"
        );
    };
    let limit = "tokens: {limit: 500, window: 1h}\nonExceeded: Cut";
    play(limit, &[], true, check).await;
}

#[tokio::test]
async fn a_stream_that_is_to_end_softly_raises_nothing() {
    let check = |sdk, outcomes: &[Outcome]| {
        let ended = &outcomes[0];
        assert!(ended.ok, "{sdk:?}: {ended:#?}");
    };
    let limit = "tokens: {limit: 500, window: 1h}\nonExceeded: Cut\ncutWith: Finish";
    play(limit, &[], true, check).await;
}

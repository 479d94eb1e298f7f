//! Usage limits: reserved before a call, settled after it, and streams that are cut.

mod edges;
mod money;
mod sdks;
mod shared;
mod storm;

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Request, events};
use waypoint_tests::llm::{
    DONE, chat, chat_answer, chat_body, chat_stream, chat_stream_answer, delta, error_answer,
    messages, messages_answer, usage_chunk,
};
use waypoint_tests::mcp_server::legacy;
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, mcp_proxy, provider, route, usage_limit,
};

fn llm(upstream: &Upstream, limits: &str) -> String {
    [
        provider("openai", "OpenAI", upstream, ""),
        provider("anthropic", "Anthropic", upstream, ""),
        route(
            "llm",
            "- backendRefs: [{name: openai}, {name: anthropic}]\n  retry: {attempts: 0}",
        ),
        limits.into(),
    ]
    .concat()
}

async fn start(upstream: &Upstream, limits: &str) -> Waypoint {
    Setup::new(&llm(upstream, limits)).start().await
}

async fn call(waypoint: &Waypoint, who: &str, request: &Request) -> Answer {
    waypoint.workload(who).call(request).await.unwrap()
}

/// A chat that accepts so much output.
fn chat_of(most: u64) -> Request {
    let body = chat_body("m", &json!({"max_tokens": most}));
    Request::post("/ai/v1/chat/completions", body)
}

#[tokio::test]
async fn requests_are_counted_by_principal() {
    let upstream = Upstream::start(|seen| match seen.target() {
        "/v1/messages" => messages_answer(),
        _ => chat_answer(),
    })
    .await;
    let limit = usage_limit("few", "per: [Principal]\nrequests: {limit: 2, window: 1h}");
    let waypoint = start(&upstream, &limit).await;
    for request in [chat("m"), messages("m", &json!({}))] {
        assert_eq!(call(&waypoint, ANN, &request).await.status, 200);
    }
    let refused = call(&waypoint, ANN, &chat("m")).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(refused.header("retry-after"), None);
    let error = &refused.json()["error"];
    assert_eq!(error["type"], "insufficient_quota");
    assert_eq!(error["code"], "insufficient_quota");
    let said = error["message"].as_str().unwrap();
    assert!(said.contains("agents/few") && !said.contains('2'), "{said}");
    let refused = call(&waypoint, ANN, &messages("m", &json!({}))).await;
    let error = &refused.json()["error"];
    assert_eq!(error["type"], "rate_limit_error", "{error}");
    assert_eq!(
        error["details"]["error_code"],
        "enforced_spend_limit_reached"
    );
    let event = waypoint.event(&refused).await;
    assert_eq!(event["code"], "insufficient_quota", "{event}");
    assert_eq!(event["decision"], "deny", "{event}");
    assert_eq!(event["by"]["kind"], "UsageLimit", "{event}");
    assert_eq!(event["flags"], json!(["RL"]), "{event}");
    // Another's are another's.
    assert_eq!(call(&waypoint, BOB, &chat("m")).await.status, 200);
    assert_eq!(upstream.seen().len(), 3);
    let labels = [("kind", "UsageLimit"), ("decision", "deny")];
    waypoint
        .metric_reaches("waypoint_decisions_total", &labels, 2.0)
        .await;
}

#[tokio::test]
async fn a_short_wait_is_told() {
    let upstream = Upstream::always(chat_answer()).await;
    let limit = usage_limit("rate", "requests: {limit: 6, window: 1m, burst: 1}");
    let waypoint = start(&upstream, &limit).await;
    assert_eq!(call(&waypoint, ANN, &chat("m")).await.status, 200);
    let refused = call(&waypoint, BOB, &chat("m")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.code(), "rate_limit_exceeded");
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn what_was_not_used_comes_back() {
    let upstream = Upstream::always(chat_answer()).await;
    let limit = usage_limit("day", "tokens: {limit: 1000, calendar: Day}");
    let waypoint = start(&upstream, &limit).await;
    // Each takes 900 and some, and uses 18.
    for number in 1..=5 {
        let answer = call(&waypoint, ANN, &chat_of(900)).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("1000"));
        let left = (1000 - 18 * number).to_string();
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some(&*left));
        assert!(answer.header("x-ratelimit-reset-tokens").is_some());
    }
    let refused = call(&waypoint, ANN, &chat_of(900)).await;
    assert_eq!(refused.code(), "insufficient_quota", "{}", refused.text());
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("910"));
    // A smaller one fits.
    assert_eq!(call(&waypoint, ANN, &chat_of(500)).await.status, 200);
    let never = call(&waypoint, ANN, &chat_of(2000)).await;
    assert_eq!(never.status, 413);
    assert_eq!(never.code(), "request_exceeds_limit");
    assert_eq!(never.header("x-should-retry"), Some("false"));
    // What a new configuration says of the same limit holds for what was used before it.
    let fewer = usage_limit("day", "tokens: {limit: 600, calendar: Day}");
    waypoint.reload(&llm(&upstream, &fewer)).await;
    assert_eq!(
        call(&waypoint, ANN, &chat_of(500)).await.code(),
        "insufficient_quota"
    );
    assert_eq!(call(&waypoint, ANN, &chat_of(400)).await.status, 200);
}

#[tokio::test]
async fn what_failed_used_nothing() {
    let upstream = Upstream::start(|seen| match seen.json()["model"].as_str() {
        Some("m") => chat_answer(),
        _ => error_answer(500, "scripted", &[]),
    })
    .await;
    let limit = usage_limit("day", "tokens: {limit: 1000, calendar: Day}");
    let waypoint = start(&upstream, &limit).await;
    let failing = chat_body("failing", &json!({"max_tokens": 900}));
    let failing = Request::post("/ai/v1/chat/completions", failing);
    for _ in 0..5 {
        assert_eq!(call(&waypoint, ANN, &failing).await.status, 500);
    }
    assert_eq!(call(&waypoint, ANN, &chat_of(900)).await.status, 200);
    // What nobody can know is kept: the upstream may have written all of it.
    let silent = Upstream::always(Reply::raw("").then(Step::Reset)).await;
    waypoint.reload(&llm(&silent, &limit)).await;
    assert_eq!(call(&waypoint, ANN, &chat_of(900)).await.status, 502);
    assert_eq!(
        call(&waypoint, ANN, &chat_of(900)).await.code(),
        "insufficient_quota"
    );
}

/// The beginning of a stream: 200 pieces of some 20 tokens each.
fn long_stream() -> Reply {
    let text = delta(&"word ".repeat(16));
    (0..200).fold(Reply::stream(), |stream, _| stream.chunk(&text))
}

fn written(answer: &Answer) -> usize {
    let text = answer.text();
    let data = events(&text);
    let contents = data.iter().filter_map(|data| {
        let chunk: Value = serde_json::from_str(data).ok()?;
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.len())
    });
    contents.sum()
}

#[tokio::test]
async fn a_stream_is_cut_where_its_limit_ends() {
    let upstream = Upstream::always(long_stream().then(Step::Stall)).await;
    let limit = "tokens: {limit: 500, window: 1h}\nonExceeded: Cut";
    let waypoint = start(&upstream, &usage_limit("cut", limit)).await;
    for version in ["http1", "http2"] {
        let client = waypoint.workload(ANN);
        let answer = match version {
            "http1" => client.call(&chat_stream("m")).await.unwrap(),
            _ => {
                let changed = usage_limit("other", limit);
                waypoint.reload(&llm(&upstream, &changed)).await;
                let mut connection = client.connect_http2().await.unwrap();
                connection.call(&chat_stream("m")).await.unwrap()
            }
        };
        assert_eq!(answer.status, 200, "{version}: {}", answer.text());
        let text = answer.text();
        let (_, frame) = text.rsplit_once("event: error\n").expect("an error");
        let error: Value = serde_json::from_str(&events(frame)[0]).unwrap();
        assert_eq!(error["code"], "insufficient_quota", "{version}: {error}");
        assert_eq!(error["error"]["type"], "insufficient_quota", "{error}");
        // Four bytes a token; never more than the limit, and not cut long before it.
        let tokens = written(&answer) / 4;
        assert!((300..=500).contains(&tokens), "{version}: {tokens}");
        let event = waypoint.event(&answer).await;
        assert_eq!(event["code"], "insufficient_quota", "{event}");
        assert_eq!(event["by"]["kind"], "UsageLimit", "{event}");
    }
    upstream.abandoned(2).await;
    let next = call(&waypoint, ANN, &chat_of(100)).await;
    assert_eq!(next.code(), "insufficient_quota", "{}", next.text());
}

#[tokio::test]
async fn a_stream_may_also_go_on_into_debt() {
    let upstream = Upstream::start(|seen| match seen.json()["stream"] == true {
        true => long_stream().chunk(usage_chunk()).chunk(DONE).end(),
        false => chat_answer(),
    })
    .await;
    let limit = usage_limit("debt", "tokens: {limit: 500, window: 1h, count: Output}");
    let waypoint = start(&upstream, &limit).await;
    let answer = call(&waypoint, ANN, &chat_stream("m")).await;
    assert!(answer.text().ends_with(DONE), "{}", answer.text());
    // What the provider says in the end counts: 7 tokens.
    let next = call(&waypoint, ANN, &chat_of(490)).await;
    assert_eq!(next.status, 200, "{}", next.text());
}

#[tokio::test]
async fn a_stop_takes_hold_of_running_streams() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::stream()
            .chunk(delta("one"))
            .wait(&held)
            .chunk(DONE)
            .end()
    })
    .await;
    let waypoint = start(&upstream, "").await;
    let mut running = waypoint.workload(ANN).connect().await.unwrap();
    running.send(&chat_stream("m")).await.unwrap();
    running.head().await.unwrap();
    running.read_until("one").await.unwrap();
    let stop = usage_limit(
        "stop",
        "llm: [{models: [m]}]\nrequests: {limit: 0, window: 1s}",
    );
    waypoint.reload(&llm(&upstream, &stop)).await;
    running.read_until("limit agents/stop").await.unwrap();
    let refused = call(&waypoint, BOB, &chat("m")).await;
    assert_eq!(refused.code(), "insufficient_quota");
    // Another model is not meant.
    gate.open();
    assert_eq!(call(&waypoint, BOB, &chat_stream("n")).await.status, 200);
}

#[tokio::test]
async fn calls_at_the_same_time_are_counted() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::stream()
            .chunk(delta("one"))
            .wait(&held)
            .chunk(DONE)
            .end()
    })
    .await;
    let limit = usage_limit("one", "per: [Principal]\nconcurrency: 1");
    let waypoint = Arc::new(start(&upstream, &limit).await);
    let mut running = waypoint.workload(ANN).connect().await.unwrap();
    running.send(&chat_stream("m")).await.unwrap();
    running.head().await.unwrap();
    running.read_until("one").await.unwrap();
    let refused = call(&waypoint, ANN, &chat_stream("m")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.code(), "rate_limit_exceeded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    gate.open();
    assert_eq!(call(&waypoint, BOB, &chat_stream("m")).await.status, 200);
    running.read_until("[DONE]").await.unwrap();
    // Who leaves makes room too.
    drop(running);
    until("there is room again", || async {
        let answer = call(&waypoint, ANN, &chat_stream("m")).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Events of an Anthropic stream.
fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The first, which says what the input was.
fn message_start(input: u64) -> String {
    let usage = json!({"input_tokens": input, "output_tokens": 1});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage});
    event(
        "message_start",
        &json!({"type": "message_start", "message": message}),
    )
}

fn text(text: &str) -> String {
    let delta = json!({"type": "text_delta", "text": text});
    event(
        "content_block_delta",
        &json!({"type": "content_block_delta", "index": 0, "delta": delta}),
    )
}

#[tokio::test]
async fn input_that_was_more_than_it_looked_counts_while_the_stream_runs() {
    // A picture, say, that the request only names.
    let upstream = Upstream::start(|seen| {
        let input = seen.json()["metadata"]["user_id"].as_str().unwrap().parse();
        let start = Reply::stream().chunk(message_start(input.unwrap()));
        let text = text(&"word ".repeat(16));
        (0..60)
            .fold(start, |stream, _| stream.chunk(&text))
            .then(Step::Stall)
    })
    .await;
    let waypoint = start(&upstream, "").await;
    for (input, most, window) in [(700, 300, "1h"), (5000, 0, "2h")] {
        // Another window is another bucket.
        let limit = format!("tokens: {{limit: 1000, window: {window}}}\nonExceeded: Cut");
        waypoint
            .reload(&llm(&upstream, &usage_limit("cut", &limit)))
            .await;
        let more =
            json!({"stream": true, "max_tokens": 4000, "metadata": {"user_id": input.to_string()}});
        let answer = call(&waypoint, ANN, &messages("m", &more)).await;
        let said = answer.text();
        assert_eq!(answer.status, 200, "{said}");
        assert!(said.contains("enforced_spend_limit_reached"), "{said}");
        assert!(said.contains("message_start"), "{said}");
        let tokens = said.matches("word ").count() * 5 / 4;
        assert!(tokens <= most, "{input}: {tokens}");
        assert!(tokens + 150 >= most, "{input}: {tokens}");
    }
}

#[tokio::test]
async fn a_whole_answer_is_not_cut_at_its_last_word() {
    // What was thought without being shown is told with the last chunk alone.
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 5000, "total_tokens": 5011});
    let usage = json!({"object": "chat.completion.chunk", "choices": [], "usage": usage});
    let last = format!("data: {usage}\n\n");
    let upstream = Upstream::always(
        Reply::stream()
            .chunk(delta("one"))
            .chunk(last)
            .chunk(DONE)
            .end(),
    )
    .await;
    let limit = "tokens: {limit: 1000, window: 1h}\nonExceeded: Cut";
    let waypoint = start(&upstream, &usage_limit("cut", limit)).await;
    let answer = call(&waypoint, ANN, &chat_stream("m")).await;
    assert!(answer.text().ends_with(DONE), "{}", answer.text());
    // It is owed.
    let next = call(&waypoint, ANN, &chat_of(1)).await;
    assert_eq!(next.code(), "insufficient_quota", "{}", next.text());
}

#[tokio::test]
async fn what_follows_an_error_is_counted_and_cut() {
    let error = json!({"error": {"message": "scripted", "type": "server_error", "code": null}});
    let error = format!("data: {error}\n\n");
    let text = delta(&"word ".repeat(16));
    let stream = Reply::stream().chunk(delta("one")).chunk(error);
    let stream = (0..200).fold(stream, |stream, _| stream.chunk(&text));
    let upstream = Upstream::always(stream.then(Step::Stall)).await;
    let limit = "tokens: {limit: 500, window: 1h}\nonExceeded: Cut";
    let waypoint = start(&upstream, &usage_limit("cut", limit)).await;
    let answer = call(&waypoint, ANN, &chat_stream("m")).await;
    assert!(
        answer.text().contains("insufficient_quota"),
        "{}",
        answer.text()
    );
    assert!(written(&answer) / 4 <= 500);
}

#[tokio::test]
async fn a_lost_try_is_counted_once() {
    let lost = Upstream::always(Reply::raw("").then(Step::Reset)).await;
    let good = Upstream::always(chat_answer()).await;
    let limits = |name: &str| {
        usage_limit(
            name,
            "tokens: {limit: 10000, calendar: Month, count: Output}",
        )
    };
    let objects = |rules: &str, limit: &str| {
        [
            provider("lost", "OpenAI", &lost, ""),
            provider("good", "OpenAI", &good, ""),
            route("llm", rules),
            limits(limit),
        ]
        .concat()
    };
    let retry = "retry: {attempts: 1, on: [reset], backoff: {base: 1ms, max: 2ms}}";
    let failover =
        format!("- backendRefs: [{{name: lost}}, {{name: good, priority: 1}}]\n  {retry}");
    let waypoint = Setup::new(&objects(&failover, "failover")).start().await;
    let answer = call(&waypoint, ANN, &chat_of(900)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Of the one that was lost all that it held, and 7 of the other.
    let left = answer.header("x-ratelimit-remaining-tokens");
    assert_eq!(left, Some("9093"));
    // Both tries at the same one count alike.
    let again = format!("- backendRefs: [{{name: lost}}]\n  {retry}");
    waypoint.reload(&objects(&again, "again")).await;
    assert_eq!(call(&waypoint, ANN, &chat_of(900)).await.status, 502);
    let only = format!("- backendRefs: [{{name: good}}]\n  {retry}");
    waypoint.reload(&objects(&only, "again")).await;
    let answer = call(&waypoint, ANN, &chat_of(900)).await;
    let left = answer.header("x-ratelimit-remaining-tokens");
    assert_eq!(left, Some("8193"), "{}", answer.text());
}

#[tokio::test]
async fn a_message_that_reaches_one_thing_in_two_ways_is_one_call() {
    let upstream = Upstream::start(|seen| {
        let message = seen.json();
        Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": {"completion": {"values": []}}}))
    })
    .await;
    let limit = usage_limit("one", "requests: {limit: 2, window: 1h}\nconcurrency: 1");
    let waypoint = Setup::new(&[mcp_proxy("tools", &upstream, ""), limit].concat())
        .start()
        .await;
    let params = json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "b"}});
    let complete = Request::post("/mcp/tools/", legacy(7, "completion/complete", &params));
    for status in [200, 200, 429] {
        let answer = call(&waypoint, ANN, &complete).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_stop_keeps_event_streams_from_beginning() {
    let upstream = Upstream::always(Reply::stream().chunk(": open\n\n").then(Step::Stall)).await;
    let stop = usage_limit("stop", "concurrency: 0");
    let waypoint = Setup::new(&[mcp_proxy("tools", &upstream, ""), stop].concat())
        .start()
        .await;
    let request = Request::new("GET", "/mcp/tools/").header("accept", "text/event-stream");
    let refused = call(&waypoint, ANN, &request).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(
        refused.json()["error"]["data"]["code"],
        "insufficient_quota"
    );
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn on_trial_nothing_is_refused() {
    let upstream = Upstream::always(chat_stream_answer()).await;
    let limit = usage_limit(
        "trial",
        "mode: DryRun\nrequests: {limit: 1, window: 1h}\ntokens: {limit: 100, window: 1h}\nonExceeded: Cut",
    );
    let waypoint = start(&upstream, &limit).await;
    for number in 0..3 {
        let answer = call(&waypoint, ANN, &chat_stream("m")).await;
        assert!(answer.text().ends_with(DONE), "{}", answer.text());
        let event = waypoint.event(&answer).await;
        let told = event["would_deny"][0]["kind"] == "UsageLimit";
        assert_eq!(told, number > 0, "{number}: {event}");
        assert_eq!(event["decision"], "allow", "{event}");
    }
}

#[tokio::test]
async fn tools_have_limits_too() {
    let upstream = Upstream::start(|seen| {
        let message = seen.json();
        Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}))
    })
    .await;
    let limit = usage_limit(
        "dear",
        "mcp: [{servers: [tools], methods: [{name: tools/call, params: [dear]}]}]\nper: [Principal, Tool]\nrequests: {limit: 1, window: 30s}",
    );
    let waypoint = Setup::new(&[mcp_proxy("tools", &upstream, ""), limit].concat())
        .start()
        .await;
    let tool = |name: &str| {
        let params = json!({"name": name, "arguments": {}});
        Request::post("/mcp/tools/", legacy(7, "tools/call", &params))
    };
    assert_eq!(call(&waypoint, ANN, &tool("dear")).await.status, 200);
    let refused = call(&waypoint, ANN, &tool("dear")).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let error = refused.json();
    assert_eq!(error["id"], 7);
    assert_eq!(
        error["error"]["data"]["code"], "rate_limit_exceeded",
        "{error}"
    );
    let event = waypoint.event(&refused).await;
    assert_eq!(event["by"]["kind"], "UsageLimit", "{event}");
    for (who, name) in [(ANN, "cheap"), (BOB, "dear"), (ANN, "cheap")] {
        assert_eq!(
            call(&waypoint, who, &tool(name)).await.status,
            200,
            "{name}"
        );
    }
    assert_eq!(upstream.seen().len(), 4);
}

//! Many callers on one bucket: what is admitted stays within it, and what is left is exactly what
//! nobody used. Ten seconds, or `WAYPOINT_STORM_SECONDS`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{DONE, chat_body, delta, error_answer};
use waypoint_tests::upstream::{Reply, Seen, Step, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, provider, route, usage_limit};

const CLIENTS: u64 = 64;
/// Output tokens at once, and in [`WINDOW`].
const LIMIT: u64 = 10_000;
const WINDOW: Duration = Duration::from_secs(10);
/// All that is ever used is counted in this, too.
const SUM: u64 = 1_000_000_000;
/// What a stream can go beyond its limit.
const LEASE: u64 = 128;
/// What each call accepts, which is more than any uses.
const MOST: u64 = 100;
/// What a long stream writes, a piece at a time: more than there is.
const LONG: u64 = 4 * LIMIT;
const PIECE: u64 = 20;

fn duration() -> Duration {
    let seconds = std::env::var("WAYPOINT_STORM_SECONDS");
    let seconds = seconds.ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// What a call does, as its `user` says: `KIND-TOKENS-NUMBER`.
fn told(seen: &Seen) -> (String, u64, String) {
    let body = seen.json();
    let user = body["user"].as_str().unwrap();
    let mut parts = user.split('-');
    let kind = parts.next().unwrap().to_owned();
    let tokens = parts.next().unwrap().parse().unwrap();
    (kind, tokens, user.to_owned())
}

/// So many tokens of text: four bytes are counted as one.
fn text(tokens: u64) -> String {
    "word".repeat(usize::try_from(tokens).unwrap())
}

fn usage(tokens: u64) -> serde_json::Value {
    json!({"prompt_tokens": 11, "completion_tokens": tokens, "total_tokens": 11 + tokens})
}

/// A provider that does what it is told, and adds up what it has written.
pub(super) async fn script(
    spent: Arc<AtomicU64>,
    tried: Arc<Mutex<HashSet<String>>>,
    fails_failover: bool,
) -> Arc<Upstream> {
    Upstream::start(move |seen| {
        let (kind, tokens, user) = told(seen);
        let is_first = tried.lock().unwrap().insert(user);
        let fails = match kind.as_str() {
            "error" => true,
            "retry" => is_first,
            "failover" => fails_failover,
            _ => false,
        };
        if fails {
            let status = if kind == "error" { 500 } else { 503 };
            return error_answer(status, "scripted", &[]);
        }
        if kind != "long" {
            spent.fetch_add(tokens, Ordering::SeqCst);
        }
        match kind.as_str() {
            "stream" => Reply::stream()
                .chunk(delta("one"))
                .chunk(format!(
                    "data: {}\n\n",
                    json!({"choices": [], "usage": usage(tokens)})
                ))
                .chunk(DONE)
                .end(),
            // The rest never comes.
            "abort" => Reply::stream()
                .chunk(delta(&text(tokens)))
                .then(Step::Stall),
            "long" => {
                let piece = delta(&text(PIECE));
                let pieces = (0..LONG / PIECE).fold(Reply::stream(), |all, _| all.chunk(&piece));
                pieces.chunk(DONE).end()
            }
            _ => Reply::json(&json!({
                "object": "chat.completion",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
                "usage": usage(tokens),
            })),
        }
    })
    .await
}

pub(super) fn request(kind: &str, tokens: u64, number: u64) -> Request {
    let is_stream = matches!(kind, "stream" | "abort" | "long");
    let most = if kind == "long" { LONG } else { MOST };
    let user = format!("{kind}-{tokens}-{number}");
    let model = if kind == "long" { "long" } else { "m" };
    let body = chat_body(
        model,
        &json!({"stream": is_stream, "max_tokens": most, "user": user}),
    );
    Request::post("/ai/v1/chat/completions", body)
}

/// What became of one call.
#[derive(Default)]
pub(super) struct Played {
    calls: u64,
    pub(super) refused: u64,
    cut: u64,
    /// Tokens that long streams have shown.
    shown: u64,
}

/// Makes one call.
pub(super) async fn play(waypoint: &Waypoint, kind: &str, request: &Request, so_far: &mut Played) {
    so_far.calls += 1;
    let client = waypoint.workload(ANN);
    let mut connection = client.connect().await.unwrap();
    if kind == "abort" {
        connection.send(request).await.unwrap();
        let head = connection.head().await.unwrap();
        if head.status == 200 {
            connection.read_until("word").await.unwrap();
        } else {
            assert_eq!(head.status, 429);
            so_far.refused += 1;
        }
        return;
    }
    let answer = connection.call(request).await.unwrap();
    if answer.status == 429 {
        so_far.refused += 1;
        let codes = ["insufficient_quota", "rate_limit_exceeded"];
        assert!(codes.contains(&&*answer.code()), "{}", answer.text());
        return;
    }
    if kind == "long" {
        let text = answer.text();
        so_far.shown += text.matches("word").count() as u64;
        so_far.cut += u64::from(text.contains("insufficient_quota"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_what_nobody_used() {
    let spent = Arc::new(AtomicU64::new(0));
    let tried = Arc::new(Mutex::new(HashSet::new()));
    let first = script(Arc::clone(&spent), Arc::clone(&tried), true).await;
    let second = script(Arc::clone(&spent), tried, false).await;
    // Of a stream that is cut nobody knows how much of what was written had been read.
    let sum = format!(
        "llm: [{{models: [m]}}]\ntokens: {{limit: {SUM}, calendar: Month, count: Output}}\nonExceeded: Cut"
    );
    let rate = format!(
        "tokens: {{limit: {LIMIT}, window: {}s, count: Output}}\nonExceeded: Cut",
        WINDOW.as_secs()
    );
    let objects = |limits: String| {
        [
            provider("first", "OpenAI", &first, ""),
            provider("second", "OpenAI", &second, ""),
            route(
                "llm",
                "- backendRefs: [{name: first}, {name: second, priority: 1}]\n  retry: {attempts: 1, on: [5xx], backoff: {base: 1ms, max: 2ms}}",
            ),
            limits,
        ]
        .concat()
    };
    let sum = usage_limit("sum", &sum);
    let both = usage_limit("rate", &rate) + &sum;
    let waypoint = Arc::new(Setup::new(&objects(both)).start().await);
    let began = Instant::now();
    // One that takes all there is, and is cut.
    let mut all = Played::default();
    play(&waypoint, "long", &request("long", 0, 0), &mut all).await;
    assert_eq!((all.refused, all.cut), (0, 1));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let waypoint = Arc::clone(&waypoint);
        clients.spawn(async move {
            let kinds = [
                "plain", "stream", "abort", "error", "retry", "failover", "long",
            ];
            let mut played = Played::default();
            let mut round = 0;
            while began.elapsed() < duration() {
                let number = (client + 1) * 1_000_000 + round;
                let kind = kinds[usize::try_from((client + round) % 7).unwrap()];
                let tokens = 1 + number * 31 % 60;
                let before = played.refused;
                let request = request(kind, tokens, number);
                play(&waypoint, kind, &request, &mut played).await;
                if played.refused > before {
                    // Refusals alone would be most of the work.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                round += 1;
            }
            played
        });
    }
    for played in clients.join_all().await {
        all.calls += played.calls;
        all.refused += played.refused;
        all.cut += played.cut;
        all.shown += played.shown;
    }
    let elapsed = began.elapsed();
    assert!(all.refused > 0);
    let exact = || spent.load(Ordering::SeqCst);
    // What came back in the time, what was there, and a lease of each stream that runs.
    let refilled = u128::from(LIMIT) * elapsed.as_millis() / WINDOW.as_millis();
    let bound = u64::try_from(refilled).unwrap() + LIMIT + CLIENTS * LEASE;
    let delivered = exact() + all.shown;
    assert!(delivered <= bound, "{delivered} of {bound}");
    assert!(delivered > LIMIT, "{delivered} of {bound}");
    // What is left of all that was used is known by its name in another configuration. Calls that
    // were left are settled when that has been noticed.
    waypoint.reload(&objects(sum)).await;
    until("all is settled", || async {
        let answer = waypoint
            .workload(ANN)
            .call(&request("error", 0, u64::MAX))
            .await
            .unwrap();
        let left = answer.header("x-ratelimit-remaining-tokens")?;
        (left.parse::<u64>().ok()? + exact() == SUM).then_some(())
    })
    .await;
    println!(
        "{} calls, {} refused, {} streams cut, {delivered} tokens of at most {bound} delivered",
        all.calls, all.refused, all.cut
    );
}

//! Many callers on one bucket: what is admitted stays within it, and what is left is exactly what
//! nobody used.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{DONE, chat_body, delta, error_answer};
use waypoint_tests::upstream::{Reply, Seen, Step, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, provider, route, usage_limit};

const CLIENTS: u64 = 64;
const LIMIT: u64 = 10_000;
/// What each call accepts, which is more than any uses.
const MOST: u64 = 100;

/// What a call does, as its `user` says: `KIND-TOKENS-NUMBER`.
fn told(seen: &Seen) -> (String, u64, String) {
    let body = seen.json();
    let user = body["user"].as_str().unwrap();
    let mut parts = user.split('-');
    let kind = parts.next().unwrap().to_owned();
    let tokens = parts.next().unwrap().parse().unwrap();
    (kind, tokens, user.to_owned())
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
        spent.fetch_add(tokens, Ordering::SeqCst);
        match kind.as_str() {
            "stream" => Reply::stream()
                .chunk(delta("one"))
                .chunk(format!(
                    "data: {}\n\n",
                    json!({"choices": [], "usage": usage(tokens)})
                ))
                .chunk(DONE)
                .end(),
            // Four bytes are counted as a token; the rest never comes.
            "abort" => {
                let text = "word".repeat(usize::try_from(tokens).unwrap());
                Reply::stream().chunk(delta(&text)).then(Step::Stall)
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
    let is_stream = matches!(kind, "stream" | "abort");
    let user = format!("{kind}-{tokens}-{number}");
    let body = chat_body(
        "m",
        &json!({"stream": is_stream, "max_tokens": MOST, "user": user}),
    );
    Request::post("/ai/v1/chat/completions", body)
}

/// One call; whether it was admitted.
pub(super) async fn play(waypoint: &Waypoint, kind: &str, request: &Request) -> bool {
    let client = waypoint.workload(ANN);
    let mut connection = client.connect().await.unwrap();
    if kind == "abort" {
        connection.send(request).await.unwrap();
        let head = connection.head().await.unwrap();
        if head.status == 200 {
            connection.read_until("word").await.unwrap();
        }
        return head.status == 200;
    }
    let answer = connection.call(request).await.unwrap();
    let admitted = answer.status != 429;
    if !admitted {
        assert_eq!(answer.code(), "insufficient_quota", "{}", answer.text());
    }
    admitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_what_nobody_used() {
    let spent = Arc::new(AtomicU64::new(0));
    let tried = Arc::new(Mutex::new(HashSet::new()));
    let first = script(Arc::clone(&spent), Arc::clone(&tried), true).await;
    let second = script(Arc::clone(&spent), tried, false).await;
    let objects = [
        provider("first", "OpenAI", &first, ""),
        provider("second", "OpenAI", &second, ""),
        route(
            "llm",
            "- backendRefs: [{name: first}, {name: second, priority: 1}]\n  retry: {attempts: 1, on: [5xx], backoff: {base: 1ms, max: 2ms}}",
        ),
        usage_limit(
            "all",
            &format!("tokens: {{limit: {LIMIT}, calendar: Month, count: Output}}\nonExceeded: Cut"),
        ),
    ]
    .concat();
    let waypoint = Arc::new(Setup::new(&objects).start().await);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let waypoint = Arc::clone(&waypoint);
        clients.spawn(async move {
            let kinds = ["plain", "stream", "abort", "error", "retry", "failover"];
            let mut refused = 0;
            for round in 0..20 {
                let number = client * 100 + round;
                let kind = kinds[usize::try_from(number * 7 % 6).unwrap()];
                let tokens = 1 + number * 31 % 60;
                let request = request(kind, tokens, number);
                refused += u64::from(!play(&waypoint, kind, &request).await);
            }
            refused
        });
    }
    let refused: u64 = clients.join_all().await.into_iter().sum();
    assert!(refused > 0, "{}", spent.load(Ordering::SeqCst));
    // Calls that were left are settled when that has been noticed.
    let left = until("all is settled", || async {
        let answer = waypoint
            .workload(ANN)
            .call(&request("error", 0, 1_000_000))
            .await
            .unwrap();
        let left: u64 = answer
            .header("x-ratelimit-remaining-tokens")?
            .parse()
            .ok()?;
        (left + spent.load(Ordering::SeqCst) == LIMIT).then_some(left)
    })
    .await;
    assert!(left < MOST * CLIENTS, "{left}");
}

//! Upstreams that fail before their answer has begun.

mod answers;
mod connections;
mod retries;

use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::chat;
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, provider, route};

/// One provider whose rule has these further fields.
async fn start(upstream: &Upstream, rule: &str, limits: &str) -> Waypoint {
    let objects = [
        provider("openai", "OpenAI", upstream, ""),
        route(
            "llm",
            &format!("- backendRefs: [{{name: openai}}]\n  {rule}"),
        ),
    ];
    Setup::new(&objects.concat()).limits(limits).start().await
}

const RETRY: &str = "retry: {attempts: 2, backoff: {base: 1ms, max: 50ms}}";

fn reset() -> Reply {
    Reply::default().then(Step::Reset)
}

/// An upstream's answers, and what comes of them.
struct Row {
    case: &'static str,
    replies: Vec<Reply>,
    request: Request,
    status: u16,
    code: &'static str,
    attempts: usize,
}

fn row(
    case: &'static str,
    replies: Vec<Reply>,
    status: u16,
    code: &'static str,
    attempts: usize,
) -> Row {
    Row {
        case,
        replies,
        request: chat("m"),
        status,
        code,
        attempts,
    }
}

async fn check(rule: &str, rows: Vec<Row>) {
    for Row {
        case,
        replies,
        request,
        status,
        code,
        attempts,
    } in rows
    {
        let upstream = Upstream::in_turn(replies).await;
        let waypoint = start(&upstream, rule, "").await;
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        assert_eq!(upstream.seen().len(), attempts, "{case}");
        assert_bounded_wait(case, &answer);
        let event = waypoint.event(&answer).await;
        assert_eq!(event["attempts"], attempts, "{case}: {event}");
        assert_eq!(event["status"], status, "{case}: {event}");
    }
}

/// Some SDKs sleep for as long as they are told.
fn assert_bounded_wait(case: &str, answer: &Answer) {
    if let Some(wait) = answer.header("retry-after") {
        assert!(
            wait.parse::<f64>().is_ok_and(|wait| wait <= 60.0),
            "{case}: {wait}"
        );
        assert_eq!(answer.header("x-should-retry"), Some("true"), "{case}");
    }
    if answer.status >= 400 {
        assert!(
            answer.header("x-should-retry").is_some(),
            "{case}: {:?}",
            answer.headers
        );
    }
}

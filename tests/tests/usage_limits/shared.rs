//! Limits that several gateways share, in a real store that comes and goes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use waypoint_tests::client::Request;
use waypoint_tests::llm::{DONE, chat, chat_answer, chat_stream, delta};
use waypoint_tests::store::Store;
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, provider, route, usage_limit};

use super::{call, llm};
use crate::usage_limits::storm::{Played, play, request, script};

const UP: &str = "waypoint_limit_store_up";
const ASKED: &str = "waypoint_limit_store_round_trips_total";

/// One of the gateways `agents/wp` that share a store. Its timeout is long, because machines that
/// run tests are slow at times.
async fn gateway(store: &Store, objects: &str) -> Waypoint {
    let url = store.url();
    let redis = format!("limitStore: {{redis: {{url: \"{url}\", timeout: 2s, replicas: 3}}}}");
    let waypoint = Setup::new(objects).parameters(&redis).start().await;
    waypoint.metric_reaches(UP, &[], 1.0).await;
    waypoint
}

async fn is_down(waypoint: &Waypoint) {
    until("the store is seen to be down", || async {
        (waypoint.metrics().await.sum(UP, &[]) == 0.0).then_some(())
    })
    .await;
}

/// What the store says was used of the only bucket of a number in calendar months.
async fn used(store: &Store, number: &str) -> Option<u64> {
    let keys = store.keys().await;
    let mut keys = keys
        .iter()
        .filter(|key| key.contains(&format!(":{number}:month:")));
    let (key, None) = (keys.next()?, keys.next()) else {
        panic!("several buckets");
    };
    let sum = store.ask(&["HGET", key, "sum"]).await.number()?;
    u64::try_from(sum).ok()
}

async fn is_used(store: &Store, number: &str, wanted: &AtomicU64) {
    until("the store has what was used", || async {
        let wanted = wanted.load(Ordering::SeqCst);
        (used(store, number).await? == wanted).then_some(())
    })
    .await;
}

fn storm(first: &Arc<Upstream>, second: &Arc<Upstream>, limit: u64) -> String {
    [
        provider("first", "OpenAI", first, ""),
        provider("second", "OpenAI", second, ""),
        route(
            "llm",
            "- backendRefs: [{name: first}, {name: second, priority: 1}]\n  retry: {attempts: 1, on: [5xx], backoff: {base: 1ms, max: 2ms}}",
        ),
        usage_limit(
            "all",
            &format!(
                "tokens: {{limit: {limit}, calendar: Month, count: Output}}\nonExceeded: Cut\nstore: Shared"
            ),
        ),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_admit_what_one_would() {
    const LIMIT: u64 = 10_000;
    let store = Store::start().await;
    let spent = Arc::new(AtomicU64::new(0));
    let tried = Arc::new(Mutex::new(HashSet::new()));
    let first = script(Arc::clone(&spent), Arc::clone(&tried), true).await;
    let second = script(Arc::clone(&spent), tried, false).await;
    let objects = storm(&first, &second, LIMIT);
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Arc::new(gateway(&store, &objects).await));
    }
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..48 {
        let gateway = Arc::clone(&gateways[usize::try_from(client % 3).unwrap()]);
        clients.spawn(async move {
            let kinds = ["plain", "stream", "abort", "error", "retry", "failover"];
            let mut played = Played::default();
            for round in 0..20 {
                let number = client * 100 + round;
                let kind = kinds[usize::try_from(number * 7 % 6).unwrap()];
                let request = request(kind, 1 + number * 31 % 60, number);
                play(&gateway, kind, &request, &mut played).await;
            }
            played.refused
        });
    }
    let refused: u64 = clients.join_all().await.into_iter().sum();
    assert!(refused > 0, "{}", spent.load(Ordering::SeqCst));
    is_used(&store, "tokens", &spent).await;
    let spent = spent.load(Ordering::SeqCst);
    assert!(spent <= LIMIT && spent > LIMIT * 3 / 4, "{spent}");
}

/// One call of a client that goes on whatever it is told: its status.
async fn insist(gateway: &Waypoint, number: u64) -> u16 {
    let kind = if number.is_multiple_of(2) {
        "plain"
    } else {
        "stream"
    };
    let request = request(kind, 1 + number * 31 % 60, number);
    call(gateway, ANN, &request).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_and_restarted_lets_nothing_pass_twice() {
    const LIMIT: u64 = 20_000;
    let mut store = Store::start().await;
    let spent = Arc::new(AtomicU64::new(0));
    let tried = Arc::new(Mutex::new(HashSet::new()));
    let first = script(Arc::clone(&spent), Arc::clone(&tried), true).await;
    let second = script(Arc::clone(&spent), tried, false).await;
    let objects = storm(&first, &second, LIMIT);
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Arc::new(gateway(&store, &objects).await));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..12_u64 {
        let gateway = Arc::clone(&gateways[usize::try_from(client % 3).unwrap()]);
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            let mut seen = HashSet::new();
            let mut number = client * 1_000_000;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                seen.insert(insist(&gateway, number).await);
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            seen
        });
    }
    until("much is used", || async {
        (spent.load(Ordering::SeqCst) > LIMIT / 4).then_some(())
    })
    .await;
    store.kill().await;
    for gateway in &gateways {
        is_down(gateway).await;
    }
    // Leases are used up, and then nothing is admitted.
    for (number, gateway) in (2_000_000_000..).zip(&gateways) {
        until("it is closed", || async {
            (insist(gateway, number).await == 503).then_some(())
        })
        .await;
    }
    store.restart().await;
    for (number, gateway) in (3_000_000_000..).zip(&gateways) {
        gateway.metric_reaches(UP, &[], 1.0).await;
        until("all of it is used", || async {
            (insist(gateway, number).await == 429).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    for seen in clients.join_all().await {
        assert!(seen.is_subset(&HashSet::from([200, 429, 503])), "{seen:?}");
        assert!(seen.contains(&200) && seen.contains(&503), "{seen:?}");
    }
    is_used(&store, "tokens", &spent).await;
    let spent = spent.load(Ordering::SeqCst);
    assert!(spent <= LIMIT && spent > LIMIT * 3 / 4, "{spent}");
}

/// A limit of requests to one model.
fn to(model: &str, requests: u64, more: &str) -> String {
    usage_limit(
        model,
        &format!(
            "llm: [{{models: [{model}]}}]\nrequests: {{limit: {requests}, calendar: Month}}\nstore: Shared\n{more}"
        ),
    )
}

#[tokio::test]
async fn each_limit_says_what_holds_without_the_store() {
    let mut store = Store::start().await;
    let upstream = Upstream::always(chat_answer()).await;
    let limits = [
        to("closed", 5, "storeFailure: Closed"),
        to("open", 5, "storeFailure: Open"),
        to("share", 6, "storeFailure: LocalShare"),
        to("trial", 1, "mode: DryRun"),
        to("stop", 0, "storeFailure: Open"),
    ]
    .concat();
    let waypoint = gateway(&store, &llm(&upstream, &limits)).await;
    store.kill().await;
    is_down(&waypoint).await;
    for (model, expected) in [
        ("closed", (503, "limit_unavailable")),
        ("open", (200, "")),
        ("open", (200, "")),
        ("open", (200, "")),
        // A third of six.
        ("share", (200, "")),
        ("share", (200, "")),
        ("share", (429, "insufficient_quota")),
        ("trial", (200, "")),
        ("trial", (200, "")),
        ("stop", (429, "insufficient_quota")),
    ] {
        let answer = call(&waypoint, ANN, &chat(model)).await;
        let event = waypoint.event(&answer).await;
        let code = event["code"].as_str().unwrap_or_default();
        assert_eq!((answer.status, code), expected, "{model}: {event}");
        if answer.status != 200 {
            assert_eq!(event["by"]["kind"], "UsageLimit", "{event}");
        }
        // Nobody knows what one on trial would have said.
        assert_eq!(
            event["would_deny"].as_array().map_or(0, Vec::len),
            0,
            "{event}"
        );
    }
    store.restart().await;
    until("it is open again", || async {
        let answer = call(&waypoint, ANN, &chat("closed")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    // What passed meanwhile is counted.
    for (model, left) in [("open", 2), ("share", 4), ("trial", 9)] {
        for _ in 0..left.min(4) {
            assert_eq!(
                call(&waypoint, ANN, &chat(model)).await.status,
                200,
                "{model}"
            );
        }
        let last = call(&waypoint, ANN, &chat(model)).await;
        let is_refused = model != "trial";
        assert_eq!(last.status == 429, is_refused, "{model}");
        if !is_refused {
            let event = waypoint.event(&last).await;
            assert_eq!(event["would_deny"][0]["name"], "trial", "{event}");
        }
    }
}

#[tokio::test]
async fn most_calls_ask_nobody() {
    const CALLS: u32 = 500;
    let store = Store::start().await;
    let upstream = Upstream::always(chat_answer()).await;
    let limit = usage_limit(
        "day",
        "per: [Principal]\nrequests: {limit: 1000000, calendar: Day}\ntokens: {limit: 1000000000, window: 1h}\nconcurrency: 1000\nstore: Shared",
    );
    let waypoint = gateway(&store, &llm(&upstream, &limit)).await;
    let before = waypoint.metrics().await.sum(ASKED, &[]);
    let client = waypoint.workload(ANN);
    let mut connection = client.connect().await.unwrap();
    for _ in 0..CALLS {
        assert_eq!(connection.call(&chat("m")).await.unwrap().status, 200);
    }
    let asked = waypoint.metrics().await.sum(ASKED, &[]) - before;
    assert!(asked > 0.0 && asked < f64::from(CALLS) / 4.0, "{asked}");
}

#[tokio::test]
async fn calls_at_the_same_time_are_shared_too() {
    let store = Store::start().await;
    let gate = Gate::default();
    let upstream = {
        let gate = gate.clone();
        Upstream::start(move |_| {
            let stream = Reply::stream().chunk(delta("one"));
            stream.then(Step::Wait(gate.clone())).chunk(DONE).end()
        })
        .await
    };
    let limit = usage_limit("few", "concurrency: 1\nstore: Shared");
    let objects = llm(&upstream, &limit);
    let (one, two) = (
        gateway(&store, &objects).await,
        gateway(&store, &objects).await,
    );
    let client = one.workload(ANN);
    let mut connection = client.connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("one").await.unwrap();
    for gateway in [&one, &two] {
        let refused = call(gateway, ANN, &chat("m")).await;
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    gate.open();
    until("there is room again", || async {
        (call(&two, ANN, &chat_stream("m")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_used_outlives_a_reload_and_a_process() {
    let store = Store::start().await;
    let upstream = Upstream::always(chat_answer()).await;
    let limit = |number: u64| {
        let limit = format!("tokens: {{limit: {number}, calendar: Month}}\nstore: Shared");
        llm(&upstream, &usage_limit("all", &limit))
    };
    let mut waypoint = gateway(&store, &limit(1000)).await;
    let left = |answer: waypoint_tests::client::Answer| -> Option<u64> {
        answer.header("x-ratelimit-remaining-tokens")?.parse().ok()
    };
    let request: Request = super::chat_of(500);
    // Each uses 18.
    assert_eq!(left(call(&waypoint, ANN, &request).await), Some(982));
    waypoint.reload(&limit(2000)).await;
    assert_eq!(left(call(&waypoint, ANN, &request).await), Some(1964));
    // Another object for the store gives nothing away, once the old one has given back.
    waypoint.edit_base("timeout: 2s", "timeout: 3s").await;
    until("the rest is given back", || async {
        (used(&store, "tokens").await? == 36).then_some(())
    })
    .await;
    assert_eq!(left(call(&waypoint, ANN, &request).await), Some(1946));
    waypoint.terminate().await;
    assert!(waypoint.ended().await.success());
    // A process that ends gives back what it had in advance.
    assert_eq!(used(&store, "tokens").await, Some(54));
    let another = gateway(&store, &limit(2000)).await;
    assert_eq!(left(call(&another, ANN, &request).await), Some(1928));
}

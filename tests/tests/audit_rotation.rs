//! The audit file that is turned over by size.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;
use waypoint_tests::client::{Client, Request};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint};

/// Callers at once.
const CALLERS: usize = 8;
/// The least size at which a file is turned over.
const SIZE: u64 = 1 << 20;
/// What one write may add after that: a batch that fills while its writer is woken.
const SLACK: u64 = 512 * 1024;

/// A waypoint whose audit file is turned over as early as it can be.
async fn start() -> Waypoint {
    let waypoint = Setup::new("").start().await;
    waypoint
        .edit_base("audit.jsonl\"", "audit.jsonl\", maxSizeMiB: 1")
        .await;
    waypoint
}

/// The lines of both files, the older first; each is a whole JSON object. A line that is still being
/// written is left out.
fn lines(waypoint: &Waypoint) -> Vec<Value> {
    let mut lines = Vec::new();
    for name in ["audit.jsonl.1", "audit.jsonl"] {
        let text = std::fs::read_to_string(waypoint.path(name)).unwrap_or_default();
        let end = text.rfind('\n').map_or(0, |end| end + 1);
        assert!(end == text.len() || name == "audit.jsonl", "{name}");
        for line in text[..end].lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert!(event.is_object(), "{name}: {line}");
            lines.push(event);
        }
    }
    lines
}

fn size(waypoint: &Waypoint, name: &str) -> u64 {
    std::fs::metadata(waypoint.path(name)).map_or(0, |found| found.len())
}

/// Calls on one connection for as long as `more` says; gives the ids of the answers.
async fn calls(client: Client, more: impl Fn() -> bool) -> Vec<String> {
    let mut connection = client.connect().await.unwrap();
    let mut ids = Vec::new();
    while more() {
        // Refused without an upstream, yet audited.
        let answer = connection.call(&Request::new("GET", "/nothing")).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 404);
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    ids
}

/// True so many times.
fn times(count: usize) -> impl Fn() -> bool {
    let left = Cell::new(count);
    move || {
        let more = left.get();
        left.set(more.saturating_sub(1));
        more > 0
    }
}

#[tokio::test]
async fn every_event_is_in_one_of_the_two_files_once() {
    let waypoint = start().await;
    let turned = waypoint.path("audit.jsonl.1");
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let (client, turned) = (waypoint.workload(ANN), turned.clone());
        callers.push(tokio::spawn(calls(client, move || !turned.exists())));
    }
    let mut ids = Vec::new();
    for caller in callers {
        ids.extend(caller.await.unwrap());
    }
    // And some more, which only the new file can have.
    ids.extend(calls(waypoint.workload(ANN), times(100)).await);
    let all = until("all events", || async {
        let found = lines(&waypoint);
        (found.len() >= ids.len()).then_some(found)
    })
    .await;
    // Later ones would come at once: writing is in order.
    let last = waypoint
        .anonymous()
        .call(&Request::new("GET", "/last"))
        .await;
    waypoint.event(&last.unwrap()).await;
    assert_eq!(lines(&waypoint).len(), all.len() + 1);
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &all {
        *found
            .entry(event["request_id"].as_str().unwrap())
            .or_default() += 1;
        assert_eq!(event["principal"], ANN);
        assert_eq!(event["status"], 404);
    }
    for id in &ids {
        assert_eq!(found.remove(id.as_str()), Some(1), "{id}");
    }
    assert!(found.is_empty(), "nobody asked for {found:?}");
    let old = size(&waypoint, "audit.jsonl.1");
    assert!((SIZE..SIZE + SLACK).contains(&old), "{old} bytes");
    assert!(size(&waypoint, "audit.jsonl") < SIZE);
    let metrics = waypoint.metrics().await;
    assert_eq!(metrics.sum("waypoint_audit_lost_total", &[]), 0.0);
}

#[tokio::test]
async fn what_was_written_before_a_restart_counts_and_is_kept() {
    let waypoint = start().await;
    // As much as an earlier process may have left, a little short of the size.
    let before = waypoint.path("audit.jsonl");
    let old = "{\"request_id\":\"old\"}\n";
    let count = usize::try_from(SIZE).unwrap() / old.len() - 10;
    std::fs::write(&before, old.repeat(count)).unwrap();
    let ids = calls(waypoint.workload(ANN), {
        let turned = waypoint.path("audit.jsonl.1");
        move || !turned.exists()
    })
    .await;
    // A few events of ours fill it: far fewer than a whole file holds.
    let turned = std::fs::read_to_string(waypoint.path("audit.jsonl.1")).unwrap();
    assert!(turned.starts_with(old), "{}", &turned[..200]);
    assert_eq!(turned.matches(old).count(), count);
    assert!(turned.contains(&ids[0]));
    assert!(size(&waypoint, "audit.jsonl.1") < SIZE + SLACK);
}

#[tokio::test]
async fn events_of_calls_that_were_answered_are_written_before_the_end() {
    let mut waypoint = start().await;
    let ids = calls(waypoint.workload(ANN), times(200)).await;
    waypoint.terminate().await;
    waypoint.ended().await;
    let found = lines(&waypoint);
    for id in &ids {
        let times = found.iter().filter(|event| event["request_id"] == **id);
        assert_eq!(times.count(), 1, "{id}");
    }
}

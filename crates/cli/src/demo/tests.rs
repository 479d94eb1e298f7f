use std::time::Duration;

use serde_json::json;

use super::play::Played;
use super::scenes::SCENES;
use crate::paint::Paint;

fn played(event: serde_json::Value) -> Vec<Played> {
    let problems = match event.is_null() {
        true => vec!["no audit event in time".to_owned()],
        false => Vec::new(),
    };
    let play = |scene| Played {
        scene,
        event: event.clone(),
        problems: problems.clone(),
    };
    SCENES.iter().map(play).collect()
}

#[test]
fn the_table_fits_a_terminal() {
    let event = json!({
        "principal": "spiffe://cluster.local/ns/agensys-demo-1/sa/orchestrator-agent",
        "decision": "allow", "by": {"kind": "AgentPolicy", "rule": "no workload identity"},
        "would_deny": [{"kind": "AgentPolicy", "rule": "x"}],
        "status": 200, "tokens": {"input": 999, "output": 999, "source": "upstream"},
        "attempts": 2, "duration_ms": 9999.9,
    });
    let table = super::report::table(&played(event), Duration::from_millis(1500), Paint::PLAIN);
    let widest = table
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap();
    assert!(widest <= 120, "{widest} characters\n{table}");
    assert!(table.contains("20 of 20 as expected, in 1.5 s"), "{table}");
    assert!(table.contains("a dry-run policy would deny it"));
}

#[test]
fn what_differs_is_told() {
    let table = super::report::table(
        &played(serde_json::Value::Null),
        Duration::ZERO,
        Paint::PLAIN,
    );
    assert!(table.contains("0 of 20 as expected"), "{table}");
    assert!(
        table.contains("pr-agent, chat gpt-4o: no audit event in time"),
        "{table}"
    );
}

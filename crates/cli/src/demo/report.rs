//! The table of what was played, in the gateway's own words.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::play::{Played, rule};
use super::setup::Setup;
use crate::paint::Paint;
use crate::table::{Align, Cell, Table, Tone};

const WIDTH: usize = 120;

/// The table, and below it every expectation that was not met.
pub(super) fn table(played: &[Played], took: Duration, paint: Paint) -> String {
    let mut table = Table::new([
        ("agent", Align::Left),
        ("call", Align::Left),
        ("decision", Align::Left),
        ("rule", Align::Left),
        ("tokens", Align::Right),
        ("cost", Align::Right),
        ("tries", Align::Right),
        ("time", Align::Right),
        ("", Align::Left),
    ]);
    for row in played {
        table.row(cells(row));
    }
    let mut out = table.render(WIDTH, paint);
    let good = played.iter().filter(|row| row.problems.is_empty()).count();
    let total = format!(
        "{good} of {} as expected, in {:.1} s",
        played.len(),
        took.as_secs_f64()
    );
    out.push('\n');
    out.push_str(&match good == played.len() {
        true => paint.good(&total),
        false => paint.bad(&total),
    });
    out.push('\n');
    for row in played {
        for problem in &row.problems {
            let who = row.scene.who.unwrap_or("nobody");
            out.push_str(&format!("  {who}, {}: {problem}\n", row.scene.what));
        }
    }
    if played
        .iter()
        .any(|row| row.event.get("would_deny").is_some())
    {
        out.push_str("* allowed now, but a dry-run policy would deny it\n");
    }
    out
}

fn cells(row: &Played) -> Vec<Cell> {
    let event = &row.event;
    let text = |field: &str| event.get(field).and_then(Value::as_str);
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
    let who = text("principal").unwrap_or("?");
    let who = who.rsplit('/').next().unwrap_or(who);
    let would_deny = event.get("would_deny").is_some();
    let (decision, tone) = match text("decision") {
        Some("allow") if would_deny => ("allow*", Tone::Warn),
        Some("allow") => ("allow", Tone::Good),
        Some("deny") => ("deny", Tone::Bad),
        _ => ("none", Tone::Dim),
    };
    let status = number("/status").map_or_else(String::new, |status| format!(" {status}"));
    let by = match event.get("by").filter(|by| !by.is_null()) {
        Some(by) => rule(by),
        None => text("code").unwrap_or_default().replace('_', " "),
    };
    let tokens = match (number("/tokens/input"), number("/tokens/output")) {
        (Some(input), Some(output)) => format!("{input}+{output}"),
        _ => "-".into(),
    };
    let cost = event.get("cost_usd").and_then(Value::as_f64);
    let time = event.get("duration_ms").and_then(Value::as_f64);
    let (mark, mark_tone) = match row.problems.is_empty() {
        true => ("✓", Tone::Good),
        false => ("✗", Tone::Bad),
    };
    vec![
        Cell::new(
            who,
            if who == "anonymous" {
                Tone::Dim
            } else {
                Tone::Plain
            },
        ),
        row.scene.what.into(),
        Cell::new(format!("{decision}{status}"), tone),
        by.into(),
        tokens.into(),
        cost.map_or_else(|| "-".into(), |cost| format!("${cost:.6}"))
            .into(),
        number("/attempts")
            .filter(|n| *n > 0)
            .map_or_else(|| "-".into(), |n| n.to_string())
            .into(),
        time.map_or_else(|| "-".into(), |time| format!("{time:.1} ms"))
            .into(),
        Cell::new(mark, mark_tone),
    ]
}

/// What to try by hand while the demo serves.
pub(super) fn invitation(
    setup: &Setup,
    base: &str,
    admin: std::net::SocketAddr,
    directory: &Path,
    paint: Paint,
) -> String {
    let dir = directory.display();
    let curl = |who: &str, rest: &str| {
        format!(
            "curl --cacert {} --cert {dir}/{who}.crt --key {dir}/{who}.key {rest}",
            setup.root.display()
        )
    };
    let chat = |model: &str| {
        format!(
            "{base}/v1/chat/completions -H 'content-type: application/json' \
             -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}'"
        )
    };
    let config = setup.configuration.display();
    let section = |title: &str, lines: &[String]| {
        let mut out = format!("\n{}\n", paint.bold(title));
        for line in lines {
            out.push_str(&format!("  {line}\n"));
        }
        out
    };
    [
        section(
            "still serving, until Ctrl-C",
            &[
                format!("base URL       {base}/v1"),
                format!("decisions      http://{admin}/decisions"),
                format!("configuration  {config}  (edit it: changes are taken at once)"),
                format!("audit          {}", setup.audit.display()),
            ],
        ),
        section("allowed", &[curl("pr-agent", &chat("gpt-4o"))]),
        section("denied", &[curl("pr-agent", &chat("o3"))]),
        section(
            "ask",
            &[
                format!("kgateway-waypoint matrix --config {config}"),
                format!(
                    "echo '{{\"principal\":\"{}\",\"llm\":{{\"provider\":\"openai\",\"model\":\"o3\"}}}}' | \
                     kgateway-waypoint explain --config {config} --request -",
                    super::setup::spiffe("pr-agent")
                ),
            ],
        ),
    ]
    .concat()
}

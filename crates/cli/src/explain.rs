//! `explain`: what is decided about one request, and why.

mod answer;
mod asked;
mod decide;
mod edge;
mod mesh;
mod request;

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use waypoint_policy::{By, Code, Does, Kind, Mode, Outcome, RuleName, Stage, TraceEntry};

use crate::configuration::{self, GatewayName};
use crate::output;
use crate::paint::Paint;
use answer::Answer;
use request::Request;

pub(crate) use decide::llm_targets;

const EXAMPLE: &str = r#"Examples:
  echo '{"principal": "spiffe://cluster.local/ns/agensys-demo-1/sa/pr-agent",
         "llm": {"provider": "openai", "model": "gpt-4o", "operation": "chat"}}' |
    kgateway-waypoint explain --config config/examples/code-review --request -

  {"principal": "spiffe://…", "mcp": {"server": "github", "method": "tools/call", "name": "get_issue"}}
  {"principal": null, "method": "GET", "host": "api.github.com", "path": "/repos", "port": 443}

Exits with 0 if the request is allowed, 3 if it is denied, 2 if the question cannot be read."#;

/// The exit code of a denial.
const DENIED: u8 = 3;
/// The exit code of a question that cannot be read.
const BAD_INPUT: u8 = 2;

/// Decide one request, and say what every policy thought of it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Files, or directories of `.yaml`, `.yml` and `.json` files.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// Which Gateway to be, when there are several.
    #[arg(long, value_name = "NS/NAME")]
    gateway: Option<GatewayName>,
    /// The request as JSON; `-` is standard input.
    #[arg(long, value_name = "FILE|-")]
    request: PathBuf,
    /// How to print.
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Decides and prints; problems are printed too, so that the exit code stays one of the three.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match explain(arguments) {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::from(DENIED),
        Ok(None) => ExitCode::from(BAD_INPUT),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Whether the request is allowed; nothing when the configuration has errors.
fn explain(arguments: &Arguments) -> anyhow::Result<Option<bool>> {
    let text = read(&arguments.request)?;
    let request = Request::parse(&text)?;
    let Some(snapshot) = configuration::load(&arguments.config, arguments.gateway.as_ref()) else {
        return Ok(None);
    };
    let answer = decide::decide(&snapshot, &request)?;
    match arguments.output {
        Format::Text => output::print(&to_text(&answer, &request, Paint::stdout()))?,
        Format::Json => output::print(&format!("{}\n", to_json(&answer)?))?,
    }
    Ok(Some(answer.is_allowed))
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input is not text")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The answer in its stable form.
#[derive(Serialize)]
struct Json<'a> {
    decision: &'static str,
    by: &'a By,
    stage: Stage,
    code: Option<Code>,
    would_deny: &'a [Arc<RuleName>],
    trace: &'a [TraceEntry],
    route: Option<&'a str>,
    /// What is reserved before the call is made; how much of it is used only the gateway knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<Limit<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [String],
}

#[derive(Serialize)]
struct Limit<'a> {
    namespace: &'a str,
    name: &'a str,
    mode: Mode,
    allows: String,
}

fn verdict(answer: &Answer) -> &'static str {
    if answer.is_allowed { "allow" } else { "deny" }
}

fn to_json(answer: &Answer) -> anyhow::Result<String> {
    let json = Json {
        decision: verdict(answer),
        by: &answer.by,
        stage: answer.stage(),
        code: answer.code,
        would_deny: &answer.would_deny,
        trace: &answer.trace,
        route: answer.route.as_deref(),
        limits: (answer.limits.iter())
            .map(|limit| Limit {
                namespace: &limit.name.namespace,
                name: &limit.name.name,
                mode: limit.mode,
                allows: limit.to_string(),
            })
            .collect(),
        notes: &answer.notes,
    };
    Ok(serde_json::to_string_pretty(&json)?)
}

fn to_text(answer: &Answer, request: &Request, paint: Paint) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let verdict = match answer.is_allowed {
        true => paint.good(verdict(answer)),
        false => paint.bad(verdict(answer)),
    };
    let code = answer.code.map(|code| format!(" ({})", code.as_str()));
    line(format!(
        "{verdict}{} by {}",
        code.unwrap_or_default(),
        answer.by
    ));
    line(format!("  who    {}", request.principal));
    line(format!("  asks   {}", answer.asked));
    line(format!("  stage  {}", stage(answer)));
    if let Some(route) = &answer.route {
        line(format!("  route  {route}"));
    }
    for rule in &answer.would_deny {
        let would = paint.warn("would be denied");
        line(format!("  {would} by {rule}"));
    }
    for limit in &answer.limits {
        let trial = if limit.is_enforced() {
            ""
        } else {
            " (dry run)"
        };
        line(format!("  limit  {}{trial}: {limit}", limit.name));
    }
    for note in &answer.notes {
        line(format!("  note: {note}"));
    }
    line(String::new());
    if answer.trace.is_empty() {
        line("no policy is attached to what this request passes, or none was asked".into());
        return out;
    }
    // Whom Istio's policies deny, nobody else is asked about.
    let is_last = !answer.is_allowed && answer.stage() == Stage::Istio;
    let trace = answer.trace.iter();
    let (asked, others): (Vec<_>, Vec<_>) =
        trace.partition(|entry| !is_last || entry.kind == Kind::AuthorizationPolicy);
    for (title, entries) in [
        ("what each rule said:", asked),
        ("what others, who were not asked, would have said:", others),
    ] {
        if !entries.is_empty() {
            line(title.into());
        }
        for entry in entries {
            line(format!("  {}", trace_line(entry, paint)));
        }
    }
    out
}

/// What decided, in words.
fn stage(answer: &Answer) -> &'static str {
    match (answer.stage(), answer.is_allowed) {
        (Stage::Transport, _) => "the request itself and its route",
        (Stage::Istio, false) => "Istio's policies, before any other is asked",
        (Stage::Istio, true) => "Istio's policies; no other has a say about this",
        (Stage::Agents, _) => "the agents' policies",
        (Stage::Limits, _) => "the limits, after every policy has allowed it",
        (Stage::Posture, _) => "the posture; no policy has a say about this",
    }
}

fn trace_line(entry: &TraceEntry, paint: Paint) -> String {
    let rule = match entry.rule.is_empty() {
        true => String::new(),
        false => format!(" rule {}", entry.rule),
    };
    let effect = match entry.effect {
        Does::Allow => "Allow",
        Does::Deny => "Deny",
        Does::Custom => "Custom",
        Does::Audit => "Audit",
    };
    let mode = match entry.mode {
        Mode::Enforce => "",
        Mode::DryRun => ", dry run",
    };
    let outcome = match (&entry.outcome, entry.effect) {
        (Outcome::Matched, Does::Allow) => paint.good("matched"),
        (Outcome::Matched, Does::Deny) => paint.bad("matched"),
        (Outcome::Matched, Does::Custom) => paint.bad("matched, and its authorizer did not allow"),
        (Outcome::Matched, Does::Audit) => "matched".to_owned(),
        // Who asked stands above.
        (
            Outcome::NotMatched {
                field, expected, ..
            },
            _,
        ) if field == "from" => {
            format!("only for {expected}")
        }
        (other, _) => other.to_string(),
    };
    let kind = match entry.kind {
        Kind::AgentPolicy => String::new(),
        kind => format!("{kind} "),
    };
    let name = format!("{kind}{}{rule} ({effect}{mode})", entry.policy);
    format!("{name}: {outcome}")
}

#[cfg(test)]
mod tests;

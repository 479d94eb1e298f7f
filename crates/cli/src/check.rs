//! `check`: what is wrong with a configuration, and what it would do.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use waypoint_config::{Diagnostic, Outcome, Route, Severity, Snapshot};

use crate::configuration::{self, GatewayName};
use crate::output;

const EXAMPLE: &str = "\
Example:
  kgateway-waypoint check config/examples/code-review

Prints one line per finding, `file:line:col: error[code]: …`, on standard error. Exits with 1 if
there is an error; warnings alone are 0.";

/// Look for mistakes in a configuration without serving it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Files, or directories of `.yaml`, `.yml` and `.json` files.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Only look at what concerns this Gateway.
    #[arg(long, value_name = "NS/NAME")]
    gateway: Option<GatewayName>,
    /// How to print.
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Compiles and prints.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = configuration::options(arguments.gateway.as_ref());
    let (outcome, files) = match configuration::read(&arguments.paths) {
        Ok(files) => (waypoint_config::check(&files, &options), files.len()),
        Err(diagnostics) => (unread(diagnostics), 0),
    };
    match arguments.output {
        Format::Text => {
            for diagnostic in &outcome.diagnostics {
                eprintln!("{diagnostic}");
            }
            output::print(&to_text(&outcome, files))?;
        }
        Format::Json => output::print(&format!("{:#}\n", to_json(&outcome)))?,
    }
    let failed = outcome.diagnostics.iter().any(Diagnostic::is_error);
    Ok(match failed {
        true => ExitCode::from(crate::FAILED),
        false => ExitCode::SUCCESS,
    })
}

/// Files that could not all be read are not compiled: what is missing would be reported twice.
fn unread(diagnostics: Vec<Diagnostic>) -> Outcome {
    Outcome {
        snapshot: None,
        diagnostics,
        skipped: Vec::new(),
    }
}

/// Skipped objects one per line, then one line about the whole.
fn to_text(outcome: &Outcome, files: usize) -> String {
    let mut out = String::new();
    for skipped in &outcome.skipped {
        out.push_str(&format!("{skipped}\n"));
    }
    let errors = outcome.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = counted(outcome.diagnostics.len() - errors, "warning");
    let files = counted(files, "file");
    let summary = match (&outcome.snapshot, errors) {
        (Some(snapshot), _) => format!(
            "ok: {files}, {warnings}; Gateway {}: {}",
            snapshot.gateway,
            Summary::of(snapshot)
        ),
        (None, 0) => format!(
            "ok: {files}, {warnings}; there are several Gateways, add --gateway NS/NAME to see \
             what one of them serves"
        ),
        (None, errors) => format!("not ok: {files}, {}, {warnings}", counted(errors, "error")),
    };
    out.push_str(&summary);
    out.push('\n');
    out
}

/// `1 file`, `2 files`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// How much a configuration holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
struct Summary {
    listeners: usize,
    llm_routes: usize,
    mcp_routes: usize,
    http_routes: usize,
    providers: usize,
    servers: usize,
    policies: usize,
    rules: usize,
    limits: usize,
}

impl Summary {
    fn of(snapshot: &Snapshot) -> Self {
        let count =
            |wanted: fn(&Route) -> bool| snapshot.routes.iter().filter(|r| wanted(r)).count();
        let policy = &snapshot.policy;
        let own = policy.policies().iter().map(|policy| policy.rules.len());
        let istio = policy.istio_policies().iter();
        let istio = istio.map(|policy| policy.rules.len());
        let access = policy.access_policies();
        let access = access.map(|policy| policy.rules.iter().flatten().count());
        let rules: Vec<usize> = own.chain(istio).chain(access).collect();
        Self {
            listeners: snapshot.listeners.len(),
            llm_routes: count(|route| matches!(route, Route::Llm(_))),
            mcp_routes: count(|route| matches!(route, Route::Mcp(_))),
            http_routes: count(|route| matches!(route, Route::Plain(_))),
            providers: snapshot.providers.len(),
            servers: snapshot.servers.len(),
            policies: rules.len(),
            rules: rules.iter().sum(),
            limits: policy.usage_limits().len(),
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            counted(self.listeners, "listener"),
            counted(self.llm_routes, "LLM route"),
            counted(self.mcp_routes, "MCP route"),
            counted(self.http_routes, "plain route"),
            counted(self.providers, "provider"),
            counted(self.servers, "MCP server"),
            match self.policies {
                1 => "1 policy".to_owned(),
                several => format!("{several} policies"),
            },
            counted(self.rules, "rule"),
            counted(self.limits, "usage limit"),
        ];
        f.write_str(&parts.join(", "))
    }
}

fn to_json(outcome: &Outcome) -> serde_json::Value {
    let diagnostics: Vec<_> = outcome
        .diagnostics
        .iter()
        .map(|d| {
            json!({
                "severity": match d.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "code": d.code,
                "message": d.message,
                "file": d.file,
                "line": d.line,
                "column": d.col,
            })
        })
        .collect();
    let skipped: Vec<_> = outcome
        .skipped
        .iter()
        .map(|s| {
            json!({
                "apiVersion": s.api_version,
                "kind": s.kind,
                "name": s.name,
                "file": s.file,
                "line": s.line,
            })
        })
        .collect();
    json!({
        "ok": !outcome.diagnostics.iter().any(Diagnostic::is_error),
        "gateway": outcome.snapshot.as_ref().map(|snapshot| snapshot.gateway.to_string()),
        "compiled": outcome.snapshot.as_ref().map(Summary::of),
        "diagnostics": diagnostics,
        "skipped": skipped,
    })
}

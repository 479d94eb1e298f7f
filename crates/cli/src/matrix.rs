//! `matrix`: who can reach what.

mod callers;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use waypoint_config::Snapshot;
use waypoint_policy::istio::{NoHeaders, Protocol, Request, Verdict};
use waypoint_policy::{Arguments as Given, By, Decision, Facts, Query};

use crate::configuration::{self, GatewayName};
use crate::output;
use crate::paint::Paint;
use crate::table::{Align, Cell, Table, Tone};
use callers::Caller;
use targets::Target;

const EXAMPLE: &str = "\
Example:
  kgateway-waypoint matrix --config config/examples/code-review

Callers and models, tools and paths are those that the policies and providers name. A name with `*`
stands for every other name of that form. Each cell names the rule that decides; `-` is a denial
that no rule asked for. A tool that is allowed with some arguments only is `by arguments`. Istio's
policies are asked about a request without headers of its own.";

/// The width that tables keep to, in characters.
const WIDTH: usize = 120;

/// Show who can reach which model, tool and host.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Files, or directories of `.yaml`, `.yml` and `.json` files.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// Which Gateway to be, when there are several.
    #[arg(long, value_name = "NS/NAME")]
    gateway: Option<GatewayName>,
    /// How to print.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// Decides everything and prints it.
///
/// # Errors
/// When the output cannot be written as JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let snapshot = configuration::load(&arguments.config, arguments.gateway.as_ref());
    let Some(snapshot) = snapshot else {
        return Ok(ExitCode::from(crate::FAILED));
    };
    let matrix = Matrix::of(&snapshot);
    match arguments.output {
        Format::Table => output::print(&matrix.to_tables(Paint::stdout()))?,
        Format::Json => output::print(&format!("{}\n", matrix.to_json()?))?,
        Format::Csv => output::print(&matrix.to_csv())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is decided about a cell.
struct Decided {
    /// With any arguments if that is allowed, else with the best there can be.
    decision: Decision,
    /// Whether others would be denied.
    by_arguments: bool,
}

/// Every caller's decision on every target.
struct Matrix<'s> {
    snapshot: &'s Snapshot,
    callers: Vec<Caller>,
    targets: Vec<Target<'s>>,
    /// By target, then by caller.
    decisions: Vec<Vec<Decided>>,
}

/// What Istio's policies say of the request that asks for a target, without any header of its own.
fn istio(snapshot: &Snapshot, target: &Target<'_>, caller: &Caller) -> Verdict {
    // Nobody reaches an LLM or MCP route without an identity, before any policy is asked.
    if !snapshot.policy.has_istio()
        || (target.kind != "http" && caller.principal.spiffe().is_none())
    {
        return Verdict::default();
    }
    let (method, host, path) = target.line();
    let request = Request {
        protocol: Protocol::Http,
        principal: &caller.principal,
        source_ip: None,
        remote_ip: None,
        destination_ip: None,
        port: snapshot
            .listeners
            .first()
            .map_or(0, |listener| listener.port),
        sni: "",
        method,
        host,
        path,
        headers: &NoHeaders,
        claims: caller.claims.as_ref(),
    };
    snapshot.authorize(&request, &target.behind, host)
}

/// The request that asks for a target, without any header of its own.
fn facts<'t>(snapshot: &Snapshot, target: &'t Target<'_>, caller: &'t Caller) -> Facts<'t> {
    let (method, host, path) = target.line();
    let listener = snapshot.listeners.first();
    Facts {
        method,
        host,
        path,
        port: listener.map_or(0, |listener| listener.port),
        claims: caller.claims.as_ref(),
        ..Facts::default()
    }
}

impl<'s> Matrix<'s> {
    fn of(snapshot: &'s Snapshot) -> Self {
        let callers = callers::callers(snapshot);
        let targets = targets::targets(snapshot);
        let decide = |target: &Target<'_>, caller: &Caller| {
            let verdict = istio(snapshot, target, caller);
            if let Some(decision) = verdict.denial() {
                return Decided {
                    decision,
                    by_arguments: false,
                };
            }
            let with = |arguments| {
                let query = Query {
                    principal: &caller.principal,
                    targets: &target.attached,
                    action: target.action(arguments),
                    facts: facts(snapshot, target, caller),
                };
                snapshot.policy.decide_after(&verdict, &query)
            };
            // What is allowed with any arguments is named by the rule that allows all of them.
            let worst = with(Given::Worst);
            if worst.is_allowed() {
                return Decided {
                    decision: worst,
                    by_arguments: false,
                };
            }
            let decision = with(Given::Best);
            Decided {
                by_arguments: decision.is_allowed(),
                decision,
            }
        };
        let decisions = targets
            .iter()
            .map(|target| {
                callers
                    .iter()
                    .map(|caller| decide(target, caller))
                    .collect()
            })
            .collect();
        Self {
            snapshot,
            callers,
            targets,
            decisions,
        }
    }

    /// One table for each provider, server and host: callers down, what is there across.
    fn to_tables(&self, paint: Paint) -> String {
        let mut out = format!(
            "Gateway {}, posture {}\n",
            self.snapshot.gateway,
            self.snapshot.policy.posture()
        );
        let mut from = 0;
        while let Some(first) = self.targets.get(from) {
            let more = self.targets[from..].iter();
            let to = from
                + more
                    .take_while(|target| target.group == first.group)
                    .count();
            let header = std::iter::once((String::new(), Align::Left));
            let columns = self.targets[from..to].iter();
            let columns = columns.map(|target| (target.item.clone(), Align::Left));
            let mut table = Table::new(header.chain(columns));
            for (row, caller) in self.callers.iter().enumerate() {
                let decisions = self.decisions[from..to]
                    .iter()
                    .filter_map(|all| all.get(row));
                let mut cells = vec![Cell::from(caller.label.as_str())];
                cells.extend(decisions.map(cell));
                table.row(cells);
            }
            out.push_str(&format!("\n{}\n", paint.bold(&first.group)));
            out.push_str(&table.render(WIDTH, paint));
            from = to;
        }
        if self.targets.is_empty() {
            out.push_str("\nnothing is served: there is no provider, MCP server or plain route\n");
        }
        out
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let targets = self.targets.iter().zip(&self.decisions);
        targets.flat_map(|(target, decisions)| {
            let callers = self.callers.iter().zip(decisions);
            callers.map(|(caller, decided)| Entry {
                caller: &caller.label,
                principal: caller.example(),
                kind: target.kind,
                target: &target.name,
                route: &target.route,
                item: &target.item,
                decision: verdict(decided),
                by: decided.decision.by(),
            })
        })
    }

    fn to_json(&self) -> anyhow::Result<String> {
        let entries: Vec<_> = self.entries().collect();
        let json = serde_json::json!({
            "gateway": self.snapshot.gateway.to_string(),
            "posture": self.snapshot.policy.posture().as_str(),
            "cells": entries,
        });
        Ok(serde_json::to_string_pretty(&json)?)
    }

    /// RFC 4180, with a header line.
    fn to_csv(&self) -> String {
        let mut out = String::from("caller,principal,kind,target,route,item,decision,by\n");
        for entry in self.entries() {
            let by = entry.by.to_string();
            let fields = [
                entry.caller,
                entry.principal.unwrap_or_default(),
                entry.kind,
                entry.target,
                entry.route,
                entry.item,
                entry.decision,
                &by,
            ];
            let quoted: Vec<String> = fields.into_iter().map(csv_field).collect();
            out.push_str(&quoted.join(","));
            out.push('\n');
        }
        out
    }
}

/// One cell in machine-readable form.
#[derive(Serialize)]
struct Entry<'a> {
    caller: &'a str,
    /// Absent for "any other" callers and anonymous ones.
    principal: Option<&'a str>,
    kind: &'static str,
    target: &'a str,
    route: &'a str,
    item: &'a str,
    decision: &'static str,
    by: &'a By,
}

/// `conditional` is no `allow`, so that who looks for that alone does not take it for one.
fn verdict(decided: &Decided) -> &'static str {
    match (decided.decision.is_allowed(), decided.by_arguments) {
        (true, false) => "allow",
        (true, true) => "conditional",
        (false, _) => "deny",
    }
}

fn cell(decided: &Decided) -> Cell {
    let decision = &decided.decision;
    let by = match decision.by() {
        By::Rule(rule) => rule.rule.to_string(),
        By::Uncovered(posture) => posture.as_str().to_lowercase(),
        By::NoMatch | By::NoIstioAllow | By::Identity | By::Transport(_) => String::new(),
    };
    let would = if decision.would_deny().is_empty() {
        ""
    } else {
        " (would deny)"
    };
    if decided.by_arguments {
        return Cell::new(format!("allow {by} (by arguments){would}"), Tone::Warn);
    }
    match (decision.is_allowed(), by.as_str()) {
        (true, by) if would.is_empty() => Cell::new(format!("allow {by}"), Tone::Good),
        (true, by) => Cell::new(format!("allow {by}{would}"), Tone::Warn),
        (false, "") => Cell::new("-", Tone::Dim),
        (false, by) => Cell::new(format!("deny {by}"), Tone::Bad),
    }
}

/// Quotes a field where that is needed; never lets a spreadsheet take it for a formula.
fn csv_field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@']);
    let special = text.contains([',', '"', '\n', '\r']);
    match (special, formula) {
        (false, false) => text.to_owned(),
        (_, true) => format!("\"'{}\"", text.replace('"', "\"\"")),
        (true, false) => format!("\"{}\"", text.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests;

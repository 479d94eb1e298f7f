//! `matrix`: who can reach what.

mod callers;
mod decide;
mod facts;
mod plain;
mod targets;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use waypoint_config::Snapshot;
use waypoint_policy::{By, Kind};

use crate::configuration::{self, GatewayName};
use crate::output;
use crate::paint::Paint;
use crate::table::{Align, Cell, Table, Tone};
use callers::Caller;
use decide::{Decided, Judge};
use targets::Target;

const EXAMPLE: &str = "\
Example:
  kgateway-waypoint matrix --config config/examples/code-review

Callers and models, tools and paths are those that the policies and providers name. A name with `*`
stands for every other name of that form. Each cell names the rule that decides; `-` is a denial
that no rule asked for. What a permission depends on beside caller and target stands in brackets: a
header, a host, a token, an address, or `by arguments` where a tool may be called with some of them
only.";

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

/// Every caller's decision on every target.
struct Matrix<'s> {
    snapshot: &'s Snapshot,
    callers: Vec<Caller>,
    targets: Vec<Target<'s>>,
    /// By target, then by caller.
    decisions: Vec<Vec<Decided>>,
}

impl<'s> Matrix<'s> {
    fn of(snapshot: &'s Snapshot) -> Self {
        let callers = callers::callers(snapshot);
        let targets = targets::targets(snapshot);
        let decisions = targets.iter().map(|target| {
            let judge = Judge::new(snapshot, target);
            callers.iter().map(|caller| judge.decide(caller)).collect()
        });
        let decisions = decisions.collect();
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
            let columns = self.columns(from..to);
            let titles = columns.iter().map(|column| column.title());
            let titles = std::iter::once(String::new()).chain(titles);
            let mut table = Table::new(titles.map(|title| (title, Align::Left)));
            for (row, caller) in self.callers.iter().enumerate() {
                let mut cells = vec![Cell::from(caller.label.as_str())];
                let decided = columns.iter().filter_map(|column| column.cells.get(row));
                cells.extend(decided.cloned());
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

    /// The columns of a table: methods of one path that are decided alike stand together.
    fn columns(&self, targets: Range<usize>) -> Vec<Column<'_>> {
        let mut columns: Vec<Column<'_>> = Vec::new();
        let decisions = self.decisions.iter();
        let all = self.targets.iter().zip(decisions);
        for (target, decided) in all.skip(targets.start).take(targets.len()) {
            let cells: Vec<Cell> = decided.iter().map(cell).collect();
            let (method, item) = target.column();
            let same = columns
                .iter_mut()
                .find(|column| method.is_some() && column.item == item && column.cells == cells);
            match same {
                Some(column) => column.methods.extend(method),
                None => columns.push(Column {
                    methods: Vec::from_iter(method),
                    item,
                    cells,
                }),
            }
        }
        columns
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
                condition: decided.condition.as_deref(),
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
        let mut out =
            String::from("caller,principal,kind,target,route,item,decision,by,condition\n");
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
                entry.condition.unwrap_or_default(),
            ];
            let quoted: Vec<String> = fields.into_iter().map(csv_field).collect();
            out.push_str(&quoted.join(","));
            out.push('\n');
        }
        out
    }
}

/// A column of a table.
struct Column<'m> {
    /// Of plain requests.
    methods: Vec<&'m str>,
    item: &'m str,
    cells: Vec<Cell>,
}

impl Column<'_> {
    fn title(&self) -> String {
        match self.methods.is_empty() {
            true => self.item.to_owned(),
            false => format!("{} {}", self.methods.join(", "), self.item),
        }
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
    /// What else it depends on, if anything.
    condition: Option<&'a str>,
}

/// `conditional` is no `allow`, so that who looks for that alone does not take it for one.
fn verdict(decided: &Decided) -> &'static str {
    match (decided.decision.is_allowed(), &decided.condition) {
        (true, None) => "allow",
        (true, Some(_)) => "conditional",
        (false, _) => "deny",
    }
}

fn cell(decided: &Decided) -> Cell {
    let decision = &decided.decision;
    let by = match decision.by() {
        // Istio's rules have numbers only.
        By::Rule(rule) if rule.kind == Kind::AuthorizationPolicy.as_str() => {
            format!("{} {}", rule.policy.name, rule.rule)
        }
        By::Rule(rule) => rule.rule.to_string(),
        By::Uncovered(posture) => posture.as_str().to_lowercase(),
        By::NoMatch | By::NoIstioAllow | By::Identity | By::Transport(_) => String::new(),
    };
    let would = if decision.would_deny().is_empty() {
        ""
    } else {
        " (would deny)"
    };
    if let (true, Some(condition)) = (decision.is_allowed(), &decided.condition) {
        return Cell::new(format!("allow {by} ({condition}){would}"), Tone::Warn);
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

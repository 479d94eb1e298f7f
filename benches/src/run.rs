//! Starts the contenders, plays the cases in turns, and says how they did.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::de::DeserializeOwned;

use crate::case::Case;
use crate::load::{Latency, Saturated};
use crate::process::{self, MEASURED, OTHERS, Process, free_address, pause, resident};
use crate::report::{self, Samples};
use crate::setup;

/// Who answers the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// The upstream itself; its CPU time is the upstream's.
    Direct,
    /// A bare Pingora proxy of the same build.
    Bare,
    /// The gateway, with policy, audit and metrics.
    Gateway,
    /// The same, with four limits on each call.
    Limited,
}

impl Contender {
    /// Those that run unless others are chosen, the yardstick before what is measured by it.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Bare, Self::Gateway];

    /// As a table says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare",
            Self::Gateway => "gateway",
            Self::Limited => "limited",
        }
    }
}

/// What to run, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The kinds of traffic.
    pub cases: Vec<Case>,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// How often each contender's turn comes.
    pub rounds: usize,
    /// Of one turn.
    pub window: Duration,
    /// Whether latency is measured too.
    pub latency: bool,
    /// How many idle streams memory is measured with.
    pub idle: Vec<usize>,
    /// The gateway's binary; else the one beside this one.
    pub gateway: Option<PathBuf>,
}

/// How much memory an idle stream may take, in KiB.
const IDLE_BOUND: f64 = 40.0;
/// Memory that was freed is given back in this time.
const SETTLING: Duration = Duration::from_secs(2);

/// A running contender.
struct Running {
    contender: Contender,
    address: SocketAddr,
    process: Option<Process>,
    /// Whose CPU time and memory are measured.
    watched: u32,
}

/// Runs the plan; says whether all bounds were kept.
///
/// # Errors
/// When a contender does not start, or does not answer as it should.
pub fn run(plan: &Plan) -> Result<bool> {
    process::step_aside()?;
    let most = plan.idle.iter().copied().max().unwrap_or(0);
    process::raise_file_limit(most as u64 * 2 + 512)?;
    let _awake = process::keep_awake()?;
    let directory = tempfile::tempdir()?;
    let stage = Stage {
        e2e: std::env::current_exe()?,
        gateway: gateway_binary(plan.gateway.as_deref())?,
        directory: directory.path(),
        upstream: free_address()?,
    };
    let mut upstream = stage.e2e(OTHERS, "upstream", &[&stage.upstream.to_string()])?;
    upstream.await_listening(stage.upstream)?;
    let mut kept = true;
    if !plan.cases.is_empty() {
        kept &= cases(plan, &stage, upstream.id())?;
    }
    for streams in &plan.idle {
        for contender in &plan.contenders {
            if *contender != Contender::Direct {
                kept &= idle(&stage, *contender, *streams)?;
            }
        }
    }
    Ok(kept)
}

fn cases(plan: &Plan, stage: &Stage<'_>, upstream: u32) -> Result<bool> {
    let mut running = Vec::new();
    for contender in &plan.contenders {
        let one = stage.start(*contender, upstream)?;
        eprintln!(
            "{} is process {} at {}",
            contender.name(),
            one.watched,
            one.address
        );
        running.push(one);
    }
    print!("{}", report::heading());
    let mut kept = true;
    for case in &plan.cases {
        let mut samples: Vec<Samples> = running
            .iter()
            .map(|one| Samples::new(one.contender))
            .collect();
        for _ in 0..plan.rounds {
            for (one, samples) in running.iter().zip(&mut samples) {
                let found = stage.saturate(one, *case, plan.window)?;
                samples.cpu.push(found.cpu * 1e6 / found.units as f64);
                samples.rate.push(found.units as f64 / found.seconds);
            }
        }
        for (one, samples) in running.iter().zip(&mut samples) {
            if plan.latency {
                samples.latency = Some(stage.at_rate(one, *case, plan.window * 3)?);
            }
            samples.resident = resident(one.watched)?;
        }
        let (rows, within) = report::case_rows(*case, &samples);
        print!("{rows}");
        kept &= within;
    }
    Ok(kept)
}

/// Memory per idle stream, in a fresh process.
fn idle(stage: &Stage<'_>, contender: Contender, streams: usize) -> Result<bool> {
    let one = stage.start(contender, 0)?;
    // A first answer brings in what the process needs once.
    stage.saturate(&one, Case::SseBurst, Duration::from_millis(200))?;
    pause(SETTLING);
    let before = resident(one.watched)?;
    let arguments = [&one.address.to_string(), &streams.to_string()];
    let mut callers = stage.e2e(OTHERS, "hold", &arguments.map(String::as_str))?;
    callers.line()?;
    pause(SETTLING);
    let grown = resident(one.watched)?.saturating_sub(before) as f64 / 1024.0 / streams as f64;
    let verdict = match contender {
        Contender::Gateway if grown <= IDLE_BOUND => format!("≤ {IDLE_BOUND} kept"),
        Contender::Gateway => format!("≤ {IDLE_BOUND} OVER"),
        _ => String::new(),
    };
    println!(
        "{:<11} {:<8} {grown:>6.1} KiB a stream at {streams} streams  {verdict}",
        "idle",
        contender.name()
    );
    Ok(contender != Contender::Gateway || grown <= IDLE_BOUND)
}

fn gateway_binary(chosen: Option<&Path>) -> Result<PathBuf> {
    let path = match chosen {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("kgateway-waypoint"),
    };
    path.canonicalize().with_context(|| {
        format!(
            "{} is not there; build it with `cargo build --release -p kgateway-waypoint`",
            path.display()
        )
    })
}

/// What all parts need to start.
struct Stage<'a> {
    e2e: PathBuf,
    gateway: PathBuf,
    directory: &'a Path,
    upstream: SocketAddr,
}

impl Stage<'_> {
    /// Starts this program again, as one of the helpers.
    fn e2e(&self, cpu: usize, name: &'static str, arguments: &[&str]) -> Result<Process> {
        Process::start(name, cpu, &self.e2e, &[&[name], arguments].concat())
    }

    fn start(&self, contender: Contender, upstream: u32) -> Result<Running> {
        let address = match contender {
            Contender::Direct => {
                return Ok(Running {
                    contender,
                    address: self.upstream,
                    process: None,
                    watched: upstream,
                });
            }
            _ => free_address()?,
        };
        let mut process = if contender == Contender::Bare {
            let arguments = [address, self.upstream].map(|address| address.to_string());
            self.e2e(MEASURED, "bare", &[&arguments[0], &arguments[1]])?
        } else {
            // The audit is written elsewhere: what changes beside the configuration is looked at.
            let file = self
                .directory
                .join("config")
                .join(format!("{}.yaml", address.port()));
            let audit = self.directory.join(format!("{}.jsonl", address.port()));
            std::fs::create_dir_all(self.directory.join("config"))?;
            let mut objects = setup::configuration(address, self.upstream, &audit);
            if contender == Contender::Limited {
                objects.push_str(&setup::limits());
            }
            std::fs::write(&file, objects)?;
            let file = file.display().to_string();
            let [admin, metrics, ready] = [free_address()?, free_address()?, free_address()?]
                .map(|address| address.to_string());
            let arguments = [
                "run",
                "--workers",
                "1",
                "--log",
                "warn",
                "--config",
                &file,
                "--admin-address",
                &admin,
                "--metrics-address",
                &metrics,
                "--ready-address",
                &ready,
            ];
            Process::start("gateway", MEASURED, &self.gateway, &arguments)?
        };
        process.await_listening(address)?;
        Ok(Running {
            contender,
            address,
            watched: process.id(),
            process: Some(process),
        })
    }

    fn saturate(&self, one: &Running, case: Case, window: Duration) -> Result<Saturated> {
        let watched = one.watched.to_string();
        self.load("saturate", one, case, window, &["--watch", &watched])
    }

    fn at_rate(&self, one: &Running, case: Case, window: Duration) -> Result<Latency> {
        self.load("rate", one, case, window, &[])
    }

    fn load<T: DeserializeOwned>(
        &self,
        name: &'static str,
        one: &Running,
        case: Case,
        window: Duration,
        more: &[&str],
    ) -> Result<T> {
        let address = one.address.to_string();
        let seconds = window.as_secs_f64().to_string();
        let mut arguments = vec![&*address, case.name(), "--seconds", &seconds];
        if matches!(one.contender, Contender::Gateway | Contender::Limited) {
            arguments.push("--filtered");
        }
        arguments.extend(more);
        let line = self.e2e(OTHERS, name, &arguments)?.line();
        let line = line.with_context(|| format!("{} at {}", case.name(), one.contender.name()))?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.take();
    }
}

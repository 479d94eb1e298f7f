//! The end-to-end harness: CPU time, latency and memory of the gateway, beside bare Pingora.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use waypoint_benches::case::Case;
use waypoint_benches::run::{Contender, Plan};
use waypoint_benches::{bare, load, process, run, upstream};

/// The allocator of the gateway, so that the contenders differ in nothing else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the gateway end to end, beside a bare Pingora proxy of the same build.
#[derive(Debug, Parser)]
#[command(name = "e2e", max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start all parts, play the cases in turns, print a table
    Run(RunArguments),
    /// Become another program, on one processor and no longer than the parent
    On {
        cpu: usize,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Keep a processor busy, until killed
    Spin,
    /// The upstream
    Upstream { listen: SocketAddr },
    /// The bare Pingora proxy
    Bare {
        listen: SocketAddr,
        upstream: SocketAddr,
    },
    /// Load as fast as it is answered; prints a line of JSON
    Saturate {
        #[command(flatten)]
        load: LoadArguments,
        /// Whose CPU time is taken.
        #[arg(long, value_name = "PID")]
        watch: u32,
        /// Instead of what the case says.
        #[arg(long, value_name = "N")]
        connections: Option<usize>,
    },
    /// Load at a fixed rate; prints a line of JSON
    Rate {
        #[command(flatten)]
        load: LoadArguments,
        /// Requests per second, instead of what the case says.
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Open streams and hold them until killed
    Hold { target: SocketAddr, streams: usize },
}

#[derive(Debug, clap::Args)]
struct LoadArguments {
    target: SocketAddr,
    case: Case,
    /// Length of the window.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Lists are filtered by the gateway's policies.
    #[arg(long)]
    filtered: bool,
}

const EXAMPLE: &str = "\
Example:
  cargo build --release -p kgateway-waypoint -p waypoint-benches
  target/release/e2e run --quick --only chat-1k,sse

The measured process has processor 0, everything else has processor 1, which is kept from falling
asleep. Units are requests, or events for `sse` and `sse-burst`. Latency is taken at a low fixed rate from the intended send time; for
`sse` to the first event. Exit code 2: a bound was not kept (with --strict).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
struct RunArguments {
    /// Three rounds of half a second, 1,000 idle streams.
    #[arg(long)]
    quick: bool,
    /// Only these cases; `--only ''` for none.
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    only: Option<Vec<String>>,
    /// Only these contenders.
    #[arg(long, value_delimiter = ',')]
    contenders: Option<Vec<Contender>>,
    /// Turns of each contender in each case.
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of a turn; latency is measured for three times as long.
    #[arg(long)]
    seconds: Option<f64>,
    /// Leave out latency.
    #[arg(long)]
    no_latency: bool,
    /// Numbers of idle streams to measure memory with; `--idle 0` for none.
    #[arg(long, value_delimiter = ',')]
    idle: Option<Vec<usize>>,
    /// The gateway's binary, else `kgateway-waypoint` beside this one.
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Fail when a bound is not kept.
    #[arg(long)]
    strict: bool,
}

impl RunArguments {
    fn plan(self) -> anyhow::Result<Plan> {
        use clap::ValueEnum;
        let cases = match self.only {
            None => Case::ALL.to_vec(),
            Some(names) => names
                .iter()
                .filter(|name| !name.is_empty())
                .map(|name| {
                    Case::from_str(name, false).map_err(|_| anyhow::anyhow!("no case {name}"))
                })
                .collect::<Result<_, _>>()?,
        };
        let (rounds, seconds, idle) = if self.quick {
            (3, 0.5, vec![1000])
        } else {
            // Short turns: neighbours in time see the same machine.
            (25, 0.4, vec![1000, 5000])
        };
        let idle = self.idle.unwrap_or(idle);
        Ok(Plan {
            cases,
            contenders: self.contenders.unwrap_or(Contender::ALL.to_vec()),
            rounds: self.rounds.unwrap_or(rounds),
            window: Duration::from_secs_f64(self.seconds.unwrap_or(seconds)),
            latency: !self.no_latency,
            idle: idle.into_iter().filter(|streams| *streams > 0).collect(),
            gateway: self.gateway,
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match CommandLine::parse().command {
        Command::Run(arguments) => {
            let strict = arguments.strict;
            let kept = run::run(&arguments.plan()?)?;
            return Ok(ExitCode::from(if strict && !kept { 2 } else { 0 }));
        }
        Command::On {
            cpu,
            program,
            arguments,
        } => {
            process::become_child(cpu, &program, &arguments)?;
        }
        Command::Spin => process::spin(),
        Command::Upstream { listen } => {
            upstream::run(listen)?;
        }
        Command::Bare { listen, upstream } => bare::run(listen, upstream)?,
        Command::Saturate {
            load,
            watch,
            connections,
        } => {
            let connections = connections.unwrap_or(load.case.connections());
            let found = load::saturate(
                load.target,
                load.case,
                connections,
                load.filtered,
                Duration::from_secs_f64(load.seconds),
                watch,
            )?;
            println!("{}", serde_json::to_string(&found)?);
        }
        Command::Rate { load, rate } => {
            let found = load::at_rate(
                load.target,
                load.case,
                rate.unwrap_or(load.case.rate()),
                load.filtered,
                Duration::from_secs_f64(load.seconds),
            )?;
            println!("{}", serde_json::to_string(&found)?);
        }
        Command::Hold { target, streams } => load::hold(target, streams)?,
    }
    Ok(ExitCode::SUCCESS)
}

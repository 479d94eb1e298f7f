//! `demo`: a whole mesh of agents in one process, played through a real gateway.

mod authority;
mod client;
mod play;
mod providers;
mod report;
mod scenes;
mod servers;
mod setup;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use waypoint_gateway::{AdminAddresses, Gateway, Options};

use crate::paint::Paint;
use crate::signals::Signals;
use crate::{configuration, logging, output};
use play::Cast;
use setup::{Ports, Setup};

const EXAMPLE: &str = "\
Example:
  kgateway-waypoint demo
  kgateway-waypoint demo --once

Starts two LLM providers, two MCP servers, a certificate authority with five workload identities and
a gateway, all on loopback; plays the calls of a code review and prints what was decided about each,
as the gateway's own audit has it. Needs no network, no keys and no cluster.";

/// How long the gateway may take to end.
const FAREWELL: Duration = Duration::from_secs(8);

/// Show the whole thing at work on this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// End after the table; exit with 0 only if every row is as expected.
    #[arg(long)]
    once: bool,
    /// Port of the agents' base URL on loopback; 0 is any free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Port of the admin pages on loopback; 0 is any free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    admin_port: u16,
    /// What is logged, such as `info` or `waypoint_gateway=debug`.
    #[arg(long, value_name = "FILTER", default_value = "error")]
    log: String,
}

/// Plays, and goes on serving unless it is to be done once.
///
/// # Errors
/// When something cannot be started.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    logging::start(&arguments.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("demo")
        .build()
        .context("threads cannot be started")?;
    let done = runtime.block_on(show(arguments));
    // Upstream connections and watches have nothing left to lose.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let paint = Paint::stdout();
    let directory = tempfile::Builder::new()
        .prefix("kgateway-waypoint-demo-")
        .tempdir()
        .context("no temporary directory can be made")?;
    let mut ports = start_upstreams().await?;
    ports.gateway = match arguments.port {
        0 => free_port()?,
        port => port,
    };
    let setup = Setup::write(directory.path(), ports)?;
    let Some(source) = configuration::open(std::slice::from_ref(&setup.configuration), None) else {
        anyhow::bail!("the generated configuration does not compile");
    };
    let options = Options {
        addresses: AdminAddresses {
            admin: Some((Ipv4Addr::LOCALHOST, arguments.admin_port).into()),
            metrics: None,
            ready: None,
        },
        rejected: None,
    };
    let gateway = Gateway::bind(source.snapshot(), options)
        .await
        .context("choose other ports with --port and --admin-port")?;
    source.spawn(std::future::pending());
    let admin = gateway.admin_addresses().admin;
    let admin = admin.context("the admin port is not bound")?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(gateway.run(async {
        let _ = stopped.await;
    }));

    output::print(&welcome(directory.path(), paint))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.gateway));
    let played = Cast::new(&setup, address, admin)?.play().await;
    output::print(&report::table(&played, started.elapsed(), paint))?;
    let is_good = played.iter().all(|row| row.problems.is_empty());
    if !arguments.once {
        let base = format!("https://localhost:{}/ai-gateway", ports.gateway);
        let text = report::invitation(&setup, &base, admin, directory.path(), paint);
        let mut signals = Signals::new()?;
        output::print(&text)?;
        signals.next().await;
    }
    let _ = stop.send(());
    let _ = tokio::time::timeout(FAREWELL, served).await;
    Ok(match is_good || !arguments.once {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(crate::FAILED),
    })
}

fn welcome(directory: &Path, paint: Paint) -> String {
    format!(
        "{}\n{}\n\n",
        paint.bold("A code review by agents, each with its own identity, through one waypoint"),
        paint.dim(&format!("files in {}", directory.display())),
    )
}

/// Starts what stands behind the gateway; the gateway's own port is still open.
async fn start_upstreams() -> anyhow::Result<Ports> {
    Ok(Ports {
        gateway: 0,
        openai: serve(providers::openai()).await?,
        anthropic: serve(providers::anthropic()).await?,
        github_mcp: serve(servers::github()).await?,
        scanning_mcp: serve(servers::code_scanning()).await?,
        outside: serve(providers::outside()).await?,
    })
}

async fn serve(router: Router) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("no port on loopback can be had")?;
    let port = listener.local_addr()?.port();
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(port)
}

/// A port that was free a moment ago; the configuration must name one.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("no port on loopback can be had")?;
    Ok(listener.local_addr()?.port())
}

/// The demo's configuration, compiled; it is a rich example for the other commands' tests.
#[cfg(test)]
pub(crate) fn snapshot() -> waypoint_config::Snapshot {
    snapshot_with("")
}

/// The same with more objects.
#[cfg(test)]
pub(crate) fn snapshot_with(objects: &str) -> waypoint_config::Snapshot {
    let ports = Ports {
        gateway: 8443,
        openai: 9001,
        anthropic: 9002,
        github_mcp: 9003,
        scanning_mcp: 9004,
        outside: 9005,
    };
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\n-----END {kind}-----\n");
    let identity = authority::Identity {
        certificate_pem: pem("CERTIFICATE"),
        key_pem: pem("PRIVATE KEY"),
    };
    let mut files = setup::objects(ports, Path::new("/tmp/audit.jsonl"));
    files.push((
        "6-secrets.json",
        setup::secrets(&pem("CERTIFICATE"), &identity),
    ));
    if !objects.is_empty() {
        files.push(("7-more.yaml", objects.to_owned()));
    }
    let files: Vec<_> = files
        .into_iter()
        .map(|(path, text)| waypoint_config::File {
            path: path.into(),
            text,
        })
        .collect();
    let outcome = waypoint_config::compile(&files, &waypoint_config::Options::default());
    assert_eq!(outcome.diagnostics, []);
    outcome.snapshot.expect("it compiles without errors")
}

#[cfg(test)]
mod tests;

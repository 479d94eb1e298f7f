//! `run`: the gateway, until it is told to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use tokio::sync::watch;
use waypoint_gateway::{AdminAddresses, Gateway, GatewayError, Options};
use waypoint_source::Status;

use crate::configuration::{self, GatewayName};
use crate::logging;
use crate::signals::Signals;

const EXAMPLE: &str = "\
Example:
  kgateway-waypoint run --config /etc/waypoint --admin-address 127.0.0.1:15000

The configuration is read again when a file changes; one with errors is reported and the last good
one stays in force. SIGTERM and SIGINT drain: running streams may finish. A second signal ends at
once.";

/// Run the gateway with the configuration in files.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Files, or directories of `.yaml`, `.yml` and `.json` files.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// Which Gateway to be, when there are several.
    #[arg(long, value_name = "NS/NAME")]
    gateway: Option<GatewayName>,
    /// Configuration dump and last decisions; a loopback address.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
    /// Prometheus metrics.
    #[arg(long, value_name = "IP:PORT", default_value_t = all_addresses(15020))]
    metrics_address: SocketAddr,
    /// Readiness.
    #[arg(long, value_name = "IP:PORT", default_value_t = all_addresses(15021))]
    ready_address: SocketAddr,
    /// Threads that serve requests; by default one per processor.
    #[arg(long, value_name = "N")]
    workers: Option<std::num::NonZeroUsize>,
    /// What is logged, such as `warn` or `info,waypoint_gateway=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn all_addresses(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

/// Runs until a signal.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    logging::start(&arguments.log)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = arguments.workers {
        runtime.worker_threads(workers.get());
    }
    let runtime = runtime
        .enable_all()
        .thread_name("waypoint")
        .build()
        .context("threads cannot be started")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let source = configuration::open(&arguments.config, arguments.gateway.as_ref());
    let Some(source) = source else {
        return Ok(ExitCode::from(crate::FAILED));
    };
    let options = Options {
        addresses: AdminAddresses {
            admin: Some(arguments.admin_address),
            metrics: Some(arguments.metrics_address),
            ready: Some(arguments.ready_address),
        },
        rejected: Some(rejections(source.status())),
    };
    let gateway = Gateway::bind(source.snapshot(), options)
        .await
        .map_err(with_hint)?;
    source.spawn(std::future::pending());
    announce(&gateway);
    let mut signals = Signals::new()?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let signalled = async {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping; running requests may finish");
        let _ = stop.send(());
        let name = signals.next().await;
        tracing::warn!(signal = name, "stopping at once");
    };
    let served = gateway.run(async {
        let _ = stopped.await;
    });
    tokio::select! {
        () = served => Ok(ExitCode::SUCCESS),
        () = signalled => Ok(ExitCode::from(crate::FAILED)),
    }
}

/// How many changes were rejected, as the gateway counts them.
fn rejections(mut status: watch::Receiver<Status>) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(status.borrow_and_update().rejected_total);
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let total = status.borrow_and_update().rejected_total;
            sender.send_if_modified(|known| std::mem::replace(known, total) != total);
        }
    });
    receiver
}

/// One line per listener, for people and for whoever started us.
fn announce(gateway: &Gateway) {
    let AdminAddresses {
        admin,
        metrics,
        ready,
    } = gateway.admin_addresses();
    let own = [("admin", admin), ("metrics", metrics), ("ready", ready)];
    let own = own
        .into_iter()
        .filter_map(|(name, address)| Some((name.to_owned(), address?)));
    for (name, address) in gateway.addresses().into_iter().chain(own) {
        eprintln!("listening {name} {address}");
    }
}

fn with_hint(error: GatewayError) -> anyhow::Error {
    let hint = match &error {
        GatewayError::Bind(_) => {
            "stop what listens there, or choose other addresses: `spec.addresses` and \
             `spec.listeners[].port` of the Gateway, --admin-address, --metrics-address, \
             --ready-address"
        }
        GatewayError::Tls { .. } => {
            "look at the Secret in `tls.certificateRefs` and the roots in `caCertificateRefs` of \
             this listener"
        }
        GatewayError::Identity(_) => {
            "look at the files in `identity.files` of the WaypointParameters; the certificate needs \
             exactly one URI name, `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`"
        }
        GatewayError::AdminNotLoopback(_) => {
            "choose one such as 127.0.0.1:15000; to reach it from elsewhere use `kubectl port-forward`"
        }
    };
    anyhow::anyhow!("{error}\nhint: {hint}")
}

//! Runs the waypoint: listeners, configuration, audit writer, admin ports, and its end.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::apps::{HttpServerApp, HttpServerOptions};
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypoint_config::Snapshot;
use waypoint_mesh::certificates::CertificatesError;
use waypoint_mesh::hbone::{self, Hbone};
use waypoint_mesh::tls::TlsError;
use waypoint_mesh::{ConnectionResult, Events, Files, Tunnel};

use crate::admin::{self, Port};
use crate::credential::Credentials;
use crate::exchange::{Connector, Upstreams};
use crate::hbone::OwnListeners;
use crate::jwt::KeyRing;
use crate::listeners::{self, Listeners};
use crate::mcp_session::Sealer;
use crate::mcp_tasks::Tasks;
use crate::proxy::{Proxy, Waypoint};
use crate::record::{AuditLog, AuditSinks, Recent, Recorder};
use crate::state::State;
use crate::tunnel;

/// Where the life of the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Requests are taken.
    Serving,
    /// No new connections; what runs goes on.
    Draining,
    /// Streams that still run are ended with an error event.
    Ending,
}

/// After streams were told to end, connections have this long to close.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// HTTP/2 streams per downstream connection.
const HTTP2_STREAMS: u32 = 100;
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_HEADER_LIST_MAX: u32 = 256 * 1024;

/// Addresses of the operator's ports; `None` leaves one out.
#[derive(Debug, Clone)]
pub struct AdminAddresses {
    /// `/config_dump`, `/decisions`, `/healthz`; loopback only.
    pub admin: Option<SocketAddr>,
    /// Prometheus metrics.
    pub metrics: Option<SocketAddr>,
    /// `/healthz/ready`.
    pub ready: Option<SocketAddr>,
}

impl Default for AdminAddresses {
    fn default() -> Self {
        let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            admin: Some((Ipv4Addr::LOCALHOST, 15000).into()),
            metrics: Some((all, 15020).into()),
            ready: Some((all, 15021).into()),
        }
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The operator's ports.
    pub addresses: AdminAddresses,
    /// How many changed configurations were rejected so far, for the metric.
    pub rejected: Option<watch::Receiver<u64>>,
}

/// Why the waypoint cannot start, or cannot take a configuration.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address cannot be bound.
    #[error("{0}")]
    Bind(#[from] std::io::Error),
    /// A listener's certificates cannot be used.
    #[error("listener {listener}: {error}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        error: TlsError,
    },
    /// Our certificate cannot be used.
    #[error("identity: {0}")]
    Identity(#[from] CertificatesError),
    /// The admin port would be reachable from elsewhere.
    #[error("admin address {0} is not a loopback address")]
    AdminNotLoopback(SocketAddr),
}

/// A bound waypoint, ready to run.
pub struct Gateway {
    waypoint: Arc<Waypoint>,
    proxy: Arc<HttpProxy<Proxy>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    rejected: Option<watch::Receiver<u64>>,
    rejected_seen: u64,
    upstreams: Arc<Upstreams>,
    ring: KeyRing,
    generation: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
    /// Pingora's own flag: requests that begin after it close their connection.
    closing: watch::Sender<bool>,
    listeners: Listeners,
    /// Our certificate, while a listener needs it.
    identity: Option<Arc<Files>>,
    admin: Vec<(Port, TcpListener)>,
    tracker: TaskTracker,
    /// Ends the connections that are still open when the process ends.
    cut: CancellationToken,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// A connection that is served.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

struct ConnectionEvents(Arc<Recorder>);

impl Events for ConnectionEvents {
    fn connection(&self, listener: &str, result: ConnectionResult) {
        self.0.metrics.connection(listener, result);
    }
}

impl Gateway {
    /// Binds everything the newest snapshot asks for.
    ///
    /// # Errors
    /// [`GatewayError`]: nothing is served then.
    pub async fn bind(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        options: Options,
    ) -> Result<Self, GatewayError> {
        // Both this and Pingora's rustls backend use the process default.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connector = Arc::new(Connector::new());
        let upstreams = Arc::new(Upstreams::default());
        let mut snapshots = snapshots;
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let (generation, generation_seen) = watch::channel(snapshot.generation);
        let (phase, phase_seen) = watch::channel(Phase::Serving);
        let recorder = Arc::new(Recorder::new());
        let ring = KeyRing::new(Arc::clone(&recorder));
        let waypoint = Arc::new(Waypoint {
            state: ArcSwap::from_pointee(State::new(
                Arc::clone(&snapshot),
                &connector,
                &upstreams,
                &ring,
            )),
            generation: generation_seen,
            phase: phase_seen,
            connector,
            credentials: Credentials::default(),
            recorder,
            sealer: Sealer::new(),
            tasks: Tasks::default(),
            recent: Recent::default(),
            limits: Arc::default(),
        });
        let mut gateway = Self {
            proxy: Arc::new(pingora(Arc::clone(&waypoint))),
            waypoint,
            snapshots,
            rejected: options.rejected,
            rejected_seen: 0,
            upstreams,
            ring,
            generation,
            phase,
            closing: watch::channel(false).0,
            listeners: Listeners::default(),
            identity: None,
            admin: Vec::new(),
            tracker: TaskTracker::new(),
            cut: CancellationToken::new(),
        };
        gateway.listen(&snapshot)?;
        let addresses = options.addresses;
        if let Some(address) = addresses
            .admin
            .filter(|address| !address.ip().is_loopback())
        {
            return Err(GatewayError::AdminNotLoopback(address));
        }
        for (port, address) in [
            (Port::Admin, addresses.admin),
            (Port::Metrics, addresses.metrics),
            (Port::Ready, addresses.ready),
        ] {
            if let Some(address) = address {
                let listener = TcpListener::bind(address).await.map_err(|error| {
                    std::io::Error::new(
                        error.kind(),
                        format!("cannot listen on {address}: {error}"),
                    )
                })?;
                gateway.admin.push((port, listener));
            }
        }
        gateway.share_limits(&snapshot);
        let metrics = &gateway.waypoint.recorder.metrics;
        metrics.generation.set(metric(snapshot.generation));
        metrics.rules(&snapshot.policy);
        gateway.say_missing_credentials(&snapshot);
        Ok(gateway)
    }

    /// The bound addresses, by listener name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.listeners
            .addresses(&self.waypoint.state.load().snapshot)
    }

    /// The bound addresses of the operator's ports.
    #[must_use]
    pub fn admin_addresses(&self) -> AdminAddresses {
        let bound = |wanted: Port| {
            let (_, listener) = self.admin.iter().find(|(port, _)| *port == wanted)?;
            listener.local_addr().ok()
        };
        AdminAddresses {
            admin: bound(Port::Admin),
            metrics: bound(Port::Metrics),
            ready: bound(Port::Ready),
        }
    }

    /// Serves until `shutdown` resolves, then drains: no new connections, streams go on until the
    /// configured deadline and are then ended with an error event.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        for (port, listener) in self.admin.drain(..) {
            tokio::spawn(admin::run(Arc::clone(&self.waypoint), port, listener));
        }
        let (audit_stop, audit_stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&self.waypoint.limits).sweep());
        // Requests that are faster than the writer's first turn leave their events too.
        enable_audit(&self.waypoint);
        let audit = tokio::spawn(write_audit(Arc::clone(&self.waypoint), audit_stopped));
        self.start_listeners();
        tokio::pin!(shutdown);
        loop {
            let rejected = self.rejected.clone();
            tokio::select! {
                () = &mut shutdown => break,
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        // The source has ended: what is in force stays in force.
                        (&mut shutdown).await;
                        break;
                    }
                    self.take_snapshot();
                }
                () = changed(rejected) => self.count_rejected(),
            }
        }
        self.drain().await;
        self.waypoint.limits.close().await;
        let _ = audit_stop.send(true);
        let _ = audit.await;
    }

    fn count_rejected(&mut self) {
        if let Some(rejected) = &mut self.rejected {
            let total = *rejected.borrow_and_update();
            let more = total.saturating_sub(self.rejected_seen);
            self.waypoint.recorder.metrics.rejected.inc_by(more);
            self.rejected_seen = total;
        }
    }

    /// Puts a new snapshot in force, unless its listeners cannot be had.
    fn take_snapshot(&mut self) {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        if let Err(error) = self.listen(&snapshot) {
            tracing::error!(%error, generation = snapshot.generation, "configuration not taken");
            self.waypoint.recorder.metrics.rejected.inc();
            return;
        }
        let state = State::new(
            Arc::clone(&snapshot),
            &self.waypoint.connector,
            &self.upstreams,
            &self.ring,
        );
        // Before calls find a limit that is shared.
        self.share_limits(&snapshot);
        self.waypoint.state.store(Arc::new(state));
        self.start_listeners();
        let metrics = &self.waypoint.recorder.metrics;
        metrics.generation.set(metric(snapshot.generation));
        metrics.rules(&snapshot.policy);
        self.say_missing_credentials(&snapshot);
        tracing::info!(generation = snapshot.generation, "configuration in force");
        let _ = self.generation.send(snapshot.generation);
    }

    /// Has the sockets that a snapshot asks for, and the certificate they need.
    ///
    /// # Errors
    /// [`GatewayError`]: nothing has changed then.
    fn listen(&mut self, snapshot: &Snapshot) -> Result<(), GatewayError> {
        let identity = listeners::identity(snapshot, self.identity.as_ref())?;
        let wanted = listeners::wanted(snapshot, identity.as_ref())?;
        let connections = snapshot.parameters.limits.connections;
        self.listeners.reconcile(wanted, connections)?;
        let is_same = match (&identity, &self.identity) {
            (Some(new), Some(held)) => Arc::ptr_eq(new, held),
            _ => false,
        };
        if let Some(new) = identity.as_ref().filter(|_| !is_same) {
            tokio::spawn(Files::watch(Arc::downgrade(new)));
        }
        self.identity = identity;
        Ok(())
    }

    /// Keeps shared limits where the configuration says.
    fn share_limits(&self, snapshot: &Snapshot) {
        let Waypoint {
            limits,
            connector,
            recorder,
            ..
        } = &*self.waypoint;
        limits.share(snapshot, connector, &recorder.metrics.limit_store);
    }

    /// A provider whose key is not there is served: its calls are refused one by one, and the key
    /// may come later. But whoever starts us should not learn it from a caller.
    fn say_missing_credentials(&self, snapshot: &Snapshot) {
        for provider in &snapshot.providers {
            if self
                .waypoint
                .credentials
                .secret(&provider.credential)
                .is_err()
            {
                tracing::warn!(
                    provider = %provider.llm.name,
                    "the credential of this provider cannot be read: its calls are refused until it can"
                );
            }
        }
    }

    fn start_listeners(&mut self) {
        for (listener, stop) in self.listeners.take_new() {
            let proxy = Arc::clone(&self.proxy);
            let waypoint = Arc::clone(&self.waypoint);
            let closing = self.closing.subscribe();
            let (tracker, cut) = (self.tracker.clone(), self.cut.clone());
            let events: Arc<dyn Events> =
                Arc::new(ConnectionEvents(Arc::clone(&self.waypoint.recorder)));
            let (heard, stopped) = (Arc::clone(&events), stop.clone());
            let run = move |connection| {
                // Boxed: each of the futures around it would set its size aside twice.
                let connection = cut.clone().run_until_cancelled_owned(connection);
                let tracked = tracker.track_future(connection);
                async move {
                    let _ = tracked.await;
                }
            };
            let serve = move |tunnel: Tunnel| {
                let (waypoint, proxy) = (Arc::clone(&waypoint), Arc::clone(&proxy));
                let (closing, run) = (closing.clone(), run.clone());
                let direct = {
                    let (waypoint, run) = (Arc::clone(&waypoint), run.clone());
                    move |tunnel| {
                        let (proxy, waypoint) = (Arc::clone(&proxy), Arc::clone(&waypoint));
                        let served = tunnel::serve(proxy, waypoint, tunnel, closing.clone());
                        run(Box::pin(served) as Connection)
                    }
                };
                if !tunnel.is_hbone {
                    return direct(tunnel);
                }
                let hbone = Hbone {
                    events: Arc::clone(&heard),
                    handshake_timeout: handshake_timeout(&waypoint),
                    targets: Arc::new(OwnListeners(waypoint)),
                };
                let mut stopped = stopped.clone();
                let closing = async move {
                    // Also when the listener is gone.
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                run(Box::pin(hbone::serve(tunnel, hbone, closing, direct)) as Connection)
            };
            tokio::spawn(listener.run(stop, events, serve));
        }
    }

    async fn drain(&mut self) {
        let deadline = self.waypoint.state.load().snapshot.parameters.drain;
        let _ = self.phase.send(Phase::Draining);
        self.listeners.close();
        let _ = self.closing.send(true);
        self.proxy.http_cleanup().await;
        self.tracker.close();
        tracing::info!(connections = self.tracker.len(), "draining");
        if tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
        {
            return;
        }
        let _ = self.phase.send(Phase::Ending);
        if tokio::time::timeout(LAST_WORDS, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(connections = self.tracker.len(), "connections are cut");
            // What is dropped leaves its audit event.
            self.cut.cancel();
            let _ = tokio::time::timeout(LAST_WORDS, self.tracker.wait()).await;
        }
    }
}

fn handshake_timeout(waypoint: &Waypoint) -> Duration {
    let state = waypoint.state.load();
    state.snapshot.parameters.limits.handshake_timeout
}

async fn changed(receiver: Option<watch::Receiver<u64>>) {
    if let Some(mut receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn metric(generation: u64) -> i64 {
    i64::try_from(generation).unwrap_or(i64::MAX)
}

/// The one Pingora proxy, which never opens a socket of its own.
fn pingora(waypoint: Arc<Waypoint>) -> HttpProxy<Proxy> {
    let conf = Arc::new(ServerConf::default());
    let mut proxy = http_proxy(&conf, Proxy(waypoint));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(Duration::from_secs(60));
    // To our own filter, which refuses it like any other request.
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    let mut http2 = default_h2_options();
    http2.max_concurrent_streams(HTTP2_STREAMS);
    // Ours is the bound that answers with 431; this one only resets.
    http2.max_header_list_size(HTTP2_HEADER_LIST_MAX);
    http2.initial_window_size(HTTP2_STREAM_WINDOW);
    // Streams times window: one stalled upload never stops the others.
    http2.initial_connection_window_size(HTTP2_STREAMS * HTTP2_STREAM_WINDOW);
    proxy.h2_options = Some(http2);
    proxy
}

/// Keeps events for the writer when the configuration in force wants them; gives what it wants.
fn enable_audit(waypoint: &Waypoint) -> waypoint_config::Audit {
    let audit = waypoint.state.load().snapshot.parameters.audit.clone();
    let wanted = audit.stdout || audit.file.is_some();
    waypoint.recorder.audit.set_enabled(wanted);
    audit
}

/// Writes audit events until told to stop, then once more.
async fn write_audit(waypoint: Arc<Waypoint>, mut stop: watch::Receiver<bool>) {
    let mut sinks = AuditSinks::default();
    let log: &AuditLog = &waypoint.recorder.audit;
    loop {
        sinks.configure(&enable_audit(&waypoint));
        let stopped = tokio::select! {
            () = log.wait() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let lost = log.flush(&mut sinks).await;
        waypoint.recorder.metrics.audit_lost.inc_by(lost);
        if stopped {
            return;
        }
    }
}

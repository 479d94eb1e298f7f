//! The connection to the store: one, made again when it breaks; every question has a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge, IntGaugeVec};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, RedisConnectionInfo, ServerErrorKind,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use waypoint_config::{LimitStore, UpstreamTls};
use waypoint_mesh::Io;

use super::script::Script;
use crate::credential::Credentials;
use crate::exchange::Connector;

/// For a name, a connection and the greeting.
const CONNECT: Duration = Duration::from_secs(2);

/// What the store is counted by.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    /// 1 while it answers.
    pub(crate) up: IntGaugeVec,
    /// Questions.
    pub(crate) round_trips: IntCounter,
    /// Questions without an answer that can be used.
    pub(crate) failures: IntCounter,
}

impl StoreMetrics {
    /// There from the first store on: no gateway without one looks as if it had lost it.
    pub(super) fn up(&self) -> IntGauge {
        self.up.with_label_values::<&str>(&[])
    }
}

/// Why the store cannot be used. What a log may say: no key, no credential, no text of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Down {
    #[error("its name is not known")]
    Name,
    #[error("it does not accept connections")]
    Connect,
    #[error("TLS failed")]
    Tls,
    #[error("there is no password to show")]
    Credential,
    #[error("it does not take the password")]
    Authentication,
    #[error("it did not answer in time")]
    Timeout,
    #[error("the connection broke")]
    Broken,
    #[error("it refused ({0})")]
    Refused(&'static str),
    #[error("its answer is not understood")]
    Answer,
    #[error("there is no connection")]
    Closed,
}

/// A connection and the task that drives it.
#[derive(Debug)]
struct Live {
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connection to the store.
#[derive(Debug)]
pub(super) struct Link {
    settings: LimitStore,
    connector: Arc<Connector>,
    credentials: Credentials,
    live: Mutex<Option<Arc<Live>>>,
    /// Whether the last change that was logged was for the better; `None` before the first.
    said_up: Mutex<Option<bool>>,
    is_up: AtomicBool,
    /// Whether another store has taken its place, which is counted now.
    is_retired: AtomicBool,
    /// Whether it has been tried to connect.
    pub(super) is_tried: watch::Sender<bool>,
    /// Told when the connection was given up.
    pub(super) lost: Notify,
    metrics: StoreMetrics,
}

impl Link {
    pub(super) fn new(
        settings: LimitStore,
        connector: Arc<Connector>,
        metrics: StoreMetrics,
    ) -> Self {
        metrics.up().set(0);
        Self {
            settings,
            connector,
            credentials: Credentials::default(),
            live: Mutex::default(),
            said_up: Mutex::default(),
            is_up: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            is_tried: watch::channel(false).0,
            lost: Notify::new(),
            metrics,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// From here on it only settles what calls still hold.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Whether it is worth asking.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Whether it is worth asking, once that is known: at the beginning it takes a moment to connect.
    pub(super) async fn is_ready(&self) -> bool {
        if !self.is_up() && !*self.is_tried.borrow() {
            let mut tried = self.is_tried.subscribe();
            let tried = tried.wait_for(|is_tried| *is_tried);
            let _ = tokio::time::timeout(self.timeout(), tried).await;
        }
        self.is_up()
    }

    /// Connects and, when the first question has been answered too, lets others ask.
    ///
    /// # Errors
    /// [`Down`], which has been logged if that is news.
    pub(super) async fn open<T>(
        &self,
        first: impl AsyncFnOnce(&Self) -> Result<T, Down>,
    ) -> Result<T, Down> {
        let opened = async {
            let connected = tokio::time::timeout(CONNECT, self.connect()).await;
            let live = connected.map_err(|_| Down::Timeout).flatten()?;
            *self.live() = Some(Arc::new(live));
            first(self).await
        };
        let opened = opened.await;
        match &opened {
            Ok(_) => self.say(None),
            Err(why) => {
                *self.live() = None;
                self.say(Some(*why));
            }
        }
        self.is_tried.send_replace(true);
        opened
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Option<Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, down: Option<Down>) {
        self.is_up.store(down.is_none(), Ordering::Release);
        if self.is_retired.load(Ordering::Acquire) {
            return;
        }
        self.metrics.up().set(i64::from(down.is_none()));
        let mut said = self.said_up.lock().unwrap_or_else(PoisonError::into_inner);
        if said.replace(down.is_none()) == Some(down.is_none()) {
            return;
        }
        match down {
            None => tracing::info!("limit store is up"),
            Some(why) => tracing::warn!(%why, "limit store is down"),
        }
    }

    async fn connect(&self) -> Result<Live, Down> {
        let settings = &self.settings;
        let addresses = self.connector.addresses(&settings.endpoint, &[]).await;
        let addresses = addresses.map_err(|_| Down::Name)?;
        let connected = TcpStream::connect(addresses.as_slice()).await;
        let stream = connected.map_err(|_| Down::Connect)?;
        let _ = stream.set_nodelay(true);
        let io = match &settings.endpoint.tls {
            None => Io::from(stream),
            Some(tls) => secure(stream, tls).await?,
        };
        let password = self.credentials.secret(&settings.credential);
        let password = password.map_err(|_| Down::Credential)?;
        let mut greeting = RedisConnectionInfo::default()
            .set_db(settings.database.into())
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        if let Some(password) = password {
            greeting = greeting.set_password(password);
        }
        if let Some(username) = &settings.username {
            greeting = greeting.set_username(username);
        }
        // We have deadlines of our own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&greeting, io, config).await;
        let (connection, driver) = made.map_err(|error| down(&error))?;
        Ok(Live {
            connection,
            driver: tokio::spawn(driver).abort_handle(),
        })
    }

    /// Asks the store. Whoever is not answered takes the connection down: what arrives late on it
    /// is read by nobody.
    ///
    /// # Errors
    /// [`Down`]; nobody knows whether the question was taken.
    pub(super) async fn ask(
        &self,
        script: &Script,
        fill: impl Fn(&mut redis::Cmd),
    ) -> Result<Vec<i64>, Down> {
        let live = self.live().clone().ok_or(Down::Closed)?;
        let answer = tokio::time::timeout(self.timeout(), self.run(&live, script, fill)).await;
        let answer = answer.map_err(|_| Down::Timeout).flatten();
        if let Err(why) = answer {
            self.metrics.failures.inc();
            self.lose(&live, why);
        }
        answer
    }

    /// Gives a connection up that the store has closed while nobody asked.
    pub(super) fn look(&self) {
        let live = self.live().clone();
        if let Some(live) = live.filter(|live| live.driver.is_finished()) {
            self.lose(&live, Down::Broken);
        }
    }

    fn lose(&self, live: &Arc<Live>, why: Down) {
        let mut current = self.live();
        if current.as_ref().is_some_and(|now| Arc::ptr_eq(now, live)) {
            *current = None;
            drop(current);
            self.say(Some(why));
            self.lost.notify_one();
        }
    }

    async fn run(
        &self,
        live: &Live,
        script: &Script,
        fill: impl Fn(&mut redis::Cmd),
    ) -> Result<Vec<i64>, Down> {
        let mut connection = live.connection.clone();
        let mut by_name = redis::cmd("EVALSHA");
        by_name.arg(&script.name);
        fill(&mut by_name);
        self.metrics.round_trips.inc();
        match by_name.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            answer => return answer.map_err(|error| down(&error)),
        }
        // A new or restarted store; it remembers the script from here on.
        let mut by_text = redis::cmd("EVAL");
        by_text.arg(script.text);
        fill(&mut by_text);
        self.metrics.round_trips.inc();
        let answer = by_text.query_async(&mut connection).await;
        answer.map_err(|error| down(&error))
    }
}

async fn secure(stream: TcpStream, tls: &UpstreamTls) -> Result<Io, Down> {
    let name = ServerName::try_from(tls.hostname.clone()).map_err(|_| Down::Tls)?;
    let roots = match &tls.roots_pem {
        Some(pem) => waypoint_mesh::tls::roots(pem).map_err(|_| Down::Tls)?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Down::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|_| Down::Tls)?;
    Ok(Io::from(tokio_rustls::TlsStream::Client(stream)))
}

fn down(error: &redis::RedisError) -> Down {
    match error.kind() {
        ErrorKind::AuthenticationFailed => Down::Authentication,
        ErrorKind::Io => Down::Broken,
        ErrorKind::Server(kind) => Down::Refused(match kind {
            ServerErrorKind::BusyLoading => "LOADING",
            ServerErrorKind::Moved | ServerErrorKind::Ask => "MOVED",
            ServerErrorKind::CrossSlot => "CROSSSLOT",
            ServerErrorKind::ClusterDown => "CLUSTERDOWN",
            ServerErrorKind::MasterDown => "MASTERDOWN",
            ServerErrorKind::ReadOnly => "READONLY",
            ServerErrorKind::NoPerm => "NOPERM",
            _ => "ERR",
        }),
        ErrorKind::Extension => Down::Refused(match error.code() {
            Some("OOM") => "OOM",
            Some("NOAUTH") => "NOAUTH",
            Some("WRONGTYPE") => "WRONGTYPE",
            Some("MISCONF") => "MISCONF",
            _ => "an error",
        }),
        _ => Down::Answer,
    }
}

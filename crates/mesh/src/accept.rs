//! Accept loops: TCP and TLS connections become tunnels with a principal.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use waypoint_policy::Principal;

use crate::identity::{self, IdentitySource};
use crate::io::Io;
use crate::sniff::{self, HttpVersion};
use crate::tls::MeshTls;

/// How a connection attempt ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionResult {
    /// It became a tunnel.
    Accepted,
    /// The listener's connection cap was reached.
    TooMany,
    /// The handshake failed, a missing or refused client certificate included.
    HandshakeFailed,
    /// The handshake or the first bytes took too long.
    TimedOut,
    /// It ended before it said anything.
    Closed,
    /// A CONNECT in an HBONE connection became a tunnel.
    Tunnel,
    /// A CONNECT to what is not ours, or is no listener of ours that tunnels lead to.
    Unbound,
    /// A stream of an HBONE connection that is no CONNECT to an address.
    Malformed,
    /// A CONNECT of a caller who is not known any more.
    Unidentified,
    /// A CONNECT that came while we end.
    Draining,
}

impl ConnectionResult {
    /// Every value, for registering metrics.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::TooMany,
        Self::HandshakeFailed,
        Self::TimedOut,
        Self::Closed,
        Self::Tunnel,
        Self::Unbound,
        Self::Malformed,
        Self::Unidentified,
        Self::Draining,
    ];

    /// Stable metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::TooMany => "too_many",
            Self::HandshakeFailed => "handshake_failed",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::Tunnel => "tunnel",
            Self::Unbound => "unbound",
            Self::Malformed => "malformed",
            Self::Unidentified => "unidentified",
            Self::Draining => "draining",
        }
    }
}

/// Hears how connections end.
pub trait Events: Send + Sync + 'static {
    /// Called once for every connection attempt, and for every CONNECT in a connection.
    fn connection(&self, listener: &str, result: ConnectionResult);
}

/// What bytes on a listener are wrapped in.
#[derive(Debug, Clone)]
pub enum Security {
    /// Plain TCP.
    Plain,
    /// TLS; the configuration says whether clients must have a certificate.
    Tls(Arc<ServerConfig>),
    /// TLS as in the mesh, and in it HTTP/2 whose streams are connections themselves.
    Hbone(Arc<MeshTls>),
}

/// What may change on a listener while its socket stays open.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// The Gateway listener's name.
    pub name: Arc<str>,
    /// TLS or not.
    pub security: Security,
    /// Trust domains whose identities are accepted.
    pub trust_domains: Vec<String>,
    /// Bound for the TLS handshake and the first bytes together.
    pub handshake_timeout: Duration,
}

/// An accepted connection whose caller is known.
#[derive(Debug)]
pub struct Tunnel {
    /// Who calls.
    pub principal: Principal,
    /// How we know.
    pub identity_source: IdentitySource,
    /// When the certificate that says so ends.
    pub expires: Option<SystemTime>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The HBONE listener through which it came, if it did.
    pub via: Option<Arc<str>>,
    /// Whether its streams are tunnels themselves; see [`crate::hbone::serve`].
    pub is_hbone: bool,
    /// The caller's address.
    pub peer: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// What it speaks.
    pub version: HttpVersion,
    /// The bytes.
    pub io: Io,
    /// Held for the life of the connection; counts against the listener's cap.
    pub slot: OwnedSemaphorePermit,
}

/// A bound socket and its changeable settings.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    settings: ArcSwap<ListenerSettings>,
    slots: Arc<Semaphore>,
}

impl Listener {
    /// Binds a socket; `connections` is the cap of open connections.
    ///
    /// `beside` are listeners of ours on the same port that are about to be closed: they may share
    /// it until then.
    ///
    /// # Errors
    /// The operating system's, with the address in the message.
    pub fn bind(
        address: SocketAddr,
        connections: usize,
        settings: ListenerSettings,
        beside: &[&Self],
    ) -> io::Result<Self> {
        let bind = || -> io::Result<TcpListener> {
            let socket = match address {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            // Set on both sides, and only then: nobody else can share a port with us unnoticed.
            socket.set_reuseport(!beside.is_empty())?;
            for other in beside {
                socket2::SockRef::from(&other.socket).set_reuse_port(true)?;
            }
            socket.bind(address)?;
            let socket = socket.listen(4096)?;
            socket2::SockRef::from(&socket).set_reuse_port(false)?;
            Ok(socket)
        };
        let bound = bind();
        for other in beside {
            let _ = socket2::SockRef::from(&other.socket).set_reuse_port(false);
        }
        let socket = bound.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            local,
            settings: ArcSwap::from_pointee(settings),
            slots: Arc::new(Semaphore::new(connections)),
        })
    }

    /// The bound address, with the port the system chose when 0 was asked.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Replaces the settings for connections accepted from now on.
    pub fn set(&self, settings: ListenerSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// Accepts until `stop` becomes true; each connection is handed to `serve` in its own task.
    pub async fn run<F, Fut>(
        self: Arc<Self>,
        mut stop: watch::Receiver<bool>,
        events: Arc<dyn Events>,
        serve: F,
    ) where
        F: Fn(Tunnel) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or a connection that was gone at once: neither may end
                    // the loop, and the first must not spin.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let settings = self.settings.load_full();
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                events.connection(&settings.name, ConnectionResult::TooMany);
                continue;
            };
            let (events, serve, local) = (Arc::clone(&events), serve.clone(), self.local);
            tokio::spawn(async move {
                let name = Arc::clone(&settings.name);
                // Boxed: a handshake needs far more room than the connection it becomes.
                let established = Box::pin(establish(stream, peer, local, slot, &settings)).await;
                match established {
                    Ok(tunnel) => {
                        events.connection(&name, ConnectionResult::Accepted);
                        drop(settings);
                        serve(tunnel).await;
                    }
                    Err(result) => events.connection(&name, result),
                }
            });
        }
    }
}

/// Says why a handshake was refused: the peer itself is only cut off. Some each second, so that
/// strangers cannot fill a log.
fn refused(listener: &str, peer: SocketAddr, error: &io::Error) {
    static SAID: AtomicU64 = AtomicU64::new(0);
    const PER_SECOND: u64 = 10;
    let second = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs());
    // The second in the upper bits, how often in the lower.
    let said = SAID.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |said| {
        match (said >> 8 == second, said & 0xff) {
            (true, PER_SECOND..) => None,
            (true, _) => Some(said + 1),
            (false, _) => Some(second << 8 | 1),
        }
    });
    if said.is_ok() {
        tracing::info!(listener, %peer, %error, "handshake refused");
    }
}

async fn establish(
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    slot: OwnedSemaphorePermit,
    settings: &ListenerSettings,
) -> Result<Tunnel, ConnectionResult> {
    let _ = stream.set_nodelay(true);
    // The address the caller used, which differs from the bound one on a wildcard socket.
    let local = stream.local_addr().unwrap_or(local);
    let is_hbone = matches!(settings.security, Security::Hbone(_));
    let open = async {
        let config = match &settings.security {
            Security::Plain => None,
            Security::Tls(config) => Some(Arc::clone(config)),
            Security::Hbone(tls) => Some(tls.config().map_err(|error| {
                tracing::error!(listener = &*settings.name, %error, "no handshake is possible");
                ConnectionResult::HandshakeFailed
            })?),
        };
        let mut io = match config {
            None => Io::from(stream),
            Some(config) => {
                let stream = TlsAcceptor::from(config)
                    .accept(stream)
                    .await
                    .map_err(|error| {
                        refused(&settings.name, peer, &error);
                        ConnectionResult::HandshakeFailed
                    })?;
                Io::from(tokio_rustls::TlsStream::Server(stream))
            }
        };
        let version = match io.alpn() {
            Some(b"h2") => HttpVersion::Http2,
            _ if is_hbone => return Err(ConnectionResult::HandshakeFailed),
            Some(_) => HttpVersion::Http1,
            None => sniff::http_version(&mut io)
                .await
                .map_err(|_| ConnectionResult::Closed)?,
        };
        Ok((io, version))
    };
    let (io, version) = tokio::time::timeout(settings.handshake_timeout, open)
        .await
        .map_err(|_| ConnectionResult::TimedOut)??;
    let (principal, identity_source, expires) = match io.peer_certificate() {
        None => (Principal::Anonymous, IdentitySource::None, None),
        Some(der) => {
            let id = identity::spiffe_id(der, &settings.trust_domains)
                .map_err(|_| ConnectionResult::HandshakeFailed)?;
            let expires = identity::not_after(der);
            (
                Principal::Workload(id),
                IdentitySource::Certificate,
                expires,
            )
        }
    };
    Ok(Tunnel {
        principal,
        identity_source,
        expires,
        listener: Arc::clone(&settings.name),
        via: None,
        is_hbone,
        peer,
        local,
        version,
        io,
        slot,
    })
}

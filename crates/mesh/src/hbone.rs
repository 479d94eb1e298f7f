//! HBONE: HTTP/2 over mutual TLS, each of whose CONNECT streams is a connection of the same caller.

mod stream;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{Method, Request, Response, StatusCode, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use waypoint_policy::Principal;

pub use stream::Stream;

use crate::accept::{ConnectionResult, Events, Tunnel};
use crate::identity::IdentitySource;
use crate::io::Io;
use crate::sniff;

/// Tunnels in one connection; a ztunnel opens another connection for more.
const STREAMS: u32 = 100;
/// What a caller may send ahead in one tunnel, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams times window: tunnels that are not read never stop the others. It is the most that one
/// connection makes us hold of what it sends.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// What we hold of what a tunnel's caller does not read, in bytes.
const SEND_BUFFER: usize = STREAM_WINDOW as usize;
const FRAME: u32 = 64 * 1024;
/// A CONNECT says little.
const HEADER_LIST: u32 = 16 * 1024;
/// As an Istio waypoint, and as ztunnel does towards us.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Who opened an HBONE connection, and where.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who calls in all its tunnels.
    pub principal: Principal,
    /// How we know.
    pub identity_source: IdentitySource,
    /// When the certificate that says so ends.
    pub expires: Option<SystemTime>,
    /// The HBONE listener's name.
    pub listener: Arc<str>,
    /// The caller's address.
    pub address: SocketAddr,
    /// Our address, as the caller used it.
    pub local: SocketAddr,
}

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not a CONNECT.
    Method,
    /// The authority is no address with a port.
    Malformed,
    /// The address is not ours, or nothing there takes tunnels. We are nobody's relay.
    Unbound,
    /// Who calls is not known any more.
    Unidentified,
    /// There are too many connections.
    TooMany,
    /// We end.
    Draining,
}

impl Refused {
    fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed | Self::Unbound => StatusCode::BAD_REQUEST,
            Self::Unidentified => StatusCode::UNAUTHORIZED,
            Self::TooMany | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn result(self) -> ConnectionResult {
        match self {
            Self::Method | Self::Malformed => ConnectionResult::Malformed,
            Self::Unbound => ConnectionResult::Unbound,
            Self::Unidentified => ConnectionResult::Unidentified,
            Self::TooMany => ConnectionResult::TooMany,
            Self::Draining => ConnectionResult::Draining,
        }
    }
}

/// Knows where tunnels may lead.
pub trait Targets: Send + Sync + 'static {
    /// The name of the listener of ours that takes connections to an address.
    ///
    /// # Errors
    /// [`Refused`], when this peer may not have one.
    fn listener(&self, target: SocketAddr, peer: &Peer) -> Result<Arc<str>, Refused>;
}

/// What serving HBONE needs.
pub struct Hbone {
    /// Hears how tunnels begin.
    pub events: Arc<dyn Events>,
    /// Bound for the first bytes of a connection, and of each tunnel.
    pub handshake_timeout: Duration,
    /// Where tunnels may lead.
    pub targets: Arc<dyn Targets>,
}

impl fmt::Debug for Hbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hbone")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// Serves an HBONE connection to its end; each tunnel is handed to `serve` in its own task. When
/// `closing` resolves the peer is told to open no more; what runs may finish.
///
/// `baggage`, `forwarded` and whatever else a CONNECT carries is not read: anyone in the mesh can
/// write it.
pub async fn serve<F, Fut>(
    tunnel: Tunnel,
    hbone: Hbone,
    closing: impl Future<Output = ()>,
    serve: F,
) where
    F: Fn(Tunnel) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut settings = Builder::new();
    settings
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST);
    let preface = settings.handshake::<_, Bytes>(tunnel.io);
    let preface = tokio::time::timeout(hbone.handshake_timeout, preface).await;
    let Ok(Ok(mut connection)) = preface else {
        return;
    };
    let peer = Peer {
        principal: tunnel.principal,
        identity_source: tunnel.identity_source,
        expires: tunnel.expires,
        listener: tunnel.listener,
        address: tunnel.peer,
        local: tunnel.local,
    };
    let lost = lost(connection.ping_pong());
    tokio::pin!(lost, closing);
    let mut is_closing = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = &mut lost => return,
            () = &mut closing, if !is_closing => {
                is_closing = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, mut answer))) = accepted else {
            return;
        };
        let admitted = hbone.admit(request.method(), request.uri(), &peer, &tunnel.slot);
        let (name, result) = (&peer.listener, admitted.as_ref().err());
        let result = result.map_or(ConnectionResult::Tunnel, |refused| refused.result());
        hbone.events.connection(name, result);
        match admitted {
            Err(refused) => refuse(&mut answer, refused),
            Ok(admitted) => {
                // At once, before what follows is looked at: the caller sends nothing until then.
                let Some(io) = accept(request, &mut answer) else {
                    continue;
                };
                let open = open(io, peer.clone(), admitted, hbone.handshake_timeout);
                let (events, serve) = (Arc::clone(&hbone.events), serve.clone());
                tokio::spawn(async move {
                    let (name, opened) = open.await;
                    match opened {
                        Ok(tunnel) => {
                            events.connection(&name, ConnectionResult::Accepted);
                            serve(tunnel).await;
                        }
                        Err(result) => events.connection(&name, result),
                    }
                });
            }
        }
    }
}

/// A tunnel that may be.
struct Admitted {
    listener: Arc<str>,
    target: SocketAddr,
    slot: OwnedSemaphorePermit,
}

impl Hbone {
    fn admit(
        &self,
        method: &Method,
        uri: &Uri,
        peer: &Peer,
        slot: &OwnedSemaphorePermit,
    ) -> Result<Admitted, Refused> {
        if method != Method::CONNECT {
            return Err(Refused::Method);
        }
        let target = target(uri)?;
        let listener = self.targets.listener(target, peer)?;
        // A tunnel costs what a connection does, and counts as one.
        let slots: &Arc<Semaphore> = slot.semaphore();
        let slot = Arc::clone(slots).try_acquire_owned();
        Ok(Admitted {
            listener,
            target,
            slot: slot.map_err(|_| Refused::TooMany)?,
        })
    }
}

/// The address of a CONNECT; names are well-formed and none of ours.
fn target(uri: &Uri) -> Result<SocketAddr, Refused> {
    let authority = uri.authority().ok_or(Refused::Malformed)?;
    if uri.scheme().is_some() || uri.path_and_query().is_some_and(|path| path != "/") {
        return Err(Refused::Malformed);
    }
    if let Ok(address) = authority.as_str().parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(Refused::Malformed),
            port => Ok(SocketAddr::new(address.ip().to_canonical(), port)),
        };
    }
    let is_name = !authority.as_str().contains(['@', '[']) && !authority.host().is_empty();
    match authority.port_u16() {
        Some(1..) if is_name => Err(Refused::Unbound),
        _ => Err(Refused::Malformed),
    }
}

fn refuse(answer: &mut SendResponse<Bytes>, refused: Refused) {
    let mut head = Response::new(());
    *head.status_mut() = refused.status();
    // Fails only if the stream has ended meanwhile.
    let _ = answer.send_response(head, true);
}

fn accept(request: Request<RecvStream>, answer: &mut SendResponse<Bytes>) -> Option<Io> {
    let send = answer.send_response(Response::new(()), false).ok()?;
    Some(Io::from(Stream::new(request.into_body(), send)))
}

/// Waits for the first bytes of a tunnel, as for those of a connection.
async fn open(
    mut io: Io,
    peer: Peer,
    admitted: Admitted,
    timeout: Duration,
) -> (Arc<str>, Result<Tunnel, ConnectionResult>) {
    let name = Arc::clone(&admitted.listener);
    let version = match tokio::time::timeout(timeout, sniff::http_version(&mut io)).await {
        Ok(Ok(version)) => version,
        Ok(Err(_)) => return (name, Err(ConnectionResult::Closed)),
        Err(_) => return (name, Err(ConnectionResult::TimedOut)),
    };
    let tunnel = Tunnel {
        principal: peer.principal,
        identity_source: peer.identity_source,
        expires: peer.expires,
        listener: admitted.listener,
        via: Some(peer.listener),
        is_hbone: false,
        peer: peer.address,
        local: admitted.target,
        version,
        io,
        slot: admitted.slot,
    };
    (name, Ok(tunnel))
}

/// Resolves when the peer does not answer pings.
async fn lost(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let pong = tokio::time::timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await;
        if !matches!(pong, Ok(Ok(_))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

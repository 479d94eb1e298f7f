//! One accepted connection, handed to Pingora with what we know of its caller.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{SocketDigest, Stream};
use pingora_http::ResponseHeader;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use waypoint_mesh::{HttpVersion, Tunnel};

use crate::caller::Connection;
use crate::proxy::{Proxy, Waypoint};
use crate::wire::{HeadGuard, HeadPhase, Wire};

/// How long a connection may wait for its first request; each request sets its own for the next.
const FIRST_IDLE_SECONDS: u64 = 60;

/// Serves one connection to its end.
pub(crate) async fn serve(
    proxy: Arc<HttpProxy<Proxy>>,
    waypoint: Arc<Waypoint>,
    tunnel: Tunnel,
    closing: watch::Receiver<bool>,
) {
    let Tunnel {
        principal,
        identity_source,
        expires,
        listener,
        via,
        is_hbone: _,
        peer,
        local,
        version,
        io,
        slot,
    } = tunnel;
    let head_phase = Arc::new(HeadPhase::default());
    let (header_bytes, header_timeout) = {
        let state = waypoint.state.load();
        let limits = &state.snapshot.parameters.limits;
        (limits.header_bytes, limits.header_timeout)
    };
    let connection = Arc::new(Connection {
        principal,
        identity_source,
        expires,
        listener,
        via,
        peer,
        local,
        head_phase: Arc::clone(&head_phase),
    });
    let Ok(no_response) = ResponseHeader::build_no_case(200, Some(0)) else {
        return;
    };
    let data = Box::new(Arc::clone(&connection));
    let digest = ProxyDigest::new(Box::new(no_response), Some(data));
    // Addresses are preset: there is no descriptor to ask.
    let socket = SocketDigest::from_raw_fd(-1);
    let _ = socket.peer_addr.set(Some(PingoraAddr::Inet(peer)));
    let _ = socket.local_addr.set(Some(PingoraAddr::Inet(local)));
    let guard = HeadGuard::new(head_phase, header_bytes, header_timeout);
    let wire = Wire::downstream(io, version, Arc::new(digest), Arc::new(socket), guard);
    let stream: Stream = Box::new(wire);
    match version {
        HttpVersion::Http1 => {
            http1(&proxy, stream, &closing, None).await;
            if let Some(code) = connection.head_phase.refused() {
                Box::pin(waypoint.head_refused(&connection, code)).await;
            }
        }
        HttpVersion::Http2 => {
            proxy.process_new(stream, &closing).await;
        }
    }
    drop(slot);
}

/// Serves the requests of an HTTP/1 connection one after the other; `patience` is for each of
/// them, the wait for it included.
///
/// As Pingora's own loop, whose future is large because it could also become one of HTTP/2: an
/// idle stream would hold that room for hours.
pub(crate) async fn http1<A: HttpServerApp>(
    app: &Arc<A>,
    stream: Stream,
    closing: &watch::Receiver<bool>,
    patience: Option<Duration>,
) {
    let mut next = Some((stream, None));
    while let Some((stream, settings)) = next {
        let mut session = ServerSession::new_http1(stream);
        match settings {
            Some(settings) => HttpPersistentSettings::apply_to_session(settings, &mut session),
            None if *closing.borrow() => session.set_keepalive(None),
            None => session.set_keepalive(Some(FIRST_IDLE_SECONDS)),
        }
        let served = app.process_new_http(session, closing);
        let reused = match patience {
            None => served.await,
            Some(patience) => tokio::time::timeout(patience, served).await.ok().flatten(),
        };
        next = reused.map(ReusedHttpStream::consume);
    }
}

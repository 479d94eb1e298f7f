//! One accepted connection, handed to Pingora with what we know of its caller.

use std::sync::Arc;

use pingora_core::apps::ServerApp;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{SocketDigest, Stream};
use pingora_http::ResponseHeader;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use waypoint_mesh::Tunnel;

use crate::proxy::{Connection, Proxy, Waypoint};
use crate::wire::{HeadGuard, HeadPhase, Wire};

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
        listener,
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
        listener,
        peer,
        local,
        head_phase: Arc::clone(&head_phase),
    });
    let Ok(no_response) = ResponseHeader::build_no_case(200, None) else {
        return;
    };
    let digest = ProxyDigest::new(Box::new(no_response), Some(Box::new(connection)));
    // Addresses are preset: there is no descriptor to ask.
    let socket = SocketDigest::from_raw_fd(-1);
    let _ = socket.peer_addr.set(Some(PingoraAddr::Inet(peer)));
    let _ = socket.local_addr.set(Some(PingoraAddr::Inet(local)));
    let guard = HeadGuard::new(head_phase, header_bytes, header_timeout);
    let wire = Wire::downstream(io, version, Arc::new(digest), Arc::new(socket), guard);
    let mut stream: Option<Stream> = Some(Box::new(wire));
    while let Some(open) = stream.take() {
        stream = proxy.process_new(open, &closing).await;
    }
    drop(slot);
}

//! Which of our listeners tunnels lead to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use waypoint_config::{Listener, Protocol, Snapshot};
use waypoint_mesh::hbone::{Peer, Refused, Targets};

use crate::caller::is_trusted;
use crate::proxy::Waypoint;
use crate::serve::Phase;

/// The listeners of the configuration in force, at our own addresses.
pub(crate) struct OwnListeners(pub(crate) Arc<Waypoint>);

impl Targets for OwnListeners {
    fn listener(&self, target: SocketAddr, peer: &Peer) -> Result<Arc<str>, Refused> {
        if *self.0.phase.borrow() != Phase::Serving {
            return Err(Refused::Draining);
        }
        let state = self.0.state.load();
        let snapshot = &state.snapshot;
        if !is_trusted(&peer.principal, peer.expires, snapshot) {
            return Err(Refused::Unidentified);
        }
        let found = own(snapshot, target, peer).ok_or(Refused::Unbound)?;
        Ok(Arc::clone(&found.name))
    }
}

fn own<'s>(snapshot: &'s Snapshot, target: SocketAddr, peer: &Peer) -> Option<&'s Listener> {
    let ip = target.ip().to_canonical();
    let mut listeners = snapshot.listeners.iter();
    let found = listeners.find(|listener| listener.port == target.port())?;
    if !is_open(snapshot, found, Some(&peer.listener)) {
        return None;
    }
    // The address that the caller has reached is ours; others only if the Gateway says so.
    let is_ours = ip == peer.local.ip().to_canonical() || found.addresses.contains(&ip);
    let is_bound = found.addresses.is_empty()
        || (found.addresses.iter()).any(|bound| *bound == ip || bound.is_unspecified());
    (is_ours && is_bound && !is_nowhere(ip)).then_some(found)
}

fn is_nowhere(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast()
}

/// Whether a listener takes connections that came this way: directly, or through an HBONE listener
/// of this name.
///
/// A listener whose callers are named by tokens takes no tunnels: one caller is never two.
pub(crate) fn is_open(snapshot: &Snapshot, listener: &Listener, via: Option<&str>) -> bool {
    let Some(via) = via else {
        return listener.protocol != Protocol::Hbone;
    };
    let mut listeners = snapshot.listeners.iter();
    listener.protocol == Protocol::Http
        && listener.tokens.is_empty()
        && listeners.any(|other| *other.name == *via && other.protocol == Protocol::Hbone)
}

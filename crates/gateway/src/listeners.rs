//! The sockets of the configuration in force, and our certificate: opened, changed and closed as it
//! changes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use waypoint_config::{ClientCertificate, Protocol, Snapshot};
use waypoint_mesh::certificates::Places;
use waypoint_mesh::tls::{self, ClientAuthentication, MeshTls, TlsError};
use waypoint_mesh::{Certificates, Files, Listener, ListenerSettings, Security};

use crate::serve::GatewayError;

#[derive(Debug)]
struct Bound {
    listener: Arc<Listener>,
    stop: watch::Sender<bool>,
    running: bool,
}

/// The open sockets, by the address they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    bound: HashMap<SocketAddr, Bound>,
}

impl Listeners {
    /// Opens, changes and closes sockets so that they are those wanted; what stays is not
    /// touched. `connections` is the cap of each.
    ///
    /// # Errors
    /// The first socket that cannot be opened; nothing has changed then.
    pub(crate) fn reconcile(
        &mut self,
        wanted: Vec<(SocketAddr, ListenerSettings)>,
        connections: usize,
    ) -> Result<(), GatewayError> {
        let mut opened = HashMap::new();
        for (address, settings) in &wanted {
            if !self.bound.contains_key(address) && !opened.contains_key(address) {
                let leaving: Vec<&Listener> = self
                    .bound
                    .iter()
                    .filter(|(bound, _)| bound.port() == address.port() && bound.port() != 0)
                    .filter(|(bound, _)| !wanted.iter().any(|(wanted, _)| wanted == *bound))
                    .map(|(_, bound)| &*bound.listener)
                    .collect();
                let listener = Arc::new(open(*address, connections, settings, &leaving)?);
                let (stop, _) = watch::channel(false);
                opened.insert(
                    *address,
                    Bound {
                        listener,
                        stop,
                        running: false,
                    },
                );
            }
        }
        self.bound.retain(|address, bound| {
            let stays = wanted.iter().any(|(wanted, _)| wanted == address);
            if !stays {
                let _ = bound.stop.send(true);
            }
            stays
        });
        self.bound.extend(opened);
        for (address, settings) in wanted {
            if let Some(bound) = self.bound.get(&address) {
                bound.listener.set(settings);
            }
        }
        Ok(())
    }

    /// The sockets that nobody accepts on yet, each with what tells it to stop.
    pub(crate) fn take_new(&mut self) -> Vec<(Arc<Listener>, watch::Receiver<bool>)> {
        let new = self.bound.values_mut().filter(|bound| !bound.running);
        new.map(|bound| {
            bound.running = true;
            (Arc::clone(&bound.listener), bound.stop.subscribe())
        })
        .collect()
    }

    /// Stops accepting.
    pub(crate) fn close(&mut self) {
        for bound in self.bound.values() {
            let _ = bound.stop.send(true);
        }
        self.bound.clear();
    }

    /// The bound addresses, by listener name.
    pub(crate) fn addresses(&self, snapshot: &Snapshot) -> Vec<(String, SocketAddr)> {
        let mut found: Vec<(String, SocketAddr)> = snapshot
            .listeners
            .iter()
            .flat_map(|listener| {
                bind_addresses(listener)
                    .into_iter()
                    .filter_map(|address| self.bound.get(&address))
                    .map(|bound| (listener.name.to_string(), bound.listener.local_addr()))
            })
            .collect();
        found.dedup();
        found
    }
}

/// The sockets a listener needs.
fn bind_addresses(listener: &waypoint_config::Listener) -> Vec<SocketAddr> {
    if listener.addresses.is_empty() {
        return vec![SocketAddr::new(
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            listener.port,
        )];
    }
    listener
        .addresses
        .iter()
        .map(|ip| SocketAddr::new(*ip, listener.port))
        .collect()
}

/// Binds; "all addresses" is both families where the machine has IPv6, else IPv4.
fn open(
    address: SocketAddr,
    connections: usize,
    settings: &ListenerSettings,
    leaving: &[&Listener],
) -> std::io::Result<Listener> {
    match Listener::bind(address, connections, settings.clone(), leaving) {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != std::io::ErrorKind::AddrInUse =>
        {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            Listener::bind(v4, connections, settings.clone(), leaving)
        }
        bound => bound,
    }
}

/// The listeners of a snapshot in the form the accept side takes.
///
/// # Errors
/// The first certificate that cannot be used.
pub(crate) fn wanted(
    snapshot: &Snapshot,
    identity: Option<&Arc<Files>>,
) -> Result<Vec<(SocketAddr, ListenerSettings)>, GatewayError> {
    let parameters = &snapshot.parameters;
    let mut wanted = Vec::new();
    for listener in &snapshot.listeners {
        let unusable = |error: TlsError| GatewayError::Tls {
            listener: listener.name.to_string(),
            error,
        };
        let security = match &listener.tls {
            None if listener.protocol == Protocol::Hbone => {
                let identity = identity.ok_or_else(|| unusable(TlsError::NoPrivateKey))?;
                let certificates: Arc<dyn Certificates> = Arc::clone(identity) as _;
                let tls = MeshTls::new(certificates, &parameters.trust_domains);
                Security::Hbone(Arc::new(tls.map_err(unusable)?))
            }
            None => Security::Plain,
            Some(server) => {
                let clients = match &server.client {
                    ClientCertificate::Off => ClientAuthentication::Off,
                    ClientCertificate::Optional { roots_pem } => ClientAuthentication::Optional {
                        roots_pem: roots_pem.clone(),
                    },
                    ClientCertificate::Required { roots_pem } => ClientAuthentication::Required {
                        roots_pem: roots_pem.clone(),
                    },
                };
                let config = tls::server_config(
                    &server.certificate_pem,
                    server.private_key_pem.expose(),
                    &clients,
                    &parameters.trust_domains,
                );
                Security::Tls(config.map_err(unusable)?)
            }
        };
        let settings = ListenerSettings {
            name: Arc::clone(&listener.name),
            security,
            trust_domains: parameters.trust_domains.clone(),
            handshake_timeout: parameters.limits.handshake_timeout,
        };
        wanted.extend(
            bind_addresses(listener)
                .into_iter()
                .map(|address| (address, settings.clone())),
        );
    }
    Ok(wanted)
}

/// Our certificate, if a listener needs it: the one that is held while its files are the same.
///
/// # Errors
/// [`GatewayError::Identity`] when it cannot be used.
pub(crate) fn identity(
    snapshot: &Snapshot,
    held: Option<&Arc<Files>>,
) -> Result<Option<Arc<Files>>, GatewayError> {
    let mut listeners = snapshot.listeners.iter();
    let is_needed = listeners.any(|listener| listener.protocol == Protocol::Hbone);
    let Some(files) = (snapshot.parameters.identity.as_ref()).filter(|_| is_needed) else {
        return Ok(None);
    };
    let places = Places {
        certificate: files.certificate.clone(),
        private_key: files.private_key.clone(),
        trust_bundle: files.trust_bundle.clone(),
    };
    match held.filter(|held| *held.places() == places) {
        Some(held) => Ok(Some(Arc::clone(held))),
        None => Ok(Some(Files::open(places)?)),
    }
}

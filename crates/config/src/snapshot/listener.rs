//! Where callers are accepted, and how they say who they are.

use std::net::IpAddr;
use std::sync::Arc;

use waypoint_policy::{Secret, SpiffeId};

use crate::jwt::TokenPrincipal;

/// An address we accept on, with its protocol.
#[derive(Debug)]
pub struct Listener {
    /// The listener's name in the Gateway.
    pub name: Arc<str>,
    /// Addresses to bind; empty means all.
    pub addresses: Vec<IpAddr>,
    /// Port to bind.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Only requests for this host are served; lower case, may begin with `*.`.
    pub hostname: Option<Arc<str>>,
    /// Our certificate and what we ask of callers; present exactly for [`Protocol::Https`].
    pub tls: Option<ServerTls>,
    /// Who everyone on this listener is taken to be; loopback addresses only.
    pub developer: Option<SpiffeId>,
    /// Tokens by which callers may say who they are; none where there are certificates or a
    /// developer identity.
    pub tokens: Vec<Arc<TokenPrincipal>>,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// Tunnels of the mesh to our [`Protocol::Http`] listeners, with our own certificate.
    Hbone,
}

/// The server side of TLS.
#[derive(Debug)]
pub struct ServerTls {
    /// PEM chain, leaf first.
    pub certificate_pem: String,
    /// PEM private key.
    pub private_key_pem: Secret<String>,
    /// What is asked of callers.
    pub client: ClientCertificate,
}

/// Whether callers show a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Not asked for; every caller is anonymous.
    Off,
    /// Asked for and checked when shown.
    Optional {
        /// PEM roots that may sign it.
        roots_pem: String,
    },
    /// No connection without one.
    Required {
        /// PEM roots that may sign it.
        roots_pem: String,
    },
}

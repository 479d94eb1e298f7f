//! Providers and servers: where they are, and with whose key they are called.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use waypoint_llm as llm;
use waypoint_policy::{Secret, ServerId, TargetId};

/// An LLM provider, where it is and whose key is used.
#[derive(Debug)]
pub struct Provider {
    /// What the LLM pipeline needs of it.
    pub llm: llm::Provider,
    /// The provider as a place policies are attached to.
    pub target: Option<TargetId>,
    /// Where requests go.
    pub endpoint: Endpoint,
    /// With whose key.
    pub credential: Credential,
}

/// An MCP destination.
#[derive(Debug)]
pub struct Server {
    /// Its index in [`Snapshot::servers`](crate::Snapshot::servers).
    pub id: ServerId,
    /// `namespace/proxy/route` of the first route that names it.
    pub label: Arc<str>,
    /// Where requests go.
    pub endpoint: Endpoint,
    /// The path of the MCP endpoint there, beginning with `/`.
    pub path: String,
}

/// Where to connect, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// TLS to the upstream; `None` is clear text.
    pub tls: Option<UpstreamTls>,
    /// What is sent as `Host`, without port.
    pub host: Arc<str>,
    /// Port to connect to when [`Address::Dns`]; part of `Host` when not the scheme's default.
    pub port: u16,
    /// Goes before every path; empty or `/…` without a trailing slash.
    pub prefix: String,
    /// The addresses, or the name to look up.
    pub address: Address,
    /// Whether private addresses are fine: true for Services and what `allowPrivateEndpoints`
    /// let pass. When false, resolved addresses are checked against
    /// [`Parameters::allow_private`](crate::Parameters::allow_private) by [`Parameters::may_connect`](crate::Parameters::may_connect).
    pub private: bool,
    /// HTTP/2 with prior knowledge (`appProtocol: kubernetes.io/h2c`).
    pub http2: bool,
}

/// TLS to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// The name in SNI that the certificate must carry.
    pub hostname: String,
    /// PEM roots; `None` is the public set.
    pub roots_pem: Option<String>,
}

/// The addresses of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name to look up when connecting.
    Dns(String),
    /// Known addresses; never empty.
    Fixed(Vec<SocketAddr>),
}

/// What is shown to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing; the caller's own is removed.
    None,
    /// The caller's own.
    Passthrough,
    /// A value from a Secret.
    Inline(Secret<String>),
    /// The value of an environment variable of the gateway.
    Env(String),
    /// The content of a file, read again when it changes.
    File(PathBuf),
}

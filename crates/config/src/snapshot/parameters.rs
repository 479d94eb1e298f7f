//! What holds for a waypoint as a whole: bounds, audit, our own certificate.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::LimitStore;
use crate::path::PathNormalization;

/// Settings of a waypoint (`WaypointParameters`, and mesh facts of the `istio` ConfigMap).
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Own trust domain first, then its aliases.
    pub trust_domains: Vec<String>,
    /// Private ranges that providers and external hosts may resolve to. Services are exempt.
    pub allow_private: Vec<IpNet>,
    /// Where audit events go.
    pub audit: Audit,
    /// Bounds on what strangers may make us hold.
    pub limits: Limits,
    /// How long streams may finish after shutdown was asked for.
    pub drain: Duration,
    /// What is made of a plain request's path before it is matched and forwarded.
    pub path_normalization: PathNormalization,
    /// What follows `.svc.` in the DNS names of Services.
    pub dns_suffix: String,
    /// Our own certificate, when it comes from files.
    pub identity: Option<IdentityFiles>,
    /// Where shared limits are kept.
    pub limit_store: Option<LimitStore>,
}

/// Where audit events go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// One line each on standard output.
    pub stdout: bool,
    /// One line each in a file.
    pub file: Option<AuditFile>,
}

/// An audit file that is rotated by size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFile {
    /// The file to append to.
    pub path: PathBuf,
    /// The size at which a new file is begun, in bytes.
    pub max_size_bytes: u64,
}

/// Our own certificate, as files that are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
    /// PEM roots that sign our peers.
    pub trust_bundle: PathBuf,
}

/// Bounds on what strangers may make us hold; sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open downstream connections.
    pub connections: usize,
    /// Request head.
    pub header_bytes: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Body of an LLM request.
    pub llm_body_bytes: usize,
    /// Body of an MCP request.
    pub mcp_body_bytes: usize,
    /// One server-sent event.
    pub sse_event_bytes: usize,
    /// A plain JSON answer, where it has to be held whole.
    pub answer_bytes: usize,
    /// TLS handshake of a caller.
    pub handshake_timeout: Duration,
    /// A kept connection without a request.
    pub idle_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            llm_body_bytes: 32 << 20,
            mcp_body_bytes: 4 << 20,
            sse_event_bytes: 16 << 20,
            answer_bytes: 64 << 20,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
        }
    }
}

//! `WaypointParameters`: settings of a waypoint.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::store::LimitStore;
use super::{CertificateRef, Duration, Text};

/// Settings of a waypoint; a Gateway names them in `spec.infrastructure.parametersRef`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WaypointParameters {
    /// What happens to requests that no policy covers; default Graduated.
    pub(crate) posture: Option<Posture>,
    /// By name of a listener of the Gateway.
    #[serde(default)]
    pub(crate) listeners: BTreeMap<String, ListenerParameters>,
    /// The waypoint's own certificate.
    pub(crate) identity: Option<Identity>,
    /// The own trust domain first, then its aliases; default `cluster.local`.
    pub(crate) trust_domains: Option<Vec<String>>,
    /// CIDRs that providers and external hosts may resolve to; by default none.
    #[serde(default)]
    pub(crate) allow_private_endpoints: Vec<Text<ipnet::IpNet>>,
    /// Whether an `AuthorizationPolicy` of the waypoint's namespace with nothing but `spec: {}` denies
    /// here too what no other allows; in Istio only ztunnel enforces it. Default false.
    #[serde(default)]
    pub(crate) namespace_default_deny: bool,
    /// Where audit events go; default standard output.
    pub(crate) audit: Option<Audit>,
    /// Bounds on what callers may make the waypoint hold.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// How long streams may finish after shutdown was asked for; default 30s.
    pub(crate) drain_timeout: Option<Duration>,
    /// What follows `.svc.` in the DNS names of Services; default `cluster.local`.
    pub(crate) dns_suffix: Option<String>,
    #[schemars(skip)]
    pub(crate) trusted_waypoints: Option<serde_json::Value>,
    /// Where limits with `store: Shared` are kept; by default nowhere.
    pub(crate) limit_store: Option<LimitStore>,
}

/// What happens to requests that no policy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Posture {
    /// Allowed and recorded as what would be denied.
    Observe,
    /// Callers of the waypoint's namespace are allowed.
    Graduated,
    /// Denied.
    Strict,
}

/// Settings of one listener.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ListenerParameters {
    /// What is asked of callers; HTTPS listeners only.
    pub(crate) client_certificate: Option<ClientCertificate>,
    /// Developer identity: who every caller is taken to be. Loopback addresses only.
    pub(crate) principal: Option<Text<waypoint_policy::SpiffeId>>,
    /// Tokens by which callers may say who they are, where there are no client certificates and no
    /// developer identity; by default none.
    #[serde(default)]
    pub(crate) token_principals: Vec<TokenPrincipal>,
}

/// Tokens of one issuer that name the workload that calls.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TokenPrincipal {
    /// Which claims name the workload.
    #[serde(rename = "type")]
    pub(crate) kind: TokenKind,
    /// What `iss` must be. Tokens of type SPIFFE whose keys are given may go without.
    pub(crate) issuer: Option<String>,
    /// What `aud` must have one of.
    #[schemars(length(min = 1))]
    pub(crate) audiences: Vec<String>,
    /// The keys, as a JSON Web Key Set. Default the place that the issuer's OpenID configuration
    /// names.
    pub(crate) jwks: Option<String>,
    /// Where the keys are.
    pub(crate) jwks_uri: Option<String>,
    /// Roots (`ca.crt`) that may sign the certificate of where keys are; default the public ones.
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<CertificateRef>,
    /// For one attempt to fetch keys; default 5s.
    pub(crate) timeout: Option<Duration>,
    /// The headers that hold the token; default `Authorization` with the prefix `Bearer `.
    #[serde(default)]
    pub(crate) from_headers: Vec<TokenHeader>,
    /// Whether the token goes on, to RequestAuthentication and to the destination of a plain
    /// request; default false.
    #[serde(default)]
    pub(crate) forward_original_token: bool,
}

/// Which claims name a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum TokenKind {
    /// A Kubernetes service account token: its namespace and name, in the own trust domain.
    ServiceAccount,
    /// A JWT-SVID: its subject is the SPIFFE ID.
    #[serde(rename = "SPIFFE")]
    Spiffe,
}

/// A header that holds a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TokenHeader {
    pub(crate) name: String,
    /// What stands before the token; default nothing.
    #[serde(default)]
    pub(crate) prefix: String,
}

/// Whether callers show a certificate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClientCertificate {
    pub(crate) mode: ClientCertificateMode,
    /// Roots that may sign it (`ca.crt`).
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<CertificateRef>,
}

/// Whether callers show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum ClientCertificateMode {
    Required,
    Optional,
    Off,
}

/// The waypoint's own certificate. Exactly one field.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) files: Option<IdentityFiles>,
    #[serde(rename = "workloadAPI")]
    #[schemars(skip)]
    pub(crate) workload_api: Option<serde_json::Value>,
    #[serde(rename = "istioCA")]
    #[schemars(skip)]
    pub(crate) istio_ca: Option<serde_json::Value>,
}

/// PEM files that are read again when they change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IdentityFiles {
    /// Chain, leaf first.
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    /// Roots that sign the peers.
    pub(crate) trust_bundle: String,
}

/// Where audit events go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Audit {
    /// One line each on standard output.
    pub(crate) stdout: Option<Stdout>,
    /// One line each in a file.
    pub(crate) file: Option<AuditFile>,
}

/// No settings yet.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stdout {}

/// An audit file that is rotated by size.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AuditFile {
    pub(crate) path: String,
    /// Size at which a new file is begun; default 256. The one before is kept as `path` with `.1`,
    /// older ones are not.
    #[serde(rename = "maxSizeMiB")]
    pub(crate) max_size_mib: Option<u32>,
}

/// Bounds on what callers may make the waypoint hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Limits {
    /// Open connections of callers; default 10000.
    pub(crate) connections: Option<u32>,
    /// Request head in bytes; default 65536.
    pub(crate) header_bytes: Option<u32>,
    /// To the end of a request head; default 10s.
    pub(crate) header_timeout: Option<Duration>,
    /// Body of an LLM request in bytes; default 32 MiB.
    pub(crate) llm_body_bytes: Option<u32>,
    /// Body of an MCP request in bytes; default 4 MiB.
    pub(crate) mcp_body_bytes: Option<u32>,
    /// One server-sent event in bytes; default 16 MiB.
    pub(crate) sse_event_bytes: Option<u32>,
    /// A plain answer that has to be held whole, in bytes; default 64 MiB.
    pub(crate) answer_bytes: Option<u32>,
    /// TLS handshake of a caller; default 10s.
    pub(crate) handshake_timeout: Option<Duration>,
    /// A kept connection without a request; default 60s.
    pub(crate) idle_timeout: Option<Duration>,
    /// Between two pieces of a request body; default 60s.
    pub(crate) body_timeout: Option<Duration>,
}

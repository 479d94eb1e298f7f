//! `MCPProxy`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CertificateRef, Credential, Duration, ParentRef};

/// Routes to MCP servers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct McpProxy {
    /// Default every waypoint of the namespace.
    pub(crate) parent_refs: Option<Vec<ParentRef>>,
    pub(crate) routes: Vec<McpRoute>,
}

/// One route to an MCP server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct McpRoute {
    /// What policies call the server.
    pub(crate) name: String,
    #[serde(rename = "match")]
    pub(crate) matched: McpMatch,
    pub(crate) destination: Option<Destination>,
    /// Shown to the server; the caller's own never passes.
    pub(crate) credential: Option<Credential>,
    #[serde(default)]
    pub(crate) timeouts: McpTimeouts,
    /// How a denied tool looks to the caller; default Hide.
    pub(crate) denial: Option<Denial>,
    #[schemars(skip)]
    pub(crate) targets: Option<serde_json::Value>,
}

/// Which requests take the route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct McpMatch {
    /// `/mcp/a/` matches `/mcp/a` and all below.
    pub(crate) prefix: String,
}

/// Where the server is: `namespace`, `service`, `port`, or `hostname`, `port`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Destination {
    /// Default the namespace of the MCPProxy.
    pub(crate) namespace: Option<String>,
    /// Name of a Service.
    pub(crate) service: Option<String>,
    /// A host outside the cluster.
    pub(crate) hostname: Option<String>,
    /// With a hostname, default 443 with TLS and 80 without.
    pub(crate) port: Option<u16>,
    /// Default `/mcp`.
    pub(crate) path: Option<String>,
    /// TLS to the server; default with a hostname and port 443.
    pub(crate) tls: Option<DestinationTls>,
}

/// TLS to the server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DestinationTls {
    /// Roots that may sign the server's certificate (`ca.crt`); default the public ones.
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<CertificateRef>,
    /// The name in the server's certificate; default its host.
    pub(crate) hostname: Option<String>,
}

/// How long a call may take.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct McpTimeouts {
    /// To the head of the answer, and to the end of a plain one; default 60s.
    pub(crate) request: Option<Duration>,
    /// To a connection; default 5s.
    pub(crate) connect: Option<Duration>,
    /// Between two pieces of a stream; default 10m.
    pub(crate) stream_idle: Option<Duration>,
}

/// How a denied tool looks to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Denial {
    /// As if it did not exist.
    Hide,
    /// 403.
    Explicit,
}

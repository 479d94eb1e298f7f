//! The objects as they are written; serde only, one file per group.

pub(crate) mod access;
pub(crate) mod agent;
pub(crate) mod argument;
pub(crate) mod authorization;
pub(crate) mod core;
pub(crate) mod ext_authz;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod istio;
pub(crate) mod limit;
pub(crate) mod llm;
pub(crate) mod mcp;
pub(crate) mod parameters;
pub(crate) mod request_authentication;
pub(crate) mod solo;
pub(crate) mod store;
mod text;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use text::{Duration, Text};

/// What most kinds have beside their metadata.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body<S> {
    pub(crate) spec: S,
}

/// A reference to a Gateway that a route is attached to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ParentRef {
    /// Default `gateway.networking.k8s.io`.
    pub(crate) group: Option<String>,
    /// Default `Gateway`.
    pub(crate) kind: Option<String>,
    /// Default the namespace of the route.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Name of a listener; default all.
    pub(crate) section_name: Option<String>,
    /// Port of a listener; default all.
    pub(crate) port: Option<u16>,
}

/// A Secret or ConfigMap that holds certificates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CertificateRef {
    /// The core group, written as an empty string.
    pub(crate) group: Option<String>,
    /// `Secret` (default) or `ConfigMap`.
    pub(crate) kind: Option<String>,
    /// Default the namespace of the object; another needs a ReferenceGrant.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// Whose key is shown to an upstream. Exactly one field.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Credential {
    /// A key of a Secret.
    pub(crate) secret_ref: Option<SecretRef>,
    /// The caller's own credential passes.
    pub(crate) passthrough: Option<bool>,
    /// An environment variable of the gateway; configuration files only.
    pub(crate) env: Option<String>,
    /// A file the gateway reads; configuration files only.
    pub(crate) file: Option<String>,
}

/// A key of a Secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SecretRef {
    /// Default the namespace of the object; another needs a ReferenceGrant.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) key: String,
}

//! `limitStore` of `WaypointParameters`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CertificateRef, Credential, Duration};

/// Where limits with `store: Shared` are kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LimitStore {
    /// A Valkey or Redis server.
    pub(crate) redis: Redis,
}

/// A Valkey or Redis server, from version 6 on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Redis {
    /// `redis://host[:port][/database]`, with TLS `rediss://`; default port 6379, database 0.
    pub(crate) url: String,
    /// How long one question may take, from 1ms to 10s; default 100ms. Calls wait for it.
    pub(crate) timeout: Option<Duration>,
    /// How many waypoints share the store at least: what a limit with `storeFailure: LocalShare` is
    /// divided by while it is down; default 1.
    pub(crate) replicas: Option<u32>,
    /// Default the server's default user.
    pub(crate) username: Option<String>,
    /// The password.
    pub(crate) credential: Option<Credential>,
    pub(crate) tls: Option<StoreTls>,
}

/// TLS to the store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct StoreTls {
    /// Roots that may sign the store's certificate (`ca.crt`); default the public ones.
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<CertificateRef>,
    /// The name in the store's certificate; default the host of the URL.
    pub(crate) hostname: Option<String>,
}

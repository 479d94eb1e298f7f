//! `gateway.solo.io/v1` `Gateway`, the import form of LLM egress.
//!
//! Strict, although the group is another project's: an option we do not know could be one that
//! restricts.

use serde::Deserialize;

use super::Duration;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SoloGateway {
    pub(crate) bind_address: Option<String>,
    pub(crate) bind_port: Option<u16>,
    #[serde(default)]
    pub(crate) proxy_names: Vec<String>,
    pub(crate) http_gateway: HttpGateway,
    pub(crate) ssl: Option<bool>,
    #[serde(rename = "useProxyProto")]
    pub(crate) use_proxy_proto: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct HttpGateway {
    pub(crate) virtual_services: Vec<VirtualService>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct VirtualService {
    #[serde(rename = "name")]
    pub(crate) _name: Option<String>,
    pub(crate) domains: Vec<String>,
    pub(crate) routes: Vec<Route>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Route {
    #[serde(default)]
    pub(crate) matchers: Vec<Matcher>,
    /// Names an upstream of the other project; the domain says where requests go.
    #[serde(rename = "routeAction")]
    pub(crate) _route_action: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) options: RouteOptions,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Matcher {
    pub(crate) prefix: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RouteOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_policy: Option<RetryPolicy>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RetryPolicy {
    pub(crate) retry_on: Option<String>,
    pub(crate) num_retries: Option<u32>,
    pub(crate) per_try_timeout: Option<Duration>,
}

//! The SIG's `XAccessPolicy`.

use serde::Deserialize;
use waypoint_policy::SpiffeId;

use super::Text;
use super::agent::{ServiceAccount, TargetRef};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AccessPolicy {
    pub(crate) target_refs: Vec<TargetRef>,
    pub(crate) action: Action,
    pub(crate) external_auth: Option<serde_json::Value>,
    pub(crate) rules: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Action {
    Allow,
    ExternalAuth,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) source: Source,
    pub(crate) authorization: Option<Authorization>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Source {
    #[serde(rename = "type")]
    pub(crate) kind: Option<SourceType>,
    pub(crate) spiffe: Option<Text<SpiffeId>>,
    pub(crate) service_account: Option<ServiceAccount>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum SourceType {
    #[serde(rename = "SPIFFE")]
    Spiffe,
    ServiceAccount,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorization {
    #[serde(rename = "type")]
    pub(crate) kind: AuthorizationType,
    #[serde(default)]
    pub(crate) methods: Vec<HttpMethod>,
    #[serde(default)]
    pub(crate) paths: Vec<PathMatch>,
    #[serde(default)]
    pub(crate) headers: Vec<HeaderMatch>,
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
    #[serde(default)]
    pub(crate) mcp: Mcp,
    pub(crate) cel: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum AuthorizationType {
    Inline,
    #[serde(rename = "CEL")]
    Cel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathMatch {
    #[serde(rename = "type")]
    pub(crate) kind: Option<PathType>,
    #[serde(default)]
    pub(crate) value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum PathType {
    Exact,
    PathPrefix,
    RegularExpression,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderMatch {
    #[serde(rename = "type")]
    pub(crate) kind: Option<HeaderType>,
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum HeaderType {
    Exact,
    RegularExpression,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mcp {
    #[serde(default)]
    pub(crate) methods: Vec<McpMethod>,
    #[serde(rename = "mcpBaseProtocolMethodsOption")]
    pub(crate) base: Option<BaseProtocol>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum BaseProtocol {
    #[serde(rename = "SKIP_BASE_PROTOCOL_METHODS")]
    Skip,
    #[serde(rename = "MATCH_BASE_PROTOCOL_METHODS")]
    Match,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpMethod {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) params: Vec<String>,
}

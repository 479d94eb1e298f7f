//! `AgentPolicy`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use waypoint_policy::{Pattern, SpiffePattern};

use super::Text;
use super::argument::Constraint;

/// What an agent may do.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AgentPolicy {
    /// What the policy is attached to, in its own namespace.
    pub(crate) target_refs: Vec<TargetRef>,
    /// Default Allow.
    pub(crate) action: Option<Action>,
    /// Default Enforce.
    pub(crate) mode: Option<Mode>,
    /// An Allow policy without rules covers everything and grants nothing.
    pub(crate) rules: Vec<Rule>,
}

/// A Gateway, LLMRoute, LLMProvider or MCPProxy.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TargetRef {
    /// Default the group of the kind.
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// A route of an MCPProxy; default all.
    pub(crate) section_name: Option<String>,
}

/// What matching rules do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Action {
    Allow,
    Deny,
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Mode {
    /// In force.
    Enforce,
    /// Only recorded.
    DryRun,
}

/// Some callers, and what they may (or may not) do.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Rule {
    /// What decisions call it.
    pub(crate) name: Option<String>,
    /// Any of them; default anyone with an identity, for a Deny anyone at all.
    pub(crate) from: Option<Vec<Caller>>,
    /// LLM calls; any of them.
    pub(crate) llm: Option<Vec<Llm>>,
    /// MCP calls; any of them.
    pub(crate) mcp: Option<Vec<Mcp>>,
    /// Plain HTTP requests; any of them.
    pub(crate) http: Option<Vec<Http>>,
}

/// A caller; all fields that are given must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Caller {
    /// A SPIFFE ID, or its beginning with `/*`.
    pub(crate) spiffe: Option<Text<SpiffePattern>>,
    /// In the waypoint's own trust domain.
    pub(crate) service_account: Option<ServiceAccount>,
    /// In the waypoint's own trust domain.
    pub(crate) namespace: Option<String>,
    /// A token that a RequestAuthentication has verified.
    pub(crate) jwt: Option<Token>,
}

/// A token that a RequestAuthentication has verified; all claims must hold.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// What `iss` is.
    pub(crate) issuer: String,
    /// By the name of a claim, or by the names that lead to it as Istio writes them,
    /// `[team][name]`: what it is, or what one element of its list is. `*` matches any run of
    /// characters.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, Vec<Text<Pattern>>>,
}

/// A service account.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ServiceAccount {
    /// Default the namespace of the policy.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// LLM calls; all fields that are given must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Llm {
    /// Names of LLMProviders, `namespace/name` when in another namespace.
    pub(crate) providers: Option<Vec<String>>,
    /// `*` matches any run of characters.
    pub(crate) models: Option<Vec<Text<Pattern>>>,
    /// `chat`, `responses`, `embeddings`, `models`, `messages`, `count_tokens`.
    pub(crate) operations: Option<Vec<String>>,
    /// The most a call may ask for.
    pub(crate) max_output_tokens: Option<u64>,
}

/// MCP calls; all fields that are given must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mcp {
    /// Names of routes, `[namespace/]proxy/route` when ambiguous.
    pub(crate) servers: Option<Vec<String>>,
    pub(crate) methods: Option<Vec<Method>>,
    /// What a tool is called with, by JSON Pointer (RFC 6901) such as `/repository/owner`; all must
    /// hold. `*` as a segment is every element of an array: an Allow needs all of them, a Deny one.
    /// The block is about `tools/call` alone. Lists show a tool that can be called with some
    /// arguments.
    pub(crate) arguments: Option<BTreeMap<String, Constraint>>,
}

/// A method, and the names it may be called with.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Method {
    /// Such as `tools/call`; `*` matches any run of characters.
    pub(crate) name: Text<Pattern>,
    /// Tools, prompts or resource URIs; default all.
    pub(crate) params: Option<Vec<Text<Pattern>>>,
}

/// Plain HTTP requests; all fields that are given must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Http {
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) hosts: Option<Vec<Text<Pattern>>>,
    pub(crate) paths: Option<Vec<Text<Pattern>>>,
    pub(crate) ports: Option<Vec<u16>>,
}

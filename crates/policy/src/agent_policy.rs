//! What configuration compiles an `AgentPolicy` object into: names resolved, nothing indexed yet.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    Argument, ObjectName, ObjectRef, Operation, Pattern, ProviderId, ServerId, SpiffePattern, Token,
};

/// What the rules of a policy do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Effect {
    /// A rule that matches grants; the policy covers its families on its targets.
    Allow,
    /// A rule that matches denies, whatever else grants.
    Deny,
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Mode {
    /// In force.
    Enforce,
    /// Only told of: never grants, denies or covers.
    DryRun,
}

/// One policy object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentPolicy {
    /// Its name.
    pub name: ObjectName,
    /// What it is attached to; a policy without targets never applies.
    pub targets: Vec<ObjectRef>,
    /// What its rules do.
    pub effect: Effect,
    /// Whether it is in force.
    pub mode: Mode,
    /// Its rules; an Allow policy without rules covers everything and grants nothing.
    pub rules: Vec<Rule>,
}

/// One rule: some callers, and what they may (or may not) do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The name that was given, or `rule[i]`.
    pub name: Arc<str>,
    /// Entries OR; `None` is anyone with an identity, in a Deny anyone at all; an empty list is nobody.
    pub from: Option<Vec<Caller>>,
    /// Entries OR; each speaks about LLM calls.
    pub llm: Vec<LlmBlock>,
    /// Entries OR; each speaks about MCP calls.
    pub mcp: Vec<McpBlock>,
    /// Entries OR; each speaks about plain HTTP requests.
    pub http: Vec<HttpBlock>,
}

/// Some callers. Fields AND; one without any field is anyone with an identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Caller {
    /// By SPIFFE ID.
    pub spiffe: Option<SpiffePattern>,
    /// By namespace and service account, in the own trust domain or an alias of it.
    pub service_account: Option<(Box<str>, Box<str>)>,
    /// By namespace, in the own trust domain or an alias of it.
    pub namespace: Option<Box<str>>,
    /// By a verified token. Beside it no identity is asked for, but an Allow rule is never about
    /// somebody without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Token>,
}

/// Some LLM calls. Fields AND; an absent field restricts nothing, an empty list matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LlmBlock {
    /// The providers.
    pub providers: Option<Vec<ProviderId>>,
    /// The models. An Allow reads the upstream name, a Deny the upstream and the requested name.
    pub models: Option<Vec<Pattern>>,
    /// The operations.
    pub operations: Option<Vec<Operation>>,
    /// Output tokens of one call. An Allow matches calls that are bounded by this or less; a Deny
    /// matches calls that may write more, which one without a bound does.
    pub max_output_tokens: Option<u64>,
}

/// Some MCP calls. Fields AND; an absent field restricts nothing, an empty list matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct McpBlock {
    /// The destinations.
    pub servers: Option<Vec<ServerId>>,
    /// Methods and what they name; entries OR.
    pub methods: Option<Vec<MethodRule>>,
    /// What tools are called with; entries AND. A block that has any speaks about `tools/call`
    /// alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Argument>,
}

/// Methods, and names of what they act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MethodRule {
    /// Such as `tools/call` or `resources/*`.
    pub method: Pattern,
    /// Names of tools or prompts, URIs of resources; entries OR.
    pub params: Option<Vec<Pattern>>,
}

/// Some plain requests. Fields AND; an absent field restricts nothing, an empty list matches
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HttpBlock {
    /// Methods; `*` is all. A Deny ignores upper and lower case, an Allow does not.
    pub methods: Option<Vec<String>>,
    /// Hosts without port; upper and lower case are the same, as is a final dot.
    pub hosts: Option<Vec<Pattern>>,
    /// Normalized paths.
    pub paths: Option<Vec<Pattern>>,
    /// Ports.
    pub ports: Option<Vec<u16>>,
}

/// `spiffe://… and namespace agents`
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(pattern) = &self.spiffe {
            parts.push(pattern.to_string());
        }
        if let Some((namespace, name)) = &self.service_account {
            parts.push(format!("service account {namespace}/{name}"));
        }
        if let Some(namespace) = &self.namespace {
            parts.push(format!("namespace {namespace}"));
        }
        parts.extend(self.jwt.as_ref().map(ToString::to_string));
        match parts.is_empty() {
            true => f.write_str("anyone with an identity"),
            false => f.write_str(&parts.join(" and ")),
        }
    }
}

//! `LLMProvider` and `LLMRoute`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CertificateRef, Credential, Duration, ParentRef, text};

/// A provider the waypoint may talk to, and with whose key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LlmProvider {
    pub(crate) dialect: Dialect,
    /// `scheme://host[:port][/prefix]`; default by dialect.
    pub(crate) endpoint: Option<String>,
    /// Without one, requests go without a credential.
    pub(crate) credential: Option<Credential>,
    pub(crate) tls: Option<Tls>,
    /// When absent, every model name is accepted.
    pub(crate) models: Option<Vec<Model>>,
    /// `chat`, `responses`, `embeddings`, `models`, `messages`, `count_tokens`; default what the
    /// dialect has.
    pub(crate) operations: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) allow: Allow,
}

/// A provider's API. OpenAI also serves vLLM, Ollama, Groq and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Dialect {
    OpenAI,
    Anthropic,
    #[schemars(skip)]
    Gemini,
    #[schemars(skip)]
    AzureOpenAI,
    #[schemars(skip)]
    Bedrock,
}

/// TLS to the provider.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Tls {
    /// Roots that may sign the provider's certificate (`ca.crt`); default the public ones.
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<CertificateRef>,
    /// The name in the provider's certificate; default the endpoint's host.
    pub(crate) hostname: Option<String>,
}

/// A model of a provider.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Model {
    /// The provider's name of it.
    pub(crate) name: String,
    /// Names callers may use for it.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// Default the provider's list price, where we know it.
    pub(crate) price: Option<Price>,
}

/// USD per million tokens, as decimal strings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Price {
    pub(crate) input: String,
    /// Read from the provider's cache; default as `input`.
    pub(crate) cached_input: Option<String>,
    /// Written to the provider's cache; default as `input`.
    pub(crate) cache_write: Option<String>,
    /// Reasoning included.
    pub(crate) output: String,
}

/// Features that reach beyond one call; all off by default.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Allow {
    /// Calls that go on after the answer (`background: true`).
    #[serde(default)]
    pub(crate) background: bool,
    /// Conversations the provider keeps (`previous_response_id`, `conversation`, `thread`).
    #[serde(default)]
    pub(crate) stored_threads: bool,
}

/// Which calls go to which providers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LlmRoute {
    /// Default every waypoint of the namespace.
    pub(crate) parent_refs: Option<Vec<ParentRef>>,
    /// Agents call these names by plain http; default any.
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    /// What comes before `/v1`; default `/`.
    pub(crate) path_prefix: Option<String>,
    /// The first that matches.
    pub(crate) rules: Vec<LlmRule>,
}

/// One rule of a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LlmRule {
    /// Any of them; default every call.
    pub(crate) matches: Option<Vec<LlmMatch>>,
    /// The same priority shares by weight; the next priority is failover.
    pub(crate) backend_refs: Vec<LlmBackendRef>,
    #[serde(default)]
    pub(crate) timeouts: LlmTimeouts,
    pub(crate) retry: Option<Retry>,
}

/// What a call must ask for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LlmMatch {
    /// Model names as callers write them; `*` matches any run of characters.
    pub(crate) models: Vec<String>,
}

/// A provider of a rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LlmBackendRef {
    /// Default `waypoint.kgateway.io`.
    pub(crate) group: Option<String>,
    /// Default `LLMProvider`.
    pub(crate) kind: Option<String>,
    /// Default the namespace of the route; another needs a ReferenceGrant.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Default 1; 0 is never.
    pub(crate) weight: Option<u32>,
    /// Default 0; the next is tried when all of the one before failed.
    pub(crate) priority: Option<u32>,
    /// The model to ask for instead of the caller's.
    pub(crate) model: Option<String>,
}

/// How long a call may take.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LlmTimeouts {
    /// To the head of a streamed answer, to the end of a plain one; default 10m.
    pub(crate) request: Option<Duration>,
    /// To a connection; default 5s.
    pub(crate) connect: Option<Duration>,
    /// Between two pieces of a stream; default 5m.
    pub(crate) stream_idle: Option<Duration>,
    /// One attempt; default the time that is left.
    pub(crate) per_try: Option<Duration>,
}

/// When a call is tried again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Retry {
    /// After the first; default 1, at most 10.
    pub(crate) attempts: Option<u32>,
    /// Default 5xx, 429, connect-failure and reset.
    pub(crate) on: Option<Vec<RetryCondition>>,
    #[serde(default)]
    pub(crate) backoff: Backoff,
}

/// Why a call is tried again: `5xx`, `429`, `connect-failure`, `reset` or `timeout` (which may be
/// billed twice).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) struct RetryCondition(
    #[serde(deserialize_with = "text::text_or_number")] pub(crate) String,
);

/// Waiting between attempts; doubles up to the maximum.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Backoff {
    /// Default 100ms.
    pub(crate) base: Option<Duration>,
    /// Default 5s.
    pub(crate) max: Option<Duration>,
}

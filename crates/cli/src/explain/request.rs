//! The request that `explain` is asked about, as JSON.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use waypoint_policy::{Operation, Principal, SpiffeId};

/// One request. Every field may be absent, and an unknown one is an error.
///
/// What only a mesh can know is taken and has no say yet: addresses, SNI, tokens, and the verdicts
/// of external authorizers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    principal: Option<String>,
    #[serde(rename = "source_ip")]
    _source_ip: Option<String>,
    #[serde(rename = "remote_ip")]
    _remote_ip: Option<String>,
    service: Option<Service>,
    #[serde(rename = "dest_ip")]
    _dest_ip: Option<String>,
    port: Option<u16>,
    protocol: Option<Protocol>,
    #[serde(rename = "sni")]
    _sni: Option<String>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    headers: Option<BTreeMap<String, Values>>,
    #[serde(rename = "jwt")]
    _jwt: Option<serde_json::Map<String, Value>>,
    #[serde(rename = "custom")]
    _custom: Option<BTreeMap<String, Verdict>>,
    llm: Option<RawLlm>,
    mcp: Option<Mcp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "namespace")]
    _namespace: String,
    #[serde(default, rename = "registry")]
    _registry: Registry,
}

#[derive(Debug, Default, Deserialize)]
enum Registry {
    #[default]
    Kubernetes,
    External,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Http,
    Tcp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

/// A header given once or several times.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLlm {
    provider: String,
    model: Option<String>,
    operation: Option<String>,
    max_output_tokens: Option<u64>,
}

/// An MCP call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mcp {
    /// Name of a route of an `MCPProxy`, with `proxy/` or `namespace/proxy/` before it if need be.
    pub(super) server: String,
    /// Default `tools/call`.
    pub(super) method: Option<String>,
    /// Tool, prompt or resource URI.
    pub(super) name: Option<String>,
    /// Arguments of the tool, as they would be sent; absent for a call without any.
    pub(super) arguments: Option<Box<RawValue>>,
}

/// An LLM call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Llm {
    /// Name of an `LLMProvider`, with `namespace/` before it if need be.
    pub(super) provider: String,
    /// As the caller names it; empty for the list of models.
    pub(super) model: String,
    /// Default the provider's usual one.
    pub(super) operation: Option<Operation>,
    /// The bound the caller sets on the answer.
    pub(super) max_output_tokens: Option<u64>,
}

/// A plain HTTP request head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Http {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: Option<String>,
    pub(super) port: Option<u16>,
    /// Lower-case names, first values.
    pub(super) headers: BTreeMap<String, String>,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Asked {
    Llm(Llm),
    Mcp(Mcp),
    Http,
}

/// One request that makes sense by itself.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) principal: Principal,
    pub(super) asked: Asked,
    pub(super) http: Http,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it, with the place or the field.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        // Serde would read an array as the fields in their order.
        if text.trim_start().starts_with('[') {
            anyhow::bail!("the request must be one JSON object, not an array");
        }
        let raw: Raw = serde_json::from_str(text).context("the request is not understood")?;
        raw.read()
    }
}

impl Raw {
    fn read(self) -> anyhow::Result<Request> {
        let principal = match &self.principal {
            None => Principal::Anonymous,
            Some(text) => Principal::Workload(
                text.parse::<SpiffeId>()
                    .with_context(|| format!("`principal` {text:?} is not an identity"))?,
            ),
        };
        if self.protocol == Some(Protocol::Tcp) {
            anyhow::bail!("`protocol` tcp is not decided here yet; ask about an http request");
        }
        let _ = self.service;
        let asked = match (self.llm, self.mcp) {
            (Some(_), Some(_)) => anyhow::bail!("a request is either `llm` or `mcp`, not both"),
            (Some(llm), None) => Asked::Llm(llm.read()?),
            (None, Some(mcp)) => Asked::Mcp(mcp),
            (None, None) => Asked::Http,
        };
        let headers = self.headers.unwrap_or_default().into_iter();
        let headers = headers.filter_map(|(name, values)| {
            let value = match values {
                Values::One(value) => value,
                Values::Many(values) => values.into_iter().next()?,
            };
            Some((name.to_ascii_lowercase(), value))
        });
        let http = Http {
            method: self.method.unwrap_or_else(|| "GET".into()),
            host: self.host.unwrap_or_default(),
            path: self.path,
            port: self.port,
            headers: headers.collect(),
        };
        Ok(Request {
            principal,
            asked,
            http,
        })
    }
}

impl RawLlm {
    fn read(self) -> anyhow::Result<Llm> {
        let operation = match &self.operation {
            None => None,
            Some(text) => Some(
                text.parse::<Operation>()
                    .with_context(|| format!("`llm.operation` {text:?}"))?,
            ),
        };
        let model = self.model.unwrap_or_default();
        if model.is_empty() && operation != Some(Operation::Models) {
            anyhow::bail!("`llm.model` is missing; only operation `models` goes without");
        }
        Ok(Llm {
            provider: self.provider,
            model,
            operation,
            max_output_tokens: self.max_output_tokens,
        })
    }
}

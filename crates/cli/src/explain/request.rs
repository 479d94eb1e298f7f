//! The request that `explain` is asked about, as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use waypoint_policy::istio::{Claims, CustomVerdict};
use waypoint_policy::{Kind, ObjectName, Operation, Principal, SpiffeId};

use super::edge;
use super::mesh::Mesh;

/// One request. Every field may be absent, and an unknown one is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    principal: Option<String>,
    source_ip: Option<String>,
    remote_ip: Option<String>,
    service: Option<Service>,
    dest_ip: Option<String>,
    port: Option<u16>,
    protocol: Option<Protocol>,
    sni: Option<String>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    headers: Option<BTreeMap<String, Values>>,
    jwt: Option<serde_json::Map<String, Value>>,
    custom: Option<BTreeMap<String, Verdict>>,
    llm: Option<RawLlm>,
    mcp: Option<Mcp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    namespace: String,
    #[serde(default)]
    registry: Registry,
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

#[derive(Debug, PartialEq, Eq, Deserialize)]
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
    /// Default the usual one: GET, or POST for an LLM or MCP call.
    pub(super) method: Option<String>,
    pub(super) host: String,
    pub(super) path: Option<String>,
    pub(super) port: Option<u16>,
    /// Lower-case names, first values.
    pub(super) headers: BTreeMap<String, String>,
    /// Names of header fields that the gateway removes from a caller's request.
    pub(super) removed: Vec<String>,
    pub(super) mesh: Mesh,
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
        let address = |field: &str, text: &Option<String>| -> anyhow::Result<Option<IpAddr>> {
            let parsed = text.as_ref().map(|text| {
                let address = text.parse::<IpAddr>();
                address.with_context(|| format!("`{field}` {text:?} is not an IP address"))
            });
            Ok(parsed.transpose()?.map(|address| address.to_canonical()))
        };
        let custom = self.custom.into_iter().flatten();
        let custom = custom.map(|(provider, verdict)| CustomVerdict {
            provider: provider.into(),
            allows: verdict == Verdict::Allow,
        });
        let mut mesh = Mesh {
            source_ip: address("source_ip", &self.source_ip)?,
            remote_ip: address("remote_ip", &self.remote_ip)?,
            dest_ip: address("dest_ip", &self.dest_ip)?,
            sni: self.sni.unwrap_or_default(),
            claims: self.jwt.map(Claims),
            custom: custom.collect(),
            is_tcp: self.protocol == Some(Protocol::Tcp),
            service: self.service.map(|service| {
                let kind = match service.registry {
                    Registry::Kubernetes => Kind::Service,
                    Registry::External => Kind::ServiceEntry,
                };
                (kind, ObjectName::new(&service.namespace, &service.name))
            }),
            headers: Vec::new(),
        };
        let asked = match (self.llm, self.mcp) {
            (Some(_), Some(_)) => anyhow::bail!("a request is either `llm` or `mcp`, not both"),
            (Some(llm), None) => Asked::Llm(llm.read()?),
            (None, Some(mcp)) => Asked::Mcp(mcp),
            (None, None) => Asked::Http,
        };
        for (name, values) in self.headers.unwrap_or_default() {
            let name = name.to_ascii_lowercase();
            match values {
                Values::One(value) => mesh.headers.push((name, value)),
                Values::Many(values) => {
                    let fields = values.into_iter().map(|value| (name.clone(), value));
                    mesh.headers.extend(fields);
                }
            }
        }
        let (left, removed) = edge::strip(mesh.headers);
        mesh.headers = left;
        mesh.remote_ip = mesh.remote_ip.or(edge::forwarded_for(&mesh.headers));
        let mut headers = BTreeMap::new();
        for (name, value) in &mesh.headers {
            headers.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if mesh.is_tcp && !matches!(asked, Asked::Http) {
            anyhow::bail!("`protocol` tcp has no LLM or MCP call in it");
        }
        let http = Http {
            method: self.method,
            host: self.host.unwrap_or_default(),
            // Nothing is decided by the query.
            path: self.path.map(|path| match path.split_once('?') {
                Some((path, _)) => path.to_owned(),
                None => path,
            }),
            port: self.port,
            headers,
            removed,
            mesh,
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

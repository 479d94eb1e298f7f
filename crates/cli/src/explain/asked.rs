//! What is asked, in the form in which callers send it.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{json, value::RawValue};
use waypoint_llm::{Allowances, Dialect};
use waypoint_mcp::{Call, Head, Header, MODERN_VERSIONS, McpRefusal};
use waypoint_policy::{Code, Operation};

use super::request::{Llm, Mcp};

/// The call as the gateway would read it.
pub(super) fn call(
    dialect: Dialect,
    operation: Operation,
    llm: &Llm,
) -> anyhow::Result<waypoint_llm::Call> {
    if operation == Operation::Models {
        return Ok(waypoint_llm::Call::models(dialect, Some(&llm.model)));
    }
    let mut body = json!({"model": llm.model});
    if let Some(tokens) = llm.max_output_tokens {
        let field = match operation {
            Operation::Chat => "max_completion_tokens",
            Operation::Responses => "max_output_tokens",
            _ => "max_tokens",
        };
        body[field] = tokens.into();
    }
    let body = Bytes::from(body.to_string());
    waypoint_llm::Call::parse(dialect, operation, &body, &Allowances::default())
        .map_err(|error| anyhow::anyhow!("`llm` does not make a call: {error}"))
}

#[derive(Serialize)]
struct Message<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u8>,
    method: &'a str,
    params: Params<'a>,
}

#[derive(Serialize)]
struct Params<'a> {
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
    /// To the letter: a parser could drop a repeated key and round a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a RawValue>,
}

/// The message as a client of the first revisions would send it, or else of those without
/// sessions, which have methods of their own; and what the gateway makes of it.
pub(super) fn read_message(mcp: &Mcp, method: &str) -> (Vec<u8>, Result<Call, McpRefusal>) {
    let legacy = message(mcp, method, None);
    let read = waypoint_mcp::read(&legacy, &Head::default());
    let is_unknown = |refusal: &McpRefusal| refusal.code == Code::MethodUnknown;
    let version = MODERN_VERSIONS.first().copied().unwrap_or_default();
    if !read.as_ref().is_err_and(is_unknown) {
        return (legacy, read);
    }
    let modern = message(mcp, method, Some(version));
    let head = Head {
        protocol_version: Header::One(version.as_bytes()),
        method: Header::One(method.as_bytes()),
        ..Head::default()
    };
    let read = waypoint_mcp::read(&modern, &head);
    (modern, read)
}

fn message(mcp: &Mcp, method: &str, modern: Option<&str>) -> Vec<u8> {
    let mut params = serde_json::Map::new();
    if let Some(version) = modern {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".into(), meta);
    }
    if let Some(name) = &mcp.name {
        let name = name.as_str();
        match method {
            "subscriptions/listen" => {
                let subscriptions = json!({"resourceSubscriptions": [name]});
                params.insert("notifications".into(), subscriptions);
            }
            "completion/complete" => {
                let reference = match name.contains("://") {
                    true => json!({"type": "ref/resource", "uri": name}),
                    false => json!({"type": "ref/prompt", "name": name}),
                };
                params.insert("ref".into(), reference);
                params.insert("argument".into(), json!({"name": "", "value": ""}));
            }
            method if method.starts_with("resources/") => {
                params.insert("uri".into(), name.into());
            }
            method if method.starts_with("tasks/") => {
                params.insert("taskId".into(), name.into());
            }
            _ => {
                params.insert("name".into(), name.into());
            }
        }
    }
    if method == "initialize" {
        params.insert(
            "protocolVersion".into(),
            waypoint_mcp::LEGACY_VERSIONS.first().copied().into(),
        );
        params.insert("capabilities".into(), json!({}));
        params.insert(
            "clientInfo".into(),
            json!({"name": "explain", "version": "1"}),
        );
    }
    let message = Message {
        jsonrpc: "2.0",
        id: (!method.starts_with("notifications/")).then_some(1),
        method,
        params: Params {
            others: params,
            arguments: mcp.arguments.as_deref(),
        },
    };
    serde_json::to_vec(&message).expect("text can be written as JSON")
}

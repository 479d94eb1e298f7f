//! What is asked, in the form in which callers send it.

use bytes::Bytes;
use serde_json::json;
use waypoint_llm::{Allowances, Call, Dialect};
use waypoint_policy::Operation;

use super::request::{Llm, Mcp};

/// The call as the gateway would read it.
pub(super) fn call(dialect: Dialect, operation: Operation, llm: &Llm) -> anyhow::Result<Call> {
    if operation == Operation::Models {
        return Ok(Call::models(dialect, Some(&llm.model)));
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
    Call::parse(dialect, operation, &body, &Allowances::default())
        .map_err(|error| anyhow::anyhow!("`llm` does not make a call: {error}"))
}

/// The message as a client of the first revisions would send it.
pub(super) fn message(mcp: &Mcp, method: &str) -> Vec<u8> {
    let mut params = serde_json::Map::new();
    if let Some(name) = &mcp.name {
        let name = name.as_str();
        match method {
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
    if let Some(arguments) = &mcp.arguments {
        params.insert("arguments".into(), arguments.clone().into());
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
    let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
    if !method.starts_with("notifications/") {
        message["id"] = 1.into();
    }
    message.to_string().into_bytes()
}

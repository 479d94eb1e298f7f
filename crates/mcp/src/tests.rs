//! Attacks on a gateway between MCP clients and servers, and what it must answer.
#![allow(clippy::unwrap_used, reason = "tests")]

use waypoint_policy::{Code, Refusal};

use super::*;

mod attacks;
mod headers;
mod ingress;
mod lists;
mod refusals;
mod streams;

/// Version header and `_meta` of a modern request.
pub(crate) const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

pub(crate) fn header(value: Option<&str>) -> Header<'_> {
    Header::of(value.map(str::as_bytes))
}

/// A head with version, method and name.
pub(crate) fn head<'a>(
    version: Option<&'a str>,
    method: Option<&'a str>,
    name: Option<&'a str>,
) -> Head<'a> {
    Head {
        protocol_version: header(version),
        method: header(method),
        name: header(name),
        session: Header::Absent,
    }
}

/// Reads a legacy message that has only its version header.
pub(crate) fn legacy(body: &str) -> Result<Call, McpRefusal> {
    read(body.as_bytes(), &head(Some("2025-11-25"), None, None))
}

/// `Ok` as what is asked, `Err` as status and code.
pub(crate) fn outcome(result: &Result<Call, McpRefusal>) -> String {
    let call = match result {
        Ok(call) => call,
        Err(refusal) => return format!("{} {}", refusal.status, refusal.error),
    };
    let items = |items: &[Item]| {
        let items: Vec<_> = items
            .iter()
            .map(|item| format!("{} {}", item.method, item.name))
            .collect();
        items.join(", ")
    };
    match &call.ask {
        Ask::Session => "session".into(),
        Ask::Item(item) => items(std::slice::from_ref(item)),
        Ask::Items(list) => items(list),
        Ask::Listen { uris, tasks } => format!("listen {} | {}", uris.join(" "), tasks.join(" ")),
        Ask::Task { id } => format!("task {id}"),
        Ask::Discard => "discard".into(),
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{{params}}}}}"#)
}

/// A modern request with all headers it needs.
pub(crate) fn modern(method: &str, params: &str, name: Option<&str>) -> Result<Call, McpRefusal> {
    let comma = if params.is_empty() { "" } else { "," };
    let body = request(method, &format!("{params}{comma}{META}"));
    read(
        body.as_bytes(),
        &head(Some("2026-07-28"), Some(method), name),
    )
}

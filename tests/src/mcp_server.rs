//! A small MCP server of both eras, on a scripted upstream.
//!
//! Legacy (2025-11-25): `initialize` gives a session, everything else needs it. Modern
//! (2026-07-28): no sessions. Its tools, prompts and resources are constants, so that a test can
//! compare what passed the gateway with what was sent, byte by byte.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::upstream::{Gate, Reply, Seen, Speaks, Step, Upstream};

/// The newest revision with sessions.
pub const LEGACY: &str = "2025-11-25";
/// The first revision without.
pub const MODERN: &str = "2026-07-28";
/// The id of every session.
pub const SESSION: &str = "upstream-session-1";

/// The tools, each as it stands in a list: order of keys, spaces and escapes are part of it.
pub const TOOLS: [(&str, &str); 4] = [
    (
        "echo",
        r#"{"name":"echo", "inputSchema":{"type":"object","x":1.0}}"#,
    ),
    (
        "add",
        r#"{"description":"a\u00e9 \"b\"","name":"add","inputSchema":{"type":"object"}}"#,
    ),
    (
        "secret",
        r#"{"name":"secret","inputSchema":{"type":"object"}}"#,
    ),
    (
        "delete_all",
        r#"{"inputSchema":{"type":"object"},"name":"delete_all"}"#,
    ),
];

/// How lists and results are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// An event stream with a comment and a notification before the result.
    Sse,
}

/// Starts a server; what is left open (the GET stream, calls of the tool `slow`) waits for the gate.
pub async fn start(form: Form, gate: &Gate) -> Arc<Upstream> {
    speaking(Speaks::Http1, form, gate).await
}

/// The same, speaking something else than plain HTTP/1.1.
pub async fn speaking(speaks: Speaks, form: Form, gate: &Gate) -> Arc<Upstream> {
    let gate = gate.clone();
    Upstream::speaking(speaks, move |seen| answer(seen, form, &gate)).await
}

fn answer(seen: &Seen, form: Form, gate: &Gate) -> Reply {
    match seen.method() {
        "POST" => post(seen, form, gate),
        "GET" => match seen.header("mcp-session-id") {
            Some(SESSION) => Reply::stream()
                .chunk("id: 1\ndata: \n\n")
                .chunk(
                    "id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"s-1\",\"method\":\"roots/list\"}\n\n",
                )
                .wait(gate)
                .chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"last\"}}\n\n")
                .end(),
            _ => Reply::status(400, &error(&Value::Null, -32600, "no session")),
        },
        "DELETE" => Reply::whole(200, &[], ""),
        _ => Reply::whole(405, &[("allow", "POST, GET, DELETE")], ""),
    }
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

fn post(seen: &Seen, form: Form, gate: &Gate) -> Reply {
    let message = seen.json();
    let id = &message["id"];
    let method = message["method"].as_str().unwrap_or_default();
    if method.is_empty() || id.is_null() {
        return Reply::whole(202, &[], "");
    }
    let is_modern = seen.header("mcp-protocol-version") == Some(MODERN);
    let result = match method {
        "initialize" => {
            let result = json!({
                "protocolVersion": LEGACY,
                "capabilities": {"tools": {}, "prompts": {}, "resources": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            });
            let body = json!({"jsonrpc": "2.0", "id": id, "result": result});
            return Reply::whole(
                200,
                &[
                    ("content-type", "application/json"),
                    ("mcp-session-id", SESSION),
                ],
                body.to_string(),
            );
        }
        "tools/list" => list_result(is_modern),
        "prompts/list" => r#"{"prompts":[{"name":"open"},{"name":"hidden"}]}"#.into(),
        "resources/list" => {
            r#"{"resources":[{"uri":"repo://a/1","name":"a"},{"uri":"vault://b","name":"b"}]}"#
                .into()
        }
        "tools/call" if message["params"]["name"] == "slow" => {
            return Reply::stream()
                .chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\n\n")
                .wait(gate)
                .chunk(format!("data: {}\n\n", result(id, r#"{"content":[]}"#)))
                .end();
        }
        "tools/call" => format!(
            r#"{{"content":[{{"type":"text","text":{}}}]}}"#,
            message["params"]["name"]
        ),
        "ping" => "{}".into(),
        "server/discover" => format!(
            r#"{{"supportedVersions":["{MODERN}","{LEGACY}"],"capabilities":{{"tools":{{}}}},"resultType":"complete"}}"#
        ),
        _ => r#"{"ok":true}"#.into(),
    };
    let body = self::result(id, &result);
    match form {
        Form::Json => Reply::whole(200, &[("content-type", "application/json")], body),
        Form::Sse => Reply::stream()
            .chunk(": keep-alive\n\n")
            .chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\r\n\r\n")
            // The result is cut in the middle, so that it comes in two pieces.
            .chunk(format!("event: message\ndata: {}", &body[..body.len() / 2]))
            .chunk(format!("{}\n\n", &body[body.len() / 2..]))
            .end(),
    }
}

fn result(id: &Value, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn list_result(is_modern: bool) -> String {
    let extra = if is_modern {
        r#","resultType":"complete","ttlMs":60000,"cacheScope":"public""#
    } else {
        ""
    };
    format!(
        r#"{{"tools":[{}],"nextCursor":"c 1"{extra}}}"#,
        TOOLS.map(|(_, tool)| tool).join(", ")
    )
}

/// A legacy request.
#[must_use]
pub fn legacy(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// A modern request; its `_meta` is added to the params.
#[must_use]
pub fn modern(id: u64, method: &str, params: &Value) -> String {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    legacy(id, method, &params)
}

/// A server that never ends its answers, for what happens when nobody waits.
pub async fn stalled() -> Arc<Upstream> {
    Upstream::always(Reply::stream().chunk(": open\n\n").then(Step::Stall)).await
}

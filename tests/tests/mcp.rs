//! MCP through the gateway, in both eras.

mod calls;
mod failures;
mod lists;
mod sessions;
mod strict;
mod transport;

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::mcp_server::{self, Form, LEGACY, MODERN, legacy, modern};
use waypoint_tests::upstream::{Gate, Upstream};
use waypoint_tests::waypoint::{Setup, Waypoint, agent, mcp_proxy, secret};

const PATH: &str = "/mcp/tools/";

/// What Ann and Bob may do at the server `tools`.
fn allowed() -> String {
    agent(
        "some",
        "Allow",
        "\
- name: some
  from: [{serviceAccount: {name: ann}}, {serviceAccount: {name: bob}}]
  mcp:
  - servers: [tools]
    methods:
    - {name: tools/call, params: [echo, add, slow]}
    - {name: prompts/get, params: [open]}
    - {name: resources/read, params: [\"repo://*\"]}
    - {name: completion/complete}
",
    )
}

async fn server(form: Form) -> (Arc<Upstream>, Waypoint, Gate) {
    let gate = Gate::new();
    let upstream = mcp_server::start(form, &gate).await;
    let objects = [
        mcp_proxy(
            "tools",
            &upstream,
            "credential: {secretRef: {name: keys, key: key}}",
        ),
        secret("keys", "our-token"),
        allowed(),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    (upstream, waypoint, gate)
}

fn post(body: &str) -> Request {
    Request::post(PATH, body).header("accept", "application/json, text/event-stream")
}

/// A request of the modern era with the headers that repeat its body.
fn post_modern(method: &str, name: Option<&str>, body: &str) -> Request {
    let request = post(body)
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    match name {
        Some(name) => request.header("mcp-name", name),
        None => request,
    }
}

/// A request of either era.
fn of_era(is_modern: bool, method: &str, params: &Value) -> Request {
    let name = params["name"].as_str().or(params["uri"].as_str());
    match is_modern {
        true => post_modern(method, name, &modern(7, method, params)),
        false => post(&legacy(7, method, params)).header("mcp-protocol-version", LEGACY),
    }
}

fn call_tool(is_modern: bool, tool: &str) -> Request {
    of_era(
        is_modern,
        "tools/call",
        &json!({"name": tool, "arguments": {}}),
    )
}

/// Opens a session; gives its id as the caller sees it.
async fn open_session(client: &Client) -> String {
    let answer = client.call(&initialize()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("mcp-session-id").unwrap().to_owned()
}

fn initialize() -> Request {
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    post(&legacy(1, "initialize", &params))
}

/// The JSON-RPC message of an answer in either form.
fn message(answer: &Answer) -> Value {
    match answer.header("content-type") {
        Some("text/event-stream") => {
            let last = answer.events().pop().unwrap_or_default();
            serde_json::from_str(&last).unwrap_or_default()
        }
        _ => answer.json(),
    }
}

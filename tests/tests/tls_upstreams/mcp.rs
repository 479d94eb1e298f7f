//! MCP servers behind TLS.

use std::sync::Arc;

use serde_json::json;
use waypoint_tests::certificates::{Authority, Validity};
use waypoint_tests::client::Request;
use waypoint_tests::mcp_server::{LEGACY, legacy};
use waypoint_tests::upstream::{Gate, Reply, Seen, Speaks, Upstream};
use waypoint_tests::waypoint::{ANN, Backend as _, Setup, Waypoint, object, roots, secret};

use super::{BOTH, CREDENTIAL, HTTP1, NAME, assert_host};

/// An MCP server behind TLS: a JSON result, or a stream that waits.
fn mcp(seen: &Seen, gate: &Gate) -> Reply {
    let message = seen.json();
    let result = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}});
    match message["params"]["name"].as_str() {
        Some("slow") => Reply::stream()
            .chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n")
            .wait(gate)
            .chunk(format!("data: {result}\n\n"))
            .end(),
        _ => Reply::json(&result),
    }
}

async fn start_mcp(authority: &Authority, upstream: &Arc<Upstream>) -> Waypoint {
    let port = upstream.address().port();
    let proxy = object(
        "mcp.kgateway.io/v1",
        "MCPProxy",
        "tools",
        &format!(
            "\
routes:
- name: tools
  match: {{prefix: /mcp/tools/}}
  destination:
    hostname: {NAME}
    port: {port}
    path: /server
    tls: {{caCertificateRefs: [{{name: provider-roots}}]}}
  {CREDENTIAL}
"
        ),
    );
    let objects = [
        proxy,
        secret("keys", "our-token"),
        roots("provider-roots", authority),
    ];
    Setup::new(&objects.concat()).start().await
}

fn call_tool(tool: &str) -> Request {
    let params = json!({"name": tool, "arguments": {}});
    Request::post("/mcp/tools/", legacy(7, "tools/call", &params))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", LEGACY)
        .header("authorization", "Bearer callers-own")
}

#[tokio::test]
async fn an_mcp_server_is_called_by_tls_in_the_protocol_it_offers() {
    for (protocols, line, host_field) in
        [(HTTP1, "HTTP/1.1", "host"), (BOTH, "HTTP/2", ":authority")]
    {
        let gate = Gate::new();
        let authority = Authority::new();
        let identity = authority.server_for(&[NAME], Validity::Now);
        let script = gate.clone();
        let speaks = Speaks::tls(&identity, protocols);
        let upstream = Upstream::speaking(speaks, move |seen| mcp(seen, &script)).await;
        let waypoint = start_mcp(&authority, &upstream).await;
        let ann = waypoint.workload(ANN);
        let request = call_tool("echo");
        let answer = ann.call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
        assert_eq!(answer.json()["id"], 7, "{line}: {}", answer.text());
        let seen = upstream.only();
        let first = seen.head.lines().next().unwrap();
        assert_eq!(first, format!("POST /server {line}"));
        assert_eq!(seen.server_name.as_deref(), Some(NAME), "{line}");
        let name = format!("{NAME}:{}", upstream.address().port());
        assert_host(&seen, host_field, &name);
        assert_eq!(seen.body, request.body, "{line}");
        let keys: Vec<&str> = seen.fields("authorization").collect();
        assert_eq!(keys, ["Bearer our-token"], "{line}");
        let mut connection = ann.connect().await.unwrap();
        connection.send(&call_tool("slow")).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200, "{line}");
        connection.read_until("progress").await.unwrap();
        gate.open();
        connection.read_until("result").await.unwrap();
        connection.body().await.unwrap();
        assert_eq!(upstream.connections(), 1, "{line}: the second call reuses");
    }
}

#[tokio::test]
async fn an_mcp_server_that_cannot_prove_its_name_gets_no_request() {
    let authority = Authority::new();
    for (case, identity) in [
        (
            "unknown authority",
            Authority::new().server_for(&[NAME], Validity::Now),
        ),
        (
            "another name",
            authority.server_for(&["other.localhost"], Validity::Now),
        ),
    ] {
        let speaks = Speaks::tls(&identity, BOTH);
        let upstream = Upstream::speaking(speaks, |seen| mcp(seen, &Gate::new())).await;
        let waypoint = start_mcp(&authority, &upstream).await;
        let answer = waypoint.workload(ANN).call(&call_tool("echo")).await;
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_connect".into()),
            "{case}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["id"], 7, "{case}: {}", answer.text());
        upstream.refused(1).await;
        assert!(upstream.seen().is_empty(), "{case}");
    }
}

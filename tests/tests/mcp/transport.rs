//! HTTP as the transport has it: methods, and where requests come from.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::mcp_server::{Form, MODERN};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, mcp_proxy};

use super::{PATH, allowed, call_tool, of_era, post, server};

#[tokio::test]
async fn http_methods_and_unknown_methods() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let ann = waypoint.workload(ANN);
    let before = upstream.seen().len();
    for (case, request, status, allow) in [
        (
            "PUT",
            Request::new("PUT", PATH),
            405,
            Some("POST, GET, DELETE"),
        ),
        (
            "PATCH",
            Request::new("PATCH", PATH),
            405,
            Some("POST, GET, DELETE"),
        ),
        (
            "OPTIONS",
            Request::new("OPTIONS", PATH),
            405,
            Some("POST, GET, DELETE"),
        ),
        (
            "modern GET",
            Request::new("GET", PATH).header("mcp-protocol-version", MODERN),
            405,
            Some("POST"),
        ),
        (
            "modern DELETE",
            Request::new("DELETE", PATH).header("mcp-protocol-version", MODERN),
            405,
            Some("POST"),
        ),
        ("DELETE of nothing", Request::new("DELETE", PATH), 400, None),
        (
            "unknown method",
            of_era(false, "acme/x", &json!({})),
            200,
            None,
        ),
        (
            "another case",
            of_era(false, "Tools/Call", &json!({"name": "secret"})),
            200,
            None,
        ),
        (
            "a space",
            of_era(false, "tools/call ", &json!({"name": "secret"})),
            200,
            None,
        ),
        (
            "unknown modern method",
            of_era(true, "acme/x", &json!({})),
            404,
            None,
        ),
        (
            "initialize, modern",
            of_era(true, "initialize", &json!({})),
            404,
            None,
        ),
        ("ping, modern", of_era(true, "ping", &json!({})), 404, None),
        (
            "discover, legacy",
            of_era(false, "subscriptions/listen", &json!({})),
            200,
            None,
        ),
        (
            "a tool without an id",
            post(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}"#),
            400,
            None,
        ),
        (
            "a response, modern",
            post(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).header("mcp-protocol-version", MODERN),
            400,
            None,
        ),
    ] {
        let answer = ann.call(&request).await.unwrap();
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert_eq!(answer.header("allow"), allow, "{case}");
        assert!(
            answer.json()["error"]["code"].is_i64(),
            "{case}: {}",
            answer.text()
        );
        if matches!((status, allow), (200 | 404, None)) {
            assert_eq!(answer.json()["error"]["code"], -32601, "{case}");
            assert_eq!(answer.json()["id"], 7, "{case}");
        }
    }
    assert_eq!(upstream.seen().len(), before);
    // A server that speaks only the old era is the one to say so: clients fall back on its word.
    let discover = of_era(true, "server/discover", &json!({}));
    assert_eq!(ann.call(&discover).await.unwrap().status, 200);
    let old = Upstream::always(Reply::whole(
        400,
        &[("content-type", "text/plain")],
        "Bad Request: no session",
    ))
    .await;
    waypoint
        .reload(&[mcp_proxy("tools", &old, ""), allowed()].concat())
        .await;
    let answer = ann.call(&discover).await.unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (400, "Bad Request: no session")
    );
}

#[tokio::test]
async fn pages_of_other_sites_reach_no_server() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let ann = waypoint.workload(ANN);
    let own = format!("https://{}", ann.authority());
    for (case, origins, status) in [
        ("no page", &[][..], 200),
        ("a page of ours", &[own.as_str()], 200),
        ("a foreign page", &["https://evil.example"], 403),
        ("a sandboxed page", &["null"], 403),
        ("two origins", &[own.as_str(), own.as_str()], 403),
    ] {
        let request = origins
            .iter()
            .fold(call_tool(false, "echo"), |request, origin| {
                request.header("origin", origin)
            });
        assert_eq!(ann.call(&request).await.unwrap().status, status, "{case}");
    }
    // The server's own check of Host sees its own name.
    assert_eq!(
        upstream.last().header("host"),
        Some("tools.agents.svc.cluster.local")
    );
    assert_eq!(upstream.seen().len(), 2);
}

//! Sessions, and the streams that belong to them.

use serde_json::{Value, json};
use waypoint_tests::client::Request;
use waypoint_tests::mcp_server::{self, Form, LEGACY, SESSION};
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{ANN, BOB, Setup, agent, mcp_proxy};

use super::{PATH, call_tool, initialize, open_session, post, server};

#[tokio::test]
async fn a_session_belongs_to_who_opened_it_where_it_was_opened() {
    let gate = Gate::new();
    let upstream = mcp_server::start(Form::Json, &gate).await;
    let objects = [
        mcp_proxy("tools", &upstream, ""),
        mcp_proxy("other", &upstream, ""),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let (ann, bob) = (waypoint.workload(ANN), waypoint.workload(BOB));
    let id = open_session(&ann).await;
    assert!(!id.contains(SESSION), "{id}");
    // A caller's own id cannot be made a session's.
    let fixed = ann
        .call(&initialize().header("mcp-session-id", "chosen"))
        .await
        .unwrap();
    assert_eq!(fixed.status, 200);
    assert_eq!(upstream.last().header("mcp-session-id"), None);
    let forged = format!(
        "{}{}",
        if id.starts_with('A') { "B" } else { "A" },
        &id[1..]
    );
    let mut reached = upstream.seen().len();
    for (case, client, path, id, status) in [
        ("the owner", &ann, PATH, id.as_str(), 200),
        ("another caller", &bob, PATH, &id, 404),
        ("another route", &ann, "/mcp/other/", &id, 404),
        ("forged", &ann, PATH, &forged, 404),
        ("the server's own id", &ann, PATH, SESSION, 404),
        ("empty", &ann, PATH, "", 404),
        ("nonsense", &ann, PATH, "../../a", 404),
    ] {
        gate.open();
        for method in ["POST", "GET", "DELETE"] {
            let request = match method {
                "POST" => Request {
                    target: path.into(),
                    ..call_tool(false, "echo")
                },
                method => Request::new(method, path).header("accept", "text/event-stream"),
            };
            let answer = client
                .call(&request.header("mcp-session-id", id))
                .await
                .unwrap();
            assert_eq!(answer.status, status, "{case} {method}: {}", answer.text());
            if status == 200 {
                reached += 1;
                assert_eq!(
                    upstream.last().header("mcp-session-id"),
                    Some(SESSION),
                    "{case}"
                );
            } else {
                assert_eq!(answer.code(), "session_unknown", "{case} {method}");
            }
        }
        assert_eq!(upstream.seen().len(), reached, "{case}");
    }
    // The same workload with another certificate, on another connection, is the same caller.
    let again = waypoint
        .workload(ANN)
        .call(&call_tool(false, "echo").header("mcp-session-id", &id))
        .await;
    assert_eq!(again.unwrap().status, 200);
    let twice = call_tool(false, "echo")
        .header("mcp-session-id", &id)
        .header("mcp-session-id", &id);
    assert_eq!(ann.call(&twice).await.unwrap().status, 400);
}

#[tokio::test]
async fn a_session_that_ended_upstream_is_told_as_such() {
    let ended = Reply::status(
        404,
        &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32001, "message": "Session not found"}}),
    );
    let opened = mcp_server::start(Form::Json, &Gate::new()).await;
    let waypoint = Setup::new(&mcp_proxy("tools", &opened, "")).start().await;
    let id = open_session(&waypoint.workload(ANN)).await;
    let upstream = Upstream::always(ended).await;
    waypoint.reload(&mcp_proxy("tools", &upstream, "")).await;
    let answer = waypoint
        .workload(ANN)
        .call(&call_tool(false, "echo").header("mcp-session-id", &id))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (404, &json!(-32001))
    );
}

#[tokio::test]
async fn streams_of_a_session_carry_both_directions() {
    let (upstream, waypoint, gate) = server(Form::Json).await;
    let ann = waypoint.workload(ANN);
    let id = open_session(&ann).await;
    let with_session = |request: Request| {
        request
            .header("mcp-session-id", &id)
            .header("mcp-protocol-version", LEGACY)
    };
    let mut stream = ann.connect().await.unwrap();
    stream
        .send(&with_session(
            Request::new("GET", PATH)
                .header("accept", "text/event-stream")
                .header("last-event-id", "9"),
        ))
        .await
        .unwrap();
    assert_eq!(stream.head().await.unwrap().status, 200);
    // Event ids and the server's own requests pass as they are.
    let asked = stream.read_until("roots/list").await.unwrap();
    assert!(
        asked.starts_with("id: 1\ndata: \n\nid: 2\ndata: {\"jsonrpc\""),
        "{asked}"
    );
    assert_eq!(upstream.last().header("last-event-id"), Some("9"));
    for (case, body) in [
        (
            "an answer to the server",
            r#"{"jsonrpc":"2.0","id":"s-1","result":{"roots":[]}}"#,
        ),
        (
            "a notification",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        ),
        (
            "cancelling",
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#,
        ),
    ] {
        let answer = ann.call(&with_session(post(body))).await.unwrap();
        assert_eq!(
            (answer.status, answer.body.len()),
            (202, 0),
            "{case}: {}",
            answer.text()
        );
        assert!(upstream.last().body == body.as_bytes(), "{case}");
    }
    gate.open();
    stream.read_until("\"last\"").await.unwrap();
    assert!(stream.body().await.unwrap().is_empty());
    let ended = ann
        .call(&with_session(Request::new("DELETE", PATH)))
        .await
        .unwrap();
    assert_eq!(ended.status, 200);
    assert_eq!(
        (
            upstream.last().method(),
            upstream.last().header("mcp-session-id")
        ),
        ("DELETE", Some(SESSION))
    );
}

#[tokio::test]
async fn a_caller_that_leaves_a_stream_ends_it_upstream() {
    let upstream = mcp_server::stalled().await;
    let waypoint = Setup::new(&mcp_proxy("tools", &upstream, "")).start().await;
    let requests = [
        call_tool(true, "slow"),
        call_tool(false, "slow"),
        Request::new("GET", PATH).header("accept", "text/event-stream"),
    ];
    for (number, request) in requests.into_iter().enumerate() {
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        connection.send(&request).await.unwrap();
        connection.head().await.unwrap();
        connection.read_until(": open").await.unwrap();
        drop(connection);
        upstream.abandoned(number + 1).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_no_longer_permitted_ends() {
    let gate = Gate::new();
    let upstream = mcp_server::start(Form::Json, &gate).await;
    let with = |tools: &str| {
        let rules = format!(
            "- {{name: some, mcp: [{{methods: [{{name: tools/call, params: [{tools}]}}]}}]}}"
        );
        [
            mcp_proxy("tools", &upstream, ""),
            agent("some", "Allow", &rules),
        ]
        .concat()
    };
    let waypoint = Setup::new(&with("slow, echo")).start().await;
    let ann = waypoint.workload(ANN);
    let id = open_session(&ann).await;
    let mut open = Vec::new();
    for (case, request, begins) in [
        ("call", call_tool(false, "slow"), "progress"),
        ("modern call", call_tool(true, "slow"), "progress"),
        (
            "session",
            Request::new("GET", PATH).header("mcp-session-id", &id),
            "roots/list",
        ),
    ] {
        let mut connection = ann.connect().await.unwrap();
        connection.send(&request).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200, "{case}");
        connection.read_until(begins).await.unwrap();
        open.push((case, connection));
    }
    // The session still stands on what is left; the calls do not.
    waypoint.reload(&with("echo")).await;
    for (case, mut connection) in open {
        if case == "session" {
            gate.open();
            connection.read_until("\"last\"").await.unwrap();
            continue;
        }
        let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
        let error: Value = serde_json::from_str(&waypoint_tests::client::events(&rest)[0]).unwrap();
        assert_eq!(
            (&error["id"], &error["error"]["data"]["code"]),
            (&json!(7), &json!("policy_revoked")),
            "{case}: {rest}"
        );
    }
    upstream.abandoned(2).await;
}

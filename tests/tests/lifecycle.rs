//! The end of a gateway, as an orchestrator brings it about.

use std::sync::Arc;

use waypoint_tests::client::Connection;
use waypoint_tests::llm::{DONE, chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server;
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, mcp_proxy, provider, route};

/// A provider whose plain answers come at once and whose streams wait for the gate, and an MCP
/// server that never ends its answers.
async fn start(gate: &Gate, drain: &str) -> ([Arc<Upstream>; 2], Waypoint) {
    let held = Reply::stream()
        .chunk(delta("one"))
        .wait(gate)
        .chunk(delta("two"))
        .chunk(DONE)
        .end();
    let upstream = Upstream::start(move |seen| match seen.json()["stream"].as_bool() {
        Some(true) => held.clone(),
        _ => chat_answer(),
    })
    .await;
    let tools = mcp_server::stalled().await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        mcp_proxy("tools", &tools, ""),
    ];
    let setup = Setup::new(&objects.concat()).parameters(&format!("drainTimeout: {drain}"));
    ([upstream, tools], setup.start().await)
}

async fn open_stream(waypoint: &Waypoint) -> Connection {
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("one").await.unwrap();
    connection
}

#[tokio::test]
async fn streams_may_finish_and_nothing_new_begins() {
    let gate = Gate::new();
    // Longer than the test may take: only what runs is waited for.
    let (_upstreams, mut waypoint) = start(&gate, "10m").await;
    let mut idle = waypoint.workload(ANN).connect().await.unwrap();
    assert_eq!(idle.call(&chat("m")).await.unwrap().status, 200);
    let mut stream = open_stream(&waypoint).await;
    waypoint.terminate().await;
    waypoint.draining().await;
    until("no new connections", || async {
        waypoint.developer().connect().await.err()
    })
    .await;
    assert_eq!(idle.drain().await, b"", "an idle connection is closed");
    gate.open();
    let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
    assert!(rest.ends_with(DONE) && !rest.contains("error"), "{rest}");
    assert_eq!(
        waypoint.ended().await.code(),
        Some(0),
        "{}",
        waypoint.stderr()
    );
    let events = waypoint.audit();
    assert_eq!(events.len(), 2, "{events:?}");
}

#[tokio::test]
async fn streams_that_do_not_finish_in_time_end_with_an_error() {
    let gate = Gate::new();
    let ([upstream, tools], mut waypoint) = start(&gate, "500ms").await;
    let mut stream = open_stream(&waypoint).await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let mut over_http2 = http2.open(&chat_stream("m")).await.unwrap();
    let mut tool = waypoint.workload(ANN).connect().await.unwrap();
    let call = mcp_server::legacy(7, "tools/call", &serde_json::json!({"name": "slow"}));
    tool.send(&waypoint_tests::client::Request::post("/mcp/tools/", call))
        .await
        .unwrap();
    tool.head().await.unwrap();
    tool.read_until(": open").await.unwrap();
    waypoint.terminate().await;
    // Every body ends properly, after an error that says why.
    let ended = String::from_utf8(stream.body().await.unwrap()).unwrap();
    let mut ended_http2 = String::new();
    while let Some(piece) = over_http2.piece().await.unwrap() {
        ended_http2.push_str(&String::from_utf8_lossy(&piece));
    }
    for text in [&ended, &ended_http2] {
        assert!(
            text.contains("event: error\n") && text.contains("\"shutting_down\""),
            "{text}"
        );
    }
    let ended = String::from_utf8(tool.body().await.unwrap()).unwrap();
    assert!(
        ended.contains("\"id\":7") && ended.contains("\"shutting_down\""),
        "{ended}"
    );
    upstream.abandoned(2).await;
    tools.abandoned(1).await;
    assert_eq!(
        waypoint.ended().await.code(),
        Some(0),
        "{}",
        waypoint.stderr()
    );
    let cut = waypoint
        .audit()
        .iter()
        .filter(|event| event["code"] == "shutting_down")
        .count();
    assert_eq!(cut, 3, "{:?}", waypoint.audit());
}

#[tokio::test]
async fn without_work_the_end_comes_at_once() {
    let (_upstreams, mut waypoint) = start(&Gate::new(), "10m").await;
    assert_eq!(
        waypoint
            .workload(ANN)
            .call(&chat("m"))
            .await
            .unwrap()
            .status,
        200
    );
    waypoint.terminate().await;
    assert_eq!(
        waypoint.ended().await.code(),
        Some(0),
        "{}",
        waypoint.stderr()
    );
    assert_eq!(waypoint.audit().len(), 1);
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let gate = Gate::new();
    let (_upstreams, mut waypoint) = start(&gate, "10m").await;
    let _stream = open_stream(&waypoint).await;
    waypoint.terminate().await;
    waypoint.draining().await;
    waypoint.terminate().await;
    assert_eq!(
        waypoint.ended().await.code(),
        Some(1),
        "{}",
        waypoint.stderr()
    );
}

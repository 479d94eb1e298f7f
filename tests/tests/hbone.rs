//! HBONE: tunnels of the mesh to our listeners.

mod drain;
mod refused;

use std::sync::Arc;

use serde_json::json;
use waypoint_tests::client::{Connection, Request};
use waypoint_tests::llm::{DONE, chat, chat_answer, chat_body, chat_stream, delta};
use waypoint_tests::mcp_server::{self, Form, legacy};
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, agent, http_route, mcp_proxy, provider, route, service,
};
use waypoint_tests::ztunnel::Ztunnel;

/// A provider whose streams wait for the gate, a server of tools, and a plain service; Ann may use
/// them, Bob may not.
async fn start(gate: &Gate) -> (Arc<Upstream>, Waypoint) {
    start_with(gate, |setup| setup).await
}

async fn start_with(gate: &Gate, more: impl FnOnce(Setup) -> Setup) -> (Arc<Upstream>, Waypoint) {
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
    let tools = mcp_server::start(Form::Json, gate).await;
    let rules = format!(
        "- name: ann\n  from: [{{spiffe: \"{ANN}\"}}]\n  llm: [{{providers: [openai]}}]\n  \
         mcp: [{{servers: [tools], methods: [{{name: tools/call, params: [echo]}}]}}]\n  \
         http: [{{paths: [\"/app/*\"]}}]"
    );
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        mcp_proxy("tools", &tools, ""),
        service("app", &upstream, "http"),
        http_route(
            "app",
            "rules:\n- matches: [{path: {type: PathPrefix, value: /app}}]\n  backendRefs: [{name: app, port: 80}]",
        ),
        agent("ann", "Allow", &rules),
    ];
    let setup = more(Setup::new(&objects.concat()).hbone());
    (upstream, setup.start().await)
}

/// The node proxy of a workload.
async fn dial(waypoint: &Waypoint, spiffe: &str) -> Ztunnel {
    let identity = waypoint.authority.agent(spiffe);
    Ztunnel::dial(waypoint.ports.hbone, &waypoint.authority, Some(&identity))
        .await
        .unwrap()
}

async fn open_stream(ztunnel: &Ztunnel, waypoint: &Waypoint) -> Connection {
    let mut connection = ztunnel.http1(waypoint.ports.plain).await.unwrap();
    connection.send(&chat_stream("m")).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("one").await.unwrap();
    connection
}

fn call_tool() -> Request {
    let call = legacy(7, "tools/call", &json!({"name": "echo", "arguments": {}}));
    Request::post("/mcp/tools/", call)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", mcp_server::LEGACY)
}

#[tokio::test]
async fn the_principal_of_a_tunnel_decides() {
    let (_upstream, waypoint) = start(&Gate::new()).await;
    // Nobody has an identity on this listener but who comes through a tunnel.
    let port = waypoint.ports.plain;
    for (who, status) in [(ANN, 200), (BOB, 403)] {
        let ztunnel = dial(&waypoint, who).await;
        for request in [chat("m"), Request::new("GET", "/app/a")] {
            // A refusal may end an HTTP/1.1 connection.
            let mut http1 = ztunnel.http1(port).await.unwrap();
            let mut http2 = ztunnel.http2(port).await.unwrap();
            let answers = [
                http1.call(&request).await.unwrap(),
                http2.call(&request).await.unwrap(),
            ];
            for answer in answers {
                let case = format!("{who} {}", request.target);
                assert_eq!(answer.status, status, "{case}: {}", answer.text());
                let event = waypoint.event(&answer).await;
                assert_eq!(event["principal"], who, "{case}");
                assert_eq!(event["identity_source"], "certificate", "{case}");
                assert_eq!(event["listener"], "plain", "{case}");
            }
        }
        // A tool that is denied is hidden: the session of one who may call none is refused.
        let mut http1 = ztunnel.http1(port).await.unwrap();
        let answer = http1.call(&call_tool()).await.unwrap();
        let event = waypoint.event(&answer).await;
        assert_eq!(event["principal"], who);
        let expected = if who == ANN { "allow" } else { "deny" };
        assert_eq!(event["decision"], expected, "{}", answer.text());
    }
    let direct = waypoint.anonymous().call(&chat("m")).await.unwrap();
    assert_eq!(direct.status, 401);
}

#[tokio::test]
async fn what_a_caller_writes_about_itself_is_removed() {
    let (upstream, waypoint) = start(&Gate::new()).await;
    let ztunnel = dial(&waypoint, ANN).await;
    let request = Request::new("GET", "/app/a")
        .header("x-forwarded-client-cert", &format!("By=x;URI={BOB}"))
        .header("x-spiffe-id", BOB)
        .header("x-kept", "1");
    let mut connection = ztunnel.http1(waypoint.ports.plain).await.unwrap();
    let answer = connection.call(&request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.only();
    assert_eq!(seen.header("x-kept"), Some("1"));
    for name in [
        "x-forwarded-client-cert",
        "x-spiffe-id",
        "baggage",
        "forwarded",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(waypoint.event(&answer).await["principal"], ANN);
}

#[tokio::test]
async fn a_developer_listener_takes_tunnels_for_what_they_are() {
    let (_upstream, waypoint) = start(&Gate::new()).await;
    let ztunnel = dial(&waypoint, BOB).await;
    let mut connection = ztunnel.http1(waypoint.ports.dev).await.unwrap();
    let answer = connection.call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(waypoint.event(&answer).await["principal"], BOB);
}

#[tokio::test]
async fn one_connection_carries_many_tunnels() {
    let gate = Gate::new();
    let (_upstream, waypoint) = start(&gate).await;
    let ztunnel = dial(&waypoint, ANN).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(open_stream(&ztunnel, &waypoint).await);
    }
    let mut other = ztunnel.http1(waypoint.ports.plain).await.unwrap();
    for _ in 0..3 {
        assert_eq!(other.call(&chat("m")).await.unwrap().status, 200);
    }
    gate.open();
    for mut stream in streams {
        let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
        assert!(rest.ends_with(DONE), "{rest}");
    }
    let at_mesh = |result| [("listener", "mesh"), ("result", result)];
    let metrics = waypoint.metrics().await;
    let connections = |result| metrics.sum("waypoint_connections_total", &at_mesh(result));
    assert_eq!(connections("accepted"), 1.0);
    assert_eq!(connections("tunnel"), 21.0);
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_call() {
    let gate = Gate::new();
    let (upstream, waypoint) = start(&gate).await;
    let ztunnel = dial(&waypoint, ANN).await;
    // The application leaves: its stream ends.
    drop(open_stream(&ztunnel, &waypoint).await);
    upstream.abandoned(1).await;
    // Its stream is reset.
    let (status, mut opened) = ztunnel
        .connect(&format!("127.0.0.1:{}", waypoint.ports.plain))
        .await
        .unwrap();
    assert_eq!(status, 200);
    let body = chat_body("m", &json!({"stream": true}));
    let head = format!(
        "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: wp\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    opened.send.send_data(head.into(), false).unwrap();
    upstream.requests(2).await;
    opened.send.send_reset(h2::Reason::CANCEL);
    upstream.abandoned(2).await;
    // Others go on, until the node goes.
    let stream = open_stream(&ztunnel, &waypoint).await;
    drop(ztunnel);
    upstream.abandoned(3).await;
    drop(stream);
}

#[tokio::test]
async fn the_last_bytes_of_an_answer_arrive() {
    let (_upstream, waypoint) = start(&Gate::new()).await;
    let ztunnel = dial(&waypoint, ANN).await;
    // What is no request at all is answered by the codec, which then drops the connection.
    let body = chat_body("m", &json!({}));
    let call = format!(
        "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: wp\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for (case, bytes, status) in [
        ("a call", call.as_str(), "200"),
        (
            "closed",
            "GET /none HTTP/1.1\r\nhost: wp\r\nconnection: close\r\n\r\n",
            "404",
        ),
        ("old", "GET /none HTTP/1.0\r\nhost: wp\r\n\r\n", "404"),
        ("dropped", "GET /a b c\r\n\r\n", "400"),
    ] {
        let mut connection = ztunnel.http1(waypoint.ports.plain).await.unwrap();
        connection.write(bytes.as_bytes()).await.unwrap();
        let all = connection.drain().await;
        let all = String::from_utf8_lossy(&all);
        let expected = format!("HTTP/1.1 {status} ");
        assert!(all.starts_with(&expected), "{case}: {all:?}");
    }
}

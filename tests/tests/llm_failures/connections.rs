//! Connections that do not come about, die or are used again, and waits that end.

use std::sync::Arc;

use tokio::net::TcpListener;
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer};
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, provider, route};

use super::{RETRY, start};

#[tokio::test]
async fn nobody_there_leads_to_the_next_provider() {
    let gone = Upstream::always(chat_answer()).await;
    let last = Upstream::always(chat_answer()).await;
    let objects = [
        provider("gone", "OpenAI", &gone, ""),
        provider(
            "last",
            "OpenAI",
            &last,
            "models: [{name: other, aliases: [m]}]",
        ),
        route(
            "llm",
            "- backendRefs: [{name: gone}, {name: last, priority: 1}]\n  retry: {attempts: 1, backoff: {base: 1ms}}",
        ),
        route("alone", "- backendRefs: [{name: gone}]")
            .replace("pathPrefix: /ai", "pathPrefix: /alone"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    gone.stop();
    let answer = waypoint.developer().call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Each attempt names the model as its own provider does.
    assert_eq!(last.only().json()["model"], "other");
    assert_eq!(waypoint.event(&answer).await["attempts"], 2);
    let alone = Request {
        target: "/alone/v1/chat/completions".into(),
        ..chat("m")
    };
    let refused = waypoint.developer().call(&alone).await.unwrap();
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_connect".into())
    );
}

#[tokio::test]
async fn a_kept_connection_that_has_died_costs_no_call() {
    // The answer promises a connection that lives on, and then it is closed.
    let upstream = Upstream::always(chat_answer().then(Step::Close)).await;
    let waypoint = start(&upstream, "retry: {attempts: 0}", "").await;
    for _ in 0..20 {
        let answer = waypoint.developer().call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(upstream.seen().len(), 20);
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let upstream = Upstream::always(chat_answer()).await;
    let waypoint = start(&upstream, RETRY, "").await;
    for _ in 0..10 {
        assert_eq!(
            waypoint
                .workload(ANN)
                .call(&chat("m"))
                .await
                .unwrap()
                .status,
            200
        );
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (10, 1));
}

#[tokio::test]
async fn every_wait_has_an_end() {
    let stall = || Reply::default().then(Step::Stall);
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"a\":";
    for (case, rule, replies, status, code, attempts) in [
        (
            "no head",
            "timeouts: {request: 300ms}",
            vec![stall()],
            504,
            "upstream_timeout",
            1,
        ),
        (
            "half a head",
            "timeouts: {request: 300ms}",
            vec![Reply::raw(&head[..30]).then(Step::Stall)],
            504,
            "upstream_timeout",
            1,
        ),
        (
            "half a body",
            "timeouts: {request: 300ms}",
            vec![Reply::raw(head).then(Step::Stall)],
            504,
            "upstream_timeout",
            1,
        ),
        // It may have been billed already: only tried again where that was asked for.
        (
            "one try",
            "timeouts: {request: 20s, perTry: 300ms}",
            vec![stall(), chat_answer()],
            504,
            "upstream_timeout",
            1,
        ),
        (
            "one try of several",
            "timeouts: {request: 20s, perTry: 300ms}\n  retry: {attempts: 1, on: [timeout], backoff: {base: 1ms}}",
            vec![stall(), chat_answer()],
            200,
            "",
            2,
        ),
    ] {
        let upstream = Upstream::in_turn(replies).await;
        let waypoint = start(&upstream, rule, "").await;
        let answer = waypoint.developer().call(&chat("m")).await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        assert_eq!(upstream.seen().len(), attempts, "{case}");
        // What is not waited for any more is told so.
        upstream.abandoned(1).await;
    }
    // A handshake that is never answered is a connection that never comes about.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let objects = [
        format!(
            "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: LLMProvider\nmetadata: {{name: openai, namespace: agents}}\nspec: {{dialect: OpenAI, endpoint: \"https://{address}\"}}\n---\n"
        ),
        route(
            "llm",
            "- backendRefs: [{name: openai}]\n  timeouts: {connect: 300ms}\n  retry: {attempts: 0}",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = waypoint.developer().call(&chat("m")).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_connect".into())
    );
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_ends_the_upstream_call() {
    let upstream: Arc<Upstream> = Upstream::always(Reply::default().then(Step::Stall)).await;
    let waypoint = start(&upstream, RETRY, "").await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&chat("m")).await.unwrap();
    upstream.requests(1).await;
    drop(connection);
    upstream.abandoned(1).await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let request = chat("m");
    {
        let call = http2.call(&request);
        tokio::pin!(call);
        tokio::select! {
            answer = &mut call => panic!("answered: {answer:?}"),
            _ = upstream.requests(2) => {}
        }
    }
    // The stream alone is gone; the connection lives.
    upstream.abandoned(2).await;
    let gone = |event: &serde_json::Value| {
        event["flags"]
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag == "DOWNSTREAM_DISCONNECTED"))
    };
    waypoint.event_where("a caller that left", gone).await;
    assert_eq!(upstream.seen().len(), 2);
}

//! Plain routes: what is neither an LLM nor an MCP call.

use std::sync::Arc;

use waypoint_tests::client::Request;
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, BOB, Backend as _, Setup, Waypoint, agent};

/// A Service and a route to it under `/app`.
fn objects(upstream: &Arc<Upstream>) -> String {
    let port = upstream.address().port();
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: app, namespace: agents}}
spec: {{clusterIP: None, ports: [{{name: http, port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app, namespace: agents, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: {port}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: app, namespace: agents}}
spec:
  parentRefs: [{{name: wp}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /app}}}}]
    timeouts: {{request: 5s}}
    backendRefs: [{{name: app, port: 80}}]
---
"
    )
}

async fn start(reply: Reply) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::always(reply).await;
    let rules = format!(
        "- name: reads\n  from: [{{spiffe: \"{ANN}\"}}]\n  http: [{{methods: [GET, POST], paths: [\"/app/open/*\"]}}]"
    );
    let waypoint = Setup::new(&[objects(&upstream), agent("app", "Allow", &rules)].concat())
        .start()
        .await;
    (upstream, waypoint)
}

#[tokio::test]
async fn decisions_are_made_on_the_path_that_is_forwarded() {
    let (upstream, waypoint) = start(Reply::whole(200, &[("x-app", "1")], "hello")).await;
    for (case, who, method, path, forwarded) in [
        (
            "allowed",
            ANN,
            "GET",
            "/app/open/a?b=c",
            Some("/app/open/a?b=c"),
        ),
        (
            "dots",
            ANN,
            "GET",
            "/app/closed/../open/a",
            Some("/app/open/a"),
        ),
        (
            "encoded letters",
            ANN,
            "GET",
            "/app/%6fpen/a",
            Some("/app/open/a"),
        ),
        ("two slashes", ANN, "GET", "/app//open/a", None),
        ("dots out of it", ANN, "GET", "/app/open/../closed", None),
        (
            "encoded dots out of it",
            ANN,
            "GET",
            "/app/open/%2e%2e/closed",
            None,
        ),
        ("another path", ANN, "GET", "/app/closed", None),
        ("another method", ANN, "DELETE", "/app/open/a", None),
        ("another caller", BOB, "GET", "/app/open/a", None),
    ] {
        let before = upstream.seen().len();
        let answer = waypoint
            .workload(who)
            .call(&Request::new(method, path))
            .await
            .unwrap();
        let event = waypoint.event(&answer).await;
        match forwarded {
            Some(target) => {
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (200, "hello"),
                    "{case}"
                );
                assert_eq!(answer.header("x-app"), Some("1"), "{case}");
                assert_eq!(upstream.last().target(), target, "{case}");
                assert_eq!(event["by"]["rule"], "reads", "{case}: {event}");
            }
            None => {
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (403, "RBAC: access denied"),
                    "{case}"
                );
                assert_eq!(upstream.seen().len(), before, "{case}");
                assert_eq!(event["flags"][0], "RBAC_ACCESS_DENIED", "{case}: {event}");
            }
        }
    }
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    let gate = Gate::new();
    let held = Reply::chunked(200, &[])
        .chunk("one")
        .wait(&gate)
        .chunk("two")
        .end();
    let (upstream, waypoint) = start(held).await;
    let body = vec![b'a'; 3 << 20];
    let request = Request {
        body: body.clone(),
        ..Request::new("POST", "/app/open/a")
    };
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(&request).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("one").await.unwrap();
    gate.open();
    connection.read_until("two").await.unwrap();
    assert!(upstream.only().body == body);
}

#[tokio::test]
async fn a_backend_that_fails_is_answered_for() {
    for (case, reply, status) in [
        ("reset", Reply::default().then(Step::Reset), 502),
        (
            "no HTTP",
            Reply::raw("hello\r\n\r\n").then(Step::Close),
            502,
        ),
    ] {
        let (_upstream, waypoint) = start(reply).await;
        let answer = waypoint
            .workload(ANN)
            .call(&Request::new("GET", "/app/open/a"))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert!(answer.header("x-request-id").is_some(), "{case}");
    }
    let (upstream, waypoint) = start(Reply::whole(200, &[], "hello")).await;
    upstream.stop();
    let answer = waypoint
        .workload(ANN)
        .call(&Request::new("GET", "/app/open/a"))
        .await
        .unwrap();
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn an_answer_that_goes_on_is_asked_again_when_the_configuration_changes() {
    for (case, keeps) in [("permitted", true), ("denied", false)] {
        let gate = Gate::new();
        let held = Reply::chunked(200, &[])
            .chunk("one")
            .wait(&gate)
            .chunk("two")
            .end();
        let (upstream, waypoint) = start(held).await;
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        let request = Request::new("GET", "/app/open/a");
        connection.send(&request).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200);
        connection.read_until("one").await.unwrap();
        let rules = match keeps {
            true => "- name: renamed\n  http: [{paths: [\"/app/*\"]}]",
            false => "- name: another\n  http: [{paths: [\"/app/closed\"]}]",
        };
        waypoint
            .reload(&[objects(&upstream), agent("app", "Allow", rules)].concat())
            .await;
        gate.open();
        let rest = connection.body().await;
        let event = waypoint
            .event_where(case, |event| event["route"] == "HTTPRoute/agents/app")
            .await;
        match keeps {
            true => assert_eq!(rest.unwrap(), b"two", "{case}"),
            false => {
                assert!(rest.is_err(), "{case}: {rest:?}");
                assert_eq!(event["code"], "policy_revoked", "{case}: {event}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_ends_with_the_gateway() {
    let endless = Reply::chunked(200, &[]).then(Step::Endless(b"4\r\ntick\r\n".to_vec()));
    let upstream = Upstream::always(endless).await;
    let rules = "- name: all\n  http: [{paths: [\"/app/*\"]}]";
    let objects = [objects(&upstream), agent("app", "Allow", rules)].concat();
    let setup = Setup::new(&objects).parameters("drainTimeout: 1s");
    let mut waypoint = setup.start().await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    let request = Request::new("GET", "/app/open/a");
    connection.send(&request).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("tick").await.unwrap();
    waypoint.terminate().await;
    let end = loop {
        match connection.piece().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "cut, and not as if it were whole: {end:?}");
    assert_eq!(waypoint.ended().await.code(), Some(0));
    let events = waypoint.audit();
    assert_eq!(events[0]["code"], "shutting_down", "{events:?}");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    // RFC 9110 §9.2.2, on a connection that was used before, where it might only have been stale.
    let upstream = Upstream::in_turn(vec![
        Reply::whole(200, &[], "one"),
        Reply::default().then(Step::Close),
        Reply::whole(200, &[], "again"),
    ])
    .await;
    let rules =
        format!("- name: reads\n  from: [{{spiffe: \"{ANN}\"}}]\n  http: [{{methods: [POST]}}]");
    let objects = [objects(&upstream), agent("app", "Allow", &rules)];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let ann = waypoint.workload(ANN);
    let transfer = Request::post("/app/transfer", "10 EUR");
    assert_eq!(ann.call(&transfer).await.unwrap().status, 200);
    let broken = ann.call(&transfer).await.unwrap();
    assert_eq!(broken.status, 502, "{}", broken.text());
    assert_eq!(upstream.seen().len(), 2);
}

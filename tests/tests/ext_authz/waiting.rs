//! What changes while an authorizer is waited for.

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::chat;
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{ANN, agent};

use super::{ASKED, Parts, call_tool, custom, get, mesh};

/// Sends a request whose authorizer allows it only after these objects have been added, or these
/// taken away. Gives the answer and its event.
async fn change(parts: &Parts, request: &Request, added: &str, removed: &str) -> (Answer, Value) {
    let gate = Gate::new();
    let allows = Reply::default()
        .wait(&gate)
        .bytes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let authorizer = Upstream::always(allows).await;
    let waypoint = parts
        .start(&[mesh(&authorizer, ""), custom("ask", "authz", ASKED)])
        .await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    connection.send(request).await.unwrap();
    authorizer.requests(1).await;
    let objects = parts.objects.replace(removed, "");
    let asks = [mesh(&authorizer, ""), custom("ask", "authz", ASKED)].concat();
    waypoint.reload(&format!("{objects}{asks}{added}")).await;
    gate.open();
    let answer = connection.answer().await.unwrap();
    let mut event = waypoint.event(&answer).await;
    event["is_newest"] = json!(event["generation"] == json!(waypoint.generation().await));
    (answer, event)
}

#[tokio::test]
async fn who_is_locked_out_meanwhile_is() {
    let parts = Parts::new().await;
    let from = format!("- name: out\n  from: [{{spiffe: \"{ANN}\"}}]");
    let requests = [
        ("plain", get("/asked"), "http: [{}]", &parts.app),
        ("chat", chat("m"), "llm: [{models: [\"*\"]}]", &parts.llm),
        (
            "tool",
            call_tool(),
            "mcp: [{servers: [files], methods: [{name: tools/call}]}]",
            &parts.mcp,
        ),
    ];
    for (case, request, block, upstream) in requests {
        let deny = agent("quarantine", "Deny", &format!("{from}\n  {block}"));
        let (_, event) = change(&parts, &request, &deny, "no such thing").await;
        assert_eq!(event["decision"], "deny", "{case}: {event}");
        assert_eq!(event["by"]["name"], "quarantine", "{case}: {event}");
        assert_eq!(event["is_newest"], true, "{case}: {event}");
        assert!(upstream.seen().is_empty(), "{case}");
        // A change that is about others changes nothing.
        let about_bob = deny.replace("sa/ann", "sa/bob");
        let (answer, event) = change(&parts, &request, &about_bob, "no such thing").await;
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        assert_eq!(event["is_newest"], true, "{case}: {event}");
        assert_eq!(upstream.seen().len(), 1, "{case}");
    }
}

#[tokio::test]
async fn what_has_no_route_any_more_is_not_served() {
    let parts = Parts::new().await;
    let mut objects = parts.objects.split_inclusive("---\n");
    let route = objects
        .find(|object| object.contains("kind: HTTPRoute"))
        .unwrap();
    let (answer, event) = change(&parts, &get("/asked"), "", route).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(event["code"], "policy_revoked", "{event}");
    assert!(parts.app.seen().is_empty());
}

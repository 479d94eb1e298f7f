//! MCP items other than a tool call: tasks, subscriptions, completions are held to the same rules.

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::mcp_server::{MODERN, legacy, modern};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, BOB, Setup, Waypoint, agent, mcp_proxy};

fn policy(tools: &str) -> String {
    agent(
        "some",
        "Allow",
        &format!(
            "\
- name: some
  mcp:
  - methods:
    - {{name: tools/call, params: [{tools}]}}
    - {{name: prompts/get, params: [open]}}
    - {{name: resources/*, params: [\"repo://*\"]}}
    - {{name: subscriptions/listen, params: [\"repo://*\", \"vault://*\"]}}
    - {{name: completion/complete, params: [open]}}
"
        ),
    )
}

/// A server that makes a task of every tool call and answers everything else.
async fn start(is_modern: bool) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::start(move |seen| {
        let message = seen.json();
        let result = match message["method"].as_str() {
            Some("tools/call") if is_modern => {
                json!({"resultType": "task", "taskId": "task-1", "status": "working"})
            }
            Some("tools/call") => json!({"task": {"taskId": "task-1", "status": "working"}}),
            Some("tasks/list") => json!({"tasks": [{"taskId": "task-1"}, {"taskId": "task-2"}]}),
            _ => json!({"taskId": "task-1", "status": "working", "resultType": "complete"}),
        };
        Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    })
    .await;
    let waypoint = Setup::new(&[mcp_proxy("tools", &upstream, ""), policy("echo")].concat())
        .start()
        .await;
    (upstream, waypoint)
}

async fn ask(client: &Client, is_modern: bool, method: &str, params: Value) -> Answer {
    let name = [&params["taskId"], &params["name"], &params["uri"]]
        .into_iter()
        .find_map(Value::as_str);
    let request = match is_modern {
        true => {
            let request = Request::post("/mcp/tools/", modern(7, method, &params));
            let request = request
                .header("mcp-protocol-version", MODERN)
                .header("mcp-method", method);
            name.iter()
                .fold(request, |request, name| request.header("mcp-name", name))
        }
        false => Request::post("/mcp/tools/", legacy(7, method, &params)),
    };
    client.call(&request).await.unwrap()
}

#[tokio::test]
async fn a_task_answers_to_its_maker_for_as_long_as_its_tool_is_permitted() {
    for is_modern in [false, true] {
        let (upstream, waypoint) = start(is_modern).await;
        let (ann, bob) = (waypoint.workload(ANN), waypoint.workload(BOB));
        // A task is no way around a denial.
        let denied = ask(
            &ann,
            is_modern,
            "tools/call",
            json!({"name": "secret", "task": {}}),
        )
        .await;
        assert_eq!(denied.json()["error"]["message"], "Unknown tool: secret");
        assert_eq!(upstream.seen().len(), 0);
        let made = ask(
            &ann,
            is_modern,
            "tools/call",
            json!({"name": "echo", "task": {}}),
        )
        .await;
        assert_eq!(made.status, 200, "{}", made.text());
        let methods: &[&str] = if is_modern {
            &["tasks/get", "tasks/cancel", "tasks/update"]
        } else {
            &["tasks/get", "tasks/result", "tasks/cancel"]
        };
        for method in methods {
            for (case, client, id, reaches) in [
                ("its maker", &ann, "task-1", true),
                ("another caller", &bob, "task-1", false),
                ("another task", &ann, "task-2", false),
            ] {
                let before = upstream.seen().len();
                let answer = ask(client, is_modern, method, json!({"taskId": id})).await;
                let case = format!("{case} {method} modern={is_modern}: {}", answer.text());
                assert_eq!(answer.status, 200, "{case}");
                assert_eq!(answer.json()["result"].is_object(), reaches, "{case}");
                assert_eq!(
                    upstream.seen().len() - before,
                    usize::from(reaches),
                    "{case}"
                );
                if !reaches {
                    assert_eq!(answer.json()["error"]["code"], -32602, "{case}");
                }
            }
        }
        if !is_modern {
            for (client, shown) in [(&ann, json!([{"taskId": "task-1"}])), (&bob, json!([]))] {
                let list = ask(client, false, "tasks/list", json!({})).await;
                assert_eq!(list.json()["result"]["tasks"], shown, "{}", list.text());
            }
        }
        waypoint
            .reload(&[mcp_proxy("tools", &upstream, ""), policy("other")].concat())
            .await;
        let revoked = ask(&ann, is_modern, "tasks/get", json!({"taskId": "task-1"})).await;
        assert_eq!(
            revoked.json()["error"]["code"],
            -32602,
            "{}",
            revoked.text()
        );
    }
}

#[tokio::test]
async fn a_subscription_is_cut_to_what_may_be_read() {
    let (upstream, waypoint) = start(true).await;
    let ann = waypoint.workload(ANN);
    let uris = json!(["repo://a", "vault://b", "repo://c"]);
    let params =
        json!({"notifications": {"resourceSubscriptions": uris, "toolsListChanged": true}});
    let answer = ask(&ann, true, "subscriptions/listen", params).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = upstream.last().json();
    assert_eq!(
        sent["params"]["notifications"]["resourceSubscriptions"],
        json!(["repo://a", "repo://c"]),
        "{sent}"
    );
    assert_eq!(
        sent["params"]["notifications"]["toolsListChanged"], true,
        "{sent}"
    );
    let (upstream, waypoint) = start(false).await;
    let ann = waypoint.workload(ANN);
    for (uri, reaches) in [("repo://a", true), ("vault://b", false)] {
        let before = upstream.seen().len();
        let answer = ask(&ann, false, "resources/subscribe", json!({"uri": uri})).await;
        assert_eq!(
            answer.json()["result"].is_object(),
            reaches,
            "{uri}: {}",
            answer.text()
        );
        assert_eq!(
            upstream.seen().len() - before,
            usize::from(reaches),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn a_completion_tells_nothing_about_what_is_denied() {
    for is_modern in [false, true] {
        let (upstream, waypoint) = start(is_modern).await;
        let ann = waypoint.workload(ANN);
        for (case, reference, reaches) in [
            (
                "a prompt",
                json!({"type": "ref/prompt", "name": "open"}),
                true,
            ),
            (
                "a denied prompt",
                json!({"type": "ref/prompt", "name": "hidden"}),
                false,
            ),
            (
                "a denied resource",
                json!({"type": "ref/resource", "uri": "vault://{x}"}),
                false,
            ),
        ] {
            let before = upstream.seen().len();
            let params = json!({"ref": reference, "argument": {"name": "a", "value": "b"}});
            let answer = ask(&ann, is_modern, "completion/complete", params).await;
            assert_eq!(
                answer.json()["result"].is_object(),
                reaches,
                "{case} modern={is_modern}: {}",
                answer.text()
            );
            assert_eq!(
                upstream.seen().len() - before,
                usize::from(reaches),
                "{case}"
            );
        }
    }
}

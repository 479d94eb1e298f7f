//! Lists show what can be called.

use serde_json::json;
use waypoint_tests::mcp_server::{Form, TOOLS};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, mcp_proxy};

use super::{allowed, call_tool, message, of_era, server};

#[tokio::test]
async fn lists_show_what_can_be_called_byte_for_byte() {
    for form in [Form::Json, Form::Sse] {
        let (upstream, waypoint, _gate) = server(form).await;
        let ann = waypoint.workload(ANN);
        for is_modern in [false, true] {
            let case = format!("{form:?} modern={is_modern}");
            let answer = ann
                .call(&of_era(is_modern, "tools/list", &json!({})))
                .await
                .unwrap();
            assert_eq!(answer.status, 200, "{case}: {}", answer.text());
            let text = answer.text();
            for (name, tool) in TOOLS {
                let called = ann.call(&call_tool(is_modern, name)).await.unwrap();
                let is_callable = message(&called)["result"].is_object();
                assert_eq!(
                    is_callable,
                    ["echo", "add"].contains(&name),
                    "{case} {name}: {}",
                    called.text()
                );
                assert_eq!(text.contains(tool), is_callable, "{case} {name}: {text}");
                assert_eq!(
                    text.contains(&format!("\"{name}\"")),
                    is_callable,
                    "{case} {name}: {text}"
                );
            }
            let result = &message(&answer)["result"];
            assert_eq!(result["nextCursor"], "c 1", "{case}: {text}");
            if is_modern {
                // One caller's list must not be served to another.
                assert_eq!(
                    (&result["cacheScope"], &result["ttlMs"]),
                    (&json!("private"), &json!(0)),
                    "{case}"
                );
            }
            if form == Form::Sse {
                // What is no list passes as it is.
                assert!(text.starts_with(": keep-alive\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\r\n\r\n"), "{case}: {text}");
            }
            for (method, key, kept, cut) in [
                ("prompts/list", "prompts", r#"{"name":"open"}"#, "hidden"),
                (
                    "resources/list",
                    "resources",
                    r#"{"uri":"repo://a/1","name":"a"}"#,
                    "vault",
                ),
            ] {
                let answer = ann
                    .call(&of_era(is_modern, method, &json!({})))
                    .await
                    .unwrap();
                assert_eq!(
                    message(&answer)["result"][key].as_array().unwrap().len(),
                    1,
                    "{case}"
                );
                assert!(
                    answer.text().contains(kept) && !answer.text().contains(cut),
                    "{case}: {}",
                    answer.text()
                );
            }
        }
        // For a list that needs no cut, nothing is cut.
        assert!(upstream.seen().len() > 8);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_filtered_is_not_shown() {
    let all = TOOLS.map(|(_, tool)| tool).join(",");
    let json = [("content-type", "application/json")];
    let answer = |id: &str, tools: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":{tools}}}}}"#)
    };
    let event = |body: &str| Reply::stream().chunk(format!("data: {body}\n\n")).end();
    for (case, reply) in [
        (
            "another id",
            Reply::whole(200, &json, answer("8", &format!("[{all}]"))),
        ),
        (
            "an id of another type",
            Reply::whole(200, &json, answer("\"7\"", &format!("[{all}]"))),
        ),
        (
            "another id in a stream",
            event(&answer("8", &format!("[{all}]"))),
        ),
        (
            "a batch",
            Reply::whole(
                200,
                &json,
                format!("[{}]", answer("7", &format!("[{all}]"))),
            ),
        ),
        (
            "tools twice",
            Reply::whole(
                200,
                &json,
                format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":[],"tools":[{all}]}}}}"#),
            ),
        ),
        (
            "tools are no list",
            Reply::whole(200, &json, answer("7", r#"{"secret":{"name":"secret"}}"#)),
        ),
        (
            "cut",
            Reply::whole(
                200,
                &json,
                format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":[{all}"#),
            ),
        ),
        ("no JSON", Reply::whole(200, &json, "secret")),
        ("events that are no JSON", event("secret")),
        (
            "another media type",
            Reply::whole(
                200,
                &[("content-type", "text/plain")],
                answer("8", &format!("[{all}]")),
            ),
        ),
        (
            "no media type",
            Reply::whole(200, &[], answer("8", &format!("[{all}]"))),
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let waypoint = Setup::new(&[mcp_proxy("tools", &upstream, ""), allowed()].concat())
            .start()
            .await;
        let answer = waypoint
            .workload(ANN)
            .call(&of_era(false, "tools/list", &json!({})))
            .await
            .unwrap();
        assert!(
            !answer.text().contains("secret"),
            "{case}: {}",
            answer.text()
        );
        let error = message(&answer);
        assert!(error["error"]["code"].is_i64(), "{case}: {}", answer.text());
        assert_eq!(error["id"], 7, "{case}: {error}");
        assert_eq!(
            waypoint.event(&answer).await["code"],
            "upstream_bad_answer",
            "{case}"
        );
    }
}

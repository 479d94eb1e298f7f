//! What is permitted arrives, and what is denied does not.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::mcp_server::{self, Form, LEGACY, MODERN};
use waypoint_tests::upstream::Gate;
use waypoint_tests::waypoint::{ANN, Setup, mcp_proxy};

use super::{PATH, allowed, call_tool, initialize, message, of_era, post, post_modern, server};

#[tokio::test]
async fn a_permitted_call_arrives_byte_for_byte() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let odd = r#"{ "params" : {"arguments":{"n":1.0,"big":12345678901234567890123,"s":"\u00e9\/"}, "name":"echo","task":null,"x":[ ]},"id":7, "method":"tools/call","jsonrpc":"2.0" }"#;
    let odd_modern = odd.replace("\"task\":null", &format!(r#""_meta":{{"io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/protocolVersion":"{MODERN}","a.b/c":1}}"#));
    for (case, request) in [
        ("legacy", post(odd).header("mcp-protocol-version", LEGACY)),
        ("no version", post(odd)),
        ("escaped name", post(&odd.replace("echo", "ech\\u006f"))),
        ("string id", post(&odd.replace(":7,", ":\"a\\u0062\","))),
        (
            "charset",
            post(odd)
                .without("content-type")
                .header("content-type", "Application/JSON; Charset=\"utf-8\""),
        ),
        (
            "modern",
            post_modern("tools/call", Some("echo"), &odd_modern)
                .header("mcp-param-x", "kept")
                .header("mcp-session-id", "junk"),
        ),
        (
            "modern, encoded name",
            post_modern("tools/call", Some("=?base64?ZWNobw==?="), &odd_modern),
        ),
    ] {
        let request = request
            .header("authorization", "Bearer callers-own")
            .header("cookie", "callers=own")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            );
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        assert_eq!(
            message(&answer)["result"]["content"][0]["text"],
            "echo",
            "{case}"
        );
        let seen = upstream.last();
        assert!(
            seen.body == request.body,
            "{case}: {}",
            String::from_utf8_lossy(&seen.body)
        );
        assert_eq!(seen.target(), "/server", "{case}");
        assert_eq!(
            seen.fields("content-type").collect::<Vec<_>>(),
            ["application/json"],
            "{case}"
        );
        assert_eq!(
            seen.fields("authorization").collect::<Vec<_>>(),
            ["Bearer our-token"],
            "{case}"
        );
        assert_eq!(
            seen.header("accept"),
            Some("application/json, text/event-stream"),
            "{case}"
        );
        assert!(
            !seen.head.contains("own") && !seen.head.contains("junk"),
            "{case}: {}",
            seen.head
        );
        let event = waypoint.event(&answer).await;
        assert_eq!(
            (&event["action"]["tool"], &event["by"]["rule"]),
            (&json!("echo"), &json!("some")),
            "{case}"
        );
        assert_eq!(
            event["trace_id"], "0af7651916cd43dd8448eb211c80319c",
            "{case}"
        );
        if case == "modern" {
            assert_eq!(seen.header("mcp-param-x"), Some("kept"));
            assert_eq!(seen.header("mcp-name"), Some("echo"));
        }
    }
}

#[tokio::test]
async fn what_is_denied_looks_like_what_does_not_exist() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let (ann, before) = (waypoint.workload(ANN), upstream.seen().len());
    for is_modern in [false, true] {
        for (case, method, params, code, text) in [
            (
                "tool",
                "tools/call",
                json!({"name": "secret"}),
                -32602,
                "Unknown tool: secret",
            ),
            (
                "no such tool",
                "tools/call",
                json!({"name": "nothing"}),
                -32602,
                "Unknown tool: nothing",
            ),
            (
                "another spelling",
                "tools/call",
                json!({"name": "ECHO"}),
                -32602,
                "Unknown tool: ECHO",
            ),
            (
                "a space",
                "tools/call",
                json!({"name": "echo "}),
                -32602,
                "Unknown tool: echo ",
            ),
            (
                "a zero",
                "tools/call",
                json!({"name": "echo\u{0}"}),
                -32602,
                "Unknown tool: echo",
            ),
            (
                "prompt",
                "prompts/get",
                json!({"name": "hidden"}),
                -32602,
                "Unknown prompt: hidden",
            ),
            (
                "resource",
                "resources/read",
                json!({"uri": "vault://b"}),
                if is_modern { -32602 } else { -32002 },
                "Resource not found",
            ),
            (
                "upwards",
                "resources/read",
                json!({"uri": "repo://a/../../b"}),
                if is_modern { -32602 } else { -32002 },
                "Resource not found",
            ),
            (
                "encoded",
                "resources/read",
                json!({"uri": "repo://a%2f..%2fb"}),
                if is_modern { -32602 } else { -32002 },
                "Resource not found",
            ),
        ] {
            let request = match (case, is_modern) {
                // Header values cannot hold these as they are.
                ("a space" | "a zero", true) => continue,
                _ => of_era(is_modern, method, &params),
            };
            let answer = ann.call(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{case}: {}", answer.text());
            let error = answer.json();
            assert_eq!(
                (&error["id"], &error["error"]["code"]),
                (&json!(7), &json!(code)),
                "{case} modern={is_modern}: {error}"
            );
            assert!(
                error["error"]["message"]
                    .as_str()
                    .unwrap()
                    .starts_with(text),
                "{case}: {error}"
            );
            let event = waypoint.event(&answer).await;
            assert_eq!(
                (&event["decision"], &event["code"]),
                (&json!("deny"), &json!("tool_denied")),
                "{case}: {event}"
            );
            assert_eq!(event["flags"][0], "RBAC_ACCESS_DENIED", "{case}: {event}");
        }
    }
    assert_eq!(upstream.seen().len(), before);
    // The same words for what is denied and for what is not there, but for the name.
    let denied = ann.call(&call_tool(false, "secret")).await.unwrap().text();
    let absent = ann.call(&call_tool(false, "sekret")).await.unwrap().text();
    assert_eq!(denied.replace("secret", "sekret"), absent);
}

#[tokio::test]
async fn an_explicit_denial_says_so() {
    let upstream = mcp_server::start(Form::Json, &Gate::new()).await;
    let objects = [mcp_proxy("tools", &upstream, "denial: Explicit"), allowed()];
    let waypoint = Setup::new(&objects.concat()).start().await;
    for is_modern in [false, true] {
        let answer = waypoint
            .workload(ANN)
            .call(&call_tool(is_modern, "secret"))
            .await
            .unwrap();
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["id"], &error["error"]["code"]),
            (403, &json!(7), &json!(-32602)),
            "{error}"
        );
        // No invitation to log in.
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn who_may_do_nothing_here_is_refused_before_the_body() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let carl = waypoint.workload("spiffe://cluster.local/ns/agents/sa/carl");
    for request in [
        initialize(),
        call_tool(true, "echo"),
        Request::new("GET", PATH),
        Request::new("DELETE", PATH),
    ] {
        let answer = carl.call(&request).await.unwrap();
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.header("www-authenticate"), None);
        assert!(answer.json()["error"]["code"].is_i64(), "{}", answer.text());
    }
    let mut connection = carl.connect().await.unwrap();
    let begun = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    );
    connection.write(begun.as_bytes()).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 403);
    assert_eq!(upstream.seen().len(), 0);
}

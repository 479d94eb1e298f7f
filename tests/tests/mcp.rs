//! MCP through the gateway, in both eras.

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::mcp_server::{self, Form, LEGACY, MODERN, SESSION, TOOLS, legacy, modern};
use waypoint_tests::upstream::{Gate, Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, BOB, Setup, Waypoint, agent, mcp_proxy, secret};

const PATH: &str = "/mcp/tools/";

/// What Ann and Bob may do at the server `tools`.
fn allowed() -> String {
    agent(
        "some",
        "Allow",
        "\
- name: some
  from: [{serviceAccount: {name: ann}}, {serviceAccount: {name: bob}}]
  mcp:
  - servers: [tools]
    methods:
    - {name: tools/call, params: [echo, add, slow]}
    - {name: prompts/get, params: [open]}
    - {name: resources/read, params: [\"repo://*\"]}
    - {name: completion/complete}
",
    )
}

async fn server(form: Form) -> (Arc<Upstream>, Waypoint, Gate) {
    let gate = Gate::new();
    let upstream = mcp_server::start(form, &gate).await;
    let objects = [
        mcp_proxy(
            "tools",
            &upstream,
            "credential: {secretRef: {name: keys, key: key}}",
        ),
        secret("keys", "our-token"),
        allowed(),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    (upstream, waypoint, gate)
}

fn post(body: &str) -> Request {
    Request::post(PATH, body).header("accept", "application/json, text/event-stream")
}

/// A request of the modern era with the headers that repeat its body.
fn post_modern(method: &str, name: Option<&str>, body: &str) -> Request {
    let request = post(body)
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    match name {
        Some(name) => request.header("mcp-name", name),
        None => request,
    }
}

/// A request of either era.
fn of_era(is_modern: bool, method: &str, params: &Value) -> Request {
    let name = params["name"].as_str().or(params["uri"].as_str());
    match is_modern {
        true => post_modern(method, name, &modern(7, method, params)),
        false => post(&legacy(7, method, params)).header("mcp-protocol-version", LEGACY),
    }
}

fn call_tool(is_modern: bool, tool: &str) -> Request {
    of_era(
        is_modern,
        "tools/call",
        &json!({"name": tool, "arguments": {}}),
    )
}

/// Opens a session; gives its id as the caller sees it.
async fn open_session(client: &Client) -> String {
    let answer = client.call(&initialize()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("mcp-session-id").unwrap().to_owned()
}

fn initialize() -> Request {
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    post(&legacy(1, "initialize", &params))
}

/// The JSON-RPC message of an answer in either form.
fn message(answer: &Answer) -> Value {
    match answer.header("content-type") {
        Some("text/event-stream") => {
            let last = answer.events().pop().unwrap_or_default();
            serde_json::from_str(&last).unwrap_or_default()
        }
        _ => answer.json(),
    }
}

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

/// A body that could be read in two ways, and how it is refused.
struct Strict(&'static str, Request, u16, i64);

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_refused() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let echo = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"}}"#;
    let change = |from: &str, to: &str| {
        assert!(echo.contains(from));
        post(&echo.replace(from, to))
    };
    let typed = |media: &str| {
        post(echo)
            .without("content-type")
            .header("content-type", media)
    };
    let modern_echo = modern(7, "tools/call", &json!({"name": "echo"}));
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"echo","arguments":{{"a":{}{}}}}}}}"#,
        "[".repeat(70),
        "]".repeat(70)
    );
    let raw = |bytes: Vec<u8>| Request {
        body: bytes,
        ..post(echo)
    };
    let large = change(
        "\"name\":\"echo\"",
        &format!("\"name\":\"echo\",\"a\":\"{}\"", "a".repeat(5 << 20)),
    );
    for Strict(case, request, status, code) in [
        Strict(
            "name twice",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"name\":\"secret\""),
            400,
            -32600,
        ),
        Strict(
            "name twice, one escaped",
            change(
                "\"name\":\"echo\"",
                "\"name\":\"echo\",\"n\\u0061me\":\"secret\"",
            ),
            400,
            -32600,
        ),
        Strict(
            "method twice",
            change("\"method\":", "\"method\":\"ping\",\"method\":"),
            400,
            -32600,
        ),
        Strict(
            "params twice",
            change("\"params\":", "\"params\":{},\"params\":"),
            400,
            -32600,
        ),
        Strict(
            "id twice",
            change("\"id\":7", "\"id\":7,\"id\":8"),
            400,
            -32600,
        ),
        Strict(
            "a key twice, deep down",
            change(
                "\"name\":\"echo\"",
                "\"name\":\"echo\",\"arguments\":{\"a\":{\"b\":1,\"b\":2}}",
            ),
            400,
            -32600,
        ),
        Strict(
            "Name",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"Name\":\"secret\""),
            400,
            -32600,
        ),
        Strict(
            "METHOD",
            change("\"method\":", "\"METHOD\":\"ping\",\"method\":"),
            400,
            -32600,
        ),
        Strict(
            "a long s",
            change("\"params\":", "\"param\u{17f}\":{},\"params\":"),
            400,
            -32600,
        ),
        Strict(
            "a Kelvin sign",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"tas\u{212a}\":{}"),
            400,
            -32600,
        ),
        Strict(
            "half a surrogate pair",
            change("echo", "ech\\ud800"),
            400,
            -32600,
        ),
        Strict(
            "a byte order mark",
            raw([b"\xef\xbb\xbf", echo.as_bytes()].concat()),
            400,
            -32700,
        ),
        Strict(
            "invalid UTF-8",
            raw(echo
                .replace("echo", "ech\u{1}")
                .into_bytes()
                .into_iter()
                .map(|byte| if byte == 1 { 0xff } else { byte })
                .collect()),
            400,
            -32700,
        ),
        Strict(
            "UTF-16",
            raw(echo.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            400,
            -32700,
        ),
        Strict("two documents", post(&format!("{echo}{echo}")), 400, -32700),
        Strict(
            "NaN",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"a\":NaN"),
            400,
            -32700,
        ),
        Strict(
            "a comment",
            change("\"name\":", "/* */\"name\":"),
            400,
            -32700,
        ),
        Strict("cut", post(&echo[..40]), 400, -32700),
        Strict("nothing", post(""), 400, -32700),
        Strict("a batch of one", post(&format!("[{echo}]")), 400, -32600),
        Strict(
            "a batch of two",
            post(&format!("[{echo},{echo}]")),
            400,
            -32600,
        ),
        Strict("an empty batch", post("[]"), 400, -32600),
        Strict("id null", change("\"id\":7", "\"id\":null"), 400, -32600),
        Strict(
            "id with a fraction",
            change("\"id\":7", "\"id\":7.0"),
            400,
            -32600,
        ),
        Strict(
            "id too large",
            change("\"id\":7", "\"id\":9007199254740993"),
            400,
            -32600,
        ),
        Strict("id true", change("\"id\":7", "\"id\":true"), 400, -32600),
        Strict(
            "method and result",
            change("\"id\":7", "\"id\":7,\"result\":{}"),
            400,
            -32600,
        ),
        Strict(
            "result and error",
            post(r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#),
            400,
            -32600,
        ),
        Strict(
            "no version",
            change("\"jsonrpc\":\"2.0\",", ""),
            400,
            -32600,
        ),
        Strict("version 1", change("\"2.0\"", "\"1.0\""), 400, -32600),
        Strict(
            "method is no string",
            change("\"tools/call\"", "[\"tools/call\"]"),
            400,
            -32600,
        ),
        Strict(
            "params are a list",
            change("{\"name\":\"echo\"}", "[\"echo\"]"),
            400,
            -32600,
        ),
        Strict(
            "name is a list",
            change("\"echo\"", "[\"echo\"]"),
            400,
            -32602,
        ),
        Strict("no name", change("\"name\":\"echo\"", ""), 400, -32602),
        Strict("too deep", post(&deep), 400, -32600),
        Strict("too large", large, 413, -32600),
        Strict(
            "utf-7",
            typed("application/json; charset=utf-7"),
            415,
            -32600,
        ),
        Strict(
            "utf-16 by name",
            typed("application/json; charset=utf-16"),
            415,
            -32600,
        ),
        Strict("another type", typed("application/jsonfoo"), 415, -32600),
        Strict("text", typed("text/plain"), 415, -32600),
        Strict("no type", post(echo).without("content-type"), 415, -32600),
        Strict(
            "two types",
            post(echo).header("content-type", "text/plain"),
            415,
            -32600,
        ),
        Strict(
            "compressed",
            post(echo).header("content-encoding", "gzip"),
            415,
            -32600,
        ),
        Strict(
            "Mcp-Name of another tool",
            post_modern(
                "tools/call",
                Some("echo"),
                &modern(7, "tools/call", &json!({"name": "secret"})),
            ),
            400,
            -32020,
        ),
        Strict(
            "Mcp-Name twice",
            post_modern("tools/call", Some("echo"), &modern_echo).header("mcp-name", "secret"),
            400,
            -32020,
        ),
        Strict(
            "no Mcp-Name",
            post_modern("tools/call", None, &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "bad base64",
            post_modern("tools/call", Some("=?base64?ZWNob?="), &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "base64 in capitals",
            post_modern("tools/call", Some("=?BASE64?ZWNobw==?="), &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "another Mcp-Method",
            post_modern("tools/list", Some("echo"), &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "no Mcp-Method",
            post_modern("tools/call", Some("echo"), &modern_echo).without("mcp-method"),
            400,
            -32020,
        ),
        Strict("version only in the body", post(&modern_echo), 400, -32020),
        Strict(
            "versions that differ",
            post_modern("tools/call", Some("echo"), &modern_echo)
                .without("mcp-protocol-version")
                .header("mcp-protocol-version", LEGACY),
            400,
            -32020,
        ),
        Strict(
            "two versions",
            post(echo)
                .header("mcp-protocol-version", LEGACY)
                .header("mcp-protocol-version", MODERN),
            400,
            -32020,
        ),
        Strict(
            "a version nobody published",
            post(echo).header("mcp-protocol-version", "2099-01-01"),
            400,
            -32022,
        ),
        Strict(
            "modern without _meta",
            post(echo)
                .header("mcp-protocol-version", MODERN)
                .header("mcp-method", "tools/call")
                .header("mcp-name", "echo"),
            400,
            -32602,
        ),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        let body = answer.json();
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert_eq!(
            (&body["jsonrpc"], &body["error"]["code"]),
            (&json!("2.0"), &json!(code)),
            "{case}: {body}"
        );
        assert!(
            body.as_object().is_some_and(|body| body.contains_key("id")),
            "{case}: {body}"
        );
    }
    assert_eq!(upstream.connections(), 0);
    let good = waypoint.workload(ANN).call(&post(echo)).await.unwrap();
    assert_eq!(good.status, 200, "the template itself: {}", good.text());
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

#[tokio::test]
async fn a_server_that_fails_is_answered_for() {
    for (case, reply, status, code) in [
        (
            "does not accept us",
            Reply::whole(
                401,
                &[("www-authenticate", "Bearer resource_metadata=\"x\"")],
                "",
            ),
            502,
            "upstream_auth",
        ),
        (
            "resets",
            Reply::default().then(Step::Reset),
            502,
            "upstream_reset",
        ),
        (
            "is silent",
            Reply::default().then(Step::Stall),
            504,
            "upstream_timeout",
        ),
        (
            "is silent in its answer",
            Reply::raw(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
            )
            .then(Step::Stall),
            504,
            "upstream_timeout",
        ),
        (
            "answers half",
            Reply::whole(
                200,
                &[("content-type", "application/json")],
                "{\"jsonrpc\":\"2.0\"",
            ),
            502,
            "upstream_bad_answer",
        ),
        (
            "gives two sessions",
            Reply::whole(
                200,
                &[
                    ("content-type", "application/json"),
                    ("mcp-session-id", "a"),
                    ("mcp-session-id", "b"),
                ],
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}",
            ),
            502,
            "upstream_bad_answer",
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let waypoint = Setup::new(&mcp_proxy("tools", &upstream, "timeouts: {request: 300ms}"))
            .start()
            .await;
        let answer = waypoint
            .workload(ANN)
            .call(&call_tool(false, "echo"))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{case}: {}",
            answer.text()
        );
        // The error belongs to the request it answers.
        assert_eq!(answer.json()["id"], 7, "{case}");
        assert_eq!(answer.header("www-authenticate"), None, "{case}");
        assert_eq!(
            upstream.seen().len(),
            1,
            "{case}: a call may have had its effect"
        );
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_for_its_request() {
    let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\n\n";
    let large = format!("data: {}\n\n", "a".repeat(70_000));
    for (case, reply, code) in [
        (
            "reset",
            Reply::stream().chunk(progress).then(Step::Reset),
            "upstream_reset",
        ),
        (
            "silence",
            Reply::stream().chunk(progress).then(Step::Stall),
            "stream_idle",
        ),
        (
            "an event that is too large",
            Reply::stream()
                .chunk(progress)
                .chunk(&large)
                .then(Step::Stall),
            "upstream_bad_answer",
        ),
        (
            "no JSON",
            Reply::stream()
                .chunk(progress)
                .chunk("data: {\"json\n\n")
                .then(Step::Stall),
            "upstream_bad_answer",
        ),
        (
            "an answer to somebody else",
            Reply::stream()
                .chunk(progress)
                .chunk("data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n\n")
                .then(Step::Stall),
            "upstream_bad_answer",
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let setup = Setup::new(&mcp_proxy(
            "tools",
            &upstream,
            "timeouts: {streamIdle: 400ms}",
        ));
        let waypoint = setup.limits("sseEventBytes: 65536").start().await;
        let answer = waypoint
            .workload(ANN)
            .call(&call_tool(false, "echo"))
            .await
            .unwrap();
        let text = answer.text();
        assert!(text.starts_with(progress), "{case}: {text}");
        let error = message(&answer);
        assert_eq!(
            (&error["id"], &error["error"]["data"]["code"]),
            (&json!(7), &json!(code)),
            "{case}: {text}"
        );
    }
}

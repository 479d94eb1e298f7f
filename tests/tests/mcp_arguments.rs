//! What a tool may be called with: decided on the bytes that arrive, in both eras.

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Client, Request, events};
use waypoint_tests::mcp_server::{self, Form, LEGACY, MODERN, TOOLS};
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, agent, mcp_proxy};

const PATH: &str = "/mcp/tools/";

/// One block of a rule for a tool, in YAML.
fn block(tool: &str, arguments: &str) -> String {
    format!(
        "  - {{methods: [{{name: tools/call, params: [\"{tool}\"]}}], arguments: {{{arguments}}}}}\n"
    )
}

fn rule(name: &str, blocks: &[String]) -> String {
    format!("- name: {name}\n  mcp:\n{}", blocks.concat())
}

fn allowed() -> String {
    let blocks = [
        block("in", r#"/owner: {in: [acme, "é", 5, null]}"#),
        block("not_in", "/owner: {notIn: [evil]}"),
        block("pattern", r#"/path: {pattern: "^src/.*[.]rs$"}"#),
        block("bounds", "/limit: {min: 1, max: 100, type: integer}"),
        block(
            "huge",
            r#"/id: {min: 9007199254740993, max: "340282366920938463463374607431768211456"}"#,
        ),
        block("every", "/paths/*: {pattern: \"^src/\"}"),
        block("escaped", "/a~1b/~0c/0: {in: [ok]}"),
        block(
            "length",
            "/text: {maxLength: 2}, /list: {minLength: 1, required: false}",
        ),
        block("several", "/owner: {in: [acme]}, /limit: {max: 100}"),
        "  - {methods: [{name: tools/call, params: [\"deny_*\", echo]}]}\n".to_owned(),
    ];
    agent("some", "Allow", &rule("some", &blocks))
}

fn denied() -> String {
    let blocks = [
        block("deny_in", "/owner: {in: [evil]}"),
        block("deny_every", "/paths/*: {pattern: \"^/etc/\"}"),
        block("deny_missing", "/limit: {min: 1000, required: false}"),
    ];
    agent("none", "Deny", &rule("none", &blocks))
}

async fn start() -> (Arc<Upstream>, Waypoint) {
    let upstream = mcp_server::start(Form::Json, &Gate::new()).await;
    let objects = [mcp_proxy("tools", &upstream, ""), allowed(), denied()];
    let waypoint = Setup::new(&objects.concat()).start().await;
    (upstream, waypoint)
}

/// A call with members of `params` as they are written.
fn call(is_modern: bool, tool: &str, members: &str) -> Request {
    let meta = format!(
        r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}}}}"#
    );
    let meta = if is_modern { &meta } else { "" };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}"{members}{meta}}}}}"#
    );
    let request = Request::post(PATH, body).header("accept", "application/json, text/event-stream");
    match is_modern {
        true => request
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool),
        false => request.header("mcp-protocol-version", LEGACY),
    }
}

fn with(is_modern: bool, tool: &str, arguments: &str) -> Request {
    call(is_modern, tool, &format!(r#", "arguments" : {arguments}"#))
}

async fn send(client: &Client, request: &Request) -> Answer {
    client.call(request).await.unwrap()
}

#[rustfmt::skip]
const ROWS: &[(&str, &str, bool)] = &[
    ("in", r#"{"owner":"acme"}"#, true),
    ("in", r#"{"\u006fwner":"\u0061cme"}"#, true),
    ("in", r#"{"owner":"\u00e9"}"#, true),
    ("in", r#"{"owner":5.0}"#, true),
    ("in", r#"{"owner":null}"#, true),
    ("in", r#"{"owner":"evil"}"#, false),
    ("in", r#"{"owner":"Acme"}"#, false),
    ("in", r#"{"owner":["acme"]}"#, false),
    ("in", r#"{"owner":"acme","Owner":"evil"}"#, false),
    ("in", r#"{"OWNER":"acme"}"#, false),
    ("in", r#"{"other":{"owner":"acme"}}"#, false),
    ("in", "{}", false),
    ("in", r#""acme""#, false),
    ("not_in", r#"{"owner":"acme"}"#, true),
    ("not_in", r#"{"owner":"evi\u006c"}"#, false),
    ("not_in", r#"{"owner":["evil"]}"#, false),
    ("not_in", "{}", false),
    ("pattern", r#"{"path":"src/main.rs"}"#, true),
    ("pattern", r#"{"path":"\u0073rc\/main.rs"}"#, true),
    ("pattern", r#"{"path":"/src/main.rs"}"#, false),
    ("pattern", r#"{"path":"src/main.rs\n"}"#, false),
    ("pattern", r#"{"path":7}"#, false),
    ("bounds", r#"{"limit":100}"#, true),
    ("bounds", r#"{"limit":100.0}"#, true),
    ("bounds", r#"{"limit":1e2}"#, true),
    ("bounds", r#"{"limit":1000E-1}"#, true),
    ("bounds", r#"{"limit":0.5e1}"#, true),
    ("bounds", r#"{"limit":101}"#, false),
    ("bounds", r#"{"limit":1.5}"#, false),
    ("bounds", r#"{"limit":100.0000000000000000000001}"#, false),
    ("bounds", r#"{"limit":1e400}"#, false),
    ("bounds", r#"{"limit":-1}"#, false),
    ("bounds", r#"{"limit":"50"}"#, false),
    ("bounds", r#"{"limit":null}"#, false),
    ("huge", r#"{"id":9007199254740993}"#, true),
    ("huge", r#"{"id":9007199254740992}"#, false),
    ("huge", r#"{"id":340282366920938463463374607431768211456}"#, true),
    ("huge", r#"{"id":340282366920938463463374607431768211457}"#, false),
    ("huge", r#"{"id":18446744073709551616}"#, true),
    ("every", r#"{"paths":["src/a","src/b"]}"#, true),
    ("every", r#"{"paths":["src/a","etc"]}"#, false),
    ("every", r#"{"paths":["src/a",["src/b"]]}"#, false),
    ("every", r#"{"paths":[]}"#, false),
    ("every", r#"{"paths":"src/a"}"#, false),
    ("escaped", r#"{"a/b":{"~c":["ok"]}}"#, true),
    ("escaped", r#"{"a\/b":{"\u007ec":["ok","more"]}}"#, true),
    ("escaped", r#"{"a/b":{"~c":["no","ok"]}}"#, false),
    ("escaped", r#"{"a/b":{"~c":[]}}"#, false),
    ("length", r#"{"text":"\ud83d\ude00é"}"#, true),
    ("length", r#"{"text":"abc"}"#, false),
    ("length", r#"{"text":"","list":[[]]}"#, true),
    ("length", r#"{"text":"","list":[]}"#, false),
    ("several", r#"{"limit":1,"owner":"acme"}"#, true),
    ("several", r#"{"limit":101,"owner":"acme"}"#, false),
    ("several", r#"{"limit":1}"#, false),
    ("deny_in", r#"{"owner":"acme"}"#, true),
    ("deny_in", "{}", true),
    ("deny_in", r#"{"owner":"evil"}"#, false),
    ("deny_in", r#"{"own\u0065r":"ev\u0069l"}"#, false),
    ("deny_in", r#"{"owner":["evil"]}"#, false),
    ("deny_in", r#"{"owner":{"name":"acme"}}"#, false),
    ("deny_in", r#"{"Owner":"evil"}"#, false),
    ("deny_in", r#"["evil"]"#, false),
    ("deny_every", r#"{"paths":["src/a"]}"#, true),
    ("deny_every", r#"{"paths":[]}"#, true),
    ("deny_every", r#"{"paths":["src/a","/etc/passwd"]}"#, false),
    ("deny_every", r#"{"paths":["src/a",5]}"#, false),
    ("deny_every", r#"{"paths":"/etc/passwd"}"#, false),
    ("deny_missing", r#"{"limit":10}"#, true),
    ("deny_missing", r#"{"limit":1e3}"#, false),
    ("deny_missing", "{}", false),
    ("echo", r#"{"anything":[1,{"Owner":2}]}"#, true),
];

#[tokio::test]
async fn calls_are_decided_by_what_they_carry() {
    let (upstream, waypoint) = start().await;
    let ann = waypoint.workload(ANN);
    for is_modern in [false, true] {
        for (tool, arguments, is_allowed) in ROWS {
            let case = format!("{tool} {arguments} modern={is_modern}");
            let before = upstream.seen().len();
            let request = with(is_modern, tool, arguments);
            let answer = send(&ann, &request).await;
            assert_eq!(answer.status, 200, "{case}: {}", answer.text());
            let json = answer.json();
            assert_eq!(json["result"].is_object(), *is_allowed, "{case}: {json}");
            let reached = usize::from(*is_allowed);
            assert_eq!(upstream.seen().len() - before, reached, "{case}");
            if *is_allowed {
                assert!(upstream.last().body == request.body, "{case}");
            } else {
                assert_eq!(json["error"]["code"], -32602, "{case}: {json}");
                assert!(json["error"].to_string().len() < 200, "{case}: {json}");
            }
        }
        for (tool, members, is_allowed) in [
            ("in", "", false),
            ("deny_in", "", true),
            ("deny_missing", "", false),
            ("in", r#","arguments":null"#, false),
            ("deny_in", r#","arguments":null"#, false),
        ] {
            let answer = send(&ann, &call(is_modern, tool, members)).await;
            let case = format!("{tool} {members} modern={is_modern}: {}", answer.text());
            assert_eq!(answer.json()["result"].is_object(), is_allowed, "{case}");
        }
        // Readers differ about these, so nobody gets to read them.
        for arguments in [
            r#"{"owner":"acme","owner":"evil"}"#,
            r#"{"owner":"\ud800"}"#,
        ] {
            let answer = send(&ann, &with(is_modern, "in", arguments)).await;
            assert_eq!(answer.status, 400, "{arguments}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_refusal_names_its_rule_to_the_operator_and_its_values_to_nobody() {
    let (_upstream, waypoint) = start().await;
    let ann = waypoint.workload(ANN);
    for (tool, arguments, by) in [
        ("in", r#"{"owner":"s3cr3t-value"}"#, "no rule allows this"),
        ("deny_in", r#"{"owner":["s3cr3t-value"]}"#, "none"),
    ] {
        let answer = send(&ann, &with(true, tool, arguments)).await;
        let event = waypoint.event(&answer).await;
        let said = event["by"]["rule"]
            .as_str()
            .or(event["by"]["name"].as_str());
        assert_eq!(
            (said, &event["code"]),
            (Some(by), &json!("tool_denied")),
            "{event}"
        );
        assert!(!answer.text().contains("s3cr3t"), "{}", answer.text());
    }
    let metrics = format!("{:?}", waypoint.metrics().await);
    let decisions = format!("{:?}", waypoint.decisions().await);
    let audit = format!("{:?}", waypoint.audit());
    for (place, text) in [
        ("metrics", metrics),
        ("decisions", decisions),
        ("audit", audit),
        ("log", waypoint.stderr()),
        ("output", waypoint.stdout()),
    ] {
        assert!(!text.contains("s3cr3t"), "{place}: {text}");
    }
}

#[tokio::test]
async fn lists_show_what_can_be_called_with_some_arguments() {
    let upstream = mcp_server::start(Form::Json, &Gate::new()).await;
    let objects = |deny: &str| {
        let blocks = [
            block("echo", "/text: {maxLength: 10}"),
            block("add", "/n: {max: 5}"),
            "  - {methods: [{name: tools/call, params: [secret]}]}\n".into(),
        ];
        [
            mcp_proxy("tools", &upstream, ""),
            agent("some", "Allow", &rule("some", &blocks)),
            agent("none", "Deny", deny),
        ]
        .concat()
    };
    let conditional = rule(
        "none",
        &[
            block("add", "/n: {min: 3}"),
            block("secret", "/x: {required: false, type: string}"),
        ],
    );
    let waypoint = Setup::new(&objects(&conditional)).start().await;
    let ann = waypoint.workload(ANN);
    let whole = "- {name: none, mcp: [{methods: [{name: tools/call, params: [add]}]}]}";
    for (deny, shown) in [
        (conditional.as_str(), &["echo", "add", "secret"][..]),
        (whole, &["echo", "secret"]),
    ] {
        if deny != conditional {
            waypoint.reload(&objects(deny)).await;
        }
        for is_modern in [false, true] {
            let list = mcp_server::legacy(7, "tools/list", &json!({}));
            let request = match is_modern {
                true => Request::post(PATH, mcp_server::modern(7, "tools/list", &json!({})))
                    .header("mcp-protocol-version", MODERN)
                    .header("mcp-method", "tools/list"),
                false => Request::post(PATH, list),
            };
            let answer = send(&ann, &request).await;
            let json = answer.json();
            let tools = json["result"]["tools"].as_array().unwrap();
            let names: Vec<&str> = tools.iter().filter_map(|t| t["name"].as_str()).collect();
            assert_eq!(names, shown, "modern={is_modern}");
            // What is hidden is refused for all arguments, what is callable is shown.
            for (tool, _) in TOOLS {
                let mut callable = false;
                for arguments in [r#"{"text":"short"}"#, r#"{"n":1}"#, r#"{"x":1}"#, "{}"] {
                    let answer = send(&ann, &with(is_modern, tool, arguments)).await;
                    callable |= answer.json()["result"].is_object();
                }
                assert_eq!(callable, shown.contains(&tool), "{tool} modern={is_modern}");
            }
        }
    }
}

fn echo(arguments: &str) -> String {
    let blocks = [
        block("slow", arguments),
        block("echo", arguments),
        "  - {methods: [{name: tools/call, params: [add]}]}\n".into(),
    ];
    agent("some", "Allow", &rule("some", &blocks))
}

#[tokio::test]
async fn a_running_stream_is_asked_again_with_its_arguments() {
    let gate = Gate::new();
    let upstream = mcp_server::start(Form::Json, &gate).await;
    let with_max = |max: u32| {
        let arguments = format!("/n: {{max: {max}}}");
        [mcp_proxy("tools", &upstream, ""), echo(&arguments)].concat()
    };
    let waypoint = Setup::new(&with_max(100)).start().await;
    let ann = waypoint.workload(ANN);
    let mut open = Vec::new();
    for is_modern in [false, true] {
        for n in [5, 50] {
            let mut connection = ann.connect().await.unwrap();
            let request = with(is_modern, "slow", &format!(r#"{{"n":{n}}}"#));
            connection.send(&request).await.unwrap();
            assert_eq!(connection.head().await.unwrap().status, 200);
            connection.read_until("progress").await.unwrap();
            open.push((n, connection));
        }
    }
    waypoint.reload(&with_max(10)).await;
    // Those that are not permitted any more end by themselves; the others go on to their end.
    let (held, cut): (Vec<_>, Vec<_>) = open.into_iter().partition(|(n, _)| *n == 5);
    for (n, mut connection) in cut {
        let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
        let error: Value = serde_json::from_str(&events(&rest)[0]).unwrap();
        assert_eq!(
            error["error"]["data"]["code"], "policy_revoked",
            "{n}: {rest}"
        );
    }
    gate.open();
    for (n, mut connection) in held {
        let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
        assert!(rest.contains(r#""result":{"content":[]}"#), "{n}: {rest}");
    }
}

#[tokio::test]
async fn a_task_is_held_to_the_arguments_that_made_it() {
    for is_modern in [false, true] {
        let upstream = Upstream::start(move |seen| {
            let message = seen.json();
            let id = format!("task-{}", message["params"]["arguments"]["n"]);
            let task = json!({"taskId": id, "status": "working"});
            let result = match (message["method"].as_str(), is_modern) {
                (Some("tools/call"), true) => {
                    json!({"resultType": "task", "taskId": id, "status": "working"})
                }
                (Some("tools/call"), false) => json!({"task": task}),
                (Some("tasks/list"), _) => {
                    json!({"tasks": [{"taskId": "task-5"}, {"taskId": "task-50"}]})
                }
                _ => json!({"taskId": "x", "status": "working", "resultType": "complete"}),
            };
            Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
        })
        .await;
        let with_max = |max: u32| {
            let arguments = format!("/n: {{max: {max}}}");
            [mcp_proxy("tools", &upstream, ""), echo(&arguments)].concat()
        };
        let waypoint = Setup::new(&with_max(100)).start().await;
        let ann = waypoint.workload(ANN);
        let denied = call(is_modern, "echo", r#","task":{},"arguments":{"n":500}"#);
        assert!(send(&ann, &denied).await.json()["error"].is_object());
        for n in [5, 50] {
            let members = format!(r#","task":{{}},"arguments":{{"n":{n}}}"#);
            let made = send(&ann, &call(is_modern, "echo", &members)).await;
            assert!(made.json()["result"].is_object(), "{}", made.text());
        }
        for (max, known) in [
            (100, [true, true]),
            (10, [true, false]),
            (1, [false, false]),
        ] {
            if max < 100 {
                waypoint.reload(&with_max(max)).await;
            }
            for (task, is_known) in ["task-5", "task-50"].into_iter().zip(known) {
                let params = json!({"taskId": task});
                let request = match is_modern {
                    true => Request::post(PATH, mcp_server::modern(7, "tasks/get", &params))
                        .header("mcp-protocol-version", MODERN)
                        .header("mcp-method", "tasks/get")
                        .header("mcp-name", task),
                    false => Request::post(PATH, mcp_server::legacy(7, "tasks/get", &params)),
                };
                let answer = send(&ann, &request).await;
                let case = format!("{task} max={max} modern={is_modern}: {}", answer.text());
                assert_eq!(answer.json()["result"].is_object(), is_known, "{case}");
            }
            if !is_modern {
                let list = mcp_server::legacy(7, "tasks/list", &json!({}));
                let list = send(&ann, &Request::post(PATH, list)).await.json();
                let tasks = list["result"]["tasks"].as_array().unwrap();
                let count = known.iter().filter(|is| **is).count();
                assert_eq!(tasks.len(), count, "max={max}: {list}");
            }
        }
    }
}

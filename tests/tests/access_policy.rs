//! The SIG's `XAccessPolicy`, on the wire.

use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::llm::{chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server::{self, Form, LEGACY, MODERN, legacy, modern};
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, agent, http_route, mcp_proxy, object, provider, route, service,
};

const FAR: &str = "spiffe://cluster.local/ns/elsewhere/sa/eve";
const BASE: &str = "mcpBaseProtocolMethodsOption: MATCH_BASE_PROTOCOL_METHODS";

/// A policy on the Gateway with these rules.
fn policy(name: &str, rules: &str) -> String {
    on(
        "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}",
        name,
        &format!("action: Allow\nrules:\n{rules}"),
    )
}

fn on(target: &str, name: &str, spec: &str) -> String {
    let spec = format!("targetRefs: [{target}]\n{spec}");
    let api = "agentic.networking.x-k8s.io/v1alpha1";
    object(api, "XAccessPolicy", name, &spec)
}

/// A rule for tools, of one caller or of all.
fn tools(name: &str, who: Option<&str>, names: &str, more: &str) -> String {
    let source = who.map(|who| format!("  source: {{type: SPIFFE, spiffe: \"{who}\"}}\n"));
    format!(
        "- name: {name}\n{}  authorization:\n    type: Inline\n    mcp: {{methods: [{{name: tools/call, params: [{names}]}}]{more}}}\n",
        source.unwrap_or_default()
    )
}

/// The scripted MCP server at `/mcp/tools/` and these policies.
async fn start(policies: &str) -> (Arc<Upstream>, Waypoint) {
    let upstream = mcp_server::start(Form::Json, &Gate::new()).await;
    let objects = [mcp_proxy("tools", &upstream, ""), policies.to_owned()];
    let waypoint = Setup::new(&objects.concat()).start().await;
    (upstream, waypoint)
}

fn post(body: &str) -> Request {
    Request::post("/mcp/tools/", body).header("accept", "application/json, text/event-stream")
}

/// A request of either era.
fn of_era(is_modern: bool, method: &str, params: &Value) -> Request {
    if !is_modern {
        return post(&legacy(7, method, params)).header("mcp-protocol-version", LEGACY);
    }
    let request = post(&modern(7, method, params))
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    match params["name"].as_str().or(params["uri"].as_str()) {
        Some(name) => request.header("mcp-name", name),
        None => request,
    }
}

fn call(is_modern: bool, tool: &str) -> Request {
    let params = json!({"name": tool, "arguments": {}});
    of_era(is_modern, "tools/call", &params)
}

fn initialize() -> Request {
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    post(&legacy(1, "initialize", &params))
}

async fn send(client: &Client, request: &Request) -> Answer {
    client.call(request).await.unwrap()
}

/// The names of the tools that a caller is shown.
async fn listed(client: &Client, is_modern: bool) -> Vec<String> {
    let answer = send(client, &of_era(is_modern, "tools/list", &json!({}))).await;
    let tools = answer.json()["result"]["tools"].clone();
    let tools = tools
        .as_array()
        .unwrap_or_else(|| panic!("{}", answer.text()));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Whether a call reached the server, and what decided it.
async fn reached(
    waypoint: &Waypoint,
    upstream: &Upstream,
    who: &str,
    request: &Request,
) -> (bool, Value) {
    let before = upstream.seen().len();
    let answer = send(&waypoint.workload(who), request).await;
    let event = waypoint.event(&answer).await;
    let reached = upstream.seen().len() > before;
    assert_eq!(
        reached,
        answer.json()["result"].is_object(),
        "{}",
        answer.text()
    );
    (reached, event["by"].clone())
}

fn by(policy: &str, rule: Option<&str>) -> Value {
    let mut by = json!({"kind": "XAccessPolicy", "namespace": "agents", "name": policy});
    if let Some(rule) = rule {
        by["rule"] = rule.into();
    }
    by
}

#[tokio::test]
async fn tools_are_allowed_by_caller_and_name() {
    let rules = [
        tools("ann", Some(ANN), "echo", &format!(", {BASE}")),
        "- name: eve\n  source: {type: ServiceAccount, serviceAccount: {namespace: elsewhere, name: eve}}\n  authorization: {type: Inline, mcp: {methods: [{name: tools}, {name: resources/read, params: [\"repo://a/1\"]}]}}\n".to_owned(),
    ];
    let (upstream, waypoint) = start(&policy("some", &rules.concat())).await;
    let read = |uri: &str| of_era(true, "resources/read", &json!({"uri": uri}));
    for (case, who, request, expected) in [
        ("a tool", ANN, call(false, "echo"), Some("ann")),
        ("a tool, modern", ANN, call(true, "echo"), Some("ann")),
        ("another tool", ANN, call(false, "add"), None),
        ("another tool, modern", ANN, call(true, "add"), None),
        ("a longer name", ANN, call(true, "echo2"), None),
        ("another family", ANN, read("repo://a/1"), None),
        ("the base protocol", ANN, initialize(), Some("ann")),
        ("ping", ANN, of_era(false, "ping", &json!({})), Some("ann")),
        (
            "discovery",
            ANN,
            of_era(true, "server/discover", &json!({})),
            Some("ann"),
        ),
        (
            "a list of another family",
            ANN,
            of_era(true, "prompts/list", &json!({})),
            None,
        ),
        ("nobody that is named", BOB, call(true, "echo"), None),
        ("nobody that is named, initialize", BOB, initialize(), None),
        (
            "any tool, from another namespace",
            FAR,
            call(true, "secret"),
            Some("eve"),
        ),
        (
            "its list",
            FAR,
            of_era(true, "tools/list", &json!({})),
            Some("eve"),
        ),
        ("a resource", FAR, read("repo://a/1"), Some("eve")),
        ("another resource", FAR, read("repo://a/2"), None),
        ("no base protocol", FAR, initialize(), None),
    ] {
        let (reached, decided) = reached(&waypoint, &upstream, who, &request).await;
        assert_eq!(reached, expected.is_some(), "{case}: {decided}");
        assert_eq!(decided, by("some", expected), "{case}");
    }
    for is_modern in [false, true] {
        assert_eq!(listed(&waypoint.workload(ANN), is_modern).await, ["echo"]);
    }
    assert_eq!(listed(&waypoint.workload(FAR), true).await.len(), 4);
    // A tool that is denied looks as one that is not there; a session is refused as such.
    let answer = send(&waypoint.workload(ANN), &call(false, "secret")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["error"]["message"], "Unknown tool: secret");
    let answer = send(&waypoint.workload(FAR), &initialize()).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (403, &json!(-32602))
    );
    let metrics = waypoint.metrics().await;
    let hits = |rule| {
        let labels = [
            ("kind", "XAccessPolicy"),
            ("policy", "some"),
            ("rule", rule),
        ];
        metrics.sum("waypoint_rule_hits_total", &labels)
    };
    assert!(hits("ann") >= 5.0 && hits("eve") >= 3.0 && hits("") >= 8.0);
    let dump = waypoint.admin("/config_dump").await.json();
    assert_eq!(dump["access_policies"][0]["name"]["name"], "some", "{dump}");
    assert_eq!(dump["rule_hits"].as_array().unwrap().len(), 3, "{dump}");
}

#[tokio::test]
async fn all_policies_of_a_target_must_allow() {
    let proxy = "{group: mcp.kgateway.io, kind: MCPProxy, name: tools}";
    let of_proxy = |name: &str, names: &str| {
        let rules = tools("r", None, names, "");
        on(
            proxy,
            name,
            &format!(
                "action: Allow\nrules:\n{rules}- name: list\n  authorization: {{type: Inline, mcp: {{methods: [{{name: tools/list}}]}}}}\n"
            ),
        )
    };
    let policies = [
        policy(
            "a-gateway",
            &tools("r", None, "echo, add", &format!(", {BASE}")),
        ),
        of_proxy("b-proxy", "add, secret"),
    ];
    let (upstream, waypoint) = start(&policies.concat()).await;
    for (tool, decided) in [
        ("add", by("a-gateway", Some("r"))),
        ("echo", by("b-proxy", None)),
        ("secret", by("a-gateway", None)),
        ("delete_all", by("a-gateway", None)),
    ] {
        let (reached, said) = reached(&waypoint, &upstream, ANN, &call(true, tool)).await;
        assert_eq!((reached, said), (tool == "add", decided), "{tool}");
    }
    assert_eq!(listed(&waypoint.workload(ANN), true).await, ["add"]);
    // An AgentPolicy that is about the call must allow it as well, and may deny it whatever others say.
    let agents = agent(
        "agents",
        "Allow",
        "- name: echo\n  mcp: [{methods: [{name: tools/call, params: [echo]}]}]\n",
    );
    let upstream = mcp_server::start(Form::Json, &Gate::new()).await;
    let objects = [mcp_proxy("tools", &upstream, ""), policies.concat(), agents].concat();
    waypoint.reload(&objects).await;
    let (is_reached, said) = reached(&waypoint, &upstream, ANN, &call(true, "add")).await;
    assert_eq!(
        (is_reached, &said["kind"]),
        (false, &json!("Default")),
        "{said}"
    );
    assert_eq!(listed(&waypoint.workload(ANN), true).await, [""; 0]);
}

#[tokio::test]
async fn the_base_protocol_is_what_the_option_says() {
    let only = format!("- name: base\n  authorization: {{type: Inline, mcp: {{{BASE}}}}}\n");
    let (upstream, waypoint) = start(&policy("some", &only)).await;
    let ann = waypoint.workload(ANN);
    let answer = send(&ann, &initialize()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    let in_session = |request: Request| request.header("mcp-session-id", &session);
    assert_eq!(listed(&ann, false).await, [""; 0], "nothing may be called");
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    for (case, request, status) in [
        ("a notification", in_session(post(notification)), 202),
        ("an answer", in_session(post(response)), 202),
        ("a tool", in_session(call(false, "echo")), 200),
        (
            "prompts",
            in_session(of_era(false, "prompts/list", &json!({}))),
            403,
        ),
        (
            "the end",
            in_session(Request::new("DELETE", "/mcp/tools/")),
            200,
        ),
    ] {
        let before = upstream.seen().len();
        let answer = send(&ann, &request).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        let passes = !matches!(case, "a tool" | "prompts");
        assert_eq!(upstream.seen().len() > before, passes, "{case}");
    }
    // Without the option a session can be neither opened nor listened to, and tools can be called.
    let (upstream, waypoint) = start(&policy("some", &tools("r", None, "echo", ""))).await;
    let ann = waypoint.workload(ANN);
    for (request, status) in [
        (initialize(), 403),
        (of_era(true, "tools/list", &json!({})), 403),
        (
            Request::new("GET", "/mcp/tools/").header("accept", "text/event-stream"),
            403,
        ),
        (
            Request::new("DELETE", "/mcp/tools/").header("mcp-session-id", "x"),
            403,
        ),
        // Has no answer that could say no; it goes no further all the same.
        (post(notification), 202),
    ] {
        let answer = send(&ann, &request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    assert_eq!(upstream.seen().len(), 0);
    let answer = send(&ann, &call(true, "echo")).await;
    assert!(answer.json()["result"].is_object(), "{}", answer.text());
}

#[tokio::test]
async fn rules_look_at_the_http_request() {
    let rules = "\
- name: header
  authorization:
    type: Inline
    headers: [{name: X-Env, value: prod}, {name: x-team, type: RegularExpression, value: \"a|b\"}]
- name: path
  authorization:
    type: Inline
    methods: [POST]
    paths: [{value: /mcp/too}, {value: /mcp//tools/}]
    hosts: [\"*.example.com\"]
";
    let (upstream, waypoint) = start(&policy("some", rules)).await;
    let request = || call(true, "echo");
    for (case, request, rule) in [
        ("nothing", request(), None),
        (
            "both headers",
            request().header("x-env", "prod").header("X-Team", "b"),
            Some("header"),
        ),
        ("one header", request().header("x-env", "prod"), None),
        (
            "a part of a value",
            request().header("x-env", "prod").header("x-team", "ab"),
            None,
        ),
        (
            "a second value",
            request()
                .header("x-env", "prod")
                .header("x-env", "dev")
                .header("x-team", "a"),
            None,
        ),
        (
            "a field of this connection alone",
            request()
                .header("x-env", "prod")
                .header("x-team", "a")
                .header("connection", "x-env"),
            None,
        ),
        ("a host", request().host("mcp.EXAMPLE.com"), Some("path")),
        (
            "a host with a port",
            request().host("mcp.example.com:8443"),
            Some("path"),
        ),
        ("another host", request().host("example.com"), None),
    ] {
        let (reached, said) = reached(&waypoint, &upstream, ANN, &request).await;
        assert_eq!(reached, rule.is_some(), "{case}: {said}");
        assert_eq!(said, by("some", rule), "{case}");
    }
}

/// A policy on the Gateway is about all that passes it: models and plain requests, too.
#[tokio::test]
async fn a_policy_is_about_all_that_passes_its_target() {
    let models = Upstream::always(chat_answer()).await;
    let app = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let base = [
        provider("openai", "OpenAI", &models, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        service("app", &app, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
    ]
    .concat();
    let get = Request::new("GET", "/").host("app.example.com");
    let mcp_only = policy("some", &tools("r", None, "echo", &format!(", {BASE}")));
    let waypoint = Setup::new(&[base.clone(), mcp_only].concat()).start().await;
    let ann = waypoint.workload(ANN);
    let answer = send(&ann, &chat("m")).await;
    assert_eq!(
        (answer.status, answer.code()),
        (403, "model_not_allowed".into())
    );
    let answer = send(&ann, &get).await;
    assert_eq!(
        (answer.status, &*answer.text()),
        (403, "RBAC: access denied")
    );
    // By who asks alone, whatever is asked: also of other namespaces, which the posture denies.
    let named = policy(
        "some",
        &format!("- name: eve\n  source: {{type: SPIFFE, spiffe: \"{FAR}\"}}\n"),
    );
    waypoint.reload(&[base.clone(), named].concat()).await;
    for (who, status) in [(FAR, 200), (ANN, 403)] {
        for request in [&chat("m"), &get] {
            let answer = send(&waypoint.workload(who), request).await;
            assert_eq!(answer.status, status, "{who}: {}", answer.text());
        }
    }
    assert_eq!(waypoint.anonymous().call(&get).await.unwrap().status, 403);
    // Without rules any request is allowed, to models still with an identity only.
    let all = on(
        "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}",
        "some",
        "action: Allow\n",
    );
    waypoint.reload(&[base, all].concat()).await;
    assert_eq!(send(&waypoint.workload(FAR), &chat("m")).await.status, 200);
    let nobody = waypoint.anonymous();
    assert_eq!(nobody.call(&get).await.unwrap().status, 200);
    assert_eq!(nobody.call(&chat("m")).await.unwrap().status, 401);
}

#[tokio::test]
async fn running_streams_end_when_a_policy_no_longer_allows_them() {
    let gate = Gate::new();
    let server = mcp_server::start(Form::Sse, &gate).await;
    let held = Reply::stream().chunk(delta("one")).wait(&gate).end();
    let models = Upstream::always(held).await;
    let base = [
        mcp_proxy("tools", &server, ""),
        provider("openai", "OpenAI", &models, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
    ]
    .concat();
    let everything = policy("some", "- name: all\n");
    let waypoint = Setup::new(&[base.clone(), everything].concat())
        .start()
        .await;
    let ann = waypoint.workload(ANN);
    let session = send(&ann, &initialize()).await;
    let session = session.header("mcp-session-id").unwrap().to_owned();
    let listen = Request::new("GET", "/mcp/tools/")
        .header("accept", "text/event-stream")
        .header("mcp-session-id", &session);
    let slow = call(false, "slow");
    let mut streams = Vec::new();
    for (request, first) in [
        (&slow, "notifications/progress"),
        (&listen, "roots/list"),
        (&chat_stream("m"), "one"),
    ] {
        let mut connection = ann.connect().await.unwrap();
        connection.send(request).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200, "{first}");
        connection.read_until(first).await.unwrap();
        streams.push(connection);
    }
    // What still allows the call of `slow` does not allow to listen, nor the model.
    let only = policy("some", &tools("slow", Some(ANN), "slow", ""));
    waypoint.reload(&[base.clone(), only].concat()).await;
    for name in ["model", "GET"] {
        let mut connection = streams.pop().unwrap();
        let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
        assert!(rest.contains("policy_revoked"), "{name}: {rest}");
    }
    // The call goes on until it is not allowed either.
    let labels = [("kind", "mcp"), ("how", "policy_revoked")];
    let cut = |metrics: waypoint_tests::waypoint::Metrics| {
        metrics.sum("waypoint_streams_ended_total", &labels)
    };
    let ended = "waypoint_streams_ended_total";
    waypoint.metric_reaches(ended, &labels, 1.0).await;
    assert_eq!(cut(waypoint.metrics().await), 1.0);
    let other = policy("some", &tools("slow", Some(BOB), "slow", ""));
    waypoint.reload(&[base, other].concat()).await;
    let rest = String::from_utf8(streams.pop().unwrap().body().await.unwrap()).unwrap();
    assert!(rest.contains("policy_revoked"), "{rest}");
    gate.open();
}

/// What cannot be enforced is not passed over: the gateway does not start without it, and one that
/// runs keeps what it has.
#[tokio::test]
async fn what_is_not_enforced_is_refused_with_its_place() {
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}";
    let cel = policy(
        "cel",
        "- name: cel\n  authorization:\n    type: CEL\n    cel: {expression: \"true\"}\n",
    );
    let external =
        "action: ExternalAuth\nexternalAuth: {protocol: GRPC, backendRef: {name: a, port: 1}}\n";
    let external = on(gateway, "external", external);
    for (objects, expected) in [
        (
            &cel,
            "objects.yaml:10:13: error[not-enforced]: authorization by CEL is not enforced yet",
        ),
        (
            &external,
            "objects.yaml:6:11: error[not-enforced]: action ExternalAuth is not enforced yet",
        ),
    ] {
        let mut waypoint = Setup::new(objects).spawn();
        assert_eq!(waypoint.ended().await.code(), Some(1));
        let stderr = waypoint.stderr();
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
    let mine = policy("some", &tools("r", None, "echo", ""));
    let (upstream, waypoint) = start(&mine).await;
    waypoint.write(
        "objects.yaml",
        &[mcp_proxy("tools", &upstream, ""), cel].concat(),
    );
    let rejected = waypoint.metric_reaches("waypoint_config_rejected_total", &[], 1.0);
    rejected.await;
    for (tool, reaches) in [("echo", true), ("add", false)] {
        let (reached, _) = reached(&waypoint, &upstream, ANN, &call(true, tool)).await;
        assert_eq!(reached, reaches, "{tool}");
    }
}

/// `explain` and `matrix` ask what the gateway asks.
#[tokio::test]
async fn explain_and_matrix_tell_of_it() {
    let rules = [
        tools("ann", Some(ANN), "echo", ""),
        "- name: far\n  source: {type: SPIFFE, spiffe: \"spiffe://cluster.local/ns/elsewhere/sa/eve\"}\n  authorization: {type: Inline, headers: [{name: x-env, value: prod}]}\n".to_owned(),
    ];
    let (_upstream, waypoint) = start(&policy("some", &rules.concat())).await;
    for (question, code, expected) in [
        (
            json!({"principal": ANN, "mcp": {"server": "tools", "name": "echo"}}),
            0,
            "allow by XAccessPolicy agents/some rule ann",
        ),
        (
            json!({"principal": ANN, "mcp": {"server": "tools", "name": "add"}}),
            3,
            "XAccessPolicy agents/some rule ann (Allow): authorization.mcp: expected tools/call of echo, got \"tools/call\" of \"add\"",
        ),
        (
            json!({"principal": ANN, "mcp": {"server": "tools", "method": "initialize"}}),
            3,
            "deny (forbidden) by XAccessPolicy agents/some",
        ),
        (
            json!({"principal": FAR, "headers": {"X-Env": "prod"}, "mcp": {"server": "tools", "name": "add"}}),
            0,
            "allow by XAccessPolicy agents/some rule far",
        ),
        (
            json!({"principal": FAR, "headers": {"X-Env": "dev"}, "mcp": {"server": "tools", "name": "add"}}),
            3,
            "got another value",
        ),
        (
            json!({"principal": BOB, "mcp": {"server": "tools", "name": "echo"}}),
            3,
            "only for spiffe://cluster.local/ns/agents/sa/ann",
        ),
    ] {
        let (exit, said) = waypoint
            .command(&["explain", "--request", "-"], &question.to_string())
            .await;
        assert_eq!(exit, Some(code), "{question}: {said}");
        assert!(said.contains(expected), "{question}: {said}");
    }
    let (exit, said) = waypoint.command(&["matrix", "-o", "csv"], "").await;
    assert_eq!(exit, Some(0), "{said}");
    for line in [
        "ann,spiffe://cluster.local/ns/agents/sa/ann,mcp,agents/tools/tools,MCPProxy/agents/tools/tools,echo,allow,XAccessPolicy agents/some rule ann",
        "ann,spiffe://cluster.local/ns/agents/sa/ann,mcp,agents/tools/tools,MCPProxy/agents/tools/tools,*,deny,XAccessPolicy agents/some",
        "elsewhere/eve,spiffe://cluster.local/ns/elsewhere/sa/eve,mcp,agents/tools/tools,MCPProxy/agents/tools/tools,echo,conditional,XAccessPolicy agents/some rule far,x-env as rule far has it",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

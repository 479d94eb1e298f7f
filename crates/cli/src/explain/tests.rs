mod stages;

use waypoint_config::Snapshot;

use super::*;

/// The configuration of the demo.
fn snapshot() -> Snapshot {
    crate::demo::snapshot()
}

fn check(request: &str) -> Result<String, String> {
    check_with(&snapshot(), request)
}

fn check_with(snapshot: &Snapshot, request: &str) -> Result<String, String> {
    let request = Request::parse(request).map_err(|error| format!("{error:#}"))?;
    let answer = decide::decide(snapshot, &request).map_err(|error| format!("{error:#}"))?;
    let json: serde_json::Value = serde_json::from_str(&to_json(&answer).unwrap()).unwrap();
    let by = &json["by"];
    let by = by["rule"].as_str().or(by["name"].as_str()).unwrap();
    let code = json["code"].as_str().map(|code| format!(" {code}"));
    Ok(format!(
        "{}{} by {by}",
        json["decision"].as_str().unwrap(),
        code.unwrap_or_default()
    ))
}

/// `spiffe://…` of an account in the demo, written as `@account`.
fn fill(request: &str) -> String {
    request.replace('@', "spiffe://cluster.local/ns/agensys-demo-1/sa/")
}

#[test]
fn decides() {
    for (case, request, expected) in [
        (
            "an allowed chat",
            r#"{"principal": "@pr-agent", "llm": {"provider": "openai", "model": "gpt-4o", "operation": "chat"}}"#,
            "allow by code-review",
        ),
        (
            "the operation is the dialect's own by default",
            r#"{"principal": "@summary-agent", "llm": {"provider": "anthropic", "model": "claude-x", "max_output_tokens": 10}}"#,
            "allow by summaries",
        ),
        (
            "another model",
            r#"{"principal": "@pr-agent", "llm": {"provider": "agensys-demo-1/openai", "model": "o3"}}"#,
            "deny model_not_allowed by no rule allows this",
        ),
        (
            "another operation",
            r#"{"principal": "@pr-agent", "llm": {"provider": "openai", "model": "gpt-4o", "operation": "embeddings"}}"#,
            "deny model_not_allowed by no rule allows this",
        ),
        (
            "a model that no route leads there",
            r#"{"principal": "@summary-agent", "llm": {"provider": "openai", "model": "claude-x", "operation": "chat"}}"#,
            "deny model_not_allowed by no rule allows this",
        ),
        (
            "an operation the provider does not have",
            r#"{"principal": "@summary-agent", "llm": {"provider": "anthropic", "model": "claude-x", "operation": "chat"}}"#,
            "deny model_not_allowed by no rule allows this",
        ),
        (
            "the models list",
            r#"{"principal": "@pr-agent", "llm": {"provider": "openai", "operation": "models"}}"#,
            "allow by code-review",
        ),
        (
            "nobody",
            r#"{"principal": null, "llm": {"provider": "openai", "model": "gpt-4o"}}"#,
            "deny identity_required by no workload identity",
        ),
        (
            "a tool",
            r#"{"principal": "@orchestrator-agent", "mcp": {"server": "github", "method": "tools/call", "name": "get_issue", "arguments": {"n": 1}}}"#,
            "allow by post-review",
        ),
        (
            "a tool is called by default, a server has longer names",
            r#"{"principal": "@orchestrator-agent", "mcp": {"server": "agensys-demo-1/tools/github", "name": "delete_repo"}}"#,
            "deny tool_denied by nothing-is-deleted",
        ),
        (
            "a list follows from any permitted tool",
            r#"{"principal": "@orchestrator-agent", "mcp": {"server": "tools/github", "method": "tools/list"}}"#,
            "allow by post-review",
        ),
        (
            "and is denied without one",
            r#"{"principal": "@pr-agent", "mcp": {"server": "github", "method": "initialize"}}"#,
            "deny forbidden by no rule allows this",
        ),
        (
            "no method of MCP",
            r#"{"principal": "@orchestrator-agent", "mcp": {"server": "github", "method": "tools/steal"}}"#,
            "deny method_unknown by no MCP revision has this method",
        ),
        (
            "a plain request",
            r#"{"principal": "@github-mcp", "method": "GET", "host": "api.github.com:80", "path": "/repos/a", "port": 80, "headers": {"Accept": ["a", "b"], "X-A": "c"}}"#,
            "allow by github-data",
        ),
        (
            "the path is normalized first",
            r#"{"principal": "@github-mcp", "host": "api.github.com", "path": "/repos/../admin"}"#,
            "deny forbidden by no rule allows this",
        ),
        (
            "a path that cannot be",
            r#"{"principal": "@github-mcp", "host": "api.github.com", "path": "/repos/%2e%2e%00admin"}"#,
            "deny bad_request by the path cannot be normalized",
        ),
        (
            "a path to models that servers read in different ways",
            r#"{"principal": "@pr-agent", "path": "/ai-gateway//v1/chat/completions", "llm": {"provider": "openai", "model": "gpt-4o"}}"#,
            "deny bad_request by the path cannot be normalized",
        ),
        (
            "no route",
            r#"{"principal": "@github-mcp", "host": "example.com"}"#,
            "deny route_not_found by no route for this host and path",
        ),
        (
            "a route to models, and nobody",
            r#"{"path": "/ai-gateway/v1/models"}"#,
            "deny identity_required by no workload identity",
        ),
        (
            "what only a mesh knows has no say",
            r#"{"principal": "@github-mcp", "source_ip": "10.0.0.1", "remote_ip": "10.0.0.1", "dest_ip": "10.0.0.2",
                "service": {"name": "x", "namespace": "y", "registry": "External"}, "protocol": "http", "sni": "x",
                "jwt": {"iss": "x"}, "custom": {"authz": "deny"}, "llm": null, "mcp": null,
                "host": "api.github.com", "path": "/repos/a"}"#,
            "allow by github-data",
        ),
    ] {
        assert_eq!(check(&fill(request)), Ok(expected.into()), "{case}");
    }
}

#[test]
fn says_what_is_wrong_with_a_question() {
    for (request, expected) in [
        ("", "the request is not understood: EOF"),
        ("{", "the request is not understood: EOF"),
        ("[]", "one JSON object"),
        (
            r#"{"principle": "x"}"#,
            "unknown field `principle`, expected one of `principal`",
        ),
        (
            r#"{"principal": "pr-agent"}"#,
            "a SPIFFE ID begins with spiffe://",
        ),
        (r#"{"port": 70000}"#, "expected u16"),
        (r#"{"protocol": "udp"}"#, "expected `http` or `tcp`"),
        (
            r#"{"llm": {"provider": "openai"}}"#,
            "`llm.model` is missing",
        ),
        (
            r#"{"llm": {"provider": "openai", "model": "x", "operation": "talk"}}"#,
            "an operation is one of chat",
        ),
        (
            r#"{"llm": {"provider": "opnai", "model": "x"}}"#,
            "there is no LLMProvider opnai; there is agensys-demo-1/anthropic",
        ),
        (
            r#"{"mcp": {"server": "gitlab"}}"#,
            "there is no MCP server gitlab",
        ),
        (
            r#"{"mcp": {"server": "github"}}"#,
            "tools and prompts need `name`",
        ),
        (
            r#"{"llm": {"provider": "openai", "model": "x"}, "mcp": {"server": "github"}}"#,
            "either `llm` or `mcp`",
        ),
        (
            r#"{"principal": "@pr-agent", "path": "/ai-gateway/v1/models"}"#,
            "say what is asked in `llm`",
        ),
        (
            r#"{"principal": "@pr-agent", "path": "/mcp/github"}"#,
            "say what is asked in `mcp`",
        ),
    ] {
        let error = check(&fill(request)).expect_err(request);
        assert!(error.contains(expected), "{request}: {error}");
    }
}

#[test]
fn json_is_stable() {
    let request = r#"{"principal": "spiffe://other.example/ns/a/sa/b", "mcp": {"server": "code-scanning", "name": "delete_x"}}"#;
    let request = Request::parse(request).unwrap();
    let answer = decide::decide(&snapshot(), &request).unwrap();
    let json = to_json(&answer).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let trace = json["trace"].take();
    assert_eq!(trace.as_array().map(Vec::len), Some(7));
    assert_eq!(trace[4]["outcome"], "matched");
    json["trace"] = serde_json::json!([trace[4]]);
    insta::assert_snapshot!(format!("{json:#}"));
}

#[test]
fn text_is_for_people() {
    let request = fill(
        r#"{"principal": "@summary-agent",
        "llm": {"provider": "anthropic", "model": "claude-sonnet-4", "max_output_tokens": 4096}}"#,
    );
    let request = Request::parse(&request).unwrap();
    let answer = decide::decide(&snapshot(), &request).unwrap();
    insta::assert_snapshot!(to_text(&answer, &request, Paint::PLAIN));
}

/// Routes that hold back more than policy does.
const NARROW: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: agents}
spec: {gatewayClassName: kgateway-waypoint, listeners: [{name: a, port: 8080, protocol: HTTP}]}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: LLMProvider
metadata: {name: openai, namespace: agents}
spec: {dialect: OpenAI, operations: [chat], models: [{name: big, aliases: [smart]}]}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: LLMProvider
metadata: {name: spare, namespace: agents}
spec: {dialect: OpenAI}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: LLMRoute
metadata: {name: llm, namespace: agents}
spec: {rules: [{matches: [{models: [big, smart, tiny]}], backendRefs: [{name: openai}]}]}
"#;

#[test]
fn a_route_can_hold_back_what_policy_allows() {
    let file = waypoint_config::File {
        path: "narrow.yaml".into(),
        text: NARROW.into(),
    };
    let outcome = waypoint_config::compile(&[file], &waypoint_config::Options::default());
    let snapshot = outcome.snapshot.unwrap();
    for (provider, model, operation, expected) in [
        ("openai", "big", "chat", "allow by Graduated"),
        ("openai", "smart", "chat", "allow by Graduated"),
        (
            "openai",
            "tiny",
            "chat",
            "deny model_not_found by no route leads to this provider with this model",
        ),
        (
            "openai",
            "other",
            "chat",
            "deny model_not_found by no route leads to this provider with this model",
        ),
        (
            "openai",
            "big",
            "responses",
            "deny operation_not_allowed by the provider does not serve this operation",
        ),
        ("spare", "any", "chat", "allow by Graduated"),
    ] {
        let request = serde_json::json!({
            "principal": "spiffe://cluster.local/ns/agents/sa/a",
            "llm": {"provider": provider, "model": model, "operation": operation},
        });
        let answer = check_with(&snapshot, &request.to_string());
        assert_eq!(answer, Ok(expected.into()), "{request}");
    }
}

/// A tool that may be called with some arguments.
const ARGUMENTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: agents}
spec: {gatewayClassName: kgateway-waypoint, listeners: [{name: a, port: 8080, protocol: HTTP}]}
---
apiVersion: mcp.kgateway.io/v1
kind: MCPProxy
metadata: {name: tools, namespace: agents}
spec: {routes: [{name: github, match: {prefix: /mcp/}, destination: {hostname: mcp.example.com, port: 443, tls: {}}}]}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {name: some, namespace: agents}
spec:
  targetRefs: [{kind: Gateway, name: wp}]
  rules:
  - name: acme
    mcp: [{methods: [{name: tools/call, params: [search]}], arguments: {/id: {min: 9007199254740993}, /owner: {in: [acme], required: false}}}]
"#;

#[test]
fn arguments_are_decided_to_the_letter_and_told_by_type() {
    let file = waypoint_config::File {
        path: "arguments.yaml".into(),
        text: ARGUMENTS.into(),
    };
    let outcome = waypoint_config::compile(&[file], &waypoint_config::Options::default());
    let snapshot = outcome.snapshot.unwrap();
    let ask = |arguments: &str| {
        let request = format!(
            r#"{{"principal": "spiffe://cluster.local/ns/agents/sa/a", "mcp": {{"server": "github", "name": "search"{arguments}}}}}"#
        );
        let request = Request::parse(&request).unwrap();
        decide::decide(&snapshot, &request).map(|answer| {
            let said = match &answer.trace[0].outcome {
                Outcome::Matched => "matched".into(),
                other => other.to_string(),
            };
            (answer.is_allowed, said, answer.notes)
        })
    };
    let listed = || vec!["it may be allowed with other arguments, so lists show it".to_owned()];
    for (arguments, allowed, said) in [
        (
            r#", "arguments": {"id": 9007199254740993, "owner": "acme"}"#,
            true,
            "matched",
        ),
        (
            r#", "arguments": {"id": 9007199254740992}"#,
            false,
            "mcp[0].arguments[/id]: expected at least 9007199254740993, got an integer",
        ),
        (
            r#", "arguments": {"id": 9007199254740994, "owner": "s3cr3t"}"#,
            false,
            r#"mcp[0].arguments[/owner]: expected "acme", or nothing, got a string"#,
        ),
        (
            "",
            false,
            "mcp[0].arguments[/id]: expected at least 9007199254740993, got no arguments",
        ),
    ] {
        let notes = if allowed { vec![] } else { listed() };
        assert_eq!(
            ask(arguments).unwrap(),
            (allowed, said.into(), notes),
            "{arguments}"
        );
    }
    let twice = ask(r#", "arguments": {"id": 1, "id": 9007199254740993}"#);
    assert!(twice.unwrap_err().to_string().contains("repeated key"));
}

/// Limits on all calls of the demo's waypoint.
fn limited(spec: &str) -> Snapshot {
    crate::demo::snapshot_with(&format!(
        "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: UsageLimit\n\
         metadata: {{name: few, namespace: agensys-demo-1}}\n\
         spec: {{targetRefs: [{{kind: Gateway, name: waypoint}}], {spec}}}\n"
    ))
}

#[test]
fn tells_the_limits_of_a_call() {
    let chat = fill(
        r#"{"principal": "@pr-agent", "llm": {"provider": "openai", "model": "gpt-4o", "operation": "chat"}}"#,
    );
    let snapshot = limited(
        "per: [Principal, Model, Route], tokens: {limit: 1000, window: 1m30s, count: Output}, \
         requests: {limit: 60, window: 1h, burst: 10}, cost: {limit: \"5.25\", calendar: Day}, \
         concurrency: 8, onExceeded: Cut",
    );
    let request = Request::parse(&chat).unwrap();
    let answer = decide::decide(&snapshot, &request).unwrap();
    assert!(answer.is_allowed);
    let text = to_text(&answer, &request, Paint::PLAIN);
    let expected = "  limit  agensys-demo-1/few: 1000 output tokens in 1m30s; 60 requests in 1h, \
         10 at once; 5.25 USD each Day; 8 at the same time; streams are cut; \
         for each Principal, Model and Route\n";
    assert!(text.contains(expected), "{text}");
    let json: serde_json::Value = serde_json::from_str(&to_json(&answer).unwrap()).unwrap();
    assert_eq!(json["limits"][0]["name"], "few", "{json}");
    // Who is denied is told of no limit.
    let denied = chat.replace("gpt-4o", "o3");
    let answer = decide::decide(&snapshot, &Request::parse(&denied).unwrap()).unwrap();
    assert!(answer.limits.is_empty() && !answer.is_allowed);
    // What is stopped is denied, unless that is on trial.
    let stopped = check_with(&limited("concurrency: 0"), &chat);
    assert_eq!(stopped.unwrap(), "deny insufficient_quota by few");
    let trial = check_with(&limited("concurrency: 0, mode: DryRun"), &chat);
    assert_eq!(trial.unwrap(), "allow by code-review");
    let tool = fill(
        r#"{"principal": "@orchestrator-agent", "mcp": {"server": "github", "method": "tools/call", "name": "get_issue", "arguments": {"n": 1}}}"#,
    );
    let stopped = check_with(
        &limited("mcp: [{}], requests: {limit: 0, window: 1s}"),
        &tool,
    );
    assert_eq!(stopped.unwrap(), "deny insufficient_quota by few");
}

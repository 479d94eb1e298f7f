//! Other people's clients and servers with the gateway between them, over mTLS: what works
//! without it works with it, and what is refused raises the SDK's own error.

use serde_json::json;
use waypoint_tests::clients::{Credentials, Outcome, Sdk, Upstream};
use waypoint_tests::llm::error_answer;
use waypoint_tests::upstream;
use waypoint_tests::waypoint::{
    ANN, BOB, Backend, Setup, Waypoint, agent, mcp_proxy, provider, route, secret,
};

/// Both dialects at one mock provider, which takes only our key.
async fn llm(provider_at: &impl Backend) -> (Waypoint, Credentials) {
    let key = "credential: {secretRef: {name: keys, key: key}}";
    let rules = "- backendRefs: [{name: openai}, {name: anthropic}]\n  retry: {attempts: 1, backoff: {base: 1ms}}";
    let objects = [
        provider("openai", "OpenAI", provider_at, key),
        provider(
            "anthropic",
            "Anthropic",
            provider_at,
            &format!("{key}\noperations: [messages, count_tokens, models]"),
        ),
        secret("keys", "sk-ours"),
        route("llm", rules),
        agent(
            "all",
            "Allow",
            &format!("- {{name: all, from: [{{spiffe: \"{ANN}\"}}], llm: [{{}}]}}"),
        ),
        agent(
            "not",
            "Deny",
            "- {name: not, llm: [{models: [forbidden-model, \"claude-opus*\", gpt-4]}]}",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let agent = waypoint.authority.agent(ANN);
    let credentials = waypoint
        .authority
        .credentials(waypoint.path("").as_path(), &agent)
        .unwrap();
    (waypoint, credentials)
}

fn assert_ok(sdk: Sdk, outcomes: &[Outcome]) {
    if let Some(failed) = outcomes.iter().find(|outcome| !outcome.ok) {
        panic!("{sdk:?}: {failed:#?}");
    }
}

/// Whether a scenario failed with this class, and is one of the SDK's own.
fn assert_raised(sdk: Sdk, outcome: &Outcome, class: &str, status: Option<u16>) {
    assert!(!outcome.ok, "{sdk:?}: {outcome:#?}");
    assert_eq!(
        outcome.error_class.as_deref(),
        Some(class),
        "{sdk:?}: {outcome:#?}"
    );
    assert_eq!(outcome.status, status, "{sdk:?}: {outcome:#?}");
}

#[tokio::test]
async fn openai_clients() {
    let mock = Upstream::Aimock
        .start(&["--api-key", "sk-ours"])
        .await
        .unwrap();
    let (waypoint, credentials) = llm(&mock).await;
    let url = format!("https://127.0.0.1:{}/ai/v1", waypoint.ports.mtls);
    for sdk in [Sdk::OpenAiPython, Sdk::OpenAiNode] {
        let good = [
            "chat",
            "stream",
            "stream_usage",
            "stream_no_usage",
            "tool_call",
            "embeddings",
            "responses",
            "responses_stream",
            "models",
            "slow_stream",
        ];
        let outcomes = sdk.run(&url, Some(&credentials), &[], &good).await.unwrap();
        assert_ok(sdk, &outcomes);
        assert_eq!(outcomes[0].text(), "Hello from the mock provider.");
        assert_eq!(
            outcomes[0].fact("usage"),
            &json!({"input": 9, "output": 6, "total": 15})
        );
        // The gateway asks for usage on its own account, and keeps it to itself.
        assert_eq!(outcomes[1].fact("usage_chunks"), 0, "{:#?}", outcomes[1]);
        assert_eq!(outcomes[2].fact("usage"), outcomes[0].fact("usage"));
        assert_eq!(outcomes[3].fact("usage_chunks"), 0, "{:#?}", outcomes[3]);
        assert_eq!(outcomes[4].fact("tool"), "get_weather");
        assert!(
            !outcomes[8].names().contains(&"gpt-4"),
            "{:?}",
            outcomes[8].names()
        );
        // With the retries an SDK makes by default: a refusal says that they are pointless.
        let retries = ["--max-retries", "2"];
        let bad = [
            "denied",
            "denied_stream",
            "unknown_path",
            "rate_limited",
            "cut_stream",
        ];
        let outcomes = sdk
            .run(&url, Some(&credentials), &retries, &bad)
            .await
            .unwrap();
        let [denied, stream, unknown, limited, cut] = outcomes.as_slice() else {
            panic!("{outcomes:#?}");
        };
        for denied in [denied, stream] {
            assert_raised(sdk, denied, "PermissionDeniedError", Some(403));
            assert_eq!(
                (denied.code.as_ref(), denied.requests),
                (Some(&json!("model_not_allowed")), 1)
            );
            assert_eq!(denied.kind.as_deref(), Some("permission_error"));
        }
        assert_raised(sdk, unknown, "PermissionDeniedError", Some(403));
        assert_raised(sdk, limited, "RateLimitError", Some(429));
        assert_eq!(
            limited.code,
            Some(json!("rate_limit_exceeded")),
            "{limited:#?}"
        );
        assert_raised(sdk, cut, "APIError", None);
        assert_eq!(cut.code, Some(json!("stream_truncated")), "{cut:#?}");
        assert!(cut.text().starts_with("This"), "{cut:#?}");
    }
    let event = waypoint
        .event_where("a call of an SDK", |event| {
            event["action"]["operation"] == "embeddings"
        })
        .await;
    assert_eq!(event["principal"], ANN);
}

#[tokio::test]
async fn anthropic_clients() {
    let mock = Upstream::Aimock
        .start(&["--api-key", "sk-ours"])
        .await
        .unwrap();
    let (waypoint, credentials) = llm(&mock).await;
    let url = format!("https://127.0.0.1:{}/ai", waypoint.ports.mtls);
    for sdk in [Sdk::AnthropicPython, Sdk::AnthropicNode] {
        let good = [
            "messages",
            "stream",
            "tool_call",
            "count_tokens",
            "models",
            "slow_stream",
        ];
        let outcomes = sdk.run(&url, Some(&credentials), &[], &good).await.unwrap();
        assert_ok(sdk, &outcomes);
        assert_eq!(outcomes[0].fact("usage"), &json!({"input": 9, "output": 6}));
        assert_eq!(outcomes[1].text(), outcomes[0].text());
        assert_eq!(outcomes[1].fact("terminated"), true);
        assert!(
            !outcomes[4]
                .names()
                .iter()
                .any(|name| name.starts_with("claude-opus")),
            "{:?}",
            outcomes[4].names()
        );
        let retries = ["--max-retries", "2"];
        let bad = [
            "denied",
            "denied_stream",
            "unknown_path",
            "rate_limited",
            "cut_stream",
        ];
        let outcomes = sdk
            .run(&url, Some(&credentials), &retries, &bad)
            .await
            .unwrap();
        let [denied, stream, unknown, limited, cut] = outcomes.as_slice() else {
            panic!("{outcomes:#?}");
        };
        for denied in [denied, stream] {
            assert_raised(sdk, denied, "PermissionDeniedError", Some(403));
            assert_eq!(
                (denied.kind.as_deref(), denied.requests),
                (Some("permission_error"), 1),
                "{denied:#?}"
            );
        }
        assert_raised(sdk, unknown, "PermissionDeniedError", Some(403));
        assert_raised(sdk, limited, "RateLimitError", Some(429));
        assert!(
            !cut.ok && cut.error_bases.iter().any(|base| base == "APIError"),
            "{sdk:?}: {cut:#?}"
        );
        assert!(
            cut.message
                .as_deref()
                .unwrap_or_default()
                .contains("stream_truncated")
                || cut.kind.is_some(),
            "{cut:#?}"
        );
    }
}

#[tokio::test]
async fn every_sdk_raises_its_own_error_for_every_refusal() {
    let busy = upstream::Upstream::always(error_answer(
        429,
        "insufficient_quota",
        &[("retry-after", "7200")],
    ))
    .await;
    let (waypoint, _) = llm(&busy).await;
    let foreign = waypoint
        .authority
        .credentials(waypoint.path("").as_path(), &waypoint.authority.agent(BOB))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ours = waypoint
        .authority
        .credentials(directory.path(), &waypoint.authority.agent(ANN))
        .unwrap();
    for (sdk, path, scenario) in [
        (Sdk::OpenAiPython, "/ai/v1", "chat"),
        (Sdk::OpenAiNode, "/ai/v1", "chat"),
        (Sdk::AnthropicPython, "/ai", "messages"),
        (Sdk::AnthropicNode, "/ai", "messages"),
    ] {
        let url = format!("https://127.0.0.1:{}{path}", waypoint.ports.mtls);
        let run = async |credentials, options: &[&str]| {
            sdk.scenario(&url, credentials, options, scenario)
                .await
                .unwrap()
        };
        let retries = ["--max-retries", "2"];
        // Nobody sleeps for two hours, and nobody tries again in vain.
        let quota = run(Some(&ours), &retries).await;
        assert_raised(sdk, &quota, "RateLimitError", Some(429));
        assert_eq!(
            (quota.requests, quota.headers.get("retry-after")),
            (1, None),
            "{quota:#?}"
        );
        // Another workload may do nothing here.
        let denied = run(Some(&foreign), &retries).await;
        assert_raised(sdk, &denied, "PermissionDeniedError", Some(403));
        assert_eq!(denied.requests, 1, "{denied:#?}");
        // Without a workload identity, where that is possible at all.
        let plain = format!("http://127.0.0.1:{}{path}", waypoint.ports.plain);
        let nobody = sdk
            .scenario(&plain, None, &retries, scenario)
            .await
            .unwrap();
        assert_raised(sdk, &nobody, "AuthenticationError", Some(401));
        assert_eq!(nobody.requests, 1, "{nobody:#?}");
    }
}

/// What every MCP client does with every MCP server.
const MCP: [&str; 9] = [
    "initialize",
    "list_tools",
    "list_prompts",
    "list_resources",
    "call_tool",
    "get_prompt",
    "read_resource",
    "progress",
    "elicitation",
];

async fn mcp(server: &impl Backend, denial: &str) -> (Waypoint, Credentials, String) {
    let objects = [
        // By name, because the servers check the name they are called by.
        mcp_proxy("tools", server, &format!("denial: {denial}")).replace(
            "service: tools, port: 80, path: /server",
            &format!(
                "hostname: localhost, port: {}, path: /mcp",
                server.address().port()
            ),
        ),
        agent("all", "Allow", "- {name: all, mcp: [{}]}"),
        agent(
            "not",
            "Deny",
            "- {name: not, mcp: [{methods: [{name: tools/call, params: [get-env]}, {name: prompts/get, params: [args-prompt]}, {name: resources/read, params: [\"*startup.md\"]}]}]}",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let agent = waypoint.authority.agent(ANN);
    let credentials = waypoint
        .authority
        .credentials(waypoint.path("").as_path(), &agent)
        .unwrap();
    let url = format!("https://127.0.0.1:{}/mcp/tools", waypoint.ports.mtls);
    (waypoint, credentials, url)
}

async fn check_mcp(
    sdk: Sdk,
    at: &(Waypoint, Credentials, String),
    options: &[&str],
    version: &str,
) {
    let (_, credentials, url) = at;
    let outcomes = sdk
        .run(url, Some(credentials), options, &MCP)
        .await
        .unwrap();
    assert_ok(sdk, &outcomes);
    assert_eq!(outcomes[0].fact("protocol_version"), version);
    assert!(outcomes[1].names().contains(&"echo"), "{:#?}", outcomes[1]);
    for (list, hidden) in [(1, "get-env"), (2, "args-prompt")] {
        assert!(
            !outcomes[list].names().contains(&hidden),
            "{:#?}",
            outcomes[list]
        );
    }
    assert!(
        !outcomes[3]
            .names()
            .iter()
            .any(|uri| uri.ends_with("startup.md")),
        "{:#?}",
        outcomes[3]
    );
    assert_eq!(outcomes[4].text(), "Echo: hello");
    assert_eq!(outcomes[7].fact("progress").as_array().unwrap().len(), 3);
    assert_eq!(
        outcomes[8].fact("elicitations").as_array().unwrap().len(),
        1
    );
    let denials = ["denied_tool", "denied_prompt", "denied_resource"];
    let outcomes = sdk
        .run(url, Some(credentials), options, &denials)
        .await
        .unwrap();
    for outcome in &outcomes {
        assert!(!outcome.ok, "{sdk:?}: {outcome:#?}");
        assert!(
            outcome
                .error_bases
                .iter()
                .any(|class| class.to_ascii_lowercase().contains("mcperror")),
            "{sdk:?}: {outcome:#?}"
        );
        // A denial costs the call, never the connection.
        assert_eq!(
            outcome.fact("connection_survives"),
            true,
            "{sdk:?}: {outcome:#?}"
        );
    }
    assert_eq!(outcomes[0].code, Some(json!(-32602)), "{sdk:?}");
    assert!(
        outcomes[0]
            .message
            .as_deref()
            .unwrap_or_default()
            .contains("Unknown tool: get-env"),
        "{:#?}",
        outcomes[0]
    );
}

#[tokio::test]
async fn mcp_clients_of_the_legacy_era() {
    let server = Upstream::Everything.start(&[]).await.unwrap();
    let at = mcp(&server, "Hide").await;
    check_mcp(Sdk::McpNode, &at, &[], "2025-11-25").await;
    check_mcp(Sdk::McpPython, &at, &["--mode", "legacy"], "2025-11-25").await;
    // `auto` asks `server/discover` first and falls back to `initialize` on the server's own word.
    check_mcp(Sdk::McpPython, &at, &["--mode", "auto"], "2025-11-25").await;
    for sdk in [Sdk::McpNode, Sdk::McpPython] {
        let more = ["complete", "logging", "cancel"];
        let outcomes = sdk.run(&at.2, Some(&at.1), &[], &more).await.unwrap();
        assert_ok(sdk, &outcomes);
        assert_eq!(outcomes[2].fact("gave_up"), true);
    }
}

#[tokio::test]
async fn mcp_clients_of_both_eras() {
    let server = Upstream::TwoEras.start(&[]).await.unwrap();
    let at = mcp(&server, "Hide").await;
    check_mcp(Sdk::McpNode, &at, &[], "2025-11-25").await;
    for (mode, version) in [
        ("legacy", "2025-11-25"),
        ("auto", "2026-07-28"),
        ("2026-07-28", "2026-07-28"),
    ] {
        check_mcp(Sdk::McpPython, &at, &["--mode", mode], version).await;
    }
}

#[tokio::test]
async fn mcp_clients_survive_explicit_denials_and_strangers_get_nothing() {
    let server = Upstream::TwoEras.start(&[]).await.unwrap();
    let (waypoint, credentials, url) = mcp(&server, "Explicit").await;
    for (sdk, options) in [
        (Sdk::McpNode, &[][..]),
        (Sdk::McpPython, &["--mode", "legacy"]),
        (Sdk::McpPython, &["--mode", "auto"]),
    ] {
        let denied = sdk
            .scenario(&url, Some(&credentials), options, "denied_tool")
            .await
            .unwrap();
        assert!(
            !denied.ok && denied.statuses.contains(&403),
            "{sdk:?}: {denied:#?}"
        );
        assert_eq!(
            denied.fact("connection_survives"),
            true,
            "{sdk:?}: {denied:#?}"
        );
        let plain = format!("http://127.0.0.1:{}/mcp/tools", waypoint.ports.plain);
        let nobody = sdk
            .scenario(&plain, None, options, "list_tools")
            .await
            .unwrap();
        assert!(!nobody.ok, "{sdk:?}: {nobody:#?}");
        assert!(
            nobody.statuses.iter().all(|status| *status == 403),
            "{sdk:?}: {nobody:#?}"
        );
    }
}

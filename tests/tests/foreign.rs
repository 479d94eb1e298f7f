//! The foreign clients against the foreign servers, without the gateway: when these pass, what
//! fails through the gateway is the gateway's.

use serde_json::json;
use waypoint_tests::clients::{Outcome, Sdk, Upstream};

/// Whether the scenarios all succeeded, naming the first that did not.
fn assert_ok(sdk: Sdk, outcomes: &[Outcome]) {
    if let Some(failed) = outcomes.iter().find(|outcome| !outcome.ok) {
        panic!("{sdk:?}: {failed:#?}");
    }
}

#[tokio::test]
async fn openai_clients_reach_the_mock_provider() {
    let provider = Upstream::Aimock.start(&[]).await.unwrap();
    let url = format!("http://{}/v1", provider.address);
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
    ];
    for sdk in [Sdk::OpenAiPython, Sdk::OpenAiNode] {
        let outcomes = sdk.run(&url, None, &[], &good).await.unwrap();
        assert_ok(sdk, &outcomes);
        let [chat, stream, with_usage, without, tool, ..] = outcomes.as_slice() else {
            panic!("{outcomes:#?}");
        };
        assert_eq!(chat.text(), "Hello from the mock provider.");
        assert_eq!(
            chat.fact("usage"),
            &json!({"input": 9, "output": 6, "total": 15})
        );
        for stream in [stream, with_usage, without] {
            assert_eq!(stream.text(), chat.text());
            assert_eq!(stream.fact("finish_reason"), "stop");
        }
        assert_eq!(stream.fact("usage_chunks"), 0);
        assert_eq!(with_usage.fact("usage"), chat.fact("usage"));
        assert_eq!(without.fact("usage_chunks"), 0);
        assert_eq!(tool.fact("tool"), "get_weather");

        let bad = ["unknown_path", "rate_limited", "cut_stream"];
        let outcomes = sdk.run(&url, None, &[], &bad).await.unwrap();
        let [unknown, limited, cut] = outcomes.as_slice() else {
            panic!("{outcomes:#?}");
        };
        assert_eq!(unknown.error_class.as_deref(), Some("NotFoundError"));
        assert_eq!(limited.error_class.as_deref(), Some("RateLimitError"));
        assert_eq!((limited.status, limited.requests), (Some(429), 1));
        assert!(!cut.ok, "{cut:#?}");
        assert!(cut.text().starts_with("This"), "{cut:#?}");

        // Without a gateway that ends it, the SDKs retry as they like.
        let retried = sdk
            .scenario(&url, None, &["--max-retries", "1"], "rate_limited")
            .await
            .unwrap();
        assert_eq!(retried.requests, 2);
    }
}

#[tokio::test]
async fn anthropic_clients_reach_the_mock_provider() {
    let provider = Upstream::Aimock.start(&["--api-key", "k"]).await.unwrap();
    let url = format!("http://{}", provider.address);
    let good = ["messages", "stream", "tool_call", "count_tokens", "models"];
    for sdk in [Sdk::AnthropicPython, Sdk::AnthropicNode] {
        let key = ["--api-key", "k"];
        let outcomes = sdk.run(&url, None, &key, &good).await.unwrap();
        assert_ok(sdk, &outcomes);
        assert_eq!(outcomes[0].fact("usage"), &json!({"input": 9, "output": 6}));
        assert_eq!(outcomes[1].text(), outcomes[0].text());
        assert_eq!(outcomes[1].fact("terminated"), true);
        assert_eq!(outcomes[2].fact("arguments"), &json!({"city": "Oslo"}));

        let limited = sdk
            .scenario(&url, None, &key, "rate_limited")
            .await
            .unwrap();
        assert_eq!(limited.error_class.as_deref(), Some("RateLimitError"));
        let stranger = sdk.scenario(&url, None, &[], "messages").await.unwrap();
        assert_eq!(stranger.error_class.as_deref(), Some("AuthenticationError"));
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

async fn check_mcp(sdk: Sdk, url: &str, options: &[&str], version: &str) {
    let outcomes = sdk.run(url, None, options, &MCP).await.unwrap();
    assert_ok(sdk, &outcomes);
    assert_eq!(outcomes[0].fact("protocol_version"), version);
    for tool in ["echo", "get-env"] {
        assert!(outcomes[1].names().contains(&tool), "{:#?}", outcomes[1]);
    }
    assert_eq!(outcomes[4].text(), "Echo: hello");
    assert_eq!(outcomes[7].fact("progress").as_array().unwrap().len(), 3);
    assert_eq!(
        outcomes[8].fact("elicitations").as_array().unwrap().len(),
        1
    );
    assert!(outcomes[8].text().contains("Name: Ada"));
}

#[tokio::test]
async fn mcp_clients_reach_server_everything() {
    let server = Upstream::Everything.start(&[]).await.unwrap();
    let url = format!("http://{}/mcp", server.address);
    check_mcp(Sdk::McpNode, &url, &[], "2025-11-25").await;
    check_mcp(Sdk::McpPython, &url, &["--mode", "legacy"], "2025-11-25").await;
    // `auto` asks `server/discover` first and falls back to `initialize`.
    check_mcp(Sdk::McpPython, &url, &["--mode", "auto"], "2025-11-25").await;
    for sdk in [Sdk::McpNode, Sdk::McpPython] {
        let more = ["complete", "logging", "cancel", "raw_get"];
        let outcomes = sdk.run(&url, None, &[], &more).await.unwrap();
        assert_ok(sdk, &outcomes[..3]);
        assert_eq!(outcomes[2].fact("gave_up"), true);
        assert_eq!(outcomes[3].status, Some(400), "a stream needs a session");
    }
}

#[tokio::test]
async fn mcp_clients_reach_the_server_of_two_eras() {
    let server = Upstream::TwoEras.start(&[]).await.unwrap();
    let url = format!("http://{}/mcp", server.address);
    check_mcp(Sdk::McpNode, &url, &[], "2025-11-25").await;
    for (mode, version) in [
        ("legacy", "2025-11-25"),
        ("auto", "2026-07-28"),
        ("2026-07-28", "2026-07-28"),
    ] {
        check_mcp(Sdk::McpPython, &url, &["--mode", mode], version).await;
    }
}

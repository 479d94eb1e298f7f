//! What calls cost: in the audit log, in `/decisions` and in the metrics.

use serde_json::json;
use waypoint_tests::llm::{
    chat, chat_answer, chat_stream, chat_stream_answer, messages, messages_answer,
    messages_stream_answer,
};
use waypoint_tests::upstream::Upstream;
use waypoint_tests::waypoint::{ANN, BOB, Setup, provider, route};

#[tokio::test]
async fn calls_cost_what_their_tokens_do() {
    let upstream = Upstream::start(|seen| {
        let is_stream = seen.json()["stream"].as_bool() == Some(true);
        match (seen.target(), is_stream) {
            ("/v1/messages", false) => messages_answer(),
            ("/v1/messages", true) => messages_stream_answer(),
            (_, false) => chat_answer(),
            (_, true) => chat_stream_answer(),
        }
    })
    .await;
    let objects = |own: &str| {
        let models = format!(
            "models: [{{name: gpt-4o, aliases: [smart]}}, {{name: own, price: {{{own}}}}}, {{name: unknown}}]"
        );
        [
            provider("openai", "OpenAI", &upstream, &models),
            provider("anthropic", "Anthropic", &upstream, ""),
            route("llm", "- backendRefs: [{name: openai}, {name: anthropic}]"),
        ]
        .concat()
    };
    let waypoint = Setup::new(&objects("input: \"100\", output: \"200\""))
        .start()
        .await;
    let claude = "claude-sonnet-4-5-20250929";
    for (case, request, cost) in [
        // 11 · 2.50 + 7 · 10, rounded up.
        ("plain", chat("gpt-4o"), Some("0.000098")),
        (
            "streamed, by its alias",
            chat_stream("smart"),
            Some("0.000098"),
        ),
        // 11 · 100 + 7 · 200.
        ("the operator's price", chat("own"), Some("0.002500")),
        ("and streamed", chat_stream("own"), Some("0.002500")),
        // 10 · 3 + 3 · 0.30 + 5 · 15, rounded up.
        ("messages", messages(claude, &json!({})), Some("0.000106")),
        (
            "streamed messages",
            messages(claude, &json!({"stream": true})),
            Some("0.000106"),
        ),
        ("no price", chat("unknown"), None),
        ("no price, streamed", chat_stream("unknown"), None),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["tokens"]["source"], "upstream", "{case}: {event}");
        let expected = cost.map(|cost| cost.parse::<f64>().unwrap());
        assert_eq!(event["cost_usd"].as_f64(), expected, "{case}: {event}");
        // As it is written: a number with all its digits.
        let id = answer.header("x-request-id").unwrap();
        let decision = waypoint.admin(&format!("/decisions?request_id={id}")).await;
        let decision = decision.text();
        let written = cost.map(|cost| format!("\"cost_usd\":{cost},"));
        match written {
            Some(written) => assert!(decision.contains(&written), "{case}: {decision}"),
            None => assert!(!decision.contains("cost_usd"), "{case}: {decision}"),
        }
    }
    // What was not answered cost nothing, and is no call without a price.
    let refused = chat("nobody-serves-it");
    assert_eq!(
        waypoint.workload(BOB).call(&refused).await.unwrap().status,
        404
    );

    let cost = "gen_ai_client_cost_usd_total";
    let ann = ("principal", ANN);
    let spent = async |labels: &[(&str, &str)], usd: f64| {
        waypoint.metric_reaches(cost, labels, usd).await;
        assert_eq!(
            waypoint.metrics().await.sum(cost, labels),
            usd,
            "{labels:?}"
        );
    };
    let openai = ("gen_ai_provider_name", "openai");
    let model = |name| ("gen_ai_request_model", name);
    spent(&[openai, model("gpt-4o"), ann], 0.000_196).await;
    spent(&[openai, model("own"), ann], 0.005).await;
    let anthropic = ("gen_ai_provider_name", "anthropic");
    let messages = ("gen_ai_operation_name", "messages");
    spent(&[anthropic, messages, model("unlisted"), ann], 0.000_212).await;
    let metrics = waypoint.metrics().await;
    assert_eq!(metrics.sum(cost, &[("principal", BOB)]), 0.0);
    assert_eq!(metrics.sum(cost, &[model("unknown")]), 0.0);
    let unpriced = "waypoint_unpriced_calls_total";
    assert_eq!(metrics.sum(unpriced, &[("provider", "openai")]), 2.0);
    assert_eq!(metrics.sum(unpriced, &[]), 2.0);

    // A new price holds for what is called from then on.
    waypoint
        .reload(&objects("input: \"0\", output: \"1\""))
        .await;
    let answer = waypoint.workload(ANN).call(&chat("own")).await.unwrap();
    let event = waypoint.event(&answer).await;
    assert_eq!(event["cost_usd"].as_f64(), Some(0.000_007), "{event}");
    spent(&[openai, model("own"), ann], 0.005_007).await;
}

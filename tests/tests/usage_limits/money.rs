//! Limits of money; warnings before a limit is reached; what a refusal or a cut looks like by
//! setting.

use super::*;

/// A provider whose models cost 1 USD per token of input and 10 USD per token of output, but for
/// one that nobody knows the price of.
fn llm_priced(upstream: &Upstream, limits: &str) -> String {
    let price = "price: {input: \"1000000\", output: \"10000000\"}";
    let models = format!("models: [{{name: m, {price}}}, {{name: unknown}}]");
    [
        provider("openai", "OpenAI", upstream, &models),
        route(
            "llm",
            "- backendRefs: [{name: openai}]\n  retry: {attempts: 0}",
        ),
        limits.into(),
    ]
    .concat()
}

#[tokio::test]
async fn money_runs_out() {
    // 11 of input and 7 of output: 81 USD.
    let upstream = Upstream::always(chat_answer()).await;
    let limit = usage_limit(
        "purse",
        "cost: {limit: \"1000\", calendar: Month}\nexhaustedStatus: 402\nwarnAt: [50, 90]",
    );
    let waypoint = Setup::new(&llm_priced(&upstream, &limit)).start().await;
    let mut warned = Vec::new();
    for number in 0..12 {
        let answer = call(&waypoint, ANN, &chat_of(7)).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
        warned.push(answer.header("x-waypoint-limit-warning").map(str::to_owned));
    }
    // What a call holds counts: its output, and some bytes' worth of input.
    assert!(warned.first().unwrap().is_none(), "{warned:?}");
    assert_eq!(
        warned.last().unwrap().as_deref(),
        Some("agents/purse; at=90%"),
        "{warned:?}"
    );
    let half = Some("agents/purse; at=50%".to_owned());
    assert!(warned.contains(&half), "{warned:?}");
    // 972 are spent.
    let refused = call(&waypoint, ANN, &chat_of(7)).await;
    assert_eq!(refused.status, 402, "{}", refused.text());
    assert_eq!(refused.code(), "insufficient_quota");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert!(
        refused.text().contains("agents/purse"),
        "{}",
        refused.text()
    );
    assert!(!refused.text().contains("1000"), "{}", refused.text());
    let event = waypoint.event(&refused).await;
    assert_eq!(event["status"], 402, "{event}");
    assert_eq!(event["by"]["name"], "purse", "{event}");
    let never = call(&waypoint, ANN, &chat_of(2000)).await;
    assert_eq!(never.status, 413, "{}", never.text());
    assert_eq!(upstream.seen().len(), 12);
    let labels = [("limit", "purse"), ("at_percent", "90")];
    waypoint
        .metric_reaches("waypoint_limit_warnings_total", &labels, 1.0)
        .await;
}

#[tokio::test]
async fn operators_read_warnings_in_the_audit_log() {
    let upstream = Upstream::always(chat_answer()).await;
    let limits = [
        usage_limit(
            "real",
            "requests: {limit: 4, calendar: Month}\nwarnAt: [50]",
        ),
        usage_limit(
            "trial",
            "requests: {limit: 2, calendar: Month}\nwarnAt: [50]\nmode: DryRun",
        ),
    ];
    let waypoint = start(&upstream, &limits.concat()).await;
    let first = call(&waypoint, ANN, &chat("m")).await;
    // One on trial is told to operators alone.
    assert_eq!(first.header("x-waypoint-limit-warning"), None);
    let event = waypoint.event(&first).await;
    let trial = json!({"namespace": "agents", "name": "trial", "at_percent": 50});
    assert_eq!(event["limit_warnings"], json!([trial]), "{event}");
    let second = call(&waypoint, ANN, &chat("m")).await;
    let told = second.header("x-waypoint-limit-warning");
    assert_eq!(told, Some("agents/real; at=50%"));
    let event = waypoint.event(&second).await;
    let real = json!({"namespace": "agents", "name": "real", "at_percent": 50});
    assert_eq!(event["limit_warnings"], json!([real, trial]), "{event}");
}

#[tokio::test]
async fn tools_warn_too() {
    let upstream = Upstream::start(|seen| {
        let message = seen.json();
        Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}))
    })
    .await;
    let limit = usage_limit(
        "calls",
        "mcp: [{}]\nrequests: {limit: 3, calendar: Month}\nwarnAt: [60]",
    );
    let waypoint = Setup::new(&[mcp_proxy("tools", &upstream, ""), limit].concat())
        .start()
        .await;
    let params = json!({"name": "search", "arguments": {}});
    let request = Request::post("/mcp/tools/", legacy(7, "tools/call", &params));
    let mut told = Vec::new();
    for _ in 0..3 {
        let answer = call(&waypoint, ANN, &request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        told.push(answer.header("x-waypoint-limit-warning").map(str::to_owned));
    }
    let warning = Some("agents/calls; at=60%".to_owned());
    assert_eq!(told, [None, warning.clone(), warning]);
}

#[tokio::test]
async fn an_unknown_price_is_refused_or_told() {
    let upstream = Upstream::always(chat_answer()).await;
    let cost = |mode: &str| format!("cost: {{limit: \"100000\", calendar: Month{mode}}}");
    let objects = |mode: &str| llm_priced(&upstream, &usage_limit("purse", &cost(mode)));
    let waypoint = Setup::new(&objects("")).start().await;
    let refused = call(&waypoint, ANN, &chat("unknown")).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(refused.code(), "price_unknown");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let event = waypoint.event(&refused).await;
    assert_eq!(event["by"]["name"], "purse", "{event}");
    assert_eq!(call(&waypoint, ANN, &chat("m")).await.status, 200);
    assert_eq!(upstream.seen().len(), 1);
    // Lists of models cost nothing.
    let models = Request::new("GET", "/ai/v1/models");
    let listed = call(&waypoint, ANN, &models).await;
    assert_ne!(listed.status, 403, "{}", listed.text());
    waypoint.reload(&objects(", unknownModel: Alert")).await;
    let answer = call(&waypoint, ANN, &chat("unknown")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let event = waypoint.event(&answer).await;
    assert_eq!(event["flags"], json!(["PRICE_UNKNOWN"]), "{event}");
    let unpriced = [("provider", "openai")];
    waypoint
        .metric_reaches("waypoint_unpriced_calls_total", &unpriced, 1.0)
        .await;
}

/// A stream is cut by what it costs, and ends as if it were complete.
#[tokio::test]
async fn a_stream_that_costs_too_much_ends_softly() {
    let upstream = Upstream::start(|_| {
        let piece = delta(&"word ".repeat(100));
        let stream = (0..40).fold(Reply::stream(), |stream, _| stream.chunk(&piece));
        stream.then(Step::Stall)
    })
    .await;
    let limit = usage_limit(
        "purse",
        "cost: {limit: \"20000\", calendar: Month}\nonExceeded: Cut\ncutWith: Finish",
    );
    let waypoint = Setup::new(&llm_priced(&upstream, &limit)).start().await;
    let answer = call(&waypoint, ANN, &chat_stream("m")).await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.ends_with(DONE), "{text}");
    assert!(text.contains("\"finish_reason\":\"length\""), "{text}");
    assert!(!text.contains("error"), "{text}");
    let pieces = text.matches("\"content\"").count();
    assert!((1..40).contains(&pieces), "{text}");
    // The operator knows better.
    let event = waypoint.event(&answer).await;
    assert_eq!(event["code"], "insufficient_quota", "{event}");
    assert_eq!(event["flags"], json!(["RL", "STREAMED"]), "{event}");
}

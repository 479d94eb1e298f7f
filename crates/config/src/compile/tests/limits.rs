//! What a `UsageLimit` becomes, and which calls it is about.

use std::num::NonZeroU64;
use std::time::Duration;

use serde_json::json;
use waypoint_policy::limit::{
    Calendar, Cost, Count, Cut, Dimension, ExhaustedStatus, OnExceeded, Period, Requests, Tokens,
    UnknownModel,
};
use waypoint_policy::{
    Action, Arguments, Facts, LlmBlock, McpBlock, Mode, ObjectName, Operation, Principal, Query,
    TargetId,
};

use super::{find, snapshot_of};
use crate::{Route, Snapshot};

fn limit(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: UsageLimit\n\
         metadata: {{name: {name}, namespace: apps}}\nspec: {{{spec}}}\n---\n"
    )
}

const GATEWAY: &str = "targetRefs: [{kind: Gateway, name: wp}]";

#[test]
fn says_what_was_written() {
    let spec = format!(
        "{GATEWAY}, from: [{{namespace: agents}}],
         per: [Principal, Namespace, Route, Provider, Model, Server, Tool, \"Claim:team\"],
         tokens: {{limit: 10000000000000, window: 744h, count: Output}},
         requests: {{limit: 60, window: 1m30s, burst: 10}},
         cost: {{limit: \"5.25\", calendar: Day, unknownModel: Alert}},
         concurrency: 8, onExceeded: Cut, cutWith: Finish, warnAt: [50, 80, 100],
         exhaustedStatus: 402, mode: DryRun, store: Local"
    );
    let snapshot = snapshot_of(&limit("all", &spec));
    let [all] = snapshot.policy.usage_limits() else {
        panic!("{:?}", snapshot.policy.usage_limits());
    };
    assert_eq!(all.name, ObjectName::new("apps", "all"));
    assert_eq!(&*all.rule.name, "all");
    let callers = all.rule.from.iter().flatten().map(ToString::to_string);
    assert_eq!(callers.collect::<Vec<_>>(), ["namespace agents"]);
    assert_eq!(all.rule.llm, [LlmBlock::default()]);
    assert_eq!(all.rule.mcp, [McpBlock::default()]);
    assert!(all.rule.http.is_empty());
    let claim = Dimension::Claim("team".into());
    let per = [
        Dimension::Principal,
        Dimension::Namespace,
        Dimension::Route,
        Dimension::Provider,
        Dimension::Model,
        Dimension::Server,
        Dimension::Tool,
        claim,
    ];
    assert_eq!(all.per, per);
    let tokens = Tokens {
        limit: 10_000_000_000_000,
        period: Period::Window(Duration::from_secs(31 * 86_400)),
        count: Count::Output,
    };
    assert_eq!(all.tokens, Some(tokens));
    let requests = Requests {
        limit: 60,
        period: Period::Window(Duration::from_secs(90)),
        burst: NonZeroU64::new(10),
    };
    assert_eq!(all.requests, Some(requests));
    let cost = Cost {
        limit: 5_250_000,
        period: Period::Calendar(Calendar::Day),
        unknown_model: UnknownModel::Alert,
    };
    assert_eq!(all.cost, Some(cost));
    assert_eq!(all.concurrency, Some(8));
    assert_eq!(all.on_exceeded, OnExceeded::Cut);
    assert_eq!(all.cut, Cut::Finish);
    assert_eq!(all.warn_at, [50, 80, 100]);
    assert_eq!(all.exhausted_status, ExhaustedStatus::PaymentRequired);
    assert_eq!(all.mode, Mode::DryRun);
}

#[test]
fn has_defaults() {
    let tokens = format!("{GATEWAY}, tokens: {{limit: 0, calendar: Week}}");
    let snapshot = snapshot_of(&limit("tokens", &tokens));
    let [tokens] = snapshot.policy.usage_limits() else {
        panic!("{:?}", snapshot.policy.usage_limits());
    };
    let expected = Tokens {
        limit: 0,
        period: Period::Calendar(Calendar::Week),
        count: Count::Total,
    };
    assert_eq!(tokens.tokens, Some(expected));
    assert_eq!((tokens.requests, tokens.concurrency), (None, None));
    assert_eq!((tokens.cost, tokens.cut), (None, Cut::Error));
    assert!(tokens.warn_at.is_empty());
    assert_eq!(tokens.exhausted_status, ExhaustedStatus::TooManyRequests);
    let money = format!("{GATEWAY}, cost: {{limit: \"0\", window: 1h}}");
    let snapshot = snapshot_of(&limit("money", &money));
    let cost = snapshot.policy.usage_limits()[0].cost.unwrap();
    assert_eq!((cost.limit, cost.unknown_model), (0, UnknownModel::Reject));
    assert_eq!(tokens.rule.from, None);
    assert!(tokens.per.is_empty());
    assert_eq!(tokens.on_exceeded, OnExceeded::Reject);
    assert_eq!(tokens.mode, Mode::Enforce);
}

#[test]
fn counts_the_stretches_of_the_calendar() {
    for (word, calendar) in [
        ("Hour", Calendar::Hour),
        ("Day", Calendar::Day),
        ("Week", Calendar::Week),
        ("Month", Calendar::Month),
    ] {
        let spec = format!("{GATEWAY}, requests: {{limit: 5, calendar: {word}}}");
        let snapshot = snapshot_of(&limit("a", &spec));
        let requests = snapshot.policy.usage_limits()[0].requests;
        let expected = Requests {
            limit: 5,
            period: Period::Calendar(calendar),
            burst: None,
        };
        assert_eq!(requests, Some(expected), "{word}");
    }
}

/// The names of the limits that a call falls under.
fn found(snapshot: &Snapshot, targets: &[TargetId], action: Action<'_>) -> Vec<String> {
    let principal = Principal::Workload("spiffe://cluster.local/ns/apps/sa/a".parse().unwrap());
    let query = Query {
        principal: &principal,
        targets,
        action,
        facts: Facts::default(),
    };
    let limits = snapshot.policy.limits(&query);
    limits.iter().map(|one| one.name.name.to_string()).collect()
}

#[test]
fn is_about_the_calls_it_names() {
    let number = "concurrency: 1";
    let text = [
        ("all", format!("{GATEWAY}, {number}")),
        ("llm", format!("{GATEWAY}, llm: [{{}}], {number}")),
        ("mcp", format!("{GATEWAY}, mcp: [{{}}], {number}")),
        (
            "both",
            format!("{GATEWAY}, llm: [{{}}], mcp: [{{}}], {number}"),
        ),
        (
            "alias",
            format!("{GATEWAY}, llm: [{{models: [smart]}}], {number}"),
        ),
        (
            "embeddings",
            format!("{GATEWAY}, llm: [{{operations: [embeddings]}}], {number}"),
        ),
        (
            "search",
            format!(
                "{GATEWAY}, mcp: [{{servers: [files], methods: [{{name: tools/call, params: \
                 [search_*]}}]}}], {number}"
            ),
        ),
        (
            "others",
            format!("{GATEWAY}, from: [{{namespace: elsewhere}}], {number}"),
        ),
        (
            "provider",
            format!("targetRefs: [{{kind: LLMProvider, name: openai}}], {number}"),
        ),
        (
            "section",
            format!("targetRefs: [{{kind: MCPProxy, name: base, sectionName: files}}], {number}"),
        ),
    ];
    let text: String = text.iter().map(|(name, spec)| limit(name, spec)).collect();
    let snapshot = snapshot_of(&text);

    let Some(Route::Llm(route)) = find(&snapshot, "POST", "x", "/ai-gateway/v1/chat/completions")
    else {
        panic!("no LLM route");
    };
    let provider = snapshot
        .provider_by_name(&ObjectName::new("apps", "openai"))
        .unwrap();
    let mut targets = route.targets.clone();
    targets.extend(provider.target);
    let model = |requested| Action::Llm {
        provider: provider.llm.id,
        requested,
        upstream: "gpt-4o",
        operation: Some(Operation::Chat),
        max_output_tokens: None,
    };
    assert_eq!(
        found(&snapshot, &targets, model("gpt-4o")),
        ["all", "both", "llm", "provider"]
    );
    assert_eq!(
        found(&snapshot, &targets, model("smart")),
        ["alias", "all", "both", "llm", "provider"]
    );

    let route = snapshot
        .mcp_route(&ObjectName::new("apps", "base"), "files")
        .unwrap();
    let tool = |name| Action::Mcp {
        server: route.server,
        method: "tools/call",
        name,
        arguments: Arguments::Best,
    };
    assert_eq!(
        found(&snapshot, &route.targets, tool("search_all")),
        ["all", "both", "mcp", "search", "section"]
    );
    assert_eq!(
        found(&snapshot, &route.targets, tool("delete")),
        ["all", "both", "mcp", "section"]
    );
}

#[test]
fn is_dumped() {
    let spec = format!("{GATEWAY}, per: [Tool], requests: {{limit: 60, window: 1m, burst: 10}}");
    let snapshot = snapshot_of(&limit("a", &spec));
    let json = snapshot.redacted_json();
    let [limit] = json["usage_limits"].as_array().unwrap().as_slice() else {
        panic!("{json:#}");
    };
    assert_eq!(limit["name"], json!({"namespace": "apps", "name": "a"}));
    assert_eq!(limit["mode"], "Enforce");
    assert_eq!(limit["per"], json!(["Tool"]));
    assert_eq!(limit["requests"]["limit"], 60);
    assert_eq!(limit["requests"]["burst"], 10);
    assert_eq!(limit["tokens"], json!(null));
}

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{
    Arguments, Caller, Explanation, Facts, Kind, MethodRule, Mode, ObjectName, ObjectRef, Pattern,
    PolicySet, Posture, Principal, Query, Settings,
};

mod arguments;
mod tokens;

struct Named;

impl Names for Named {
    fn provider(&self, id: ProviderId) -> Cow<'_, str> {
        ["openai", "azure"][id.0 as usize].into()
    }

    fn server(&self, id: ServerId) -> Cow<'_, str> {
        ["github", "files"][id.0 as usize].into()
    }
}

fn patterns(list: &[&str]) -> Option<Vec<Pattern>> {
    Some(list.iter().map(|text| text.parse().unwrap()).collect())
}

fn rule() -> Rule {
    Rule {
        name: "review".into(),
        from: None,
        llm: vec![
            LlmBlock {
                providers: Some(vec![ProviderId(1)]),
                ..LlmBlock::default()
            },
            LlmBlock {
                providers: Some(vec![ProviderId(0)]),
                models: patterns(&["gpt-4o*"]),
                operations: Some(vec![Operation::Chat, Operation::Responses]),
                max_output_tokens: Some(4096),
            },
        ],
        mcp: vec![McpBlock {
            servers: Some(vec![ServerId(0)]),
            methods: Some(vec![
                MethodRule {
                    method: "tools/call".parse().unwrap(),
                    params: patterns(&["search_*", "get_issue"]),
                },
                MethodRule {
                    method: "resources/read".parse().unwrap(),
                    params: patterns(&["repo://*"]),
                },
            ]),
            arguments: vec![],
        }],
        http: vec![HttpBlock {
            methods: Some(vec!["GET".into()]),
            hosts: patterns(&["semgrep.dev"]),
            paths: patterns(&["/api/*"]),
            ports: Some(vec![443]),
        }],
    }
}

fn explain(effect: Effect, rules: Vec<Rule>, who: &str, action: Action<'_>) -> Explanation {
    explain_by(effect, rules, who, action, Facts::default())
}

fn explain_by(
    effect: Effect,
    rules: Vec<Rule>,
    who: &str,
    action: Action<'_>,
    facts: Facts<'_>,
) -> Explanation {
    let gateway = ObjectRef::whole(Kind::Gateway, ObjectName::new("infra", "wp"));
    let policy = AgentPolicy {
        name: ObjectName::new("infra", "agents"),
        targets: vec![gateway.clone()],
        effect,
        mode: Mode::Enforce,
        rules,
    };
    let settings = Settings {
        posture: Posture::Strict,
        namespace: "infra".into(),
        trust_domains: vec!["d".into()],
    };
    let set = PolicySet::compile(vec![policy], settings);
    let principal = match who {
        "" => Principal::Anonymous,
        who => Principal::Workload(who.parse().unwrap()),
    };
    let query = Query {
        principal: &principal,
        targets: &[set.target(&gateway).unwrap()],
        action,
        facts,
    };
    set.explain_with(&query, &Named)
}

const ME: &str = "spiffe://d/ns/a/sa/me";

fn llm<'a>(model: &'a str, operation: Option<Operation>, bound: Option<u64>) -> Action<'a> {
    Action::Llm {
        provider: ProviderId(0),
        requested: "smart",
        upstream: model,
        operation,
        max_output_tokens: bound,
    }
}

fn mcp<'a>(server: u32, method: &'a str, name: &'a str) -> Action<'a> {
    Action::Mcp {
        server: ServerId(server),
        method,
        name,
        arguments: Arguments::Absent,
    }
}

fn http<'a>(method: &'a str, host: &'a str, path: &'a str, port: u16) -> Action<'a> {
    Action::Http {
        method,
        host,
        path,
        port,
        external: true,
    }
}

#[test]
fn names_the_first_field_that_failed() {
    let chat = Some(Operation::Chat);
    for (action, expected) in [
        (llm("gpt-4o", chat, Some(1)), "matched"),
        (
            llm("o3", chat, Some(1)),
            r#"llm[1].models: expected gpt-4o*, got "o3""#,
        ),
        (
            llm("gpt-4o", Some(Operation::Embeddings), None),
            "llm[1].operations: expected chat or responses, got embeddings",
        ),
        (
            llm("gpt-4o", chat, None),
            "llm[1].maxOutputTokens: expected a bound of at most 4096, got no bound",
        ),
        (
            llm("gpt-4o", chat, Some(5000)),
            "llm[1].maxOutputTokens: expected a bound of at most 4096, got at most 5000",
        ),
        (
            mcp(1, "tools/call", "x"),
            "mcp[0].servers: expected github, got files",
        ),
        (
            mcp(0, "prompts/get", "x"),
            r#"mcp[0].methods: expected tools/call or resources/read, got "prompts/get""#,
        ),
        (
            mcp(0, "tools/call", "x\n"),
            r#"mcp[0].methods[0].params: expected search_* or get_issue, got "x\n""#,
        ),
        (
            mcp(0, "resources/read", "repo://.."),
            r#"mcp[0].methods[1].params: expected repo://*, where * does not stand for '..', '\', escapes of '.', '/' or '\', or control characters, got "repo://..""#,
        ),
        (
            http("GET", "x", "/api/", 443),
            r#"http[0].hosts: expected semgrep.dev, got "x""#,
        ),
        (
            http("GET", "semgrep.dev", "/", 443),
            r#"http[0].paths: expected /api/*, got "/""#,
        ),
        (
            http("GET", "semgrep.dev", "/api/", 80),
            "http[0].ports: expected 443, got 80",
        ),
        (
            http("PUT", "semgrep.dev", "/api/", 443),
            r#"http[0].methods: expected GET, got "PUT""#,
        ),
    ] {
        let explanation = explain(Effect::Allow, vec![rule()], ME, action);
        assert_eq!(explanation.trace[0].outcome.to_string(), expected);
    }
}

#[test]
fn names_callers_families_and_empty_policies() {
    let from = |from| vec![Rule { from, ..rule() }];
    let callers = vec![
        Caller {
            spiffe: Some("spiffe://d/x/*".parse().unwrap()),
            namespace: Some("b".into()),
            ..Caller::default()
        },
        Caller {
            service_account: Some(("b".into(), "me".into())),
            ..Caller::default()
        },
    ];
    let only_http = vec![Rule {
        llm: vec![],
        mcp: vec![],
        ..rule()
    }];
    let nothing = vec![Rule {
        http: vec![],
        ..only_http[0].clone()
    }];
    let asked = llm("m", None, None);
    for (effect, rules, who, expected) in [
        (
            Effect::Allow,
            from(Some(callers)),
            ME,
            "from: expected spiffe://d/x/* and namespace b or service account b/me, got spiffe://d/ns/a/sa/me",
        ),
        (
            Effect::Allow,
            from(None),
            "",
            "from: expected anyone with an identity, got anonymous",
        ),
        (
            Effect::Allow,
            from(Some(vec![])),
            ME,
            "from: expected nothing (the list is empty), got spiffe://d/ns/a/sa/me",
        ),
        (
            Effect::Allow,
            only_http,
            ME,
            "action: expected http, got llm",
        ),
        (
            Effect::Deny,
            nothing,
            ME,
            "action: expected nothing (the rule has no blocks), got llm",
        ),
        (
            Effect::Allow,
            vec![],
            ME,
            "rules: expected a rule, got none: the policy covers everything and grants nothing",
        ),
        (
            Effect::Deny,
            vec![],
            ME,
            "rules: expected a rule, got none: the policy denies nothing",
        ),
        (
            Effect::Deny,
            vec![rule()],
            ME,
            r#"llm[1].models: expected gpt-4o*, got "m" for "smart""#,
        ),
    ] {
        let explanation = explain(effect, rules, who, asked);
        assert_eq!(explanation.trace[0].outcome.to_string(), expected);
    }
    let session = Action::McpSession {
        server: ServerId(0),
        method: None,
    };
    let explanation = explain(Effect::Deny, vec![rule()], ME, session);
    assert_eq!(
        explanation.trace[0].to_string(),
        "AgentPolicy infra/agents rule review (Deny, Enforce): mcp[0].methods: \
         expected only tools/call or resources/read, got the session as a whole"
    );
}

#[test]
fn names_the_first_of_blocks_that_get_equally_far() {
    let one = |provider| LlmBlock {
        providers: Some(vec![ProviderId(provider)]),
        ..LlmBlock::default()
    };
    let two = Rule {
        llm: vec![one(1), one(1)],
        ..rule()
    };
    let explanation = explain(Effect::Allow, vec![two], ME, llm("m", None, None));
    assert_eq!(
        explanation.trace[0].outcome.to_string(),
        "llm[0].providers: expected azure, got openai"
    );
}

#[test]
fn names_what_keeps_a_rule_from_a_whole_provider() {
    let any = LlmBlock::default;
    for (effect, block, expected) in [
        (
            Effect::Allow,
            LlmBlock {
                providers: Some(vec![ProviderId(1)]),
                ..any()
            },
            "llm[0].providers: expected azure, got openai",
        ),
        (
            Effect::Deny,
            LlmBlock {
                models: patterns(&["o3"]),
                ..any()
            },
            "llm[0].models: expected o3, got any model",
        ),
        (
            Effect::Deny,
            LlmBlock {
                operations: Some(vec![Operation::Chat]),
                ..any()
            },
            "llm[0].operations: expected chat, got any operation",
        ),
        (
            Effect::Deny,
            LlmBlock {
                max_output_tokens: Some(9),
                ..any()
            },
            "llm[0].maxOutputTokens: expected more than 9, got any bound",
        ),
    ] {
        let rules = vec![Rule {
            llm: vec![block],
            ..rule()
        }];
        let action = Action::LlmAny {
            provider: ProviderId(0),
        };
        let explanation = explain(effect, rules, ME, action);
        assert_eq!(explanation.trace[0].outcome.to_string(), expected);
    }
}

#[test]
fn serializes() {
    let explanation = explain(Effect::Allow, vec![rule()], ME, llm("o3", None, None));
    assert_eq!(
        serde_json::to_value(&explanation).unwrap(),
        serde_json::json!({
            "decision": "deny",
            "by": {"kind": "Default", "name": "no rule allows this"},
            "code": "model_not_allowed",
            "would_deny": [],
            "trace": [{
                "policy": {"namespace": "infra", "name": "agents"},
                "kind": "AgentPolicy",
                "rule": "review",
                "effect": "Allow",
                "mode": "Enforce",
                "outcome": {"field": "llm[1].models", "expected": "gpt-4o*", "actual": "\"o3\""},
            }],
        })
    );
    let matched = serde_json::to_value(&Outcome::Matched).unwrap();
    assert_eq!(matched, "matched");
}

#[test]
fn lists_and_names_are_cut() {
    assert_eq!(list(["a"]), "a");
    assert_eq!(list(["a", "b", "c"]), "a, b or c");
    assert_eq!(list(1..=10), "1, 2, 3, 4, 5, 6, 7, 8 or one of 2 more");
    let long = quoted(&"é".repeat(300));
    assert_eq!(long.chars().count(), NAME_MAX_CHARS + 3);
}

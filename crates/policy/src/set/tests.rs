#![allow(clippy::unwrap_used, reason = "tests")]
//! Decisions by table; the laws stand in `laws`, the candidates a decision looks at in `cost`.

use std::sync::Arc;

use super::*;
use crate::{
    Arguments, Caller, HttpBlock, Kind, LlmBlock, McpBlock, MethodRule, Operation, Outcome,
    Pattern, ProviderId, Rule, ServerId,
};

mod contents;
mod cost;
mod families;
mod laws;
mod order;

pub(super) fn patterns(list: &[&str]) -> Option<Vec<Pattern>> {
    Some(list.iter().map(|text| text.parse().unwrap()).collect())
}

pub(super) fn gateway() -> ObjectRef {
    ObjectRef::whole(Kind::Gateway, ObjectName::new("infra", "wp"))
}

pub(super) fn proxy() -> ObjectRef {
    ObjectRef::whole(Kind::McpProxy, ObjectName::new("infra", "tools"))
}

pub(super) fn settings(posture: Posture) -> Settings {
    Settings {
        posture,
        namespace: "agents".into(),
        trust_domains: vec!["cluster.local".into(), "old.local".into()],
    }
}

pub(super) fn policy(name: &str, effect: Effect, rules: Vec<Rule>) -> AgentPolicy {
    AgentPolicy {
        name: ObjectName::new("infra", name),
        targets: vec![gateway()],
        effect,
        mode: Mode::Enforce,
        rules,
    }
}

pub(super) fn rule(name: &str) -> Rule {
    Rule {
        name: name.into(),
        from: None,
        llm: vec![],
        mcp: vec![],
        http: vec![],
    }
}

/// `from`: SPIFFE patterns, `ns/name` service accounts or `name` namespaces.
fn from(mut rule: Rule, callers: &[&str]) -> Rule {
    let caller = |text: &&str| match (text.starts_with("spiffe://"), text.split_once('/')) {
        (true, _) => Caller {
            spiffe: Some(text.parse().unwrap()),
            ..Caller::default()
        },
        (false, Some((namespace, name))) => Caller {
            service_account: Some((namespace.into(), name.into())),
            ..Caller::default()
        },
        (false, None) => Caller {
            namespace: Some((*text).into()),
            ..Caller::default()
        },
    };
    rule.from = Some(callers.iter().map(caller).collect());
    rule
}

fn models(models: &[&str]) -> Rule {
    llm(LlmBlock {
        models: patterns(models),
        ..LlmBlock::default()
    })
}

fn llm(block: LlmBlock) -> Rule {
    Rule {
        llm: vec![block],
        ..rule("r")
    }
}

fn tools(method: &str, params: &[&str]) -> Rule {
    Rule {
        mcp: vec![McpBlock {
            servers: None,
            methods: Some(vec![MethodRule {
                method: method.parse().unwrap(),
                params: patterns(params),
            }]),
            ..McpBlock::default()
        }],
        ..rule("r")
    }
}

fn all_mcp() -> Rule {
    Rule {
        mcp: vec![McpBlock::default()],
        ..rule("r")
    }
}

fn http(block: HttpBlock) -> Rule {
    Rule {
        http: vec![block],
        ..rule("r")
    }
}

fn hosts(hosts: &[&str]) -> HttpBlock {
    HttpBlock {
        hosts: patterns(hosts),
        ..HttpBlock::default()
    }
}

use Effect::{Allow, Deny};
use Posture::{Graduated, Observe, Strict};

const ME: &str = "spiffe://cluster.local/ns/agents/sa/me";
const ALIAS: &str = "spiffe://old.local/ns/agents/sa/me";
const OTHER: &str = "spiffe://cluster.local/ns/other/sa/me";
const FOREIGN: &str = "spiffe://evil.example/ns/agents/sa/me";

fn chat(requested: &'static str, upstream: &'static str) -> Action<'static> {
    Action::Llm {
        provider: ProviderId(0),
        requested,
        upstream,
        operation: Some(Operation::Chat),
        max_output_tokens: Some(100),
    }
}

fn call(method: &'static str, name: &'static str) -> Action<'static> {
    Action::Mcp {
        server: ServerId(0),
        method,
        name,
        arguments: Arguments::Absent,
    }
}

const SESSION: Action<'static> = Action::McpSession {
    server: ServerId(0),
    method: None,
};

fn get(host: &'static str, path: &'static str) -> Action<'static> {
    Action::Http {
        method: "GET",
        host,
        path,
        port: 443,
        external: true,
    }
}

/// `allow by …` or `deny <code> by …`, then what would deny.
fn check(posture: Posture, policies: &[AgentPolicy], who: &str, action: Action<'_>) -> String {
    let set = PolicySet::compile(policies.to_vec(), settings(posture));
    let principal = match who {
        "" => Principal::Anonymous,
        id => Principal::Workload(id.parse().unwrap()),
    };
    let targets: Vec<TargetId> = set.target(&gateway()).into_iter().collect();
    let query = Query {
        principal: &principal,
        targets: &targets,
        action,
        facts: Facts::default(),
    };
    let decision = set.decide(&query);
    let explained = set.explain(&query);
    assert_eq!(explained.decision, decision);
    let trials = explained
        .trace
        .iter()
        .filter(|entry| entry.mode == Mode::DryRun && entry.outcome == crate::Outcome::Matched);
    let trials: Vec<_> = trials.map(|entry| (&entry.policy, &entry.rule)).collect();
    let tried = decision.tried().iter();
    let tried: Vec<_> = tried.map(|rule| (&rule.policy, &rule.rule)).collect();
    assert_eq!(tried, trials);
    let mut text = match decision.code() {
        None => format!("allow by {}", decision.by()),
        Some(code) => format!("deny {code} by {}", decision.by()),
    };
    for name in decision.would_deny() {
        text += &format!("; would deny: {name}");
    }
    text
}

/// Case, posture, policies, caller, action, answer.
type Row<'a> = (
    &'a str,
    Posture,
    Vec<AgentPolicy>,
    &'a str,
    Action<'a>,
    &'a str,
);

fn check_all(rows: Vec<Row<'_>>) {
    for (case, posture, policies, who, action, expected) in rows {
        assert_eq!(check(posture, &policies, who, action), expected, "{case}");
    }
}

const BY_R: &str = "allow by AgentPolicy infra/a rule r";
const NO_MODEL: &str = "deny model_not_allowed by Default no rule allows this";
const NO_TOOL: &str = "deny tool_denied by Default no rule allows this";
const DENY_MODEL: &str = "deny model_not_allowed by AgentPolicy infra/d rule r";
const DENY_TOOL: &str = "deny tool_denied by AgentPolicy infra/d rule r";
const GRADUATED: &str = "allow by Posture Graduated";

fn allow(rule: Rule) -> Vec<AgentPolicy> {
    vec![policy("a", Allow, vec![rule])]
}

fn deny(rule: Rule) -> Vec<AgentPolicy> {
    vec![policy("d", Deny, vec![rule])]
}

fn dry(mut policies: Vec<AgentPolicy>) -> Vec<AgentPolicy> {
    for policy in &mut policies {
        policy.mode = Mode::DryRun;
    }
    policies
}

#[test]
fn policies_apply_where_they_are_attached() {
    let mut attached = policy("a", Allow, vec![models(&["m"]), all_mcp()]);
    attached.targets = vec![proxy()];
    let set = PolicySet::compile(vec![attached], settings(Strict));
    let section = ObjectRef {
        section: Some("route".into()),
        ..proxy()
    };
    assert_eq!(set.target(&gateway()), None);
    assert_eq!(set.target(&section), None);
    let target = set.target(&proxy()).unwrap();
    let principal = Principal::Workload(ME.parse().unwrap());
    for (targets, expected) in [(&[target][..], true), (&[], false), (&[TargetId(7)], false)] {
        let query = Query {
            principal: &principal,
            targets,
            action: SESSION,
            facts: Facts::default(),
        };
        assert_eq!(set.decide(&query).is_allowed(), expected, "{targets:?}");
        assert_eq!(
            set.explain(&query).trace.is_empty(),
            !expected,
            "{targets:?}"
        );
    }
}

#[test]
fn only_an_allow_makes_a_permit() {
    let set = PolicySet::compile(deny(all_mcp()), settings(Graduated));
    let principal = Principal::Workload(ME.parse().unwrap());
    let targets = [set.target(&gateway()).unwrap()];
    let query = |action| Query {
        principal: &principal,
        targets: &targets,
        action,
        facts: Facts::default(),
    };
    let permit = set.decide(&query(chat("m", "m"))).permit().unwrap();
    assert!(permit.decision().is_allowed());
    let refusal = set.decide(&query(SESSION)).permit().unwrap_err();
    assert_eq!(refusal.code, Code::Forbidden);
    assert!(!refusal.to_string().contains("infra"), "{refusal}");
    let by = refusal.by.unwrap();
    assert_eq!(by.to_string(), "AgentPolicy infra/d rule r");
    let Outcome::Matched = set.explain(&query(SESSION)).trace[0].outcome else {
        panic!("the rule matched");
    };
    assert!(Arc::ptr_eq(
        &match by {
            By::Rule(rule) => rule,
            other => panic!("{other}"),
        },
        &set.rules[0].name
    ));
}

#[test]
fn would_deny_is_bounded() {
    let many = |effect, model: &str| -> Vec<AgentPolicy> {
        let one = |i| policy(&format!("p{i:03}"), effect, vec![models(&[model])]);
        dry((0..100).map(one).collect())
    };
    for policies in [many(Deny, "m"), many(Allow, "x")] {
        let set = PolicySet::compile(policies, settings(Graduated));
        let targets = [set.target(&gateway()).unwrap()];
        let decision = set.decide(&Query {
            principal: &Principal::Workload(ME.parse().unwrap()),
            targets: &targets,
            action: chat("m", "m"),
            facts: Facts::default(),
        });
        let names = decision.would_deny();
        assert_eq!(names.len(), WOULD_DENY_MAX);
        assert_eq!(&*names[7].policy.name, "p007");
    }
}

//! Tables of what rules match, with what the other kind says, and in words; laws in a file of their
//! own.

use super::*;
use crate::{
    Action, AgentPolicy, Arguments, By, Caller, Effect, Facts, HttpBlock, Kind, LlmBlock, McpBlock,
    Mode, PolicySet, Posture, Principal, ProviderId, Query, Rule, ServerId, Settings, TargetId,
};

mod both;
mod explained;
mod laws;
mod requests;

const ME: &str = "spiffe://cluster.local/ns/agents/sa/me";

fn gateway() -> ObjectRef {
    ObjectRef::whole(Kind::Gateway, ObjectName::new("agents", "wp"))
}

fn proxy() -> ObjectRef {
    ObjectRef::whole(Kind::McpProxy, ObjectName::new("agents", "tools"))
}

fn settings(posture: Posture) -> Settings {
    Settings {
        posture,
        namespace: "agents".into(),
        trust_domains: vec!["cluster.local".into(), "old.local".into()],
    }
}

fn policy(name: &str, rules: Option<Vec<AccessRule>>) -> AccessPolicy {
    AccessPolicy {
        name: ObjectName::new("agents", name),
        targets: vec![gateway()],
        rules,
    }
}

fn rule(source: Option<Source>, http: HttpAccess, mcp: Option<McpAccess>) -> AccessRule {
    AccessRule {
        name: "r".into(),
        source,
        http,
        mcp,
    }
}

/// `tools/call=a,b`, or `base`.
fn mcp(methods: &[&str]) -> Option<McpAccess> {
    let mut access = McpAccess::default();
    for text in methods {
        if *text == "base" {
            access.base_protocol = true;
            continue;
        }
        let (name, params) = text.split_once('=').unwrap_or((text, ""));
        let params = params.split(',').filter(|param| !param.is_empty());
        access.methods.push(McpMethod {
            name: name.parse().unwrap(),
            params: params.map(Into::into).collect(),
        });
    }
    Some(access)
}

fn item<'a>(method: &'a str, name: &'a str) -> Action<'a> {
    Action::Mcp {
        server: ServerId(0),
        method,
        name,
        arguments: Arguments::Absent,
    }
}

fn message(method: Option<&str>) -> Action<'_> {
    Action::McpSession {
        server: ServerId(0),
        method,
    }
}

const LLM: Action<'static> = Action::LlmAny {
    provider: ProviderId(0),
};

fn plain() -> Action<'static> {
    Action::Http {
        method: "GET",
        host: "example.com",
        path: "/",
        port: 80,
        external: true,
    }
}

fn decide(set: &PolicySet, principal: &Principal, action: Action<'_>, facts: Facts<'_>) -> String {
    let targets: Vec<TargetId> = [gateway()].iter().filter_map(|o| set.target(o)).collect();
    let query = Query {
        principal,
        targets: &targets,
        action,
        facts,
    };
    let decision = set.decide(&query);
    let word = if decision.is_allowed() {
        "allow"
    } else {
        "deny"
    };
    format!("{word} by {}", decision.by())
}

fn set(policies: Vec<AccessPolicy>, posture: Posture) -> PolicySet {
    PolicySet::compile(Vec::new(), settings(posture)).with_access(policies)
}

#[test]
fn messages_match_the_methods_of_a_rule() {
    for (methods, action, expected) in [
        (&["tools/call=a,b"][..], item("tools/call", "a"), true),
        (&["tools/call=a,b"], item("tools/call", "b"), true),
        (&["tools/call=a,b"], item("tools/call", "A"), false),
        (&["tools/call=a,b"], item("tools/call", "ab"), false),
        (&["tools/call=a,b"], item("prompts/get", "a"), false),
        (&["tools/call=a*"], item("tools/call", "ab"), false),
        (&["tools/call"], item("tools/call", "anything"), true),
        (&["tools/call"], message(Some("tools/list")), false),
        (&["tools/call"], message(Some("initialize")), false),
        (&["tools/call"], message(Some("GET")), false),
        (&["tools/call"], message(None), true),
        (&["tools"], item("tools/call", "a"), true),
        (&["tools"], message(Some("tools/list")), true),
        (&["tools"], message(Some("tools")), false),
        (&["tools"], message(Some("toolsx/list")), false),
        (&["tools"], message(Some("ping")), false),
        (&["tools/list"], message(Some("tools/list")), true),
        (&["tools/list"], item("tools/call", "a"), false),
        (&["resources"], item("resources/read", "repo://a"), true),
        (
            &["resources"],
            message(Some("resources/templates/list")),
            true,
        ),
        (
            &["resources/read=repo://a"],
            item("resources/read", "repo://a"),
            true,
        ),
        (
            &["resources/read=repo://a"],
            item("resources/read", "repo://a/../b"),
            false,
        ),
        (
            &["resources/subscribe"],
            item("resources/subscribe", "x"),
            true,
        ),
        (
            &["resources/subscribe"],
            item("subscriptions/listen", "x"),
            true,
        ),
        (
            &["resources/subscribe"],
            item("resources/unsubscribe", "x"),
            false,
        ),
        (
            &["resources/subscribe"],
            message(Some("subscriptions/listen")),
            false,
        ),
        (&["base"], message(Some("initialize")), true),
        (&["base"], message(Some("server/discover")), true),
        (&["base"], message(Some("tools/list")), true),
        (&["base"], message(Some("prompts/list")), false),
        (&["base"], message(Some("resources/list")), false),
        (&["base"], message(Some("tasks/list")), false),
        (&["base"], message(Some("ping")), true),
        (&["base"], message(Some("logging/setLevel")), true),
        (&["base"], message(Some("notifications/initialized")), true),
        (&["base"], item("completion/complete", "a"), true),
        (&["base"], message(Some("subscriptions/listen")), true),
        (&["base"], item("subscriptions/listen", "x"), false),
        (&["base"], message(Some("GET")), true),
        (&["base"], message(Some("DELETE")), true),
        (&["base"], message(Some("")), true),
        (&["base"], message(Some("PUT")), false),
        (&["base"], item("tools/call", "a"), false),
        (&["base", "tools/call=a"], item("tools/call", "a"), true),
        (&["tools", "base"], LLM, false),
        (&["tools", "base"], plain(), false),
    ] {
        let rules = vec![rule(None, HttpAccess::default(), mcp(methods))];
        let set = set(vec![policy("p", Some(rules))], Posture::Graduated);
        let principal = Principal::Workload(ME.parse().unwrap());
        let expected = match expected {
            true => "allow by XAccessPolicy agents/p rule r",
            false => "deny by XAccessPolicy agents/p",
        };
        let decided = decide(&set, &principal, action, Facts::default());
        assert_eq!(decided, expected, "{methods:?} {action:?}");
    }
}

#[test]
fn tells_which_policies_and_header_fields_it_has() {
    let header = |name: &str| HeaderAccess {
        name: name.into(),
        value: HeaderValue::Exact("1".into()),
    };
    let with = |headers| {
        let http = HttpAccess {
            headers,
            ..HttpAccess::default()
        };
        Some(vec![rule(None, http, None)])
    };
    let set = set(
        vec![
            policy("q", with(vec![header("x-b"), header("x-a")])),
            policy("p", with(vec![header("x-b")])),
        ],
        Posture::Strict,
    );
    let names = set.access_policies().map(|policy| &*policy.name.name);
    assert_eq!(names.collect::<Vec<_>>(), ["p", "q"]);
    let headers = set.header_names().iter().map(|name| &**name);
    assert_eq!(headers.collect::<Vec<_>>(), ["x-a", "x-b"]);
}

/// A question passes by the policies of other targets.
#[test]
fn other_targets_cost_nothing() {
    let elsewhere = |i: usize| AccessPolicy {
        targets: vec![ObjectRef::whole(
            Kind::McpProxy,
            ObjectName::new("agents", &format!("t{i}")),
        )],
        ..policy(&format!("p{i}"), Some(vec![]))
    };
    let mut policies: Vec<AccessPolicy> = (0..3000).map(elsewhere).collect();
    policies.push(policy("mine", None));
    let set = set(policies, Posture::Strict);
    let target = set.target(&gateway()).unwrap();
    assert_eq!(set.access.places(&[target]).len(), 1);
}

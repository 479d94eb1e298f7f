//! Tables of what rules match, and laws over random policies.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    Action, AgentPolicy, Arguments, By, Caller, Effect, Facts, HttpBlock, Kind, LlmBlock, McpBlock,
    Mode, Outcome, PolicySet, Posture, Principal, ProviderId, Query, Rule, ServerId, Settings,
    TargetId,
};

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
fn requests_match_the_fields_of_a_rule() {
    let path = |path: PathAccess| HttpAccess {
        paths: vec![path],
        ..HttpAccess::default()
    };
    let prefix = |text: &str| path(PathAccess::Prefix(text.into()));
    let regex = |text: &str| path(PathAccess::Regex(text.parse().unwrap()));
    let host = |host: HostAccess| HttpAccess {
        hosts: vec![host],
        ..HttpAccess::default()
    };
    let header = |value: HeaderValue| HttpAccess {
        headers: vec![HeaderAccess {
            name: "x-env".into(),
            value,
        }],
        ..HttpAccess::default()
    };
    let exact = || header(HeaderValue::Exact("prod".into()));
    let fields = |values: &[&str]| -> Vec<(String, String)> {
        let field = |value: &&str| ("X-Env".to_owned(), (*value).to_owned());
        values.iter().map(field).collect()
    };
    let (none, one, two, twice) = (
        fields(&[]),
        fields(&["prod"]),
        fields(&["prod", "dev"]),
        fields(&["prod", "prod"]),
    );
    let base = Facts {
        method: "POST",
        host: "api.example.com",
        path: "/mcp/tools",
        port: 8443,
        headers: &none,
        claims: None,
    };
    let with = |headers| Facts { headers, ..base };
    let at = |path| Facts { path, ..base };
    let named = |host| Facts { host, ..base };
    for (case, http, facts, expected) in [
        ("anything", HttpAccess::default(), base, true),
        (
            "method",
            HttpAccess {
                methods: vec!["POST".into()],
                ..HttpAccess::default()
            },
            base,
            true,
        ),
        (
            "other method",
            HttpAccess {
                methods: vec!["post".into()],
                ..HttpAccess::default()
            },
            base,
            false,
        ),
        (
            "port",
            HttpAccess {
                ports: vec![80, 8443],
                ..HttpAccess::default()
            },
            base,
            true,
        ),
        (
            "other port",
            HttpAccess {
                ports: vec![80],
                ..HttpAccess::default()
            },
            base,
            false,
        ),
        (
            "exact path",
            path(PathAccess::Exact("/mcp/tools".into())),
            base,
            true,
        ),
        (
            "exact path, more",
            path(PathAccess::Exact("/mcp".into())),
            base,
            false,
        ),
        ("prefix", prefix("/mcp"), base, true),
        ("prefix, whole", prefix("/mcp/tools"), base, true),
        ("prefix, half a segment", prefix("/mcp/to"), base, false),
        ("prefix of all", prefix(""), base, true),
        ("prefix of all, root", prefix(""), at("/"), true),
        ("expression", regex("/mcp/[a-z]+"), base, true),
        ("expression, a part", regex("mcp"), base, false),
        (
            "expression, first of two",
            regex("/a|/mcp/tools"),
            base,
            true,
        ),
        ("expression, part of two", regex("/mcp|x"), base, false),
        (
            "expression, a line",
            regex("/mcp/.*"),
            at("/mcp/a\nb"),
            false,
        ),
        (
            "host",
            host(HostAccess::Exact("api.example.com".into())),
            base,
            true,
        ),
        (
            "host, as written",
            host(HostAccess::Exact("api.example.com".into())),
            named("API.example.com."),
            true,
        ),
        (
            "another host",
            host(HostAccess::Exact("example.com".into())),
            base,
            false,
        ),
        (
            "below",
            host(HostAccess::Below(".example.com".into())),
            base,
            true,
        ),
        (
            "far below",
            host(HostAccess::Below(".example.com".into())),
            named("a.b.Example.COM"),
            true,
        ),
        (
            "not below",
            host(HostAccess::Below(".example.com".into())),
            named("example.com"),
            false,
        ),
        (
            "nothing in front",
            host(HostAccess::Below(".example.com".into())),
            named(".example.com"),
            false,
        ),
        (
            "no host",
            host(HostAccess::Exact("example.com".into())),
            named(""),
            false,
        ),
        ("header", exact(), with(&one), true),
        ("header, twice", exact(), with(&twice), true),
        ("header, another beside it", exact(), with(&two), false),
        ("no header", exact(), with(&none), false),
        (
            "header by expression",
            header(HeaderValue::Regex("pr.d".parse().unwrap())),
            with(&one),
            true,
        ),
        (
            "header, a part",
            header(HeaderValue::Regex("pro".parse().unwrap())),
            with(&one),
            false,
        ),
    ] {
        let set = set(
            vec![policy("p", Some(vec![rule(None, http, None)]))],
            Posture::Graduated,
        );
        let decided = decide(&set, &Principal::Anonymous, plain(), facts);
        assert_eq!(
            decided.starts_with("allow by XAccessPolicy"),
            expected,
            "{case}: {decided}"
        );
    }
}

#[test]
fn an_expression_cannot_leave_its_group() {
    for text in ["a)|(b", "(?x)a #", "("] {
        assert!(text.parse::<WholePattern>().is_err(), "{text}");
    }
    let pattern: WholePattern = "a|b".parse().unwrap();
    assert_eq!(pattern.to_string(), "a|b");
}

/// Deny rules, then this kind, then Allow rules; each kind that is about an action must allow it.
#[test]
fn both_kinds_must_allow() {
    let agent = |name: &str, effect, from: &str| AgentPolicy {
        name: ObjectName::new("agents", name),
        targets: vec![gateway()],
        effect,
        mode: Mode::Enforce,
        rules: vec![Rule {
            name: "a".into(),
            from: Some(vec![Caller {
                spiffe: Some(from.parse().unwrap()),
                ..Caller::default()
            }]),
            llm: vec![LlmBlock::default()],
            mcp: vec![McpBlock::default()],
            http: vec![],
        }],
    };
    let you = "spiffe://cluster.local/ns/agents/sa/you";
    let far = "spiffe://cluster.local/ns/far/sa/me";
    let access = |name: &str, spiffe: &str| {
        let source = Source::Spiffe(spiffe.parse().unwrap());
        policy(
            name,
            Some(vec![rule(Some(source), HttpAccess::default(), None)]),
        )
    };
    let call = item("tools/call", "t");
    for (case, posture, agents, policies, who, action, expected) in [
        (
            "alone",
            Posture::Strict,
            vec![],
            vec![access("p", far)],
            far,
            call,
            "allow by XAccessPolicy agents/p rule r",
        ),
        (
            "another",
            Posture::Graduated,
            vec![],
            vec![access("p", far)],
            ME,
            call,
            "deny by XAccessPolicy agents/p",
        ),
        (
            "all must",
            Posture::Graduated,
            vec![],
            vec![access("p", ME), access("q", you)],
            ME,
            call,
            "deny by XAccessPolicy agents/q",
        ),
        (
            "all do",
            Posture::Strict,
            vec![],
            vec![access("q", ME), access("p", ME)],
            ME,
            call,
            "allow by XAccessPolicy agents/p rule r",
        ),
        (
            "both allow",
            Posture::Strict,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", ME)],
            ME,
            call,
            "allow by AgentPolicy agents/a rule a",
        ),
        (
            "the other does not",
            Posture::Strict,
            vec![agent("a", Effect::Allow, you)],
            vec![access("p", ME)],
            ME,
            call,
            "deny by Default no rule allows this",
        ),
        (
            "this does not",
            Posture::Strict,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", you)],
            ME,
            call,
            "deny by XAccessPolicy agents/p",
        ),
        (
            "a Deny",
            Posture::Strict,
            vec![agent("a", Effect::Deny, ME)],
            vec![access("p", you)],
            ME,
            call,
            "deny by AgentPolicy agents/a rule a",
        ),
        (
            "not about it",
            Posture::Graduated,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", ME)],
            ME,
            plain(),
            "allow by XAccessPolicy agents/p rule r",
        ),
        (
            "without rules",
            Posture::Strict,
            vec![],
            vec![policy("p", None)],
            far,
            LLM,
            "allow by XAccessPolicy agents/p",
        ),
        (
            "rules that were refused",
            Posture::Graduated,
            vec![],
            vec![policy("p", Some(vec![]))],
            ME,
            LLM,
            "deny by XAccessPolicy agents/p",
        ),
        (
            "observed",
            Posture::Observe,
            vec![],
            vec![access("p", you)],
            ME,
            call,
            "allow by Posture Observe",
        ),
        (
            "observed, granted",
            Posture::Observe,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", you)],
            ME,
            call,
            "allow by AgentPolicy agents/a rule a",
        ),
    ] {
        let set = PolicySet::compile(agents, settings(posture)).with_access(policies);
        let principal = Principal::Workload(who.parse().unwrap());
        assert_eq!(
            decide(&set, &principal, action, Facts::default()),
            expected,
            "{case}"
        );
    }
    // Nobody without an identity calls a model or a tool, whatever a rule without a source says.
    let set = set(vec![policy("p", None)], Posture::Graduated);
    let decided = decide(&set, &Principal::Anonymous, LLM, Facts::default());
    assert_eq!(decided, "deny by Identity no workload identity");
}

#[test]
fn explains_what_did_not_match() {
    let source = Source::ServiceAccount {
        namespace: "agents".into(),
        name: "you".into(),
    };
    let rules = vec![
        rule(Some(source), HttpAccess::default(), None),
        rule(
            None,
            HttpAccess {
                methods: vec!["GET".into()],
                ..HttpAccess::default()
            },
            None,
        ),
        rule(
            None,
            HttpAccess::default(),
            mcp(&["tools/call=a,b", "base"]),
        ),
    ];
    let set = set(
        vec![
            policy("p", Some(rules)),
            policy("q", Some(vec![])),
            policy("r", None),
        ],
        Posture::Strict,
    );
    let principal = Principal::Workload(ME.parse().unwrap());
    let targets = [set.target(&gateway()).unwrap()];
    let facts = Facts {
        method: "POST",
        ..Facts::default()
    };
    let query = Query {
        principal: &principal,
        targets: &targets,
        action: item("tools/call", "c"),
        facts,
    };
    let trace = set.explain(&query).trace;
    let said: Vec<String> = trace.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "XAccessPolicy agents/p rule r (Allow, Enforce): from: expected service account agents/you, got spiffe://cluster.local/ns/agents/sa/me",
            "XAccessPolicy agents/p rule r (Allow, Enforce): authorization.methods: expected GET, got \"POST\"",
            "XAccessPolicy agents/p rule r (Allow, Enforce): authorization.mcp: expected tools/call of a or b or the base protocol, got \"tools/call\" of \"c\"",
            "XAccessPolicy agents/q (Allow, Enforce): rules: expected nothing (no rule can be used), got a request",
            "XAccessPolicy agents/r (Allow, Enforce): matched",
        ]
    );
    assert_eq!(trace[4].outcome, Outcome::Matched);
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

fn source() -> impl Strategy<Value = Source> {
    let id = (
        select(vec!["cluster.local", "old.local", "evil.example"]),
        select(vec!["me", "you"]),
    );
    let spiffe = id.prop_map(|(domain, name)| {
        Source::Spiffe(
            format!("spiffe://{domain}/ns/agents/sa/{name}")
                .parse()
                .unwrap(),
        )
    });
    let account = (select(vec!["agents", "far"]), select(vec!["me", "you"]));
    let account = account.prop_map(|(namespace, name)| Source::ServiceAccount {
        namespace: namespace.into(),
        name: name.into(),
    });
    prop_oneof![spiffe, account]
}

fn http() -> impl Strategy<Value = HttpAccess> {
    let path = prop_oneof![
        "/[ab]{1,2}".prop_map(|path| PathAccess::Exact(path.into())),
        select(vec!["", "/a", "/a/b"]).prop_map(|path| PathAccess::Prefix(path.into())),
        select(vec!["/a+", "/[ab]/b"]).prop_map(|path| PathAccess::Regex(path.parse().unwrap())),
    ];
    let header = (select(vec!["x-a", "x-b"]), "[ab]").prop_map(|(name, value)| HeaderAccess {
        name: name.into(),
        value: HeaderValue::Exact(value.into()),
    });
    let host = prop_oneof![
        select(vec!["a.b", "b"]).prop_map(|host| HostAccess::Exact(host.into())),
        Just(HostAccess::Below(".b".into())),
    ];
    let method = select(vec!["GET", "POST"]).prop_map(Into::into);
    (
        vec(method, 0..2),
        vec(path, 0..2),
        vec(header, 0..2),
        vec(host, 0..2),
        vec(select(vec![80, 443]), 0..2),
    )
        .prop_map(|(methods, paths, headers, hosts, ports)| HttpAccess {
            methods,
            paths,
            headers,
            hosts,
            ports,
        })
}

fn some_mcp() -> impl Strategy<Value = McpAccess> {
    let all = FAMILIES_AND_METHODS.map(|name| name.parse::<MethodName>().unwrap());
    let method = (select(all.to_vec()), vec("[ab]", 0..2)).prop_map(|(name, params)| McpMethod {
        params: match name.names_items() {
            true => params.into_iter().map(Into::into).collect(),
            false => vec![],
        },
        name,
    });
    (vec(method, 0..3), any::<bool>()).prop_map(|(methods, base_protocol)| McpAccess {
        methods,
        base_protocol,
    })
}

const FAMILIES_AND_METHODS: [&str; 12] = [
    "tools",
    "prompts",
    "resources",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "tools/call",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
];

fn some_policies() -> impl Strategy<Value = Vec<AccessPolicy>> {
    let parts = (
        option::of(source()),
        prop_oneof![2 => Just(HttpAccess::default()), 1 => http()],
        option::of(some_mcp()),
    );
    let rule = parts.prop_map(|(source, http, mcp)| rule(source, http, mcp));
    let rules = option::weighted(0.9, vec(rule, 0..4));
    let targets = select(vec![
        vec![gateway()],
        vec![proxy()],
        vec![gateway(), proxy()],
    ]);
    vec((rules, targets), 0..4).prop_map(|all| {
        let numbered = all.into_iter().zip(1..);
        numbered
            .map(|((rules, targets), i)| AccessPolicy {
                name: ObjectName::new("agents", &format!("p{}", i * 7 % 5)),
                targets,
                rules,
            })
            .collect()
    })
}

#[derive(Debug, Clone)]
struct Asks {
    who: Principal,
    kind: usize,
    method: &'static str,
    name: String,
    path: String,
    host: &'static str,
    headers: Vec<(String, String)>,
    port: u16,
}

impl Asks {
    fn action(&self) -> Action<'_> {
        match self.kind {
            0 => LLM,
            1 => plain(),
            2 => message(None),
            3 => message(Some(self.method)),
            _ => item(self.method, &self.name),
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            method: if self.port == 80 { "GET" } else { "POST" },
            host: self.host,
            path: &self.path,
            port: self.port,
            headers: &self.headers,
            claims: None,
        }
    }
}

fn asks() -> impl Strategy<Value = Asks> {
    let who = prop_oneof![
        6 => (select(vec!["cluster.local", "old.local", "evil.example"]), select(vec!["agents", "far"]), select(vec!["me", "you"]))
            .prop_map(|(domain, namespace, name)| {
                Principal::Workload(format!("spiffe://{domain}/ns/{namespace}/sa/{name}").parse().unwrap())
            }),
        1 => Just(Principal::Anonymous),
    ];
    let method = select(vec![
        "tools/call",
        "prompts/get",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "subscriptions/listen",
        "completion/complete",
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tasks/list",
        "notifications/initialized",
        "logging/setLevel",
        "GET",
        "DELETE",
        "",
    ]);
    let header =
        (select(vec!["x-a", "X-B"]), "[ab]").prop_map(|(name, value)| (name.to_owned(), value));
    (
        who,
        0..7usize,
        method,
        "[ab]",
        select(vec!["/", "/a", "/aa", "/a/b", "/b", "/ab"]),
        select(vec!["a.b", "B.", "c.a.b", ""]),
        vec(header, 0..3),
        select(vec![80, 443]),
    )
        .prop_map(
            |(who, kind, method, name, path, host, headers, port)| Asks {
                who,
                kind,
                method,
                name,
                path: path.to_owned(),
                host,
                headers,
                port,
            },
        )
}

fn some_agents() -> impl Strategy<Value = Vec<AgentPolicy>> {
    let parts = (
        any::<bool>(),
        any::<bool>(),
        option::of(select(vec!["me", "you"])),
        0..3usize,
    );
    let policy = parts.prop_map(|(deny, dry, name, family)| AgentPolicy {
        name: ObjectName::new("agents", "a"),
        targets: vec![gateway()],
        effect: if deny { Effect::Deny } else { Effect::Allow },
        mode: if dry { Mode::DryRun } else { Mode::Enforce },
        rules: vec![Rule {
            name: "a".into(),
            from: name.map(|name| {
                vec![Caller {
                    service_account: Some(("agents".into(), name.into())),
                    ..Caller::default()
                }]
            }),
            llm: if family == 0 {
                vec![LlmBlock::default()]
            } else {
                vec![]
            },
            mcp: if family == 1 {
                vec![McpBlock::default()]
            } else {
                vec![]
            },
            http: if family == 2 {
                vec![HttpBlock::default()]
            } else {
                vec![]
            },
        }],
    });
    vec(policy, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// With the other kind's own answer, which its laws hold to its own naive evaluator.
    #[test]
    fn agrees_with_the_naive_evaluator(
        policies in some_policies(),
        agents in some_agents(),
        posture in select(vec![Posture::Observe, Posture::Graduated, Posture::Strict]),
        objects in select(vec![vec![], vec![gateway()], vec![proxy()], vec![gateway(), proxy()]]),
        questions in vec(asks(), 1..10),
    ) {
        let alone = PolicySet::compile(agents.clone(), settings(posture));
        let set = PolicySet::compile(agents, settings(posture)).with_access(policies.clone());
        let ids = |set: &PolicySet| -> Vec<TargetId> {
            objects.iter().filter_map(|object| set.target(object)).collect()
        };
        for asks in questions {
            let (action, facts) = (asks.action(), asks.facts());
            let ask = |set: &PolicySet| {
                set.decide(&Query { principal: &asks.who, targets: &ids(set), action, facts })
            };
            let (other, decision) = (ask(&alone), ask(&set));
            let domains = ["cluster.local", "old.local"];
            let said = naive::judge(&policies, &domains, &asks.who, &objects, &action, &facts);
            let by = match (other.by(), &said) {
                (By::Identity, _) | (_, None) => other.by().to_string(),
                (By::Rule(rule), _) if rule.effect == Effect::Deny => other.by().to_string(),
                (_, Some(refused)) if !refused.is_empty() && posture != Posture::Observe => {
                    refused[0].clone()
                }
                (By::Rule(_) | By::NoMatch, _) => other.by().to_string(),
                // Covered, and let pass all the same.
                (_, Some(refused)) => match other.would_deny().first() {
                    Some(first) if first.kind == "Default" => other.by().to_string(),
                    _ if refused.is_empty() => "a rule".to_owned(),
                    _ => "Posture Observe".to_owned(),
                },
            };
            let actual = match decision.by() {
                By::Rule(rule) if rule.kind == "XAccessPolicy" && decision.is_allowed() => "a rule".to_owned(),
                by => by.to_string(),
            };
            prop_assert_eq!(&actual, &by, "{:?}", asks);
            let allowed = match &*by {
                "a rule" => true,
                by if by.starts_with("XAccessPolicy") => false,
                _ => other.is_allowed(),
            };
            prop_assert_eq!(decision.is_allowed(), allowed, "{:?}", asks);
            if let (Some(refused), Posture::Observe, true) = (&said, posture, allowed) {
                let would = decision.would_deny().iter().map(ToString::to_string);
                let would: Vec<String> = would.filter(|w| w.starts_with("XAccessPolicy")).collect();
                prop_assert_eq!(&would, refused);
            }
        }
    }

    #[test]
    fn what_is_callable_opens_its_session_and_more_policies_open_nothing(
        policies in some_policies(),
        more in some_policies(),
        questions in vec(asks(), 1..10),
    ) {
        let set = |policies: Vec<AccessPolicy>| set(policies, Posture::Strict);
        let (fewer, both) = (set(policies.clone()), set([policies.clone(), more].concat()));
        let objects = [gateway(), proxy()];
        let decide = |set: &PolicySet, asks: &Asks, action| {
            let targets: Vec<TargetId> = objects.iter().filter_map(|o| set.target(o)).collect();
            let query = Query { principal: &asks.who, targets: &targets, action, facts: asks.facts() };
            set.decide(&query).is_allowed()
        };
        for asks in &questions {
            let allowed = decide(&both, asks, asks.action());
            if allowed && asks.kind > 1 {
                prop_assert!(decide(&both, asks, message(None)), "{:?}", asks);
            }
            if allowed && !policies.is_empty() {
                prop_assert!(decide(&fewer, asks, asks.action()), "{:?}", asks);
            }
        }
    }
}

//! Laws over random policies and questions.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

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

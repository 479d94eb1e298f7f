//! Laws over random policies and questions.

use proptest::{collection::vec, option, prelude::*, sample::select};

use serde_json::json;

use super::{super::naive::Naive, *};
use crate::{Argument, ClaimRule, Constraint, JsonType, Scalar, Token, istio::Claims};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{0,3}",
        1 => select(vec!["a..b", "a/b", "a%2Fb", "é", "aé", "ab.", "AB"]).prop_map(str::to_owned),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        4 => "[ab*]{1,4}",
        2 => select(vec!["*", "**", "a*", "*b", "a/*", "é*", "*é", "A*", "ab", "a..b"])
            .prop_map(str::to_owned),
    ]
    .prop_map(|text| text.parse().unwrap())
}

fn some_patterns() -> impl Strategy<Value = Option<Vec<Pattern>>> {
    option::of(vec(pattern(), 0..4))
}

fn method() -> impl Strategy<Value = &'static str> {
    select(vec!["tools/call", "prompts/get", "resources/read"])
}

fn identity() -> impl Strategy<Value = String> {
    let domain = select(vec!["cluster.local", "old.local", "evil.example"]);
    let path = select(vec![
        "/ns/agents/sa/me",
        "/ns/agents/sa/you",
        "/ns/other/sa/me",
        "/ns/agents",
        "/ns/agents/sa/me/more",
        "",
    ]);
    (domain, path).prop_map(|(domain, path)| format!("spiffe://{domain}{path}"))
}

fn principal() -> impl Strategy<Value = Principal> {
    prop_oneof![
        9 => identity().prop_map(|id| Principal::Workload(id.parse().unwrap())),
        1 => Just(Principal::Anonymous),
    ]
}

fn caller() -> impl Strategy<Value = Caller> {
    let spiffe = (identity(), any::<bool>()).prop_map(|(id, prefix)| match prefix {
        true => format!("{id}/*").parse().unwrap(),
        false => id.parse().unwrap(),
    });
    let namespace = || select(vec!["agents", "other"]);
    let account = (namespace(), select(vec!["me", "you"]));
    let account = account.prop_map(|(namespace, name)| (namespace.into(), name.into()));
    let namespace = namespace().prop_map(Into::into);
    (
        option::weighted(0.4, spiffe),
        option::weighted(0.3, account),
        option::weighted(0.3, namespace),
        option::weighted(0.3, token()),
    )
        .prop_map(|(spiffe, service_account, namespace, jwt)| Caller {
            spiffe,
            service_account,
            namespace,
            jwt,
        })
}

fn token() -> impl Strategy<Value = Token> {
    let path = select(vec![
        &["role"][..],
        &["scope"],
        &["team"],
        &["team", "name"],
    ]);
    let path = path.prop_map(|path| path.iter().map(|name| (*name).into()).collect());
    let value = select(vec!["a", "b", "ab", "a*", "*"]);
    let values = vec(value.prop_map(|value| value.parse().unwrap()), 1..3);
    let rule = (path, values).prop_map(|(path, values)| ClaimRule { path, values });
    let issuer = select(vec!["https://one", "https://two"]);
    (issuer, vec(rule, 0..3)).prop_map(|(issuer, claims)| Token {
        issuer: issuer.into(),
        claims,
    })
}

fn claims() -> impl Strategy<Value = Claims> {
    let value = || {
        select(vec![
            json!("a"),
            json!("b"),
            json!("ab"),
            json!(""),
            json!("b a"),
            json!(["b", "ab"]),
            json!(["b", 1]),
            json!([]),
            json!(1),
            json!(null),
            json!({"name": "a"}),
            json!({"name": ["ab", {}]}),
            json!({"other": "a"}),
        ])
    };
    let names = vec((select(vec!["role", "scope", "team"]), value()), 0..4);
    let issuer = select(vec![json!("https://one"), json!("https://two"), json!(1)]);
    (issuer, names).prop_map(|(issuer, names)| {
        let named = names
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Claims(named.chain([("iss".to_owned(), issuer)]).collect())
    })
}

fn llm_block() -> impl Strategy<Value = LlmBlock> {
    (
        option::weighted(0.4, vec((0..3u32).prop_map(ProviderId), 0..3)),
        some_patterns(),
        option::weighted(
            0.3,
            prop_oneof![vec(operation(), 0..3), Just(Operation::ALL.to_vec())],
        ),
        option::weighted(0.2, 1..4u64),
    )
        .prop_map(
            |(providers, models, operations, max_output_tokens)| LlmBlock {
                providers,
                models,
                operations,
                max_output_tokens,
            },
        )
}

fn operation() -> impl Strategy<Value = Operation> {
    select(Operation::ALL)
}

fn mcp_block() -> impl Strategy<Value = McpBlock> {
    let method = prop_oneof![
        method().prop_map(|m| m.parse().unwrap()),
        select(vec!["*", "tools/*", "resources/*", "*/call", "**"])
            .prop_map(|m| m.parse().unwrap()),
    ];
    let rule = (method, some_patterns()).prop_map(|(method, params)| MethodRule { method, params });
    (
        option::weighted(0.4, vec((0..3u32).prop_map(ServerId), 0..3)),
        option::weighted(0.8, vec(rule, 0..4)),
        prop_oneof![3 => Just(vec![]), 2 => vec(argument(), 1..3)],
    )
        .prop_map(|(servers, methods, arguments)| McpBlock {
            servers,
            methods,
            arguments,
        })
}

fn argument() -> impl Strategy<Value = Argument> {
    let pointer = select(vec![
        "", "/a", "/a", "/b", "/a/b", "/a/*", "/a/0", "/a/*/b", "/*",
    ]);
    let scalar = || {
        select(vec![
            Scalar::Null,
            Scalar::Bool(true),
            Scalar::Number("1".parse().unwrap()),
            Scalar::Number("2.50".parse().unwrap()),
            Scalar::String("a".into()),
            Scalar::String("ab".into()),
        ])
    };
    let number = || select(vec!["-1", "1", "25e-1", "3"]).prop_map(|n| n.parse().unwrap());
    let types = vec![
        JsonType::String,
        JsonType::Number,
        JsonType::Integer,
        JsonType::Boolean,
        JsonType::Array,
        JsonType::Object,
        JsonType::Null,
    ];
    let constraint = (
        option::weighted(0.3, vec(scalar(), 1..3)),
        option::weighted(0.2, vec(scalar(), 1..3)),
        option::weighted(0.2, select(vec!["^a", "b$", "a"])),
        option::weighted(0.2, number()),
        option::weighted(0.2, number()),
        option::weighted(0.1, 0..3u64),
        option::weighted(0.1, 0..3u64),
        option::weighted(0.3, select(types)),
        any::<bool>(),
    );
    let constraint = constraint.prop_map(
        |(one_of, none_of, pattern, min, max, min_length, max_length, is, optional)| Constraint {
            one_of,
            none_of,
            pattern: pattern.map(|text| text.parse().unwrap()),
            min,
            max,
            min_length,
            max_length,
            is,
            optional,
        },
    );
    (pointer, constraint).prop_map(|(pointer, constraint)| Argument {
        pointer: pointer.parse().unwrap(),
        constraint,
    })
}

/// Arguments that own their text.
#[derive(Debug, Clone)]
enum Given {
    Best,
    Worst,
    Absent,
    Json(String),
}

impl Given {
    fn arguments(&self) -> Arguments<'_> {
        match self {
            Self::Best => Arguments::Best,
            Self::Worst => Arguments::Worst,
            Self::Absent => Arguments::Absent,
            Self::Json(json) => Arguments::Json(json.as_bytes()),
        }
    }
}

fn given() -> impl Strategy<Value = Given> {
    let leaf = select(vec![
        "null",
        "true",
        "false",
        "0",
        "1",
        "1.0",
        "2.5",
        "25e-1",
        "4",
        "\"a\"",
        "\"\\u0061b\"",
        "\"b\"",
        "\"\"",
    ]);
    let value = leaf
        .prop_map(str::to_owned)
        .prop_recursive(3, 12, 3, |inner| {
            let key = || select(vec!["a", "b", "\\u0061c", "A", "0"]);
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(|items| format!("[ {} ]", items.join(", "))),
                proptest::collection::btree_map(key(), inner, 0..3).prop_map(|members| {
                    let members = members
                        .iter()
                        .map(|(key, value)| format!("\"{key}\" :{value}"));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        });
    let object =
        (value.clone(), value.clone()).prop_map(|(a, b)| format!("{{\"a\":{a},\"b\":{b}}}"));
    prop_oneof![
        1 => Just(Given::Best),
        1 => Just(Given::Worst),
        1 => Just(Given::Absent),
        4 => object.prop_map(Given::Json),
        2 => value.prop_map(Given::Json),
    ]
}

fn http_block() -> impl Strategy<Value = HttpBlock> {
    let methods = select(vec!["GET", "get", "POST", "*"]).prop_map(str::to_owned);
    (
        option::weighted(0.3, vec(methods, 0..3)),
        some_patterns(),
        some_patterns(),
        option::weighted(0.2, vec(select(vec![80u16, 443]), 0..2)),
    )
        .prop_map(|(methods, hosts, paths, ports)| HttpBlock {
            methods,
            hosts,
            paths,
            ports,
        })
}

fn objects() -> [ObjectRef; 3] {
    let section = ObjectRef {
        section: Some("route".into()),
        ..proxy()
    };
    [gateway(), proxy(), section]
}

fn some_objects() -> impl Strategy<Value = Vec<ObjectRef>> {
    vec(select(objects().to_vec()), 0..3)
}

fn some_policy() -> impl Strategy<Value = AgentPolicy> {
    let rule = (
        option::weighted(0.5, vec(caller(), 0..5)),
        vec(llm_block(), 0..3),
        vec(mcp_block(), 0..3),
        vec(http_block(), 0..3),
    );
    let rules = vec(rule, 0..4).prop_map(|rules| {
        let named = rules.into_iter().enumerate();
        let rule = |(i, (from, llm, mcp, http))| Rule {
            name: format!("rule[{i}]").into(),
            from,
            llm,
            mcp,
            http,
        };
        named.map(rule).collect()
    });
    (
        some_objects(),
        select(vec![Allow, Deny]),
        select(vec![Mode::Enforce, Mode::Enforce, Mode::DryRun]),
        rules,
    )
        .prop_map(|(mut targets, effect, mode, rules)| {
            targets.push(gateway());
            AgentPolicy {
                name: ObjectName::new("infra", "unnamed"),
                targets,
                effect,
                mode,
                rules,
            }
        })
}

fn some_policies() -> impl Strategy<Value = Vec<AgentPolicy>> {
    vec(some_policy(), 0..7)
        .prop_map(|mut policies| {
            for (i, policy) in policies.iter_mut().enumerate() {
                policy.name = ObjectName::new("infra", &format!("p{i}"));
            }
            policies
        })
        .prop_shuffle()
}

/// An action that owns its texts.
#[derive(Debug, Clone)]
struct Ask {
    kind: usize,
    id: u32,
    names: (String, String),
    method: &'static str,
    operation: Option<Operation>,
    bound: Option<u64>,
    port: u16,
    external: bool,
    given: Given,
}

impl Ask {
    fn action(&self) -> Action<'_> {
        match self.kind {
            0 => Action::LlmAny {
                provider: ProviderId(self.id),
            },
            1 | 2 => Action::Llm {
                provider: ProviderId(self.id),
                requested: &self.names.0,
                upstream: &self.names.1,
                operation: self.operation,
                max_output_tokens: self.bound,
            },
            3 => Action::McpSession {
                server: ServerId(self.id),
                method: self.bound.map(|_| "initialize"),
            },
            4 | 5 => Action::Mcp {
                server: ServerId(self.id),
                method: self.method,
                name: &self.names.0,
                arguments: self.given.arguments(),
            },
            _ => Action::Http {
                method: if self.bound.is_some() { "GET" } else { "get" },
                host: &self.names.0,
                path: &self.names.1,
                port: self.port,
                external: self.external,
            },
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    (
        0..8usize,
        0..3u32,
        (name(), name()),
        method(),
        option::weighted(0.8, operation()),
        option::of(1..4u64),
        select(vec![80, 443]),
        any::<bool>(),
        given(),
    )
        .prop_map(
            |(kind, id, names, method, operation, bound, port, external, given)| Ask {
                kind,
                id,
                names,
                method,
                operation,
                bound,
                port,
                external,
                given,
            },
        )
}

fn posture() -> impl Strategy<Value = Posture> {
    select(vec![Observe, Graduated, Strict])
}

fn target_ids(set: &PolicySet, objects: &[ObjectRef]) -> Vec<TargetId> {
    objects.iter().filter_map(|o| set.target(o)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn agrees_with_the_naive_evaluator(
        policies in some_policies(),
        posture in posture(),
        targets in some_objects(),
        questions in vec((principal(), ask(), option::of(claims())), 1..12),
    ) {
        let settings = settings(posture);
        let set = PolicySet::compile(policies.clone(), settings.clone());
        let naive = Naive { policies: &policies, settings: &settings };
        let ids = target_ids(&set, &targets);
        for (principal, ask, claims) in questions {
            let (action, claims) = (ask.action(), claims.as_ref());
            let facts = Facts { claims, ..Facts::default() };
            let decision = set.decide(&Query { principal: &principal, targets: &ids, action, facts, });
            let expected = naive.decide(&principal, &targets, &action, claims);
            let actual = super::super::naive::Answer {
                allowed: decision.is_allowed(),
                by: decision.by().to_string(),
                would_deny: decision.would_deny().iter().map(ToString::to_string).collect(),
            };
            prop_assert_eq!(actual, expected, "{:?} {:?} {:?}", principal, action, claims);
        }
    }

    #[test]
    fn explains_what_it_decides(
        policies in some_policies(),
        posture in posture(),
        targets in some_objects(),
        questions in vec((principal(), ask(), option::of(claims())), 1..12),
    ) {
        let set = PolicySet::compile(policies, settings(posture));
        let ids = target_ids(&set, &targets);
        for (principal, ask, claims) in questions {
            let facts = Facts { claims: claims.as_ref(), ..Facts::default() };
            let query = Query { principal: &principal, targets: &ids, action: ask.action(), facts, };
            let explanation = set.explain(&query);
            prop_assert_eq!(&explanation.decision, &set.decide(&query));
            if *explanation.decision.by() == By::Identity {
                continue;
            }
            // The trace alone gives the rule that decided.
            let first = |effect| explanation.trace.iter().find(|entry| {
                (entry.effect, entry.mode, &entry.outcome)
                    == (effect, Mode::Enforce, &Outcome::Matched)
            });
            let decider = first(Deny.into()).or(first(Allow.into()));
            let by = match explanation.decision.by() {
                By::Rule(rule) => Some((rule.policy.clone(), rule.rule.clone())),
                _ => None,
            };
            prop_assert_eq!(by, decider.map(|e| (e.policy.clone(), e.rule.clone())));
        }
    }

    #[test]
    fn what_is_callable_is_listed(
        policies in some_policies(),
        posture in posture(),
        questions in vec((principal(), ask()), 1..12),
    ) {
        let set = PolicySet::compile(policies, settings(posture));
        let targets = target_ids(&set, &objects());
        let allowed = |principal: &Principal, action: Action<'_>| {
            set.decide(&Query { principal, targets: &targets, action, facts: Facts::default(), }).is_allowed()
        };
        for (principal, ask) in questions {
            let action = ask.action();
            if !allowed(&principal, action) {
                continue;
            }
            match action {
                Action::Llm { provider, requested, upstream, .. } => {
                    let entry = Action::Llm {
                        provider, requested, upstream, operation: None, max_output_tokens: None,
                    };
                    prop_assert!(allowed(&principal, entry), "{:?}", action);
                    prop_assert!(allowed(&principal, Action::LlmAny { provider }), "{:?}", action);
                }
                Action::Mcp { server, method, name, arguments } => {
                    let with = |arguments| Action::Mcp { server, method, name, arguments };
                    if arguments == Arguments::Worst {
                        let any = with(Arguments::Json(br#"{"a":[1,{"b":"a"}],"b":"ab"}"#));
                        prop_assert!(allowed(&principal, any), "{:?}", action);
                        prop_assert!(allowed(&principal, with(Arguments::Absent)), "{:?}", action);
                    }
                    prop_assert!(allowed(&principal, with(Arguments::Best)), "{:?}", action);
                    prop_assert!(allowed(&principal, Action::McpSession { server, method: None }), "{:?}", action);
                }
                _ => {}
            }
        }
    }
}

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::naive::{Fields, Written, WrittenRule};
use super::*;
use crate::TraceEntry;
use crate::{By, Facts, Kind, PolicySet, Posture, Principal, Settings, TargetId};

mod attributes;
mod belonging;
mod explained;
mod filing;

pub(super) fn object(target: u32) -> ObjectRef {
    ObjectRef::whole(Kind::Gateway, ObjectName::new("ns", &format!("t{target}")))
}

fn value(name: &str, text: &str) -> Value {
    let unusable = || Value::Unusable(text.into());
    match name {
        "namespaces" => Value::Namespace(text.parse().unwrap()),
        "serviceAccounts" => {
            let (namespace, name) = text.split_once('/').unwrap();
            Value::ServiceAccount {
                namespace: namespace.into(),
                name: name.into(),
            }
        }
        "ipBlocks" => {
            let net = text.parse::<IpAddr>().map(ipnet::IpNet::from);
            let net = net.or_else(|_| text.parse());
            net.map_or_else(|_: ipnet::AddrParseError| unusable(), Value::Network)
        }
        "ports" => text.parse().map_or_else(|_| unusable(), Value::Port),
        "hosts" => Value::Text(TextMatch::lower(text)),
        _ => Value::Text(TextMatch::new(text)),
    }
}

fn attribute(name: &str) -> Attribute {
    match name {
        "principals" => Attribute::Principal,
        "namespaces" => Attribute::Namespace,
        "serviceAccounts" => Attribute::ServiceAccount,
        "trustDomains" => Attribute::TrustDomain,
        "ipBlocks" => Attribute::SourceIp,
        "hosts" => Attribute::Host,
        "methods" => Attribute::Method,
        "ports" => Attribute::DestinationPort,
        "paths" => Attribute::Path,
        "connection.sni" => Attribute::Sni,
        "request.headers[x-a]" => Attribute::Header("x-a".into()),
        other => Attribute::Unknown(other.into()),
    }
}

fn tests(fields: &Fields) -> Vec<Test> {
    let one = |(name, values, not_values): &(&'static str, Vec<String>, Vec<String>)| Test {
        attribute: attribute(name),
        field: (*name).into(),
        values: (!values.is_empty()).then(|| values.iter().map(|text| value(name, text)).collect()),
        not_values: not_values.iter().map(|text| value(name, text)).collect(),
    };
    fields.iter().map(one).collect()
}

pub(super) fn compiled(written: &Written) -> AuthorizationPolicy {
    let side =
        |side: &Option<Vec<Fields>>| side.as_ref().map(|list| list.iter().map(tests).collect());
    AuthorizationPolicy {
        name: ObjectName::new("ns", &written.name),
        targets: vec![object(written.target)],
        action: written.action,
        provider: written.provider.map(Into::into),
        mode: written.mode,
        rules: (0..)
            .zip(&written.rules)
            .map(|(index, rule): (usize, _)| IstioRule {
                name: format!("rule[{index}]").into(),
                from: side(&rule.from),
                to: side(&rule.to),
                when: tests(&rule.when),
            })
            .collect(),
    }
}

fn set(policies: &[Written]) -> PolicySet {
    let settings = Settings {
        posture: Posture::Graduated,
        namespace: "ns".into(),
        trust_domains: vec!["td".into()],
    };
    PolicySet::compile_all(vec![], policies.iter().map(compiled).collect(), settings)
}

/// Few texts, so that values and requests meet often.
fn texts(name: &'static str) -> BoxedStrategy<String> {
    let list: &[&str] = match name {
        "principals" => &[
            "td/ns/a/sa/x",
            "td/ns/a/sa/y",
            "td/ns/b/sa/x",
            "td/*",
            "*",
            "*/sa/x",
            "td2/ns/a/sa/x",
            "*x",
            "t*",
        ],
        "namespaces" => &["a", "b", "a*", "*", "*b", "a*b", "ab"],
        "serviceAccounts" => &["a/x", "a/y", "b/x"],
        "trustDomains" => &["td", "td2", "td*", "*", "*2"],
        "ipBlocks" => &["10.0.0.1", "10.0.0.0/8", "::1", "nonsense", "0.0.0.0/0"],
        "hosts" => &[
            "a.example",
            "A.example",
            "a.example:80",
            "*.example",
            "a.example:*",
            "*",
            "*:80",
        ],
        "methods" => &["GET", "get", "P*", "*"],
        "ports" => &["80", "443", "many"],
        "paths" => &["/a", "/a/", "/a/*", "/a*", "*", "*/b", "/a/b", "/", "/b"],
        "connection.sni" => &["a.example", "*", "*.example"],
        _ => &["1", "2", "*", "1*", "*1", ""],
    };
    prop::sample::select(
        list.iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>(),
    )
    .boxed()
}

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Fields> {
    let one = prop::sample::select(names).prop_flat_map(|name| {
        let some = || prop::collection::vec(texts(name), 0..3);
        (Just(name), some(), some())
    });
    let filled = one.prop_filter("values or notValues", |(_, yes, no)| {
        !yes.is_empty() || !no.is_empty()
    });
    prop::collection::vec(filled, 1..3)
}

const SOURCES: &[&str] = &[
    "principals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "ipBlocks",
];
const OPERATIONS: &[&str] = &["hosts", "methods", "ports", "paths"];
const CONDITIONS: &[&str] = &[
    "principals",
    "request.headers[x-a]",
    "connection.sni",
    "ports",
    "hosts",
    "paths",
];

fn rules() -> impl Strategy<Value = WrittenRule> {
    let side = |names| prop::option::of(prop::collection::vec(fields(names), 1..3));
    let when = prop_oneof![2 => Just(Vec::new()), 1 => fields(CONDITIONS)];
    (side(SOURCES), side(OPERATIONS), when).prop_map(|(from, to, when)| WrittenRule {
        from,
        to,
        when,
    })
}

pub(super) fn policies() -> impl Strategy<Value = Vec<Written>> {
    let action = prop_oneof![
        Just((IstioAction::Allow, None)),
        Just((IstioAction::Deny, None)),
        Just((IstioAction::Audit, None)),
        prop::sample::select(vec![Some("a"), Some("b"), None])
            .prop_map(|provider| (IstioAction::Custom, provider)),
    ];
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::DryRun)];
    let one = (0u32..3, action, mode, prop::collection::vec(rules(), 0..3));
    prop::collection::vec(one, 0..6).prop_map(|list| {
        let named = list.into_iter().enumerate();
        named
            .map(
                |(index, (target, (action, provider), mode, rules))| Written {
                    name: format!("p{index}"),
                    target,
                    action,
                    provider,
                    mode,
                    rules,
                },
            )
            .collect()
    })
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) tcp: bool,
    pub(super) principal: Option<String>,
    pub(super) ip: Option<String>,
    pub(super) port: u16,
    pub(super) sni: String,
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) custom: Vec<CustomVerdict>,
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    let select = |list: &[&'static str]| {
        prop::sample::select(
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let ids = select(&[
        "spiffe://td/ns/a/sa/x",
        "spiffe://td/ns/b/sa/x",
        "spiffe://td2/ns/ab/sa/y",
        "spiffe://td",
        "spiffe://td/x",
        "spiffe://td/ns/a/sa/x/y",
        "spiffe://td/x/ns/b/z",
    ]);
    let header = (
        select(&["x-a", "X-A", "x-b"]),
        select(&["1", "2", "11", "21", ""]),
    );
    let verdict = (select(&["a", "b"]), prop::bool::ANY).prop_map(|(provider, allows)| {
        let provider = provider.into();
        CustomVerdict { provider, allows }
    });
    (
        (prop::bool::weighted(0.2), prop::option::weighted(0.9, ids)),
        prop::option::of(select(&["10.0.0.1", "10.1.0.1", "::1", "192.168.0.1"])),
        prop::sample::select(vec![80u16, 443, 1]),
        select(&["", "a.example", "b.example"]),
        select(&["GET", "get", "POST"]),
        select(&["a.example", "A.EXAMPLE", "a.example:80", "b.example:81", ""]),
        select(&["/a", "/a/", "/a/b", "/ab", "/b", "/"]),
        prop::collection::vec(header, 0..3),
        prop::collection::vec(verdict, 0..3),
    )
        .prop_map(
            |((tcp, principal), ip, port, sni, method, host, path, headers, custom)| Asked {
                tcp,
                principal,
                ip,
                port,
                sni,
                method,
                host,
                path,
                headers,
                custom,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn agrees_with_the_documentation(policies in policies(), asked in asked(), on in prop::collection::vec(0u32..3, 0..3)) {
        let principal = match &asked.principal {
            Some(id) => Principal::Workload(id.parse().unwrap()),
            None => Principal::Anonymous,
        };
        let request = Request {
            protocol: if asked.tcp { Protocol::Tcp } else { Protocol::Http },
            source_ip: asked.ip.as_ref().map(|ip| ip.parse().unwrap()),
            port: asked.port,
            sni: &asked.sni,
            method: &asked.method,
            host: &asked.host,
            path: &asked.path,
            headers: &asked.headers,
            custom: &asked.custom,
            ..Request::of(&principal)
        };
        let set = set(&policies);
        let targets: Vec<TargetId> = on.iter().filter_map(|target| set.target(&object(*target))).collect();
        let verdict = set.authorize(&request, &targets);
        let expected = naive::judge(&policies, &request, &on);
        prop_assert_eq!(
            naive::Answer {
                denied: verdict.denied().is_some(),
                allowed: verdict.allowed().is_some(),
                would_deny: !verdict.would_deny().is_empty(),
            },
            expected
        );
        // What is said of each rule is what decided.
        let matched = |effect, mode| {
            set.explain_istio(&request, &targets).into_iter().any(|entry| {
                entry.outcome == crate::Outcome::Matched && entry.effect == effect && entry.mode == mode
            })
        };
        // What decides nothing is what each rule says of itself.
        let trace = set.explain_istio(&request, &targets);
        let idle = trace.iter().filter(|entry| {
            let decides = entry.effect != crate::Does::Audit && entry.mode == Mode::Enforce;
            entry.outcome == crate::Outcome::Matched && !decides
        });
        let idle: Vec<_> = idle.map(|entry| (entry.policy.clone(), entry.rule.clone())).collect();
        let marked = set.marked(&request, &targets);
        let marked: Vec<_> = marked.iter().map(|rule| (rule.policy.clone(), rule.rule.clone())).collect();
        let idles = |p: &Written| p.mode == Mode::DryRun || p.action == IstioAction::Audit;
        prop_assert_eq!(set.has_istio_marks(), policies.iter().any(idles));
        // A CUSTOM rule on trial says nothing where its provider has allowed.
        let is_custom = |name: &ObjectName| policies.iter().any(|p| p.action == IstioAction::Custom && *p.name == *name.name);
        let without = |list: &[(ObjectName, Arc<str>)]| -> Vec<_> {
            list.iter().filter(|(name, _)| !is_custom(name)).cloned().collect()
        };
        prop_assert_eq!(without(&marked), without(&idle));
        if let Some(By::Rule(_)) = verdict.denied() {
            let is_by = |does| matched(does, Mode::Enforce);
            prop_assert!(is_by(crate::Does::Deny) || is_by(crate::Does::Custom));
        }
        // Whoever is asked and allows lets the request go on to the other rules: nobody else has to be.
        let calls = set.custom(&request, &targets);
        let custom: Vec<_> = calls
            .iter()
            .map(|call| CustomVerdict { provider: call.provider.clone(), allows: true })
            .collect();
        let answered = set.authorize(&Request { custom: &custom, ..request }, &targets);
        let others: Vec<Written> = policies.iter().filter(|p| p.action != IstioAction::Custom).cloned().collect();
        let lapsed = policies.iter().any(|p| p.action == IstioAction::Custom && p.mode == Mode::Enforce && p.provider.is_none());
        let providers: std::collections::BTreeSet<_> = policies
            .iter()
            .filter(|p| p.action == IstioAction::Custom && p.mode == Mode::Enforce && on.contains(&p.target))
            .map(|p| p.provider)
            .collect();
        // One provider at most is asked, once; of several none, for it changes nothing.
        prop_assert!(calls.len() <= usize::from(providers.len() == 1), "{calls:?}");
        if !lapsed && providers.len() < 2 {
            let expected = naive::judge(&others, &request, &on);
            prop_assert_eq!(answered.denied().is_some(), expected.denied);
        } else if calls.is_empty() {
            prop_assert_eq!(answered.denied().is_some(), naive::judge(&policies, &Request { custom: &[], ..request }, &on).denied);
        }
        // What is told without headers and token is true with them.
        let blind = Request { headers: &NoHeaders, claims: None, ..request };
        let told = set.explain_istio_without_head(&blind, &targets);
        let known = set.explain_istio(&request, &targets);
        prop_assert_eq!(told.len(), known.len());
        for (told, known) in told.iter().zip(&known) {
            let is_matched = |entry: &TraceEntry| entry.outcome == crate::Outcome::Matched;
            match &told.outcome {
                crate::Outcome::NotMatched { actual, .. } if actual == NOT_KEPT => {}
                _ => prop_assert_eq!(is_matched(told), is_matched(known), "{} {}", told, known),
            }
        }
    }
}

#[test]
fn nothing_attached_decides_nothing() {
    let written = Written {
        name: "p".into(),
        target: 0,
        action: IstioAction::Allow,
        provider: None,
        mode: Mode::Enforce,
        rules: vec![],
    };
    let set = set(&[written]);
    let principal = Principal::Anonymous;
    let request = Request {
        port: 80,
        method: "GET",
        host: "a",
        path: "/",
        ..Request::of(&principal)
    };
    assert_eq!(set.authorize(&request, &[]), Verdict::default());
    let target = set.target(&object(0)).unwrap();
    let verdict = set.authorize(&request, &[target]);
    assert_eq!(verdict.denied(), Some(&By::NoIstioAllow));
    assert!(verdict.permit().is_err());
    let trace = set.explain_istio(&request, &[target]);
    assert_eq!(
        trace[0].to_string(),
        "AuthorizationPolicy ns/p (Allow, Enforce): rules: expected nothing (there are no rules), got a request"
    );
}

/// Policies that differ in one field only, and a request that the last of them is about.
fn alike(count: usize, differ: &str) -> Vec<Written> {
    let one = |index: usize| {
        let number = |name: &str| if name == differ { index } else { 0 };
        let from = vec![(
            "principals",
            vec![format!("td/ns/n/sa/a{}", number("principals"))],
            vec![],
        )];
        let to = vec![
            (
                "hosts",
                vec![format!("h{}.example", number("hosts"))],
                vec![],
            ),
            ("paths", vec![format!("/p{}/*", number("paths"))], vec![]),
        ];
        Written {
            name: format!("p{index:05}"),
            target: 0,
            action: IstioAction::Allow,
            provider: None,
            mode: Mode::Enforce,
            rules: vec![WrittenRule {
                from: Some(vec![from]),
                to: Some(vec![to]),
                when: vec![],
            }],
        }
    };
    (0..count).map(one).collect()
}

/// The cost of a question must not grow with the number of policies, whatever tells them apart.
#[test]
fn candidates_do_not_grow_with_policies() {
    for differ in ["principals", "hosts", "paths"] {
        for count in [10, 1_000, 10_000] {
            let policies = alike(count, differ);
            let mut census = index::Census::default();
            let compiled: Vec<_> = policies.iter().map(compiled).collect();
            for policy in &compiled {
                census.count(&policy.rules[0]);
            }
            let mut row = index::Row::default();
            for (number, policy) in (0..).zip(&compiled) {
                row.file(number, &policy.rules[0], &census);
            }
            let number = |name: &str| if name == differ { count - 1 } else { 0 };
            let id = format!("spiffe://td/ns/n/sa/a{}", number("principals"));
            let principal = Principal::Workload(id.parse().unwrap());
            let (host, path) = (
                format!("h{}.example", number("hosts")),
                format!("/p{}/x", number("paths")),
            );
            let request = Request {
                port: 80,
                method: "GET",
                host: &host,
                path: &path,
                ..Request::of(&principal)
            };
            let mut found = index::Found::new();
            row.find(&request, &mut found);
            let last = u32::try_from(count - 1).unwrap();
            assert_eq!(found.as_slice(), [last], "{differ}, {count}");
            let set = set(&policies);
            let target = set.target(&object(0)).unwrap();
            let verdict = set.authorize(&request, &[target]);
            assert_eq!(
                verdict.allowed().map(|rule| &*rule.policy.name),
                Some(&*policies[count - 1].name)
            );
        }
    }
}

/// DESIGN of the postures: an Istio ALLOW that matched opens models and tools, not the way out.
#[test]
fn an_allow_that_matched_stands_for_the_own_namespace() {
    use crate::{Action, Operation, ProviderId, Query, ServerId};
    let rule = WrittenRule {
        from: Some(vec![vec![("namespaces", vec!["a".into()], vec![])]]),
        ..WrittenRule::default()
    };
    let allow = Written {
        name: "p".into(),
        target: 0,
        action: IstioAction::Allow,
        provider: None,
        mode: Mode::Enforce,
        rules: vec![rule],
    };
    let principal = Principal::Workload("spiffe://td/ns/a/sa/x".parse().unwrap());
    let request = Request {
        port: 80,
        method: "GET",
        host: "h",
        path: "/",
        ..Request::of(&principal)
    };
    let llm = Action::Llm {
        provider: ProviderId(0),
        requested: "m",
        upstream: "m",
        operation: Some(Operation::Chat),
        max_output_tokens: None,
    };
    let session = Action::McpSession {
        server: ServerId(0),
        method: None,
    };
    let http = |external| Action::Http {
        method: "GET",
        host: "h",
        path: "/",
        port: 80,
        external,
    };
    for (posture, action, without, with) in [
        (Posture::Graduated, llm, false, true),
        (Posture::Graduated, session, false, true),
        (Posture::Graduated, http(false), true, true),
        (Posture::Graduated, http(true), false, false),
        (Posture::Strict, llm, false, false),
        (Posture::Strict, http(false), false, false),
        (Posture::Observe, llm, true, true),
    ] {
        let settings = Settings {
            posture,
            namespace: "ns".into(),
            trust_domains: vec!["td".into()],
        };
        let set = PolicySet::compile_all(vec![], vec![compiled(&allow)], settings);
        let targets = [set.target(&object(0)).unwrap()];
        let query = Query {
            principal: &principal,
            targets: &targets,
            action,
            facts: Facts::default(),
        };
        let case = format!("{posture} {action:?}");
        assert_eq!(set.decide(&query).is_allowed(), without, "{case}");
        let verdict = set.authorize(&request, &targets);
        let decision = set.decide_after(&verdict, &query);
        assert_eq!(decision.is_allowed(), with, "{case}");
        let by_rule = matches!(decision.by(), By::Rule(rule) if rule.kind == "AuthorizationPolicy");
        assert_eq!(by_rule, with, "{case}");
        assert!(decision.would_deny().is_empty(), "{case}");
    }
}

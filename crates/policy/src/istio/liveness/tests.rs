use proptest::prelude::*;

use super::super::naive::{Fields, Written, WrittenRule};
use super::super::tests::{Asked, asked, compiled, object, policies};
use super::*;
use crate::istio::{PathTemplate, Protocol};
use crate::{PolicySet, Posture, Settings, TargetId};

/// What a rule is turned into, so that rules that say the same, less, or nothing are often met.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The same elsewhere.
    Copy,
    /// With one more condition elsewhere.
    Narrow,
    /// Everything that it names is excluded.
    Exclude,
    /// Two sources instead of one.
    Widen,
}

/// Adds rules to policies that are made of rules they have.
fn turned(
    mut policies: Vec<Written>,
    turns: Vec<(usize, usize, usize, Turn)>,
    fields: &Fields,
) -> Vec<Written> {
    for (from, rule, to, turn) in turns {
        let count = policies.len();
        let Some(policy) = policies.get(from % count.max(1)) else {
            return policies;
        };
        let Some(mut rule) = policy.rules.get(rule % policy.rules.len().max(1)).cloned() else {
            continue;
        };
        match turn {
            Turn::Copy => {}
            Turn::Narrow => rule.when.extend(fields.clone()),
            Turn::Exclude => exclude(&mut rule),
            Turn::Widen => rule.from = rule.from.map(|from| [from.clone(), from].concat()),
        }
        if let Some(policy) = policies.get_mut(to % count) {
            policy.rules.push(rule);
        }
    }
    policies
}

fn exclude(rule: &mut WrittenRule) {
    let from = rule.from.iter_mut().flatten();
    let to = rule.to.iter_mut().flatten();
    for fields in from.chain(to).chain([&mut rule.when]) {
        for (_, values, not_values) in fields {
            not_values.extend(values.iter().cloned());
        }
    }
}

fn turns() -> impl Strategy<Value = Vec<(usize, usize, usize, Turn)>> {
    let turn = prop_oneof![
        Just(Turn::Copy),
        Just(Turn::Narrow),
        Just(Turn::Exclude),
        Just(Turn::Widen)
    ];
    prop::collection::vec((0usize..6, 0usize..3, 0usize..6, turn), 1..6)
}

fn more() -> impl Strategy<Value = Fields> {
    let one = prop_oneof![
        Just(("paths", vec!["/a*".to_owned()], vec![])),
        Just(("ports", vec![], vec!["80".to_owned()])),
        Just(("principals", vec!["td/ns/a/sa/x".to_owned()], vec![])),
    ];
    prop::collection::vec(one, 1..3)
}

/// Whether the request is denied, and if not, whether an ALLOW rule matched.
fn decided(policies: &[AuthorizationPolicy], asked: &Asked, on: &[u32]) -> (bool, Option<bool>) {
    let settings = Settings {
        posture: Posture::Graduated,
        namespace: "ns".into(),
        trust_domains: vec!["td".into()],
    };
    let set = PolicySet::compile_all(vec![], policies.to_vec(), settings);
    let targets: Vec<TargetId> = on
        .iter()
        .filter_map(|target| set.target(&object(*target)))
        .collect();
    let principal = match &asked.principal {
        Some(id) => Principal::Workload(id.parse().unwrap()),
        None => Principal::Anonymous,
    };
    let verdict = set.authorize(
        &Request {
            protocol: if asked.tcp {
                Protocol::Tcp
            } else {
                Protocol::Http
            },
            principal: &principal,
            source_ip: asked.ip.as_ref().map(|ip| ip.parse().unwrap()),
            remote_ip: None,
            destination_ip: None,
            port: asked.port,
            sni: &asked.sni,
            method: &asked.method,
            host: &asked.host,
            path: &asked.path,
            headers: &asked.headers,
            custom: &asked.custom,
            claims: None,
        },
        &targets,
    );
    let denied = verdict.denied().is_some();
    (denied, (!denied).then(|| verdict.allowed().is_some()))
}

/// The policies without these rules; a policy stays, also when nothing is left in it.
fn without(policies: &[AuthorizationPolicy], dead: &[&DeadRule]) -> Vec<AuthorizationPolicy> {
    let mut left = policies.to_vec();
    for policy in &mut left {
        let mut index = 0;
        policy.rules.retain(|_| {
            let is_dead = dead
                .iter()
                .any(|dead| dead.policy == policy.name && dead.index == index);
            index += 1;
            !is_dead
        });
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn nothing_depends_on_a_dead_rule(
        policies in policies(),
        turns in turns(),
        more in more(),
        asked in prop::collection::vec(asked(), 1..8),
        on in prop::collection::vec(0u32..3, 1..3),
    ) {
        let written = turned(policies, turns, &more);
        let mut policies: Vec<AuthorizationPolicy> = written.iter().map(compiled).collect();
        // Some policies are attached to several objects.
        for (index, policy) in policies.iter_mut().enumerate() {
            if index % 2 == 0 {
                policy.targets.push(object(0));
            }
        }
        let dead = dead_rules(&policies);
        for asked in &asked {
            let before = decided(&policies, asked, &on);
            let counts = |dead: &&DeadRule| {
                !asked.tcp || !matches!(dead.why, Why::NeverOfHttp { .. })
            };
            let counted: Vec<&DeadRule> = dead.iter().filter(counts).collect();
            for dead in &counted {
                let after = decided(&without(&policies, &[dead]), asked, &on);
                prop_assert_eq!(before, after, "{:?} of {:?}", dead, asked);
            }
            let after = decided(&without(&policies, &counted), asked, &on);
            prop_assert_eq!(before, after, "all of {:?} of {:?}", counted, asked);
        }
    }
}

fn rule(from: &[Fields], to: &[Fields], when: Fields) -> WrittenRule {
    WrittenRule {
        from: (!from.is_empty()).then(|| from.to_vec()),
        to: (!to.is_empty()).then(|| to.to_vec()),
        when,
    }
}

fn field(name: &'static str, values: &[&str], not_values: &[&str]) -> Fields {
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    vec![(name, list(values), list(not_values))]
}

fn policy(name: &str, target: u32, action: IstioAction, rules: Vec<WrittenRule>) -> Written {
    Written {
        name: name.into(),
        target,
        action,
        provider: None,
        mode: Mode::Enforce,
        rules,
    }
}

/// What is found, as `policy index: why`.
fn found(policies: &[AuthorizationPolicy]) -> Vec<String> {
    let one = |dead: &DeadRule| {
        let why = match &dead.why {
            Why::Never { field } => format!("never {field}"),
            Why::NeverOfHttp { field } => format!("never of HTTP {field}"),
            Why::Repeats { policy, rule } => format!("repeats {} {rule}", policy.name),
            Why::Denied { policy, rule } => format!("denied {} {rule}", policy.name),
        };
        format!("{} {}: {why}", dead.policy.name, dead.index)
    };
    dead_rules(policies).iter().map(one).collect()
}

#[test]
fn rules_that_never_match() {
    use IstioAction::{Allow, Deny};
    let id = "td/ns/a/sa/x";
    let both = |mut fields: Fields, more: Fields| {
        fields.extend(more);
        fields
    };
    let in_from = |fields: Fields| rule(&[fields], &[], vec![]);
    let in_to = |fields: Fields| rule(&[], &[fields], vec![]);
    let in_when = |fields: Fields| rule(&[], &[], fields);
    for (case, action, rule, expected) in [
        (
            "a value and its exclusion",
            Allow,
            in_to(field("methods", &["GET"], &["GET"])),
            "never methods",
        ),
        (
            "an exclusion that is wider",
            Allow,
            in_to(field("paths", &["/a/b", "/a/c/*"], &["/a/*"])),
            "never paths",
        ),
        (
            "one that is not",
            Allow,
            in_to(field("paths", &["/a/b", "/b"], &["/a/*"])),
            "",
        ),
        (
            "a suffix",
            Allow,
            in_to(field(
                "hosts",
                &["a.example", "*.b.example"],
                &["*.example"],
            )),
            "never hosts",
        ),
        (
            "anything",
            Allow,
            in_from(field("principals", &["td/*"], &["*"])),
            "never principals",
        ),
        (
            "a smaller range",
            Allow,
            in_from(field("ipBlocks", &["10.1.0.0/16"], &["10.0.0.0/8"])),
            "never ipBlocks",
        ),
        (
            "a larger range",
            Allow,
            in_from(field("ipBlocks", &["10.0.0.0/8"], &["10.1.0.0/16"])),
            "",
        ),
        (
            "namespaces by a pattern",
            Allow,
            in_from(field("namespaces", &["ab"], &["a*"])),
            "never namespaces",
        ),
        (
            "a header that is there",
            Allow,
            in_when(field("request.headers[x-a]", &["", "1"], &["*"])),
            "never request.headers[x-a]",
        ),
        (
            "an identity of another namespace",
            Allow,
            in_from(both(
                field("principals", &[id], &[]),
                field("namespaces", &["b"], &[]),
            )),
            "never principals",
        ),
        (
            "an identity of its namespace",
            Allow,
            in_from(both(
                field("principals", &[id], &[]),
                field("namespaces", &["a"], &[]),
            )),
            "",
        ),
        (
            "what is no identity",
            Deny,
            in_from(field("principals", &["td/ns/a/sa/"], &[])),
            "never principals",
        ),
        (
            "another identity in a condition",
            Allow,
            rule(
                &[field("principals", &[id], &[])],
                &[],
                field("principals", &["td/ns/a/sa/y"], &[]),
            ),
            "never principals",
        ),
        (
            "two methods at once",
            Allow,
            rule(
                &[],
                &[
                    field("methods", &["GET"], &[]),
                    field("methods", &["PUT"], &[]),
                ],
                field("ports", &["80"], &["80"]),
            ),
            "never ports",
        ),
        (
            "two methods of one operation",
            Allow,
            in_to(both(
                field("methods", &["GET"], &[]),
                field("methods", &["PUT"], &[]),
            )),
            "never methods",
        ),
        (
            "two paths",
            Allow,
            in_to(both(
                field("paths", &["/a"], &[]),
                field("paths", &["/b"], &[]),
            )),
            "never paths",
        ),
        (
            "two ports",
            Allow,
            in_to(both(
                field("ports", &["80"], &[]),
                field("ports", &["81"], &[]),
            )),
            "never ports",
        ),
        (
            "the same twice",
            Allow,
            in_to(
                [("methods", "PUT"), ("paths", "/a"), ("ports", "80")]
                    .into_iter()
                    .flat_map(|(name, value)| {
                        both(field(name, &[value], &[]), field(name, &[value], &[]))
                    })
                    .collect(),
            ),
            "",
        ),
        (
            "one of two sources",
            Allow,
            rule(
                &[
                    field("ports", &["80"], &["80"]),
                    field("namespaces", &["a"], &[]),
                ],
                &[],
                vec![],
            ),
            "",
        ),
        (
            "a DENY of what is of HTTP only",
            Deny,
            in_to(field("paths", &["/a"], &["/a*"])),
            "never of HTTP paths",
        ),
        (
            "a DENY of what every connection has",
            Deny,
            in_to(field("ports", &["80"], &["80"])),
            "never ports",
        ),
        (
            "what cannot be evaluated is told elsewhere",
            Deny,
            in_to(field("ports", &["many"], &["many"])),
            "",
        ),
        (
            "AUDIT decides nothing anyway",
            IstioAction::Audit,
            in_to(field("ports", &["80"], &["80"])),
            "",
        ),
    ] {
        let policies = [compiled(&policy("p", 0, action, vec![rule]))];
        let expected = match expected {
            "" => vec![],
            why => vec![format!("p 0: {why}")],
        };
        assert_eq!(found(&policies), expected, "{case}");
    }
}

/// A caller's claim of identity never gets as far as a policy.
#[test]
fn a_header_that_is_removed_never_matches() {
    let mut policies: Vec<_> = [IstioAction::Allow, IstioAction::Deny]
        .into_iter()
        .zip(["a", "d"])
        .map(|(action, name)| {
            let when = field("request.headers[x-a]", &["1"], &[]);
            compiled(&policy(name, 0, action, vec![rule(&[], &[], when)]))
        })
        .collect();
    assert_eq!(found(&policies), ["a 0: denied d rule[0]"]);
    for policy in &mut policies {
        policy.rules[0].when[0].attribute = Attribute::Header("x_spiffe-id".into());
    }
    let field = "request.headers[x-a]";
    let expected = [
        format!("a 0: never {field}"),
        format!("d 0: never of HTTP {field}"),
    ];
    assert_eq!(found(&policies), expected);
    for policy in &mut policies {
        let test = &mut policy.rules[0].when[0];
        test.not_values = test.values.take().unwrap();
    }
    assert_eq!(found(&policies), ["a 0: denied d rule[0]"]);
}

#[test]
fn rules_that_say_nothing_new() {
    use IstioAction::{Allow, Deny};
    let by = |id: &str| field("principals", &[id], &[]);
    let to = |path: &str| field("paths", &[path], &[]);
    let simple = |id: &str, path: &str| rule(&[by(id)], &[to(path)], vec![]);
    let (x, y) = ("td/ns/a/sa/x", "td/ns/a/sa/y");
    let host = || field("hosts", &["a.example"], &[]);
    let within = || field("namespaces", &["n"], &[]);
    let anything = || rule(&[], &[], vec![]);
    let two = |first: &str, second: &str| rule(&[by(first), by(second)], &[], vec![]);
    for (case, policies, expected) in [
        (
            "the same in one policy",
            vec![policy(
                "a",
                0,
                Allow,
                vec![simple(x, "/a"), simple(y, "/a"), simple(x, "/a")],
            )],
            vec!["a 2: repeats a rule[0]"],
        ),
        (
            "the same in another, in another order",
            vec![
                policy("a", 0, Deny, vec![two(x, y)]),
                policy("b", 0, Deny, vec![two(y, x)]),
            ],
            vec!["b 0: repeats a rule[0]"],
        ),
        (
            "the same somewhere else",
            vec![
                policy("a", 0, Allow, vec![simple(x, "/a")]),
                policy("b", 1, Allow, vec![simple(x, "/a")]),
            ],
            vec![],
        ),
        (
            "a DENY of more",
            vec![
                policy("a", 0, Allow, vec![simple(x, "/a/b")]),
                policy("d", 0, Deny, vec![rule(&[], &[to("/a/*")], vec![])]),
            ],
            vec!["a 0: denied d rule[0]"],
        ),
        (
            "a DENY of a host",
            vec![
                policy("a", 0, Allow, vec![rule(&[], &[host()], vec![])]),
                policy("d", 0, Deny, vec![rule(&[], &[host()], vec![])]),
            ],
            vec!["a 0: denied d rule[0]"],
        ),
        (
            "a DENY of a namespace",
            vec![
                policy("a", 0, Allow, vec![rule(&[within()], &[], vec![])]),
                policy("d", 0, Deny, vec![rule(&[within()], &[], vec![])]),
            ],
            vec!["a 0: denied d rule[0]"],
        ),
        (
            "a DENY of all",
            vec![
                policy("a", 0, Allow, vec![anything(), simple(x, "/a")]),
                policy("d", 0, Deny, vec![anything()]),
            ],
            vec!["a 0: denied d rule[0]", "a 1: denied d rule[0]"],
        ),
        (
            "a DENY of each source",
            vec![
                policy("a", 0, Allow, vec![two(x, y)]),
                policy("d", 0, Deny, vec![two(y, x)]),
            ],
            vec!["a 0: denied d rule[0]"],
        ),
        (
            "a DENY of one source",
            vec![
                policy("a", 0, Allow, vec![two(x, y)]),
                policy("d", 0, Deny, vec![rule(&[by(x)], &[], vec![])]),
            ],
            vec![],
        ),
        (
            "a DENY of less",
            vec![
                policy("a", 0, Allow, vec![simple(x, "/a/*")]),
                policy("d", 0, Deny, vec![simple(x, "/a/b")]),
            ],
            vec![],
        ),
        (
            "a DENY somewhere else",
            vec![
                policy("a", 0, Allow, vec![simple(x, "/a")]),
                policy("d", 1, Deny, vec![anything()]),
            ],
            vec![],
        ),
        (
            "a DENY but for whom is allowed",
            vec![
                policy("a", 0, Allow, vec![simple(x, "/a")]),
                policy(
                    "d",
                    0,
                    Deny,
                    vec![rule(&[field("principals", &[], &[x])], &[], vec![])],
                ),
            ],
            vec![],
        ),
        (
            "a DENY of whom is not excluded",
            vec![
                policy(
                    "a",
                    0,
                    Allow,
                    vec![rule(&[field("principals", &[], &["td/*"])], &[], vec![])],
                ),
                policy(
                    "d",
                    0,
                    Deny,
                    vec![rule(&[field("principals", &[], &[x])], &[], vec![])],
                ),
            ],
            vec!["a 0: denied d rule[0]"],
        ),
    ] {
        let policies: Vec<_> = policies.iter().map(compiled).collect();
        assert_eq!(found(&policies), expected, "{case}");
        // On trial a DENY denies nothing, and an ALLOW is still told of.
        let mut trial = policies;
        for policy in trial.iter_mut().filter(|policy| policy.action == Deny) {
            policy.mode = Mode::DryRun;
        }
        let denied = found(&trial)
            .into_iter()
            .filter(|one| one.contains("denied"));
        assert_eq!(denied.count(), 0, "{case}");
    }
}

#[test]
fn a_template_within_a_prefix() {
    let to = |action, name: &str, path: &str| {
        let rule = rule(&[], &[field("paths", &[path], &[])], vec![]);
        compiled(&policy(name, 0, action, vec![rule]))
    };
    let mut allow = to(IstioAction::Allow, "a", "");
    let template = PathTemplate::new("/a/{*}").unwrap();
    allow.rules[0].to.as_mut().unwrap()[0][0].values = Some(vec![Value::Template(template)]);
    for (denied, expected) in [("/a/*", &["a 0: denied d rule[0]"][..]), ("/a/b*", &[])] {
        let policies = [allow.clone(), to(IstioAction::Deny, "d", denied)];
        assert_eq!(found(&policies), expected, "{denied}");
    }
}

/// Looking for dead rules must not take the square of their number: with ten times the rules it
/// takes about ten times the comparisons, which are counted by what a rule is compared with.
#[test]
fn few_rules_are_compared() {
    for differ in ["principals", "paths"] {
        let count = 3_000;
        let all = |action, name: &str| -> Vec<AuthorizationPolicy> {
            let one = |index: usize| {
                let number = |field: &str| if field == differ { index } else { 0 };
                let from = field(
                    "principals",
                    &[&format!("td/ns/n/sa/a{}", number("principals"))],
                    &[],
                );
                let to = field("paths", &[&format!("/p{}/x", number("paths"))], &[]);
                let rule = rule(&[from], &[to], vec![]);
                compiled(&policy(&format!("{name}{index:05}"), 0, action, vec![rule]))
            };
            (0..count).map(one).collect()
        };
        let denies = all(IstioAction::Deny, "d");
        let sorted: Vec<_> = denies.iter().collect();
        let filed = All::new(&sorted);
        let allows = all(IstioAction::Allow, "a");
        for allow in &allows {
            let mut candidates = Found::new();
            let row = &filed.rows[&allow.targets[0]];
            allow.rules[0].example(|request| row.find(request, &mut candidates));
            assert_eq!(candidates.len(), 1, "{differ}");
        }
        let dead = dead_rules(&[denies.clone(), allows].concat());
        assert_eq!(dead.len(), count, "{differ}");
    }
}

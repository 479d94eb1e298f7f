//! Which rule is found, and which of several is named.

use super::attributes::bare;
use super::*;
use crate::{Code, Decision, Effect, WOULD_DENY_MAX};

/// A rule about these paths.
fn paths(paths: &[&str]) -> WrittenRule {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    WrittenRule {
        to: Some(vec![vec![("paths", paths, vec![])]]),
        ..WrittenRule::default()
    }
}

fn policy(name: &str, action: IstioAction, rules: Vec<WrittenRule>) -> Written {
    Written {
        name: name.into(),
        target: 0,
        action,
        provider: None,
        mode: Mode::Enforce,
        rules,
    }
}

fn dry(policy: Written) -> Written {
    Written {
        mode: Mode::DryRun,
        ..policy
    }
}

/// What policies on the first target say of `GET /a`.
fn judge(policies: &[Written]) -> Verdict {
    let set = set(policies);
    let targets: Vec<TargetId> = set.target(&object(0)).into_iter().collect();
    let request = Request {
        path: "/a",
        ..bare()
    };
    set.authorize(&request, &targets)
}

fn shown(names: &[Arc<crate::RuleName>]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_by_name_and_place_is_named() {
    use IstioAction::{Allow, Deny};
    let (hit, miss) = (|| paths(&["/a"]), || paths(&["/b"]));
    // The second of each pair is filed under another field than the first.
    let all = WrittenRule::default;
    for action in [Allow, Deny] {
        for (case, policies, expected) in [
            (
                "by name",
                vec![("p2", vec![hit()]), ("p1", vec![hit()])],
                "ns/p1 rule[0]",
            ),
            (
                "by name, found last",
                vec![("p1", vec![hit()]), ("p2", vec![all()])],
                "ns/p1 rule[0]",
            ),
            (
                "by name, found first",
                vec![("p2", vec![hit()]), ("p1", vec![all()])],
                "ns/p1 rule[0]",
            ),
            ("by place", vec![("p", vec![hit(), all()])], "ns/p rule[0]"),
            (
                "by place, found first",
                vec![("p", vec![all(), hit()])],
                "ns/p rule[0]",
            ),
            (
                "the one that matches",
                vec![("p1", vec![miss()]), ("p2", vec![miss(), hit(), all()])],
                "ns/p2 rule[1]",
            ),
        ] {
            let policies: Vec<Written> = policies
                .into_iter()
                .map(|(name, rules)| policy(name, action, rules))
                .collect();
            let verdict = judge(&policies);
            let rule = match action {
                Deny => match verdict.denied() {
                    Some(By::Rule(rule)) => rule,
                    other => panic!("{case}: {other:?}"),
                },
                _ => verdict.allowed().unwrap(),
            };
            let name = format!("{} {}", rule.policy, rule.rule);
            assert_eq!(name, expected, "{case}, {action:?}");
            let effect = match action {
                Deny => Effect::Deny,
                _ => Effect::Allow,
            };
            assert_eq!((rule.effect, rule.mode), (effect, Mode::Enforce), "{case}");
        }
    }
}

#[test]
fn what_is_on_trial_is_told_of_in_order() {
    use IstioAction::{Allow, Audit, Deny};
    let (hit, miss) = (|| paths(&["/a"]), || paths(&["/b"]));
    for (case, policies, expected) in [
        (
            "rules of a DENY, then an ALLOW as a whole",
            vec![
                dry(policy("b", Deny, vec![miss(), hit()])),
                dry(policy("c", Deny, vec![WrittenRule::default(), hit()])),
                dry(policy("a", Allow, vec![miss()])),
            ],
            &[
                "AuthorizationPolicy ns/b rule rule[1]",
                "AuthorizationPolicy ns/c rule rule[0]",
                "AuthorizationPolicy ns/c rule rule[1]",
                "AuthorizationPolicy ns/a",
            ][..],
        ),
        (
            "an ALLOW on trial beside one that matches",
            vec![
                dry(policy("a", Allow, vec![miss()])),
                dry(policy("b", Allow, vec![hit()])),
            ],
            &[],
        ),
        (
            "an ALLOW on trial beside one in force that matches",
            vec![
                dry(policy("a", Allow, vec![miss()])),
                policy("b", Allow, vec![hit()]),
            ],
            &[],
        ),
        (
            "AUDIT says nothing",
            vec![
                policy("a", Audit, vec![hit()]),
                dry(policy("b", Audit, vec![hit()])),
            ],
            &[],
        ),
    ] {
        let verdict = judge(&policies);
        assert_eq!(verdict.denied(), None, "{case}");
        assert_eq!(shown(verdict.would_deny()), expected, "{case}");
        assert_eq!(verdict.denial(), None, "{case}");
        assert_eq!(verdict.permit(), Ok(()), "{case}");
    }
    for rules in [vec![hit()], vec![miss()]] {
        // DENY rules that match, or ALLOW policies that do not.
        let action = match rules[0].to == hit().to {
            true => Deny,
            false => Allow,
        };
        let one = |place: usize| dry(policy(&format!("p{place:02}"), action, rules.clone()));
        let verdict = judge(&(0..20).map(one).collect::<Vec<_>>());
        let names = verdict.would_deny();
        assert_eq!(names.len(), WOULD_DENY_MAX);
        assert_eq!(&*names[7].policy.name, "p07");
    }
}

#[test]
fn a_denial_says_what_denied() {
    use IstioAction::{Allow, Deny};
    let denied = judge(&[
        policy("d", Deny, vec![paths(&["/a"])]),
        policy("e", Allow, vec![paths(&["/a"])]),
        dry(policy("f", Deny, vec![paths(&["/a"])])),
    ]);
    let by = denied.denied().unwrap().clone();
    assert_eq!(by.to_string(), "AuthorizationPolicy ns/d rule rule[0]");
    assert!(denied.allowed().is_some(), "it matched all the same");
    let denial: Decision = denied.denial().unwrap();
    assert_eq!((denial.code(), denial.by()), (Some(Code::Forbidden), &by));
    let would_deny = ["AuthorizationPolicy ns/f rule rule[0]"];
    assert_eq!(shown(denial.would_deny()), would_deny);
    let refusal = denied.permit().unwrap_err();
    assert_eq!((refusal.code, refusal.by), (Code::Forbidden, Some(by)));
}

#[test]
fn the_policies_of_a_set() {
    let none = set(&[]);
    assert!(!none.has_istio());
    assert!(none.istio_policies().is_empty());
    let two = set(&[
        policy("b", IstioAction::Allow, vec![]),
        policy("a", IstioAction::Audit, vec![]),
    ]);
    assert!(two.has_istio());
    let names = two.istio_policies().iter().map(|policy| &*policy.name.name);
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b"]);
}

/// A policy with two targets, the same one twice, and a question about both.
#[test]
fn several_targets() {
    let mut both = compiled(&dry(policy("p", IstioAction::Deny, vec![paths(&["/a"])])));
    both.targets = vec![object(0), object(1), object(0)];
    let mut allow = compiled(&dry(policy("q", IstioAction::Allow, vec![])));
    allow.targets = both.targets.clone();
    let settings = Settings {
        posture: Posture::Graduated,
        namespace: "ns".into(),
        trust_domains: vec!["td".into()],
    };
    let set = PolicySet::compile_all(vec![], vec![both, allow], settings);
    let ids = [0, 1].map(|target| set.target(&object(target)).unwrap());
    let request = Request {
        path: "/a",
        ..bare()
    };
    for targets in [&ids[..1], &ids[1..], &ids[..]] {
        let verdict = set.authorize(&request, targets);
        let names = [
            "AuthorizationPolicy ns/p rule rule[0]",
            "AuthorizationPolicy ns/q",
        ];
        assert_eq!(shown(verdict.would_deny()), names, "{targets:?}");
        let trace = set.explain_istio(&request, targets);
        assert_eq!(trace.len(), 2, "{targets:?}");
    }
}

/// Every rule of many is found by a path that it is about, and no other is asked.
#[test]
fn paths_find_their_rules() {
    let filed = [
        "/x*",
        "/é*",
        "/éb*",
        "/t/{*}/z",
        "/u/{**}",
        "/exact",
        "/long/prefix/*",
        "/",
        "/€b*",
    ];
    let rules: Vec<IstioRule> = filed
        .iter()
        .map(|path| {
            let mut policy = compiled(&policy("p", IstioAction::Deny, vec![paths(&[path])]));
            let mut rule = policy.rules.remove(0);
            if let Ok(template) = PathTemplate::new(path)
                && PathTemplate::is_one(path)
            {
                rule.to.as_mut().unwrap()[0][0].values = Some(vec![Value::Template(template)]);
            }
            rule
        })
        .collect();
    let mut census = index::Census::default();
    for rule in &rules {
        census.count(rule);
    }
    let mut row = index::Row::default();
    for (number, rule) in (0..).zip(&rules) {
        row.file(number, rule, &census);
    }
    for (path, expected) in [
        ("/x1", &[0][..]),
        ("/é", &[1]),
        ("/éb1", &[1, 2]),
        // A character that the shorter prefixes would be cut in.
        ("/e\u{301}b", &[]),
        ("/€b", &[8]),
        ("/€c", &[]),
        ("/t/q/z", &[3]),
        ("/u/", &[4]),
        ("/exact", &[5]),
        ("/exactly", &[]),
        ("/long/prefix/", &[6]),
        ("/long/prefix", &[]),
        ("/", &[7]),
        ("", &[]),
    ] {
        let mut found = index::Found::new();
        row.find(&Request { path, ..bare() }, &mut found);
        found.sort_unstable();
        assert_eq!(found.as_slice(), expected, "{path}");
        let request = Request { path, ..bare() };
        let matching = |rule: &u32| {
            let rule = &rules[*rule as usize];
            rule.failed(IstioAction::Deny, &request).is_none()
        };
        let all: Vec<u32> = (0..9).filter(matching).collect();
        assert_eq!(all, expected, "{path}");
    }
}

/// A rule is asked only where one of its fields may be met, whichever field that is.
#[test]
fn what_tells_rules_apart() {
    type Nth = fn(usize) -> String;
    let fields: [(&str, Nth); 3] = [
        ("namespaces", |place| format!("n{place}")),
        ("paths", |place| format!("/p{place}")),
        ("hosts", |place| format!("H{place}.example:80")),
    ];
    let principal = Principal::Workload("spiffe://td/ns/n7/sa/x".parse().unwrap());
    let request = Request {
        principal: &principal,
        host: "h7.EXAMPLE:80",
        path: "/p7",
        ..bare()
    };
    for (field, value) in fields {
        for in_when in [false, true] {
            let rule = |place: usize| {
                let fields = vec![(field, vec![value(place)], vec![])];
                let (from, to, when) = match (in_when, field) {
                    (true, _) => (None, None, fields),
                    (false, "namespaces") => (Some(vec![fields]), None, vec![]),
                    (false, _) => (None, Some(vec![fields]), vec![]),
                };
                WrittenRule { from, to, when }
            };
            let policy = policy("p", IstioAction::Allow, (0..10).map(rule).collect());
            let rules = compiled(&policy).rules;
            let mut census = index::Census::default();
            rules.iter().for_each(|rule| census.count(rule));
            let mut row = index::Row::default();
            for (number, rule) in (0..).zip(&rules) {
                row.file(number, rule, &census);
            }
            let mut found = index::Found::new();
            row.find(&request, &mut found);
            assert_eq!(found.as_slice(), [7], "{field}, in when: {in_when}");
        }
    }
}

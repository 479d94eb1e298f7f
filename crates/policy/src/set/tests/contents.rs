//! What a set says of itself.

use super::*;
use crate::Token;

#[test]
fn tells_what_it_is_made_of() {
    let policies = vec![
        policy("b", Deny, vec![rule("r"), rule("s"), rule("t")]),
        policy("a", Allow, vec![]),
    ];
    let set = PolicySet::compile(policies, settings(Observe));
    assert_eq!(set.posture(), Observe);
    assert_eq!(set.settings(), &settings(Observe));
    let names = set.policies().iter().map(|policy| &*policy.name.name);
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b"]);
    let shown = format!("{set:?}");
    let expected = "PolicySet { policies: 2, rules: 3, settings: Settings { posture: Observe, ";
    assert!(shown.starts_with(expected), "{shown}");
}

#[test]
fn names_a_caller_whatever_token_it_needs() {
    let set = PolicySet::compile(vec![], settings(Strict));
    let token = || {
        Some(Token {
            issuer: "https://one".into(),
            claims: vec![],
        })
    };
    let of_namespace = Caller {
        namespace: Some("agents".into()),
        jwt: token(),
        ..Caller::default()
    };
    let by_token = Caller {
        jwt: token(),
        ..Caller::default()
    };
    let workload = |id: &str| Principal::Workload(id.parse().unwrap());
    for (principal, expected) in [
        (workload(ME), true),
        (workload(ALIAS), true),
        (workload(OTHER), false),
        (workload(FOREIGN), false),
        (Principal::Anonymous, false),
    ] {
        assert_eq!(
            set.names(&of_namespace, &principal),
            expected,
            "{principal}"
        );
        assert!(set.names(&by_token, &principal), "{principal}");
    }
}

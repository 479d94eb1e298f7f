//! What is said of rules that do not match.

use super::*;
use crate::Outcome;

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

/// What the one rule of a policy says.
fn said(rule: AccessRule, who: &Principal, action: Action<'_>, facts: Facts<'_>) -> String {
    let set = set(vec![policy("p", Some(vec![rule]))], Posture::Strict);
    let targets = [set.target(&gateway()).unwrap()];
    let query = Query {
        principal: who,
        targets: &targets,
        action,
        facts,
    };
    set.explain(&query).trace[0].outcome.to_string()
}

#[test]
fn names_the_part_of_the_request_that_differs() {
    let header = |name: &str| HeaderAccess {
        name: name.into(),
        value: HeaderValue::Exact("hunter2".into()),
    };
    let http = HttpAccess {
        methods: vec![],
        paths: vec![
            PathAccess::Exact("/a".into()),
            PathAccess::Prefix("/b".into()),
            PathAccess::Regex("/c.*".parse().unwrap()),
        ],
        headers: vec![header("x-a"), header("x-b")],
        hosts: vec![
            HostAccess::Exact("a.example".into()),
            HostAccess::Below(".b.example".into()),
        ],
        ports: vec![80, 443],
    };
    let fields = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        list.iter().map(field).collect()
    };
    let (none, one, both) = (
        fields(&[]),
        fields(&[("x-a", "hunter2"), ("x-b", "secret")]),
        fields(&[("x-a", "hunter2"), ("x-b", "hunter2")]),
    );
    let good = Facts {
        path: "/b/1",
        host: "a.b.example",
        port: 443,
        headers: &both,
        ..Facts::default()
    };
    for (facts, expected) in [
        (good, "matched"),
        (
            Facts { path: "/d", ..good },
            r#"authorization.paths: expected /a, /b/… or what /c.* matches, got "/d""#,
        ),
        (
            Facts {
                headers: &none,
                ..good
            },
            "authorization.headers[0]: expected x-a with the value of the rule, got no such header",
        ),
        (
            Facts {
                headers: &one,
                ..good
            },
            "authorization.headers[1]: expected x-b with the value of the rule, got another value",
        ),
        (
            Facts { host: "c", ..good },
            r#"authorization.hosts: expected a.example or *.b.example, got "c""#,
        ),
        (
            Facts { port: 1, ..good },
            "authorization.ports: expected 80 or 443, got 1",
        ),
    ] {
        let rule = rule(None, http.clone(), None);
        let said = said(rule, &Principal::Anonymous, plain(), facts);
        assert_eq!(said, expected);
    }
}

#[test]
fn names_who_asks_and_what_for() {
    let me = Principal::Workload(ME.parse().unwrap());
    for (action, expected) in [
        (item("tools/call", "b"), r#""tools/call" of "b""#),
        (message(None), "the session as a whole"),
        (message(Some("")), "an answer of the client"),
        (message(Some("ping")), r#""ping""#),
        (LLM, "an LLM call"),
        (plain(), "a plain request"),
    ] {
        let rule = rule(None, HttpAccess::default(), mcp(&[]));
        assert_eq!(
            said(rule, &me, action, Facts::default()),
            format!("authorization.mcp: expected nothing (the list is empty), got {expected}")
        );
    }
    let source = Source::Spiffe(ME.parse().unwrap());
    let rule = rule(Some(source), HttpAccess::default(), None);
    assert_eq!(
        said(rule, &Principal::Anonymous, plain(), Facts::default()),
        format!("from: expected {ME}, got anonymous")
    );
}

#[test]
fn method_names_are_read_as_they_are_printed() {
    for (text, names_items) in [
        ("tools", false),
        ("resources", false),
        ("tools/list", false),
        ("resources/templates/list", false),
        ("tools/call", true),
        ("resources/subscribe", true),
    ] {
        let name: MethodName = text.parse().unwrap();
        assert_eq!(name.to_string(), text);
        assert_eq!(name.names_items(), names_items, "{text}");
    }
    for text in ["", "Tools", "tools/", "ping"] {
        assert_eq!(text.parse::<MethodName>(), Err(UnknownMethodName), "{text}");
    }
}

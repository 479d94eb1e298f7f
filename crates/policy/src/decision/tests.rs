#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn prints_and_serializes_what_decided() {
    let rule = Arc::new(RuleName {
        kind: "AgentPolicy",
        policy: ObjectName::new("ns", "p"),
        rule: "review".into(),
        effect: Effect::Allow,
        mode: Mode::Enforce,
    });
    let whole = RuleName {
        rule: "".into(),
        ..(*rule).clone()
    };
    assert_eq!(whole.to_string(), "AgentPolicy ns/p");
    for (by, text, json) in [
        (
            By::Rule(rule),
            "AgentPolicy ns/p rule review",
            r#"{"kind":"AgentPolicy","namespace":"ns","name":"p","rule":"review"}"#,
        ),
        (
            By::Uncovered(Posture::Graduated),
            "Posture Graduated",
            r#"{"kind":"Posture","name":"Graduated"}"#,
        ),
        (
            By::NoMatch,
            "Default no rule allows this",
            r#"{"kind":"Default","name":"no rule allows this"}"#,
        ),
        (
            By::Identity,
            "Identity no workload identity",
            r#"{"kind":"Identity","name":"no workload identity"}"#,
        ),
        (
            By::Transport("no route"),
            "Transport no route",
            r#"{"kind":"Transport","name":"no route"}"#,
        ),
    ] {
        assert_eq!(by.to_string(), text);
        assert_eq!(serde_json::to_string(&by).unwrap(), json);
    }
}

#[test]
fn serializes_decisions() {
    let allow = Decision::allow(By::Uncovered(Posture::Graduated));
    assert_eq!(
        serde_json::to_string(&allow).unwrap(),
        r#"{"decision":"allow","by":{"kind":"Posture","name":"Graduated"},"would_deny":[]}"#
    );
    let deny = Decision::deny(Code::ToolDenied, By::NoMatch);
    assert_eq!(
        serde_json::to_string(&deny).unwrap(),
        r#"{"decision":"deny","by":{"kind":"Default","name":"no rule allows this"},"code":"tool_denied","would_deny":[]}"#
    );
}

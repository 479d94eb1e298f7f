use std::sync::Arc;

use super::*;
use crate::{Effect, Mode, ObjectName, Posture, RuleName};

fn rule(kind: Kind) -> By {
    By::Rule(Arc::new(RuleName {
        kind: kind.as_str(),
        policy: ObjectName::new("ns", "p"),
        rule: "r".into(),
        effect: Effect::Deny,
        mode: Mode::Enforce,
    }))
}

#[rustfmt::skip]
#[test]
fn names_the_last_that_was_asked() {
    for (case, by, is_allowed, expected) in [
        ("Istio's rule", rule(Kind::AuthorizationPolicy), false, Stage::Istio),
        ("no ALLOW of Istio's", By::NoIstioAllow, false, Stage::Istio),
        ("an agent's rule", rule(Kind::AgentPolicy), false, Stage::Agents),
        ("an agent's rule that allows", rule(Kind::AgentPolicy), true, Stage::Agents),
        ("an upstream rule", rule(Kind::XAccessPolicy), true, Stage::Agents),
        ("no rule", By::NoMatch, false, Stage::Agents),
        ("the posture", By::Uncovered(Posture::Graduated), true, Stage::Posture),
        ("a posture that denies", By::Uncovered(Posture::Strict), false, Stage::Posture),
        ("nobody", By::Identity, false, Stage::Transport),
        ("no route", By::Transport("no route"), false, Stage::Transport),
        // Istio's policies are the only ones that are asked about a connection.
        ("a connection that may pass", By::Transport("a connection"), true, Stage::Istio),
    ] {
        assert_eq!(by.stage(is_allowed), expected, "{case}");
    }
}

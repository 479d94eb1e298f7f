//! What is said of callers that lack a token.

use serde_json::json;

use super::*;
use crate::{ClaimRule, Token};

const TOKEN: &str = "a token of https://one with role a";

fn holder(namespace: Option<&str>) -> Caller {
    let role = ClaimRule {
        path: vec!["role".into()],
        values: vec!["a".parse().unwrap()],
    };
    Caller {
        namespace: namespace.map(Into::into),
        jwt: Some(Token {
            issuer: "https://one".into(),
            claims: vec![role],
        }),
        ..Caller::default()
    }
}

#[test]
fn names_the_token_that_is_lacking() {
    let lacking = |at: usize, got: &str| format!("from[{at}].jwt: expected {TOKEN}, got {got}");
    let right = || Some(("https://one", "a"));
    for (case, effect, from, who, token, expected) in [
        (
            "none",
            Effect::Allow,
            vec![holder(None)],
            ME,
            None,
            lacking(0, "no token"),
        ),
        (
            "of somebody else",
            Effect::Allow,
            vec![holder(None)],
            ME,
            Some(("https://two", "a")),
            lacking(0, "a token of another issuer"),
        ),
        (
            "with other claims",
            Effect::Deny,
            vec![holder(None)],
            ME,
            Some(("https://one", "b")),
            lacking(0, "a token that says otherwise"),
        ),
        (
            "of the first caller who has the identity",
            Effect::Allow,
            vec![holder(Some("b")), holder(Some("a"))],
            ME,
            None,
            lacking(1, "no token"),
        ),
        (
            "beside another identity",
            Effect::Allow,
            vec![holder(Some("b"))],
            ME,
            right(),
            format!("from: expected namespace b and {TOKEN}, got {ME}"),
        ),
        (
            "of nobody we know",
            Effect::Allow,
            vec![holder(None)],
            "",
            None,
            lacking(0, "no token"),
        ),
        (
            "there, but no Allow is about nobody",
            Effect::Allow,
            vec![holder(None)],
            "",
            right(),
            format!("from: expected {TOKEN}, got anonymous"),
        ),
        (
            "there, and a Deny is",
            Effect::Deny,
            vec![holder(None)],
            "",
            right(),
            "matched".into(),
        ),
        (
            "there",
            Effect::Allow,
            vec![holder(Some("a"))],
            ME,
            right(),
            "matched".into(),
        ),
    ] {
        let rules = vec![Rule {
            from: Some(from),
            http: vec![HttpBlock::default()],
            ..rule()
        }];
        let claims = token.map(|(issuer, role)| {
            let claims = json!({"iss": issuer, "role": role});
            Claims(claims.as_object().unwrap().clone())
        });
        let facts = Facts {
            claims: claims.as_ref(),
            ..Facts::default()
        };
        let action = http("GET", "h", "/", 80);
        let explanation = explain_by(effect, rules, who, action, facts);
        let outcome = explanation.trace[0].outcome.to_string();
        assert_eq!(outcome, expected, "{case}");
    }
}

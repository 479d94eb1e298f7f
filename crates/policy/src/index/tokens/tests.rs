use serde_json::json;

use super::*;
use crate::{Caller, ClaimRule};

const CALLERS: usize = 3_000;

/// How many of `CALLERS` callers a token makes us look at.
fn looked_at(effect: Effect, make: impl Fn(usize) -> (String, String, String)) -> usize {
    let mut tokens = Tokens::default();
    for number in 0..CALLERS {
        let (issuer, claim, value) = make(number);
        let token = Token {
            issuer: issuer.into(),
            claims: vec![ClaimRule {
                path: vec![claim.into()],
                values: vec![value.parse().unwrap()],
            }],
        };
        let caller = Caller {
            jwt: Some(token.clone()),
            ..Caller::default()
        };
        tokens.file(&token, &Member::new(caller, effect));
    }
    let claims = json!({"iss": "i7", "c7": ["v7", "x"], "c": ["v7", "y"], "odd": 1});
    let claims = Claims(claims.as_object().unwrap().clone());
    let mut count = 0;
    tokens.find(&claims, |members| count += members.len());
    count
}

#[test]
fn others_are_not_looked_at() {
    let text = |text: &str| text.to_owned();
    for effect in [Effect::Allow, Effect::Deny] {
        for (case, found) in [
            (
                "issuer",
                looked_at(effect, |i| (format!("i{i}"), text("c"), text("v7"))),
            ),
            (
                "claim",
                looked_at(effect, |i| (text("i7"), format!("c{i}"), text("v7"))),
            ),
            (
                "value",
                looked_at(effect, |i| (text("i7"), text("c"), format!("v{i}"))),
            ),
        ] {
            assert_eq!(found, 1, "{case} {effect:?}");
        }
    }
    let odd = |effect| looked_at(effect, |i| (text("i7"), text("odd"), format!("v{i}")));
    assert_eq!(
        (odd(Effect::Allow), odd(Effect::Deny)),
        (0, CALLERS),
        "what cannot be read"
    );
}

/// Claims are told apart by the whole way to them, not by its first name alone.
#[test]
fn claims_inside_the_same_one_are_told_apart() {
    let mut tokens = Tokens::default();
    for (inner, value) in [("a", "v"), ("b", "w")] {
        let token = Token {
            issuer: "i".into(),
            claims: vec![ClaimRule {
                path: vec!["c".into(), inner.into()],
                values: vec![value.parse().unwrap()],
            }],
        };
        let caller = Caller {
            jwt: Some(token.clone()),
            ..Caller::default()
        };
        tokens.file(&token, &Member::new(caller, Effect::Allow));
    }
    for (claim, expected) in [
        (json!({"a": "v"}), 1),
        (json!({"b": "w"}), 1),
        (json!({"a": "v", "b": "w"}), 2),
        (json!({"a": "w", "b": "v"}), 0),
    ] {
        let claims = json!({"iss": "i", "c": claim});
        let claims = Claims(claims.as_object().unwrap().clone());
        let mut count = 0;
        tokens.find(&claims, |members| count += members.len());
        assert_eq!(count, expected, "{claims:?}");
    }
}

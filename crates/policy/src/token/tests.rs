use serde_json::json;

use super::*;

fn token(path: &[&str], values: &[&str]) -> Token {
    let path = path.iter().map(|name| (*name).into()).collect();
    let values = values.iter().map(|value| value.parse().unwrap()).collect();
    Token {
        issuer: "https://one".into(),
        claims: vec![ClaimRule { path, values }],
    }
}

/// By effect: an Allow, then a Deny.
#[test]
fn claims_hold_as_they_are_written() {
    for (case, path, values, claims, expected) in [
        (
            "text",
            &["role"][..],
            &["a", "b"][..],
            json!({"role": "b"}),
            [true, true],
        ),
        (
            "another text",
            &["role"],
            &["a"],
            json!({"role": "b"}),
            [false, false],
        ),
        (
            "a list",
            &["role"],
            &["a"],
            json!({"role": ["b", "a"]}),
            [true, true],
        ),
        (
            "a list in a list",
            &["role"],
            &["a"],
            json!({"role": [["a"]]}),
            [false, true],
        ),
        ("absent", &["role"], &["*"], json!({}), [false, false]),
        (
            "null",
            &["role"],
            &["*"],
            json!({"role": null}),
            [false, true],
        ),
        (
            "a number",
            &["role"],
            &["1"],
            json!({"role": 1}),
            [false, true],
        ),
        (
            "a list with a number",
            &["role"],
            &["a"],
            json!({"role": [1, "a"]}),
            [true, true],
        ),
        (
            "a list with a number, not this",
            &["role"],
            &["a"],
            json!({"role": [1, "b"]}),
            [false, true],
        ),
        (
            "an empty list",
            &["role"],
            &["*"],
            json!({"role": []}),
            [false, false],
        ),
        (
            "empty text",
            &["role"],
            &["*"],
            json!({"role": ""}),
            [false, false],
        ),
        (
            "a glob",
            &["role"],
            &["a*c"],
            json!({"role": "abc"}),
            [true, true],
        ),
        (
            "words",
            &["scope"],
            &["write"],
            json!({"scope": "read write"}),
            [true, true],
        ),
        (
            "words, as a whole",
            &["scope"],
            &["read write"],
            json!({"scope": "read write"}),
            [false, false],
        ),
        (
            "no words",
            &["role"],
            &["write"],
            json!({"role": "read write"}),
            [false, false],
        ),
        (
            "no words inside",
            &["a", "scope"],
            &["write"],
            json!({"a": {"scope": "read write"}}),
            [false, false],
        ),
        (
            "nested",
            &["team", "name"],
            &["a"],
            json!({"team": {"name": "a"}}),
            [true, true],
        ),
        (
            "nested, not there",
            &["team", "name"],
            &["a"],
            json!({"team": {}}),
            [false, false],
        ),
        (
            "nested in nothing",
            &["team", "name"],
            &["a"],
            json!({"name": "a"}),
            [false, false],
        ),
        (
            "nested in text",
            &["team", "name"],
            &["a"],
            json!({"team": "a"}),
            [false, true],
        ),
        (
            "nested in a list",
            &["team", "name"],
            &["a"],
            json!({"team": [{"name": "a"}]}),
            [false, true],
        ),
        (
            "a name with dots",
            &["https://x/role"],
            &["a"],
            json!({"https://x/role": "a"}),
            [true, true],
        ),
        (
            "the issuer's name elsewhere",
            &["iss"],
            &["https://*"],
            json!({}),
            [true, true],
        ),
        ("no path", &[], &["*"], json!({}), [false, false]),
    ] {
        let mut claims = claims;
        claims["iss"] = "https://one".into();
        let claims = Claims(claims.as_object().unwrap().clone());
        let token = token(path, values);
        let held = [Effect::Allow, Effect::Deny].map(|effect| token.matches(Some(&claims), effect));
        assert_eq!(held, expected, "{case}");
        let other = Token {
            issuer: "https://two".into(),
            ..token
        };
        assert!(
            !other.matches(Some(&claims), Effect::Deny),
            "{case}, another issuer"
        );
        assert!(!other.matches(None, Effect::Deny), "{case}, no token");
    }
}

#[test]
fn says_what_it_asks_for() {
    let mut token = token(&["team", "name"], &["a", "b"]);
    token.claims.insert(
        0,
        ClaimRule {
            path: vec!["role".into()],
            values: vec!["*".parse().unwrap()],
        },
    );
    assert_eq!(
        token.to_string(),
        "a token of https://one with role * and [team][name] a or b"
    );
    let json =
        json!({"issuer": "https://one", "claims": {"role": ["*"], "[team][name]": ["a", "b"]}});
    assert_eq!(serde_json::to_value(&token).unwrap(), json);
}

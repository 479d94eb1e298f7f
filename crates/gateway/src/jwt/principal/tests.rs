use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use waypoint_config::TokenForm;
use waypoint_policy::istio::Claims;

use super::{end, workload};
use crate::jwt::verify::Verified;

fn token(claims: &Value, algorithm: Algorithm) -> Verified {
    Verified {
        claims: Claims(claims.as_object().cloned().unwrap_or_default()),
        payload: Vec::new(),
        algorithm,
    }
}

#[test]
fn tokens_name_workloads() {
    let domains = ["cluster.local".to_owned(), "td.example".to_owned()];
    let account = |namespace: Value, name: Value, sub: &str| {
        json!({"sub": sub, "kubernetes.io": {
            "namespace": namespace, "serviceaccount": {"name": name, "uid": "1"},
        }})
    };
    let ann = "system:serviceaccount:agents:ann";
    let of_ann = Some("spiffe://cluster.local/ns/agents/sa/ann");
    let (kubernetes, spiffe) = (TokenForm::ServiceAccount, TokenForm::Spiffe);
    for (case, form, claims, expected) in [
        (
            "an account",
            kubernetes,
            account(json!("agents"), json!("ann"), ann),
            of_ann,
        ),
        (
            "another subject",
            kubernetes,
            account(json!("agents"), json!("bob"), ann),
            None,
        ),
        (
            "a subject that is cut elsewhere",
            kubernetes,
            account(
                json!("agents:ann"),
                json!(""),
                "system:serviceaccount:agents:ann:",
            ),
            None,
        ),
        (
            "a name with a slash",
            kubernetes,
            account(
                json!("a/sa/b"),
                json!("c"),
                "system:serviceaccount:a/sa/b:c",
            ),
            None,
        ),
        (
            "a name that climbs",
            kubernetes,
            account(json!(".."), json!("c"), "system:serviceaccount:..:c"),
            None,
        ),
        (
            "no text",
            kubernetes,
            account(json!(["agents"]), json!("ann"), ann),
            None,
        ),
        (
            "a token without an account, such as a user's",
            kubernetes,
            json!({"sub": ann}),
            None,
        ),
        (
            "an account of old, which has no end",
            kubernetes,
            json!({"sub": ann, "kubernetes.io/serviceaccount/namespace": "agents",
                   "kubernetes.io/serviceaccount/service-account.name": "ann"}),
            None,
        ),
        (
            "a SPIFFE ID is no account",
            kubernetes,
            json!({"sub": "spiffe://cluster.local/ns/agents/sa/ann"}),
            None,
        ),
        (
            "a SPIFFE ID",
            spiffe,
            json!({"sub": "spiffe://cluster.local/ns/agents/sa/ann"}),
            of_ann,
        ),
        (
            "of an alias",
            spiffe,
            json!({"sub": "spiffe://td.example/web"}),
            Some("spiffe://td.example/web"),
        ),
        (
            "of somebody else",
            spiffe,
            json!({"sub": "spiffe://other.example/web"}),
            None,
        ),
        (
            "a trust domain's own",
            spiffe,
            json!({"sub": "spiffe://cluster.local"}),
            None,
        ),
        (
            "an account is no SPIFFE ID",
            spiffe,
            account(json!("agents"), json!("ann"), ann),
            None,
        ),
        ("nobody", spiffe, json!({}), None),
        (
            "several",
            spiffe,
            json!({"sub": ["spiffe://cluster.local/a"]}),
            None,
        ),
    ] {
        let token = token(&claims, Algorithm::ES256);
        let id = workload(form, &token, &domains);
        assert_eq!(id.as_ref().map(|id| id.as_str()), expected, "{case}");
    }
    let claims = json!({"sub": "spiffe://cluster.local/a"});
    assert_eq!(
        workload(spiffe, &token(&claims, Algorithm::EdDSA), &domains),
        None
    );
}

#[test]
fn tokens_end() {
    use std::time::{Duration, UNIX_EPOCH};
    for (exp, expected) in [
        (json!(1000), Some(1061)),
        (json!(1000.9), Some(1061)),
        (json!("1000"), None),
        (json!(-5), None),
        (json!(u64::MAX), None),
        (json!(1e300), None),
        (Value::Null, None),
    ] {
        let claims = token(&json!({"exp": exp}), Algorithm::ES256).claims;
        let expected = expected.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(end(&claims), expected, "{exp}");
    }
}

//! Istio's `RequestAuthentication`: tokens of requests, and what they open.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, http_route, object, service};

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "waypoint";

/// A signing key with its id.
pub(crate) struct Signer {
    id: &'static str,
    pub(crate) key: EncodingKey,
    pub(crate) public: Jwk,
}

impl Signer {
    pub(crate) fn new(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        public.common.key_id = Some(id.to_owned());
        Self { id, key, public }
    }

    pub(crate) fn set(signers: &[&Self]) -> String {
        let keys = signers.iter().map(|signer| signer.public.clone());
        let set = JwkSet {
            keys: keys.collect(),
        };
        serde_json::to_string(&set).unwrap()
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.to_owned());
        encode(&header, claims, &self.key).unwrap()
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Claims that are fine, with these in their place.
pub(crate) fn claims(other: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "ann", "aud": AUDIENCE, "exp": now() + 600,
        "role": ["engineer", "reader"], "team": {"name": "alpha"},
    });
    for (name, value) in other.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

pub(crate) fn on_gateway(kind: &str, name: &str, spec: &str) -> String {
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]\n";
    object(
        "security.istio.io/v1",
        kind,
        name,
        &format!("{target}{spec}"),
    )
}

fn authentication(keys: &str, more: &str) -> String {
    let rule =
        format!("jwtRules:\n- issuer: {ISSUER}\n  audiences: [{AUDIENCE}]\n  {keys}\n{more}");
    on_gateway("RequestAuthentication", "tokens", &rule)
}

pub(crate) async fn start(policies: &[String]) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let mut objects = vec![
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
    ];
    objects.extend_from_slice(policies);
    (upstream, Setup::new(&objects.concat()).start().await)
}

pub(crate) fn get(path: &str) -> Request {
    Request::new("GET", path).host("app.example.com")
}

pub(crate) async fn ask(waypoint: &Waypoint, request: Request) -> Answer {
    waypoint.workload(ANN).call(&request).await.unwrap()
}

#[tokio::test]
async fn a_token_that_is_there_must_be_valid() {
    let (signer, other) = (Signer::new("one"), Signer::new("two"));
    let set = Signer::set(&[&signer]);
    let inline = format!("jwks: '{set}'");
    let (upstream, waypoint) = start(&[authentication(&inline, "")]).await;
    let good = signer.token(&claims(&json!({})));
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned =
        |header: &Value| format!("{}.{}.", encoded(header), encoded(&claims(&json!({}))));
    // The public key taken for a secret: whoever knows it could sign (RFC 8725 §2.1).
    let public = serde_json::to_vec(&signer.public).unwrap();
    let mut confused = Header::new(Algorithm::HS256);
    confused.kid = Some("one".to_owned());
    let confused = encode(
        &confused,
        &claims(&json!({})),
        &EncodingKey::from_secret(&public),
    )
    .unwrap();
    let tampered = {
        let mut parts: Vec<&str> = good.split('.').collect();
        let payload = encoded(&claims(&json!({"sub": "root"})));
        parts[1] = &payload;
        parts.join(".")
    };
    let mut foreign = Header::new(Algorithm::ES256);
    foreign.kid = Some("one".to_owned());
    let foreign = encode(&foreign, &claims(&json!({})), &other.key).unwrap();
    for (case, token, expected) in [
        ("valid", good.clone(), Ok(())),
        (
            "two audiences",
            signer.token(&claims(&json!({"aud": ["x", AUDIENCE]}))),
            Ok(()),
        ),
        (
            "over, within the skew of clocks",
            signer.token(&claims(&json!({"exp": now() - 5}))),
            Ok(()),
        ),
        (
            "without an end",
            signer.token(&claims(&json!({"exp": null}))),
            Ok(()),
        ),
        (
            "over",
            signer.token(&claims(&json!({"exp": now() - 600}))),
            Err("expired"),
        ),
        (
            "not yet",
            signer.token(&claims(&json!({"nbf": now() + 600}))),
            Err("not valid yet"),
        ),
        (
            "another issuer",
            signer.token(&claims(&json!({"iss": "https://other.example"}))),
            Err("another issuer"),
        ),
        (
            "no issuer",
            signer.token(&claims(&json!({"iss": null}))),
            Err("another issuer"),
        ),
        (
            "another audience",
            signer.token(&claims(&json!({"aud": "other"}))),
            Err("another audience"),
        ),
        (
            "no audience",
            signer.token(&claims(&json!({"aud": null}))),
            Err("a claim is missing"),
        ),
        (
            "another key by the same id",
            foreign,
            Err("the signature is not its issuer's"),
        ),
        (
            "a key nobody knows",
            other.token(&claims(&json!({}))),
            Err("no key of its issuer fits"),
        ),
        (
            "a signature of other claims",
            tampered,
            Err("the signature is not its issuer's"),
        ),
        (
            "no signature",
            unsigned(&json!({"alg": "none"})),
            Err("an algorithm that is not taken"),
        ),
        (
            "no signature, said otherwise",
            unsigned(&json!({"alg": "nOnE"})),
            Err("an algorithm that is not taken"),
        ),
        (
            "no signature under a good name",
            unsigned(&json!({"alg": "ES256", "kid": "one"})),
            Err("the signature is not its issuer's"),
        ),
        (
            "a secret that is public",
            confused,
            Err("no key of its issuer fits"),
        ),
        (
            "an extension that must be understood",
            {
                let header = json!({"alg": "ES256", "kid": "one", "crit": ["b64"]});
                format!("{}.{}", encoded(&header), good.split_once('.').unwrap().1)
            },
            Err("not a JSON Web Token"),
        ),
        (
            "no token at all",
            "sk-12345".to_owned(),
            Err("not a JSON Web Token"),
        ),
    ] {
        let before = upstream.seen().len();
        let request = get("/").header("authorization", &format!("Bearer {token}"));
        let answer = ask(&waypoint, request).await;
        let status = if expected.is_ok() { 200 } else { 401 };
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        if let Err(why) = expected {
            assert_eq!(event["code"], "identity_invalid", "{case}: {event}");
            assert_eq!(
                event["by"]["name"],
                format!("token: {why}"),
                "{case}: {event}"
            );
            assert_eq!(upstream.seen().len(), before, "{case}");
        } else {
            let seen = upstream.last();
            assert_eq!(seen.header("authorization"), None, "{case}: it stays here");
        }
    }
    // Without one it is for authorization to ask for it; another scheme is somebody else's.
    assert_eq!(ask(&waypoint, get("/")).await.status, 200);
    let basic = get("/").header("authorization", "Basic YTpi");
    assert_eq!(ask(&waypoint, basic).await.status, 200);
    assert_eq!(upstream.last().header("authorization"), Some("Basic YTpi"));
    // Names of schemes have no case.
    let small = |token: &str| get("/").header("authorization", &format!("bearer {token}"));
    assert_eq!(ask(&waypoint, small("bad")).await.status, 401);
    assert_eq!(ask(&waypoint, small(&good)).await.status, 200);
    assert_eq!(upstream.last().header("authorization"), None);
    // A second token that is bad spoils a good one.
    let both = get("/?access_token=bad").header("authorization", &format!("Bearer {good}"));
    assert_eq!(ask(&waypoint, both).await.status, 401);
    // Preflights bring none by their nature.
    let preflight = Request::new("OPTIONS", "/")
        .host("app.example.com")
        .header("origin", "http://app.example.com")
        .header("access-control-request-method", "GET")
        .header("authorization", "Bearer bad");
    assert_eq!(ask(&waypoint, preflight).await.status, 200);
}

#[tokio::test]
async fn tokens_are_found_and_taken_away_where_the_rule_says() {
    let signer = Signer::new("one");
    let set = Signer::set(&[&signer]);
    let inline = format!("jwks: '{set}'");
    let more = "  fromHeaders: [{name: X-Token, prefix: \"jwt \"}]
  fromParams: [token]
  fromCookies: [session]
  outputPayloadToHeader: x-payload
  outputClaimToHeaders: [{header: X-Subject, claim: sub}, {header: x-team, claim: team.name}]
";
    let (upstream, waypoint) = start(&[authentication(&inline, more)]).await;
    let token = signer.token(&claims(&json!({})));
    for (case, request, kept) in [
        (
            "a header",
            get("/a").header("x-token", &format!("jwt {token}")),
            "/a",
        ),
        (
            "a parameter",
            get(&format!("/a?b=c&token={token}&d=e")),
            "/a?b=c&d=e",
        ),
        (
            "a cookie",
            get("/a").header("cookie", &format!("x=y; session={token}")),
            "/a",
        ),
    ] {
        let request = request.header("x-subject", "forged");
        let answer = ask(&waypoint, request).await;
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        let seen = upstream.last();
        assert_eq!(seen.target(), kept, "{case}");
        assert_eq!(seen.header("x-token"), None, "{case}");
        if case == "a cookie" {
            assert_eq!(seen.header("cookie"), Some("x=y"));
        }
        assert_eq!(
            seen.fields("x-subject").collect::<Vec<_>>(),
            ["ann"],
            "{case}"
        );
        assert_eq!(seen.header("x-team"), Some("alpha"), "{case}");
        let payload = URL_SAFE_NO_PAD
            .decode(seen.header("x-payload").unwrap())
            .unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["sub"], "ann", "{case}");
    }
    // Without a token nothing is said in its name.
    let forged = get("/")
        .header("x-subject", "forged")
        .header("x-payload", "e30");
    assert_eq!(ask(&waypoint, forged).await.status, 200);
    let seen = upstream.last();
    assert_eq!(
        (seen.header("x-subject"), seen.header("x-payload")),
        (None, None)
    );
}

#[tokio::test]
async fn policies_ask_for_what_tokens_say() {
    let signer = Signer::new("one");
    let inline = format!(
        "jwks: '{}'\n  forwardOriginalToken: true",
        Signer::set(&[&signer])
    );
    let rules = "\
rules:
- from: [{source: {requestPrincipals: [\"https://issuer.example/ann\"]}}]
  to: [{operation: {paths: [/ann]}}]
- to: [{operation: {paths: [/engineers]}}]
  when: [{key: \"request.auth.claims[role]\", values: [engineer]}]
- to: [{operation: {paths: [/alpha]}}]
  when: [{key: \"request.auth.claims[team][name]\", values: [\"al*\"]}]
- from: [{source: {requestPrincipals: [\"*\"]}}]
  to: [{operation: {paths: [/anyone]}}]
";
    let allow = on_gateway("AuthorizationPolicy", "tokens", rules);
    let (upstream, waypoint) = start(&[authentication(&inline, ""), allow]).await;
    let ann = signer.token(&claims(&json!({})));
    let bob = signer.token(&claims(
        &json!({"sub": "bob", "role": "reader", "team": "alpha"}),
    ));
    for (path, by_ann, by_bob) in [
        ("/ann", 200, 403),
        ("/engineers", 200, 403),
        ("/alpha", 200, 403),
        ("/anyone", 200, 200),
        ("/else", 403, 403),
    ] {
        for (who, token, status) in [("ann", &ann, by_ann), ("bob", &bob, by_bob)] {
            let request = get(path).header("authorization", &format!("Bearer {token}"));
            let answer = ask(&waypoint, request).await;
            assert_eq!(answer.status, status, "{who} {path}");
        }
        assert_eq!(ask(&waypoint, get(path)).await.status, 403, "nobody {path}");
    }
    let expected = format!("Bearer {bob}");
    assert_eq!(
        upstream.last().header("authorization"),
        Some(&*expected),
        "forwarded"
    );
}

/// An issuer changes its keys: the new one counts soon after it is first seen, and no request waits.
#[tokio::test]
async fn keys_are_fetched_and_fetched_again() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let first = Signer::set(&[&old]);
    let both = Signer::set(&[&old, &new]);
    let json = |set: &str| Reply::whole(200, &[("content-type", "application/json")], set);
    let issuer =
        Upstream::in_turn(vec![json(&first), Reply::whole(500, &[], ""), json(&both)]).await;
    let keys = format!("jwksUri: {}/keys.json", issuer.url());
    let (_upstream, waypoint) = start(&[authentication(&keys, "")]).await;
    let bearer = |signer: &Signer| {
        let token = signer.token(&claims(&json!({})));
        get("/").header("authorization", &format!("Bearer {token}"))
    };
    assert_eq!(ask(&waypoint, bearer(&old)).await.status, 200);
    assert_eq!(ask(&waypoint, bearer(&new)).await.status, 401);
    until("the new key to count", || async {
        let answer = ask(&waypoint, bearer(&new)).await;
        assert_eq!(ask(&waypoint, bearer(&old)).await.status, 200);
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(issuer.seen()[0].target(), "/keys.json");
}

/// Istio's `spaceDelimitedClaims`: `scope` and `permission` are lists by nature, others if named.
#[tokio::test]
async fn claims_are_split_at_spaces_where_the_rule_says() {
    let signer = Signer::new("one");
    let keys = format!("jwks: '{}'", Signer::set(&[&signer]));
    let rules = "\
rules:
- to: [{operation: {paths: [/scope]}}]
  when: [{key: \"request.auth.claims[scope]\", values: [write]}]
- to: [{operation: {paths: [/groups]}}]
  when: [{key: \"request.auth.claims[groups]\", values: [ops]}]
- to: [{operation: {paths: [/roles]}}]
  when: [{key: \"request.auth.claims[roles]\", values: [ops]}]
- to: [{operation: {paths: [/whole]}}]
  when: [{key: \"request.auth.claims[roles]\", values: [\"dev ops\"]}]
- to: [{operation: {paths: [/not]}}]
  when: [{key: \"request.auth.claims[groups]\", notValues: [ops]}]
";
    let allow = on_gateway("AuthorizationPolicy", "tokens", rules);
    let named = "  spaceDelimitedClaims: [groups]\n";
    let (_upstream, waypoint) = start(&[authentication(&keys, named), allow]).await;
    let lists = json!({"scope": "read write", "groups": "dev ops", "roles": "dev ops"});
    let other = json!({"scope": "rewrite", "groups": "devops", "roles": ["ops"]});
    for (path, of_lists, of_other) in [
        ("/scope", 200, 403),
        ("/groups", 200, 403),
        ("/roles", 403, 200),
        ("/whole", 200, 403),
        ("/not", 403, 200),
    ] {
        for (more, status) in [(&lists, of_lists), (&other, of_other)] {
            let token = signer.token(&claims(more));
            let request = get(path).header("authorization", &format!("Bearer {token}"));
            assert_eq!(
                ask(&waypoint, request).await.status,
                status,
                "{path} {more}"
            );
        }
    }
}

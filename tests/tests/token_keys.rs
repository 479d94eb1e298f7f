//! Where the keys of tokens come from: OpenID discovery, and places that answer badly or not at all.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use waypoint_tests::client::Request;
use waypoint_tests::upstream::{Gate, Reply, Seen, Speaks, Step, Upstream};
use waypoint_tests::wait::{soon, until};
use waypoint_tests::waypoint::Waypoint;

use crate::tokens::{AUDIENCE, Signer, ask, claims, get, on_gateway, start};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// A RequestAuthentication with these issuers, and more fields of each rule.
fn issuers(issuers: &[(String, &str)]) -> String {
    let mut spec = "jwtRules:\n".to_owned();
    for (issuer, more) in issuers {
        let _ = writeln!(
            spec,
            "- {{issuer: \"{issuer}\", audiences: [{AUDIENCE}]{more}}}"
        );
    }
    on_gateway("RequestAuthentication", "tokens", &spec)
}

fn bearer(signer: &Signer, issuer: &str) -> Request {
    let token = signer.token(&claims(&json!({"iss": issuer})));
    get("/").header("authorization", &format!("Bearer {token}"))
}

fn keys(signers: &[&Signer]) -> Reply {
    let set = Signer::set(signers);
    Reply::whole(200, &[("content-type", "application/json")], set)
}

/// Where a server is, as whoever asks it sees it.
fn here(seen: &Seen) -> String {
    format!("http://{}", seen.header("host").unwrap_or_default())
}

async fn failed(waypoint: &Waypoint, uri: &str) {
    let labels = [("uri", uri), ("result", "failed")];
    let name = "waypoint_jwks_fetches_total";
    waypoint.metric_reaches(name, &labels, 1.0).await;
}

#[tokio::test]
async fn keys_are_where_the_issuer_says() {
    let signer = Arc::new(Signer::new("one"));
    let other = Signer::new("two");
    let own = Arc::clone(&signer);
    let issuer = Upstream::start(move |seen| {
        let here = here(seen);
        let configuration = |issuer: String| {
            Reply::json(&json!({
                "issuer": issuer, "jwks_uri": format!("{here}/keys/?of={issuer}#"),
                "authorization_endpoint": "https://elsewhere.example/",
            }))
        };
        match seen.target() {
            // A fragment is no part of a place.
            "/fragment/.well-known/openid-configuration" => {
                configuration(format!("{here}/fragment"))
            }
            WELL_KNOWN => {
                Reply::json(&json!({"issuer": here, "jwks_uri": format!("{here}/keys/?a=b")}))
            }
            "/tenant/.well-known/openid-configuration" => Reply::json(
                &json!({"issuer": format!("{here}/tenant/"), "jwks_uri": format!("{here}/tenant")}),
            ),
            "/keys/?a=b" | "/tenant" => keys(&[&own]),
            _ => Reply::status(404, &json!({})),
        }
    })
    .await;
    // A slash at the end of an issuer is taken off before the rest is put there, and is part of it
    // all the same (OpenID Connect Discovery 1.0 §4.1, §4.3).
    let (root, tenant) = (issuer.url(), format!("{}/tenant/", issuer.url()));
    let fragment = format!("{}/fragment", issuer.url());
    let all = [
        (root.clone(), ""),
        (tenant.clone(), ""),
        (fragment.clone(), ""),
    ];
    let (_upstream, waypoint) = start(&[issuers(&all)]).await;
    for issuer in [&root, &tenant] {
        let answer = ask(&waypoint, bearer(&signer, issuer)).await;
        assert_eq!(answer.status, 200, "{issuer}: {}", answer.text());
        assert_eq!(ask(&waypoint, bearer(&other, issuer)).await.status, 401);
    }
    assert_eq!(ask(&waypoint, bearer(&signer, &fragment)).await.status, 401);
    let bare = tenant.trim_end_matches('/');
    assert_eq!(ask(&waypoint, bearer(&signer, bare)).await.status, 401);
    let uri = format!("{root}{WELL_KNOWN}");
    let labels = [("uri", &*uri), ("result", "ok")];
    let name = "waypoint_jwks_fetches_total";
    waypoint.metric_reaches(name, &labels, 1.0).await;
    // Another generation asks nobody again.
    let before = issuer.seen().len();
    waypoint
        .edit_base("[127.0.0.0/8]", "[127.0.0.0/8] # again")
        .await;
    assert_eq!(ask(&waypoint, bearer(&signer, &root)).await.status, 200);
    let asked = issuer.seen().into_iter().skip(before);
    let asked: Vec<_> = asked
        .filter(|seen| !seen.target().starts_with("/fragment"))
        .collect();
    assert!(
        asked.iter().all(|seen| seen.target() != "/tenant"),
        "{asked:#?}"
    );
}

/// What does not come from the issuer as it must leaves its tokens refused, and everything else as
/// it was.
#[tokio::test]
async fn tokens_are_refused_while_their_keys_cannot_be_had() {
    let signer = Arc::new(Signer::new("one"));
    let own = Arc::clone(&signer);
    let server = Upstream::start(move |seen| {
        let here = here(seen);
        let target = seen.target();
        let case = target.strip_suffix(WELL_KNOWN).unwrap_or_default();
        let issuer = format!("{here}{case}");
        let with = |issuer: &str, uri: &str| Reply::json(&json!({"issuer": issuer, "jwks_uri": uri}));
        let good = format!("{here}/keys");
        match case {
            "/other-issuer" => with("https://other.example", &good),
            "/slash" => with(&format!("{issuer}/"), &good),
            "/none" => Reply::json(&json!({"jwks_uri": good})),
            "/no-keys" => Reply::json(&json!({"issuer": issuer})),
            "/twice" => Reply::whole(
                200,
                &[],
                format!(r#"{{"issuer": "https://other.example", "issuer": "{issuer}", "jwks_uri": "{good}"}}"#),
            ),
            "/status" => Reply::status(500, &json!({"issuer": issuer, "jwks_uri": good})),
            "/redirect" => Reply::whole(302, &[("location", &good)], ""),
            "/no-json" => Reply::whole(200, &[], "<html>"),
            "/large" => {
                let padding = "x".repeat(2 << 20);
                Reply::json(&json!({"issuer": issuer, "jwks_uri": good, "padding": padding}))
            }
            "/private" => with(&issuer, "http://10.0.0.1/keys"),
            "/metadata" => with(&issuer, "http://169.254.169.254/keys"),
            "/service" => with(&issuer, "http://keys.agents.svc.cluster.local/keys"),
            "/scheme" => with(&issuer, "file:///etc/keys"),
            "/relative" => with(&issuer, "/keys"),
            "/password" => with(&issuer, &good.replace("http://", "http://a:b@")),
            "/bad-set" => with(&issuer, &format!("{here}/bad-set")),
            "/silent" => Reply::raw(Vec::new()).then(Step::Stall),
            "/slow" => Reply::raw(*b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{").then(Step::Stall),
            "/late" => with(&issuer, &format!("{here}/silent{WELL_KNOWN}")),
            _ if target == "/keys" => keys(&[&own]),
            _ => Reply::json(&json!({"keys": "none"})),
        }
    })
    .await;
    let cases = [
        "/other-issuer",
        "/slash",
        "/none",
        "/no-keys",
        "/twice",
        "/status",
        "/redirect",
        "/no-json",
        "/large",
        "/private",
        "/metadata",
        "/service",
        "/scheme",
        "/relative",
        "/password",
        "/bad-set",
        "/silent",
        "/slow",
        "/late",
    ];
    let all = cases.map(|case| (format!("{}{case}", server.url()), ", timeout: 300ms"));
    let (upstream, waypoint) = start(&[issuers(&all)]).await;
    for (issuer, _) in &all {
        let answer = ask(&waypoint, bearer(&signer, issuer)).await;
        assert_eq!(answer.status, 401, "{issuer}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["code"], "identity_invalid", "{issuer}");
        failed(&waypoint, &format!("{issuer}{WELL_KNOWN}")).await;
        let said = waypoint.stderr();
        let lines = said
            .lines()
            .filter(|line| line.contains("cannot be fetched"));
        assert!(
            lines.into_iter().any(|line| line.contains(&**issuer)),
            "{issuer}: {said}"
        );
    }
    assert!(upstream.seen().is_empty());
    let asked = server.seen();
    assert!(
        asked.iter().all(|seen| seen.target() != "/keys"),
        "{asked:#?}"
    );
    let said = waypoint.stderr();
    for secret in ["169.254", "other.example", "/etc/keys", "<html>"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    // Whoever brings none is not concerned.
    assert_eq!(ask(&waypoint, get("/")).await.status, 200);
}

/// Keys come and change behind discovery as behind a place that is written down, and a document that
/// breaks later takes away nothing.
#[tokio::test]
async fn discovery_is_tried_again_and_follows_the_issuer() {
    let (old, new) = (Arc::new(Signer::new("old")), Arc::new(Signer::new("new")));
    let turns = Arc::new(AtomicUsize::new(0));
    let (signers, turn) = ((Arc::clone(&old), Arc::clone(&new)), Arc::clone(&turns));
    let issuer = Upstream::start(move |seen| {
        let here = here(seen);
        let to =
            |uri: &str| Reply::json(&json!({"issuer": here, "jwks_uri": format!("{here}{uri}")}));
        match seen.target() {
            WELL_KNOWN => match turn.fetch_add(1, Ordering::SeqCst) {
                0 => Reply::status(503, &json!({})),
                1 => to("/first"),
                2 => Reply::json(&json!({"issuer": "https://other.example", "jwks_uri": here})),
                _ => to("/second"),
            },
            "/first" => keys(&[&signers.0]),
            _ => keys(&[&signers.0, &signers.1]),
        }
    })
    .await;
    let (_upstream, waypoint) = start(&[issuers(&[(issuer.url(), "")])]).await;
    let status = async |signer: &Signer| ask(&waypoint, bearer(signer, &issuer.url())).await.status;
    assert_eq!(status(&old).await, 401);
    until("the issuer to be found", async || {
        (status(&old).await == 200).then_some(())
    })
    .await;
    until("the new key to count", async || {
        assert_eq!(status(&old).await, 200);
        (status(&new).await == 200).then_some(())
    })
    .await;
    assert_eq!(turns.load(Ordering::SeqCst), 4);
}

/// A place that hangs costs a request no more than the first attempt to ask it, and other requests
/// nothing.
#[tokio::test]
async fn a_place_that_hangs_holds_nobody_up() {
    let signer = Arc::new(Signer::new("one"));
    let (gate, own) = (Gate::new(), Arc::clone(&signer));
    let open = gate.clone();
    let server = Upstream::start(move |seen| match seen.target() {
        "/keys" => {
            let set = Signer::set(&[&own]);
            Reply::raw(Vec::new()).wait(&open).bytes(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}",
                set.len()
            ))
        }
        _ => Reply::status(404, &Value::Null),
    })
    .await;
    let uri = format!("{}/keys", server.url());
    let more = format!(", jwksUri: \"{uri}\", timeout: 500ms");
    let name = "https://issuer.example".to_owned();
    let (_upstream, waypoint) = start(&[issuers(&[(name.clone(), &more)])]).await;
    server.requests(1).await;
    // While the keys are on their way: those who need none do not wait for them.
    assert_eq!(ask(&waypoint, get("/")).await.status, 200);
    let refused = soon(
        "an answer without keys",
        ask(&waypoint, bearer(&signer, &name)),
    )
    .await;
    assert_eq!(refused.status, 401);
    failed(&waypoint, &uri).await;
    gate.open();
    until("the keys", async || {
        (ask(&waypoint, bearer(&signer, &name)).await.status == 200).then_some(())
    })
    .await;
}

/// An https issuer is who its certificate says, by the public roots.
#[tokio::test]
async fn issuers_prove_who_they_are() {
    let authority = waypoint_tests::certificates::Authority::new();
    let speaks = Speaks::tls(&authority.server(), &["http/1.1"]);
    let server = Upstream::speaking(speaks, |_| Reply::json(&json!({}))).await;
    let issuer = format!("https://localhost:{}", server.address.port());
    let (_upstream, waypoint) = start(&[issuers(&[(issuer.clone(), "")])]).await;
    let signer = Signer::new("one");
    assert_eq!(ask(&waypoint, bearer(&signer, &issuer)).await.status, 401);
    failed(&waypoint, &format!("{issuer}{WELL_KNOWN}")).await;
    server.refused(1).await;
    assert!(server.seen().is_empty());
}

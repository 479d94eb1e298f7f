//! Callers without a certificate who say by a token who they are.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use waypoint_tests::certificates::Authority;
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::llm::{chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server::{MODERN, modern};
use waypoint_tests::upstream::{Gate, Reply, Speaks, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, agent, http_route, mcp_proxy, provider, roots, route, service,
};

use crate::tokens::{AUDIENCE, ISSUER, Signer, now, on_gateway};

/// What the API server signs for a service account of `agents`, with these claims in their place.
fn account(name: &str, other: &Value) -> Value {
    let claims = json!({
        "iss": ISSUER, "sub": format!("system:serviceaccount:agents:{name}"), "aud": [AUDIENCE],
        "iat": now() - 10, "nbf": now() - 10, "exp": now() + 600, "jti": "1",
        "kubernetes.io": {
            "namespace": "agents", "node": {"name": "n", "uid": "2"}, "pod": {"name": "p", "uid": "3"},
            "serviceaccount": {"name": name, "uid": "4"},
        },
    });
    with(claims, other)
}

/// A JWT-SVID.
fn svid(id: &str, other: &Value) -> Value {
    let claims = json!({"sub": id, "aud": [AUDIENCE], "exp": now() + 600, "iat": now() - 10});
    with(claims, other)
}

fn with(mut claims: Value, other: &Value) -> Value {
    for (name, value) in other.as_object().unwrap() {
        let claims = claims.as_object_mut().unwrap();
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// A rule for service account tokens; more fields of it begin with a comma.
fn accounts(keys: &str, more: &str) -> String {
    format!("{{type: ServiceAccount, issuer: \"{ISSUER}\", audiences: [{AUDIENCE}], {keys}{more}}}")
}

fn inline(signer: &Signer) -> String {
    format!("jwks: '{}'", Signer::set(&[signer]))
}

const MTLS: &str = "    mtls: {clientCertificate";

/// Lets a listener take tokens by these rules.
async fn take(waypoint: &Waypoint, rules: &str) {
    let taken = format!("    plain: {{tokenPrincipals: [{rules}]}}\n{MTLS}");
    waypoint.edit_base(MTLS, &taken).await;
}

/// Everything, behind one gateway: models and tools for ann, `/ann` for ann.
async fn start(more: &str) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::start(|seen| match seen.json()["method"].as_str() {
        Some("tools/call") => Reply::json(&json!({
            "jsonrpc": "2.0", "id": seen.json()["id"], "result": {"content": [], "resultType": "complete"},
        })),
        _ if seen.target().starts_with("/v1/chat") => chat_answer(),
        _ => Reply::whole(200, &[], "hello"),
    })
    .await;
    let rule = format!(
        "- name: ann\n  from: [{{spiffe: \"{ANN}\"}}]\n  llm: [{{models: [\"*\"]}}]\n  mcp: [{{methods: [{{name: tools/call}}]}}]"
    );
    let plain = "\
rules:
- from: [{source: {principals: [\"cluster.local/ns/agents/sa/ann\"]}}]
- to: [{operation: {paths: [/open, \"/ai/*\", \"/mcp/*\"]}}]
";
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{kind: LLMProvider, name: openai}]"),
        mcp_proxy("tools", &upstream, ""),
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
        agent("ann", "Allow", &rule),
        on_gateway("AuthorizationPolicy", "ann", plain),
        more.to_owned(),
    ];
    (upstream, Setup::new(&objects.concat()).start().await)
}

fn bearer(request: Request, token: &str) -> Request {
    request.header("authorization", &format!("Bearer {token}"))
}

fn get(path: &str) -> Request {
    Request::new("GET", path)
}

fn tool() -> Request {
    let message = modern(7, "tools/call", &json!({"name": "search", "arguments": {}}));
    Request::post("/mcp/tools/", message)
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", "tools/call")
        .header("mcp-name", "search")
        .header("accept", "application/json, text/event-stream")
}

async fn nobody(waypoint: &Waypoint, request: Request) -> Answer {
    waypoint.anonymous().call(&request).await.unwrap()
}

#[tokio::test]
async fn a_service_account_token_is_an_identity() {
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let (upstream, waypoint) = start("").await;
    let good = signer.token(&account("ann", &json!({})));
    // Off unless the operator says so.
    let answer = nobody(&waypoint, bearer(chat("m"), &good)).await;
    assert_eq!((answer.status, &*answer.code()), (401, "identity_required"));
    assert_eq!(
        nobody(&waypoint, bearer(get("/ann"), &good)).await.status,
        403
    );
    take(&waypoint, &accounts(&inline(&signer), "")).await;

    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |header: &Value| {
        let claims = encoded(&account("ann", &json!({})));
        format!("{}.{claims}.", encoded(header))
    };
    let public = serde_json::to_vec(&signer.public).unwrap();
    let mut confused = Header::new(Algorithm::HS256);
    confused.kid = Some("one".to_owned());
    let confused = encode(
        &confused,
        &account("ann", &json!({})),
        &EncodingKey::from_secret(&public),
    )
    .unwrap();
    let of = |claims: Value| signer.token(&account("ann", &claims));
    for (case, token) in [
        (
            "another audience",
            of(json!({"aud": ["https://kubernetes.default.svc"]})),
        ),
        ("no audience", of(json!({"aud": null}))),
        ("over", of(json!({"exp": now() - 600}))),
        ("without an end", of(json!({"exp": null}))),
        ("an end that is none", of(json!({"exp": "never"}))),
        ("not yet", of(json!({"nbf": now() + 600}))),
        (
            "another issuer",
            of(json!({"iss": "https://other.example"})),
        ),
        ("no issuer", of(json!({"iss": null}))),
        (
            "another subject",
            of(json!({"sub": "system:serviceaccount:agents:bob"})),
        ),
        ("no account", of(json!({"kubernetes.io": null}))),
        (
            "a SPIFFE ID where an account must be",
            signer.token(&svid(ANN, &json!({"iss": ISSUER}))),
        ),
        ("another key", other.token(&account("ann", &json!({})))),
        ("no signature", unsigned(&json!({"alg": "none"}))),
        (
            "no signature under a good name",
            unsigned(&json!({"alg": "ES256", "kid": "one"})),
        ),
        ("a secret that is public", confused),
        ("no token at all", "sk-12345".to_owned()),
    ] {
        let before = upstream.seen().len();
        for request in [chat("m"), tool(), get("/open")] {
            let answer = nobody(&waypoint, bearer(request, &token)).await;
            assert_eq!(answer.status, 401, "{case}: {}", answer.text());
            let event = waypoint.event(&answer).await;
            assert_eq!(event["code"], "identity_invalid", "{case}: {event}");
            assert_eq!(event["principal"], "anonymous", "{case}: {event}");
        }
        assert_eq!(upstream.seen().len(), before, "{case}");
    }
    // Names of schemes have no case.
    let small = get("/ann").header("authorization", &format!("bearer {good}"));
    assert_eq!(nobody(&waypoint, small).await.status, 200);
    assert_eq!(upstream.last().header("authorization"), None);
    // Two tokens say two things.
    let both = bearer(bearer(get("/open"), &good), &of(json!({"jti": "2"})));
    assert_eq!(nobody(&waypoint, both).await.status, 401);

    let bob = signer.token(&account("bob", &json!({})));
    for (case, token, principal, statuses) in [
        ("good", Some(&good), ANN, [200, 200, 200, 200]),
        ("of somebody else", Some(&bob), BOB, [403, 403, 403, 200]),
        ("none", None, "anonymous", [401, 403, 403, 200]),
    ] {
        let requests = [chat("m"), tool(), get("/ann"), get("/open")];
        for (request, status) in requests.into_iter().zip(statuses) {
            let case = format!("{case} {}", request.target);
            let request = match token {
                Some(token) => bearer(request, token),
                None => request,
            };
            let before = upstream.seen().len();
            let answer = nobody(&waypoint, request).await;
            assert_eq!(answer.status, status, "{case}: {}", answer.text());
            let event = waypoint.event(&answer).await;
            let source = token.map_or("none", |_| "token");
            assert_eq!(event["principal"], principal, "{case}: {event}");
            assert_eq!(event["identity_source"], source, "{case}: {event}");
            // The token stays here.
            if let Some(seen) = upstream.seen().get(before) {
                assert_eq!(seen.header("authorization"), None, "{case}");
            }
        }
    }
    // Somebody else's scheme is no token.
    let basic = get("/open").header("authorization", "Basic YTpi");
    assert_eq!(nobody(&waypoint, basic).await.status, 200);
    assert_eq!(upstream.last().header("authorization"), Some("Basic YTpi"));
    // On one connection each request has its own caller.
    let mut connection = waypoint.anonymous().connect().await.unwrap();
    for (token, status) in [(&good, 200), (&bob, 403), (&good, 200)] {
        let answer = connection.call(&bearer(get("/ann"), token)).await.unwrap();
        assert_eq!(answer.status, status);
    }
    assert_eq!(connection.call(&get("/ann")).await.unwrap().status, 403);
    let mut connection = waypoint.anonymous().connect_http2().await.unwrap();
    for (token, status) in [(&good, 200), (&bob, 403), (&good, 200)] {
        let request = bearer(get("/ann"), token).host("app.example.com");
        assert_eq!(connection.call(&request).await.unwrap().status, status);
    }
    let shown = waypoint.admin("/config_dump").await.text();
    assert!(
        shown.contains("ServiceAccount") && !shown.contains("\"kty\""),
        "{shown}"
    );
}

#[tokio::test]
async fn a_jwt_svid_is_an_identity() {
    let signer = Signer::new("one");
    let set = Signer::set(&[&signer]);
    let bundle = Upstream::always(Reply::whole(200, &[], &set)).await;
    let (_upstream, waypoint) = start("").await;
    let rule = |more: &str| {
        let uri = bundle.url();
        format!("{{type: SPIFFE, audiences: [{AUDIENCE}], jwksUri: \"{uri}/bundle\"{more}}}")
    };
    take(&waypoint, &rule("")).await;
    for (case, claims, status) in [
        ("good", svid(ANN, &json!({})), 200),
        (
            "with an issuer, which nobody asks about",
            svid(ANN, &json!({"iss": "spire"})),
            200,
        ),
        ("of somebody else", svid(BOB, &json!({})), 403),
        ("another audience", svid(ANN, &json!({"aud": "other"})), 401),
        ("no audience", svid(ANN, &json!({"aud": null})), 401),
        ("over", svid(ANN, &json!({"exp": now() - 600})), 401),
        ("without an end", svid(ANN, &json!({"exp": null})), 401),
        (
            "another trust domain",
            svid("spiffe://other.example/ns/agents/sa/ann", &json!({})),
            401,
        ),
        ("no SPIFFE ID", svid("ann", &json!({})), 401),
        ("nobody", svid(ANN, &json!({"sub": null})), 401),
        ("an account", account("ann", &json!({})), 401),
    ] {
        let request = bearer(get("/ann"), &signer.token(&claims));
        let answer = nobody(&waypoint, request).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
    }
    // An issuer that is named must be there; a header of one's own may hold the token.
    let named = rule(&format!(
        ", issuer: \"{ISSUER}\", fromHeaders: [{{name: X-Svid}}]"
    ));
    waypoint.edit_base(&rule(""), &named).await;
    for (issuer, status) in [
        (json!(ISSUER), 200),
        (json!("spire"), 401),
        (Value::Null, 401),
    ] {
        let token = signer.token(&svid(ANN, &json!({"iss": issuer})));
        let answer = nobody(&waypoint, get("/ann").header("x-svid", &token)).await;
        assert_eq!(answer.status, status, "{issuer}");
        assert_eq!(
            nobody(&waypoint, bearer(get("/ann"), &token)).await.status,
            403
        );
    }
}

/// A TLS listener that asks for no certificates takes tokens too.
#[tokio::test]
async fn tls_without_certificates_takes_tokens() {
    let signer = Signer::new("one");
    let (_upstream, waypoint) = start("").await;
    let tokens = format!(
        "optional: {{tokenPrincipals: [{}]}}",
        accounts(&inline(&signer), "")
    );
    let optional =
        "optional: {clientCertificate: {mode: Optional, caCertificateRefs: [{name: roots}]}}";
    waypoint.edit_base(optional, &tokens).await;
    let authority = &waypoint.authority;
    let bob = authority.agent(BOB);
    for identity in [None, Some(&bob)] {
        let client = Client::tls(waypoint.ports.optional, authority, identity);
        for (account_name, status) in [("ann", 200), ("bob", 403)] {
            let token = signer.token(&account(account_name, &json!({})));
            let answer = client.call(&bearer(get("/ann"), &token)).await.unwrap();
            assert_eq!(answer.status, status, "{account_name}");
            assert_eq!(waypoint.event(&answer).await["identity_source"], "token");
        }
        assert_eq!(client.call(&get("/ann")).await.unwrap().status, 403);
    }
}

/// Keys by OpenID discovery over TLS, from whom the operator's own roots know.
#[tokio::test]
async fn an_issuer_of_the_cluster_is_known_by_its_roots() {
    let (signer, authority) = (Arc::new(Signer::new("one")), Authority::new());
    let own = Arc::clone(&signer);
    let speaks = Speaks::tls(&authority.server(), &["h2", "http/1.1"]);
    let clear = Upstream::always(Reply::whole(200, &[], Signer::set(&[&signer]))).await;
    let in_clear = clear.url();
    let server = Upstream::speaking(speaks, move |seen| {
        let host = seen
            .header(":authority")
            .or(seen.header("host"))
            .unwrap_or_default();
        let here = format!("https://{host}");
        match seen.target() {
            "/.well-known/openid-configuration" => Reply::json(&json!({
                "issuer": here, "jwks_uri": format!("{here}/openid/v1/jwks"),
            })),
            "/clear/.well-known/openid-configuration" => Reply::json(&json!({
                "issuer": format!("{here}/clear"), "jwks_uri": format!("{in_clear}/keys"),
            })),
            _ => Reply::whole(200, &[], Signer::set(&[&own])),
        }
    })
    .await;
    let issuer = format!("https://localhost:{}", server.address.port());
    let (_upstream, waypoint) = start(&roots("cluster", &authority)).await;
    let rule = |issuer: &str| {
        format!(
            "{{type: ServiceAccount, issuer: \"{issuer}\", audiences: [{AUDIENCE}], caCertificateRefs: [{{name: cluster}}]}}"
        )
    };
    let clear_issuer = format!("{issuer}/clear");
    take(
        &waypoint,
        &format!("{}, {}", rule(&issuer), rule(&clear_issuer)),
    )
    .await;
    let of = |issuer: &str| signer.token(&account("ann", &json!({"iss": issuer})));
    let answer = nobody(&waypoint, bearer(get("/ann"), &of(&issuer))).await;
    assert_eq!(
        answer.status,
        200,
        "{} {}",
        answer.text(),
        waypoint.stderr()
    );
    let seen = server.seen();
    assert!(
        seen.iter().any(|seen| seen.target() == "/openid/v1/jwks"),
        "{seen:#?}"
    );
    // What begins in TLS does not go on in clear text.
    let answer = nobody(&waypoint, bearer(get("/ann"), &of(&clear_issuer))).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    let uri = format!("{clear_issuer}/.well-known/openid-configuration");
    let labels = [("uri", &*uri), ("result", "failed")];
    waypoint
        .metric_reaches("waypoint_jwks_fetches_total", &labels, 1.0)
        .await;
    assert!(clear.seen().is_empty());
}

/// What the operator lets go on is there for the policies about tokens, and for the destination.
#[tokio::test]
async fn a_token_goes_on_where_the_operator_says_so() {
    let signer = Signer::new("one");
    let jwt_rule = format!(
        "jwtRules:\n- issuer: {ISSUER}\n  {}\n  forwardOriginalToken: true\n",
        inline(&signer)
    );
    let asks = "\
action: DENY
rules:
- to: [{operation: {paths: [/ann]}}]
  from: [{source: {notRequestPrincipals: [\"https://issuer.example/system:serviceaccount:agents:ann\"]}}]
";
    let more = [
        on_gateway("RequestAuthentication", "tokens", &jwt_rule),
        on_gateway("AuthorizationPolicy", "claims", asks),
    ];
    let (upstream, waypoint) = start(&more.concat()).await;
    let token = signer.token(&account("ann", &json!({})));
    let forwarding = accounts(&inline(&signer), ", forwardOriginalToken: true");
    take(&waypoint, &forwarding).await;
    assert_eq!(
        nobody(&waypoint, bearer(get("/ann"), &token)).await.status,
        200
    );
    let expected = format!("Bearer {token}");
    assert_eq!(upstream.last().header("authorization"), Some(&*expected));
    // Never to a model or tool provider, whose key is another.
    assert_eq!(
        nobody(&waypoint, bearer(chat("m"), &token)).await.status,
        200
    );
    assert_eq!(upstream.last().header("authorization"), None);
    waypoint.edit_base(", forwardOriginalToken: true", "").await;
    assert_eq!(
        nobody(&waypoint, bearer(get("/ann"), &token)).await.status,
        403
    );
    assert_eq!(
        nobody(&waypoint, bearer(get("/open"), &token)).await.status,
        200
    );
}

/// Where callers have certificates, or are the developer, a token says nothing of who they are.
#[tokio::test]
async fn a_certificate_wins() {
    let signer = Signer::new("one");
    let (upstream, waypoint) = start("").await;
    let rule = accounts(&inline(&signer), "");
    take(&waypoint, &rule).await;
    let ann = signer.token(&account("ann", &json!({})));
    for (case, client, principal, source, status) in [
        (
            "a certificate",
            waypoint.workload(BOB),
            BOB,
            "certificate",
            403,
        ),
        (
            "a developer",
            waypoint.developer(),
            waypoint_tests::waypoint::DEVELOPER,
            "developer",
            403,
        ),
    ] {
        let answer = client.call(&bearer(get("/ann"), &ann)).await.unwrap();
        assert_eq!(answer.status, status, "{case}");
        let event = waypoint.event(&answer).await;
        assert_eq!(event["principal"], principal, "{case}");
        assert_eq!(event["identity_source"], source, "{case}");
        // It is none of ours, so that it passes as anything else does.
        assert_eq!(
            client
                .call(&bearer(get("/open"), &ann))
                .await
                .unwrap()
                .status,
            200,
            "{case}"
        );
        let expected = format!("Bearer {ann}");
        assert_eq!(
            upstream.last().header("authorization"),
            Some(&*expected),
            "{case}"
        );
        let answer = client.call(&bearer(get("/open"), "sk-1")).await.unwrap();
        assert_eq!(answer.status, 200, "{case}");
    }
    // Both on one listener are refused, and what was in force stays.
    let generation = waypoint.generation().await;
    let base = std::fs::read_to_string(waypoint.config().join("gateway.yaml")).unwrap();
    let both = base.replace(
        MTLS,
        &format!("    mtls: {{tokenPrincipals: [{rule}], clientCertificate"),
    );
    assert_ne!(base, both);
    waypoint.write("gateway.yaml", &both);
    waypoint
        .metric_reaches("waypoint_config_rejected_total", &[], 1.0)
        .await;
    assert_eq!(waypoint.generation().await, generation);
    let said = waypoint.stderr();
    assert!(
        said.contains("either client certificates or `tokenPrincipals`"),
        "{said}"
    );
}

/// A stream that runs by a token ends when the listener takes such tokens no longer.
#[tokio::test]
async fn a_stream_ends_with_what_let_it_in() {
    let (gate, signer) = (Gate::new(), Signer::new("one"));
    let upstream = Upstream::always(Reply::stream().chunk(delta("one")).wait(&gate).end()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{kind: LLMProvider, name: openai}]"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let rule = accounts(&inline(&signer), "");
    take(&waypoint, &rule).await;
    let token = signer.token(&account("ann", &json!({})));
    let mut connection = waypoint.anonymous().connect().await.unwrap();
    connection
        .send(&bearer(chat_stream("m"), &token))
        .await
        .unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    connection.read_until("one").await.unwrap();
    // Other keys of the same issuer end nothing.
    let rotated = accounts(&inline(&Signer::new("two")), "");
    waypoint.edit_base(&rule, &rotated).await;
    until("the rotated keys", async || {
        let answer = nobody(&waypoint, bearer(chat("m"), &token)).await;
        (answer.status == 401).then_some(())
    })
    .await;
    assert_eq!(upstream.seen().len(), 1);
    let other = rotated.replace(AUDIENCE, "elsewhere");
    waypoint.edit_base(&rotated, &other).await;
    let ended = String::from_utf8(connection.body().await.unwrap()).unwrap();
    assert!(ended.contains("policy_revoked"), "{ended}");
    upstream.abandoned(1).await;
}

//! Callers of an `AgentPolicy` by what their verified token says.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::{chat, chat_answer, chat_stream, delta};
use waypoint_tests::mcp_server::{self, Form, MODERN, modern};
use waypoint_tests::upstream::{Gate, Reply, Upstream};
use waypoint_tests::waypoint::{
    ANN, BOB, Setup, Waypoint, agent, http_route, mcp_proxy, object, provider, route, service,
};

const ISSUER: &str = "https://issuer.example";
const OTHER: &str = "https://other.example";

/// Who signs tokens.
struct Signer {
    key: EncodingKey,
    public: Jwk,
}

impl Signer {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let public = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        Self { key, public }
    }

    /// An `Authorization` value with a token of these claims.
    fn bearer(&self, issuer: &str, claims: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut all = json!({"iss": issuer, "sub": "ann", "exp": now.as_secs() + 600});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        let token = encode(&Header::new(Algorithm::ES256), &all, &self.key).unwrap();
        format!("Bearer {token}")
    }

    /// Verifies tokens of both issuers at what `target` names.
    fn authentication(&self, target: &str, issuers: &[&str]) -> String {
        let set = JwkSet {
            keys: vec![self.public.clone()],
        };
        let set = serde_json::to_string(&set).unwrap();
        let rule = |issuer: &&str| format!("- issuer: {issuer}\n  jwks: '{set}'\n");
        let rules: String = issuers.iter().map(rule).collect();
        let spec = format!("targetRefs: [{target}]\njwtRules:\n{rules}");
        object(
            "security.istio.io/v1",
            "RequestAuthentication",
            "tokens",
            &spec,
        )
    }
}

const GATEWAY: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}";

/// A rule for models, tools and plain requests, of these callers.
fn rule(name: &str, from: &str) -> String {
    format!("- name: {name}\n  from: {from}\n  llm: [{{}}]\n  mcp: [{{}}]\n  http: [{{}}]\n")
}

struct World {
    signer: Signer,
    waypoint: Waypoint,
    base: String,
    _upstreams: Vec<Arc<Upstream>>,
}

/// A model, an MCP server and a plain backend behind tokens of both issuers and these policies.
async fn start(policies: &[String]) -> World {
    let signer = Signer::new();
    let models = Upstream::always(chat_answer()).await;
    let tools = mcp_server::start(Form::Json, &Gate::new()).await;
    let app = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let base = [
        provider("openai", "OpenAI", &models, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        mcp_proxy("tools", &tools, ""),
        service("app", &app, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]"),
        signer.authentication(GATEWAY, &[ISSUER, OTHER]),
    ]
    .concat();
    let waypoint = Setup::new(&[base.clone(), policies.concat()].concat())
        .start()
        .await;
    World {
        signer,
        waypoint,
        base,
        _upstreams: vec![models, tools, app],
    }
}

fn call(tool: &str) -> Request {
    let params = json!({"name": tool, "arguments": {}});
    Request::post("/mcp/tools/", modern(7, "tools/call", &params))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
}

fn get() -> Request {
    Request::new("GET", "/").host("app.example.com")
}

async fn send(waypoint: &Waypoint, who: &str, request: &Request) -> Answer {
    waypoint.workload(who).call(request).await.unwrap()
}

/// Whether a model, a tool and a plain request are allowed, which must agree; and what decided.
async fn asks(world: &World, who: &str, bearer: Option<&str>) -> (bool, Value) {
    let mut said: Option<(bool, Value)> = None;
    for request in [chat("m"), call("echo"), get()] {
        let request = match bearer {
            Some(bearer) => request.header("authorization", bearer),
            None => request,
        };
        let answer = send(&world.waypoint, who, &request).await;
        let event = world.waypoint.event(&answer).await;
        let allowed = event["decision"] == "allow";
        assert_eq!(allowed, answer.status == 200, "{} {event}", answer.text());
        let new = (allowed, event["by"].clone());
        assert_eq!(said.get_or_insert(new.clone()), &new, "{event}");
    }
    said.unwrap()
}

#[tokio::test]
async fn an_allow_needs_the_token_and_the_identity() {
    let rules = [
        rule(
            "engineers",
            "[{jwt: {issuer: https://issuer.example, claims: {role: [ml_engineer, \"lead_*\"]}}}]",
        ),
        rule(
            "team",
            "[{jwt: {issuer: https://issuer.example, claims: {\"[team][name]\": [alpha], scope: [write]}}}]",
        ),
        rule(
            "bob",
            "[{spiffe: \"spiffe://cluster.local/ns/agents/sa/bob\", jwt: {issuer: https://other.example}}]",
        ),
    ];
    let world = start(&[agent("some", "Allow", &rules.concat())]).await;
    let at = |issuer: &str, claims: Value| world.signer.bearer(issuer, &claims);
    for (case, who, bearer, expected) in [
        ("no token", ANN, None, None),
        ("no such claim", ANN, Some(at(ISSUER, json!({}))), None),
        (
            "the claim",
            ANN,
            Some(at(ISSUER, json!({"role": "ml_engineer"}))),
            Some("engineers"),
        ),
        (
            "one of a list",
            ANN,
            Some(at(ISSUER, json!({"role": ["x", "ml_engineer"]}))),
            Some("engineers"),
        ),
        (
            "a pattern",
            ANN,
            Some(at(ISSUER, json!({"role": ["lead_x"]}))),
            Some("engineers"),
        ),
        (
            "another value",
            ANN,
            Some(at(ISSUER, json!({"role": "ml_engineers"}))),
            None,
        ),
        (
            "another case",
            ANN,
            Some(at(ISSUER, json!({"role": "ML_engineer"}))),
            None,
        ),
        (
            "a value inside text",
            ANN,
            Some(at(ISSUER, json!({"role": "x ml_engineer"}))),
            None,
        ),
        (
            "a wrong type",
            ANN,
            Some(at(ISSUER, json!({"role": {"ml_engineer": true}}))),
            None,
        ),
        (
            "another issuer",
            ANN,
            Some(at(OTHER, json!({"role": "ml_engineer"}))),
            None,
        ),
        (
            "a nested claim",
            ANN,
            Some(at(
                ISSUER,
                json!({"team": {"name": ["alpha"]}, "scope": "read write"}),
            )),
            Some("team"),
        ),
        (
            "one claim of two",
            ANN,
            Some(at(
                ISSUER,
                json!({"team": {"name": "alpha"}, "scope": "read"}),
            )),
            None,
        ),
        (
            "not nested",
            ANN,
            Some(at(
                ISSUER,
                json!({"team": "alpha", "name": "alpha", "scope": "write"}),
            )),
            None,
        ),
        (
            "any token, with the identity",
            BOB,
            Some(at(OTHER, json!({}))),
            Some("bob"),
        ),
        (
            "any token, another identity",
            ANN,
            Some(at(OTHER, json!({}))),
            None,
        ),
        ("the identity alone", BOB, None, None),
        (
            "a token elsewhere than its rule says",
            BOB,
            Some(at(ISSUER, json!({}))),
            None,
        ),
    ] {
        let (allowed, by) = asks(&world, who, bearer.as_deref()).await;
        assert_eq!(allowed, expected.is_some(), "{case}: {by}");
        if let Some(rule) = expected {
            assert_eq!(by["rule"], rule, "{case}: {by}");
        }
    }
    // A token that nobody signed is no token.
    let forged = Signer::new().bearer(ISSUER, &json!({"role": "ml_engineer"}));
    let request = chat("m").header("authorization", &forged);
    assert_eq!(send(&world.waypoint, ANN, &request).await.status, 401);
    // A token stands beside an identity and in no one's place.
    let token = at(ISSUER, json!({"role": "ml_engineer"}));
    for (request, status) in [(chat("m"), 401), (call("echo"), 403), (get(), 403)] {
        let request = request.header("authorization", &token);
        let answer = world.waypoint.anonymous().call(&request).await.unwrap();
        assert_eq!(answer.status, status, "{}", request.target);
    }
}

#[tokio::test]
async fn a_deny_holds_for_what_it_cannot_read() {
    let from = "[{jwt: {issuer: https://issuer.example, claims: {role: [contractor], \"[team][name]\": [\"*\"]}}}]";
    let everyone = "- name: everyone\n  llm: [{}]\n  mcp: [{}]\n  http: [{}]\n";
    let policies = [
        agent("all", "Allow", everyone),
        agent("none", "Deny", &rule("none", from)),
    ];
    let world = start(&policies).await;
    let team = json!({"name": "alpha"});
    for (case, claims, denied) in [
        ("no claim", json!({}), false),
        ("one of two", json!({"role": "contractor"}), false),
        ("both", json!({"role": "contractor", "team": team}), true),
        (
            "another role",
            json!({"role": "employee", "team": team}),
            false,
        ),
        (
            "one of a list",
            json!({"role": ["a", "contractor"], "team": team}),
            true,
        ),
        (
            "a role that is no text",
            json!({"role": 7, "team": team}),
            true,
        ),
        (
            "a list with something else",
            json!({"role": ["a", null], "team": team}),
            true,
        ),
        ("an empty list", json!({"role": [], "team": team}), false),
        (
            "a team that is none",
            json!({"role": "contractor", "team": "alpha"}),
            true,
        ),
        (
            "a team without a name",
            json!({"role": "contractor", "team": {}}),
            false,
        ),
    ] {
        let bearer = world.signer.bearer(ISSUER, &claims);
        let (allowed, by) = asks(&world, ANN, Some(&bearer)).await;
        assert_eq!(allowed, !denied, "{case}: {by}");
    }
    // Also without an identity, where a plain request needs none.
    let bearer = world
        .signer
        .bearer(ISSUER, &json!({"role": "contractor", "team": team}));
    let nobody = world.waypoint.anonymous();
    let open = [&world.base, policies[1].as_str()].concat();
    world.waypoint.reload(&open).await;
    assert_eq!(nobody.call(&get()).await.unwrap().status, 200);
    let denied = get().header("authorization", &bearer);
    assert_eq!(nobody.call(&denied).await.unwrap().status, 403);
}

/// Lists show what the token of their request opens, and a stream that runs is asked again with
/// the claims it began with, as long as somebody takes tokens of that issuer.
#[tokio::test]
async fn claims_hold_for_lists_and_running_streams() {
    let gate = Gate::new();
    let signer = Signer::new();
    let held = Reply::stream().chunk(delta("one")).wait(&gate).end();
    let models = Upstream::always(held).await;
    let tools = mcp_server::start(Form::Json, &gate).await;
    let base = [
        provider("openai", "OpenAI", &models, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        mcp_proxy("tools", &tools, ""),
    ]
    .concat();
    let policy = |role: &str| {
        let from = format!("[{{jwt: {{issuer: {ISSUER}, claims: {{role: [{role}]}}}}}}]");
        let rules = format!(
            "- name: add\n  from: {from}\n  llm: [{{}}]\n  mcp: [{{methods: [{{name: tools/call, params: [add]}}]}}]\n- name: echo\n  mcp: [{{methods: [{{name: tools/call, params: [echo]}}]}}]\n"
        );
        agent("some", "Allow", &rules)
    };
    let with = |role: &str, issuers: &[&str]| {
        [
            base.clone(),
            policy(role),
            signer.authentication(GATEWAY, issuers),
        ]
        .concat()
    };
    let waypoint = Setup::new(&with("engineer", &[ISSUER])).start().await;
    let bearer = signer.bearer(ISSUER, &json!({"role": ["engineer", "lead"]}));
    let list = Request::post("/mcp/tools/", modern(7, "tools/list", &json!({})))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", "tools/list");
    for (request, expected) in [
        (list.clone(), &["echo"][..]),
        (list.header("authorization", &bearer), &["echo", "add"]),
    ] {
        let answer = send(&waypoint, ANN, &request).await;
        let tools = answer.json()["result"]["tools"].clone();
        let names: Vec<&str> = tools
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected);
    }
    let ann = waypoint.workload(ANN);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut connection = ann.connect().await.unwrap();
        let request = chat_stream("m").header("authorization", &bearer);
        connection.send(&request).await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, 200);
        connection.read_until("one").await.unwrap();
        streams.push(connection);
    }
    // Another role that the token has as well: they go on.
    waypoint.reload(&with("lead", &[ISSUER])).await;
    let labels = [("kind", "llm"), ("how", "policy_revoked")];
    let cut = |metrics: waypoint_tests::waypoint::Metrics| {
        metrics.sum("waypoint_streams_ended_total", &labels)
    };
    assert_eq!(send(&waypoint, ANN, &chat("m")).await.status, 403);
    assert_eq!(cut(waypoint.metrics().await), 0.0);
    // Nobody takes tokens of the issuer any more, so nothing they say counts.
    waypoint.reload(&with("lead", &[OTHER])).await;
    for mut connection in streams {
        let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
        assert!(rest.contains("policy_revoked"), "{rest}");
    }
    gate.open();
}

/// A token counts only where a RequestAuthentication applies.
#[tokio::test]
async fn a_token_that_nobody_verifies_says_nothing() {
    let signer = Signer::new();
    let app = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let other = Upstream::always(Reply::whole(200, &[], "other")).await;
    let rules = "rules: [{matches: [{path: {value: /other}}], backendRefs: [{name: other, port: 80}]}, {backendRefs: [{name: app, port: 80}]}]";
    let objects = [
        service("app", &app, "http"),
        service("other", &other, "http"),
        http_route("app", rules),
        signer.authentication("{kind: Service, name: app}", &[ISSUER]),
        agent(
            "some",
            "Allow",
            &rule("any", &format!("[{{jwt: {{issuer: {ISSUER}}}}}]")),
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let bearer = signer.bearer(ISSUER, &json!({}));
    for (path, status) in [("/", 200), ("/other", 403)] {
        let request = Request::new("GET", path).host("app.example.com");
        let request = request.header("authorization", &bearer);
        assert_eq!(
            send(&waypoint, ANN, &request).await.status,
            status,
            "{path}"
        );
    }
}

/// `explain` and `matrix` ask what the gateway asks.
#[tokio::test]
async fn explain_and_matrix_tell_of_tokens() {
    let rules = [
        rule(
            "engineers",
            "[{jwt: {issuer: https://issuer.example, claims: {role: [engineer]}}}]",
        ),
        rule(
            "bob",
            "[{serviceAccount: {name: bob}, jwt: {issuer: https://issuer.example, claims: {\"[team][name]\": [\"a*\"]}}}]",
        ),
    ];
    let world = start(&[agent("some", "Allow", &rules.concat())]).await;
    let question = |who: &str, jwt: Value| json!({"principal": who, "jwt": jwt, "mcp": {"server": "tools", "name": "echo"}});
    let engineer = json!({"iss": ISSUER, "role": ["engineer"]});
    for (question, code, expected) in [
        (
            question(ANN, engineer.clone()),
            0,
            "allow by AgentPolicy agents/some rule engineers",
        ),
        (
            question(ANN, Value::Null),
            3,
            "agents/some rule engineers (Allow): from[0].jwt: expected a token of https://issuer.example with role engineer, got no token",
        ),
        (
            question(ANN, json!({"iss": ISSUER, "role": "x"})),
            3,
            "got a token that says otherwise",
        ),
        (
            question(ANN, json!({"iss": OTHER, "role": "engineer"})),
            3,
            "got a token of another issuer",
        ),
        (
            question(BOB, json!({"iss": ISSUER, "team": {"name": "ab"}})),
            0,
            "allow by AgentPolicy agents/some rule bob",
        ),
        (
            question(ANN, json!({"iss": ISSUER, "team": {"name": "ab"}})),
            3,
            "rule bob (Allow): only for service account agents/bob and a token of https://issuer.example with [team][name] a*",
        ),
        (
            json!({"principal": ANN, "jwt": engineer, "llm": {"provider": "openai", "model": "m"}}),
            0,
            "allow by AgentPolicy agents/some rule engineers",
        ),
    ] {
        let (exit, said) = world
            .waypoint
            .command(&["explain", "--request", "-"], &question.to_string())
            .await;
        assert_eq!(exit, Some(code), "{question}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (exit, said) = world.waypoint.command(&["matrix", "-o", "csv"], "").await;
    assert_eq!(exit, Some(0), "{said}");
    for line in [
        "any other in agents,,mcp,agents/tools/tools,MCPProxy/agents/tools/tools,*,conditional,AgentPolicy agents/some rule engineers,a token of https://issuer.example with role engineer",
        "\nbob,spiffe://cluster.local/ns/agents/sa/bob,mcp,agents/tools/tools,MCPProxy/agents/tools/tools,*,conditional,AgentPolicy agents/some rule engineers,a token of https://issuer.example with role engineer; or a token of https://issuer.example with [team][name] a*",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

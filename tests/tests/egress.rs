//! Hosts outside the cluster: how they are named, and that their names do not lead inside.

use std::sync::Arc;

use serde_json::json;
use waypoint_tests::certificates::{Authority, Validity};
use waypoint_tests::client::{Answer, Request};
use waypoint_tests::llm::{chat, chat_answer};
use waypoint_tests::mcp_server::{LEGACY, legacy};
use waypoint_tests::upstream::{Reply, Speaks, Upstream};
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{
    ANN, BOB, Backend as _, Setup, Waypoint, agent, http_route, object, provider_at, route, secret,
};

/// A name of this machine that is looked up like any other (RFC 6761 §6.3).
const HOST: &str = "shop.localhost";
/// What the addresses that names may lead to are in the parameters of a test, and none.
const ALLOWED: (&str, &str) = (
    "allowPrivateEndpoints: [127.0.0.0/8]",
    "allowPrivateEndpoints: []",
);

/// A ServiceEntry of one host whose port 80 is an upstream's.
fn entry(upstream: &Upstream, location: &str, resolution: &str) -> String {
    let port = upstream.address().port();
    object(
        "networking.istio.io/v1",
        "ServiceEntry",
        "shop",
        &format!(
            "hosts: [{HOST}]\nlocation: {location}\nports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]\n{resolution}"
        ),
    )
}

/// A route of the entry's host to it, and who may use it.
fn to_entry(kind: &str, name: &str) -> String {
    let rules = format!(
        "hostnames: [{HOST}]\nrules: [{{backendRefs: [{{group: networking.istio.io, kind: {kind}, name: {name}, port: 80}}]}}]"
    );
    let allow = format!(
        "- name: shopping\n  from: [{{spiffe: \"{ANN}\"}}]\n  http: [{{hosts: [{HOST}], methods: [GET]}}]"
    );
    http_route("shop", &rules) + &agent("shop", "Allow", &allow)
}

async fn upstream() -> Arc<Upstream> {
    Upstream::always(Reply::whole(200, &[("x-app", "1")], "hello")).await
}

async fn ask(waypoint: &Waypoint, who: &str, host: &str) -> Answer {
    let request = Request::new("GET", "/a?b=c").host(host);
    waypoint.workload(who).call(&request).await.unwrap()
}

#[tokio::test]
async fn a_service_entry_is_reached_under_its_name_by_who_may() {
    let literal = "resolution: STATIC\nendpoints: [{address: 127.0.0.1}]";
    let by_name = "resolution: DNS";
    let elsewhere = "resolution: DNS\nendpoints: [{address: other.localhost}]";
    for (case, resolution, kind, name) in [
        ("its host is looked up", by_name, "Hostname", HOST),
        ("by the entry's name", by_name, "ServiceEntry", "shop"),
        ("another name is looked up", elsewhere, "Hostname", HOST),
        ("an address", literal, "Hostname", HOST),
    ] {
        let upstream = upstream().await;
        let objects = entry(&upstream, "MESH_EXTERNAL", resolution) + &to_entry(kind, name);
        let waypoint = Setup::new(&objects).start().await;
        let answer = ask(&waypoint, ANN, HOST).await;
        assert_eq!((answer.status, &*answer.text()), (200, "hello"), "{case}");
        assert_eq!(answer.header("x-app"), Some("1"), "{case}");
        let seen = upstream.only();
        assert_eq!((seen.method(), seen.target()), ("GET", "/a?b=c"), "{case}");
        assert_eq!(seen.header("host"), Some(HOST), "{case}");
        let event = waypoint.event(&answer).await;
        assert_eq!(event["by"]["rule"], "shopping", "{case}: {event}");
        let denied = ask(&waypoint, BOB, HOST).await;
        assert_eq!(denied.status, 403, "{case}: {}", denied.text());
        let unknown = ask(&waypoint, ANN, "other.localhost").await;
        assert_eq!(unknown.status, 404, "{case}: {}", unknown.text());
        assert_eq!(upstream.seen().len(), 1, "{case}");
    }
}

#[tokio::test]
async fn who_is_allowed_nothing_outside_reaches_nothing_outside() {
    // Without a policy for it, callers of the own namespace reach their own services, not others'.
    let upstream = upstream().await;
    let rules = format!(
        "rules: [{{backendRefs: [{{group: networking.istio.io, kind: Hostname, name: {HOST}, port: 80}}]}}]"
    );
    let objects =
        entry(&upstream, "MESH_EXTERNAL", "resolution: DNS") + &http_route("shop", &rules);
    let waypoint = Setup::new(&objects)
        .parameters("posture: Strict")
        .start()
        .await;
    let answer = ask(&waypoint, ANN, HOST).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_public_name_that_leads_inside_is_refused_unless_that_is_allowed() {
    let upstream = upstream().await;
    let objects =
        entry(&upstream, "MESH_EXTERNAL", "resolution: DNS") + &to_entry("Hostname", HOST);
    let waypoint = Setup::new(&objects).start().await;
    let mut kept = waypoint.workload(ANN).connect().await.unwrap();
    let request = Request::new("GET", "/a").host(HOST);
    assert_eq!(kept.call(&request).await.unwrap().status, 200);
    waypoint.edit_base(ALLOWED.0, ALLOWED.1).await;
    // Also where a connection was open before.
    for answer in [
        ask(&waypoint, ANN, HOST).await,
        kept.call(&request).await.unwrap(),
    ] {
        assert_eq!(answer.status, 502, "{}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["code"], "upstream_connect", "{event}");
        assert_eq!(event["decision"], "allow", "{event}");
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (1, 1));
    waypoint
        .edit_base(ALLOWED.1, "allowPrivateEndpoints: [127.0.0.1/32]")
        .await;
    assert_eq!(ask(&waypoint, ANN, HOST).await.status, 200);
}

#[tokio::test]
async fn what_is_inside_the_mesh_may_be_inside() {
    let upstream = upstream().await;
    let objects =
        entry(&upstream, "MESH_INTERNAL", "resolution: DNS") + &to_entry("Hostname", HOST);
    let waypoint = Setup::new(&objects).start().await;
    waypoint.edit_base(ALLOWED.0, ALLOWED.1).await;
    let answer = ask(&waypoint, ANN, HOST).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_private_address_that_is_written_down_is_an_error_of_the_configuration() {
    let upstream = upstream().await;
    let written = "resolution: STATIC\nendpoints: [{address: 10.0.0.1}]";
    let objects = entry(&upstream, "MESH_EXTERNAL", written) + &to_entry("Hostname", HOST);
    let mut waypoint = Setup::new(&objects).spawn();
    assert_eq!(waypoint.ended().await.code(), Some(1));
    let said = waypoint.stderr();
    assert!(
        said.contains("private-endpoint") && said.contains("10.0.0.1"),
        "{said}"
    );
}

#[tokio::test]
async fn a_provider_whose_name_leads_inside_is_refused_unless_that_is_allowed() {
    let upstream = Upstream::always(chat_answer()).await;
    let endpoint = format!("http://models.localhost:{}", upstream.address().port());
    let objects = [
        provider_at(
            "openai",
            "OpenAI",
            &endpoint,
            "credential: {secretRef: {name: keys, key: key}}",
        ),
        secret("keys", "sk-ours"),
        route("llm", "- backendRefs: [{name: openai}]"),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let ann = waypoint.workload(ANN);
    let answer = ann.call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let name = endpoint.trim_start_matches("http://");
    assert_eq!(upstream.only().header("host"), Some(name));
    waypoint.edit_base(ALLOWED.0, ALLOWED.1).await;
    let answer = ann.call(&chat("m")).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_connect".into())
    );
    assert_eq!((upstream.seen().len(), upstream.connections()), (1, 1));
    waypoint.edit_base(ALLOWED.1, ALLOWED.0).await;
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_mcp_server_whose_name_leads_inside_is_refused_unless_that_is_allowed() {
    let result = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": []}});
    let upstream = Upstream::always(Reply::json(&result)).await;
    let port = upstream.address().port();
    let spec = format!(
        "routes: [{{name: tools, match: {{prefix: /mcp/tools/}}, destination: {{hostname: tools.localhost, port: {port}}}}}]"
    );
    let waypoint = Setup::new(&object("mcp.kgateway.io/v1", "MCPProxy", "tools", &spec))
        .start()
        .await;
    let params = json!({"name": "echo", "arguments": {}});
    let request = Request::post("/mcp/tools/", legacy(7, "tools/call", &params))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", LEGACY);
    let ann = waypoint.workload(ANN);
    let answer = ann.call(&request).await.unwrap();
    assert_eq!((answer.status, answer.json()), (200, result));
    assert_eq!(upstream.only().target(), "/mcp");
    waypoint.edit_base(ALLOWED.0, ALLOWED.1).await;
    let answer = ann.call(&request).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_connect".into())
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn an_entry_by_https_is_spoken_to_by_tls_and_must_prove_its_name() {
    let authority = Authority::new();
    let identity = authority.server_for(&[HOST], Validity::Now);
    let speaks = Speaks::tls(&identity, &["h2", "http/1.1"]);
    let upstream = Upstream::speaking(speaks, |_| Reply::whole(200, &[], "hello")).await;
    let objects = entry(&upstream, "MESH_EXTERNAL", "resolution: DNS")
        .replace("protocol: HTTP", "protocol: HTTPS")
        + &to_entry("Hostname", HOST);
    // Nobody vouches for this authority.
    let waypoint = Setup::new(&objects).start().await;
    let answer = ask(&waypoint, ANN, HOST).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let event = waypoint.event(&answer).await;
    assert_eq!(event["code"], "upstream_connect", "{event}");
    upstream.refused(1).await;
    assert_eq!(upstream.server_names()[0].as_deref(), Some(HOST));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_entry_by_https_may_prove_its_name_to_the_roots_of_the_system() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("roots.pem");
    std::fs::write(&file, &authority.pem).unwrap();
    let identity = authority.server_for(&[HOST], Validity::Now);
    let speaks = Speaks::tls(&identity, &["h2", "http/1.1"]);
    let upstream = Upstream::speaking(speaks, |_| Reply::whole(200, &[], "hello")).await;
    let objects = entry(&upstream, "MESH_EXTERNAL", "resolution: DNS")
        .replace("protocol: HTTP", "protocol: HTTPS")
        + &to_entry("Hostname", HOST);
    let setup = Setup::new(&objects).environment("SSL_CERT_FILE", &file.display().to_string());
    let waypoint = setup.start().await;
    // The connection is kept a moment after the answer has gone, so the second may be too early.
    until("a connection that is used again", || async {
        let answer = ask(&waypoint, ANN, HOST).await;
        assert_eq!((answer.status, &*answer.text()), (200, "hello"));
        assert_eq!(upstream.last().server_name.as_deref(), Some(HOST));
        assert_eq!(upstream.last().target(), "/a?b=c");
        (upstream.connections() < upstream.seen().len()).then_some(())
    })
    .await;
}

/// RFC 9110 §7.2: `Host` is the authority of the target.
#[tokio::test]
async fn a_provider_at_an_ipv6_address_is_asked_for_by_that_address() {
    let upstream = Upstream::always(chat_answer()).await;
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inner = upstream.address;
    let relay = tokio::spawn(async move {
        let (mut outer, _) = listener.accept().await.unwrap();
        let mut inner = tokio::net::TcpStream::connect(inner).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
    });
    let objects = [
        provider_at("openai", "OpenAI", &format!("http://[::1]:{port}"), ""),
        route("llm", "- backendRefs: [{name: openai}]"),
    ];
    // The address has to be allowed before the provider can be.
    let waypoint = Setup::new("").start().await;
    waypoint
        .edit_base("[127.0.0.0/8]", "[127.0.0.0/8, \"::1/128\"]")
        .await;
    waypoint.reload(&objects.concat()).await;
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        upstream.only().header("host"),
        Some(&*format!("[::1]:{port}"))
    );
    relay.abort();
}

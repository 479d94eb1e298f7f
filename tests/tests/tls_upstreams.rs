//! Upstreams behind TLS: which certificates are believed, and what is said in which protocol.

mod mcp;

use std::net::Ipv4Addr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use waypoint_tests::certificates::{Authority, Validity};
use waypoint_tests::client::Request;
use waypoint_tests::llm::{DONE, chat, chat_answer, chat_body, chat_stream, delta, usage_chunk};
use waypoint_tests::upstream::{Gate, Reply, Seen, Speaks, Upstream};
use waypoint_tests::wait::soon;
use waypoint_tests::waypoint::{
    ANN, Backend as _, Setup, Waypoint, provider_at, roots, route, secret,
};

const NAME: &str = "models.localhost";
const HTTP1: &[&str] = &["http/1.1"];
const BOTH: &[&str] = &["h2", "http/1.1"];
const CREDENTIAL: &str = "credential: {secretRef: {name: keys, key: key}}";
const TRUST: &str = "tls: {caCertificateRefs: [{name: provider-roots}]}";

fn at(upstream: &Upstream, host: &str) -> String {
    format!("https://{host}:{}", upstream.address().port())
}

/// A waypoint whose only provider is at this URL.
async fn start(authority: &Authority, endpoint: &str, tls: &str) -> Waypoint {
    let objects = [
        provider_at(
            "openai",
            "OpenAI",
            endpoint,
            &format!("{CREDENTIAL}\n{tls}"),
        ),
        secret("keys", "sk-ours"),
        roots("provider-roots", authority),
        route("llm", "- backendRefs: [{name: openai}]"),
    ];
    Setup::new(&objects.concat()).start().await
}

/// Asserts the host an upstream was asked for: HTTP/2 has it as `:authority`, and a `host` beside it
/// may not differ (RFC 9113 §8.3.1).
fn assert_host(seen: &Seen, field: &str, expected: &str) {
    assert_eq!(
        seen.fields(field).collect::<Vec<_>>(),
        [expected],
        "{seen:?}"
    );
    for also in seen.fields("host") {
        assert_eq!(also, expected, "{seen:?}");
    }
}

#[tokio::test]
async fn a_provider_is_called_by_tls_in_the_protocol_it_offers() {
    for (protocols, line, host_field) in [
        (HTTP1, "HTTP/1.1", "host"),
        (&[][..], "HTTP/1.1", "host"),
        (BOTH, "HTTP/2", ":authority"),
    ] {
        let authority = Authority::new();
        let identity = authority.server_for(&[NAME], Validity::Now);
        let speaks = Speaks::tls(&identity, protocols);
        let upstream = Upstream::speaking(speaks, |_| chat_answer()).await;
        let waypoint = start(&authority, &format!("{}/base", at(&upstream, NAME)), TRUST).await;
        let body = r#"{ "model":"m" , "messages":[{"role":"user","content":"h\u00e9"}],"temperature":1.0}"#;
        let request = Request::post("/ai/v1/chat/completions", body)
            .header("authorization", "Bearer callers-own")
            .header("cookie", "a=b")
            .header("x-stainless-lang", "rust");
        for turn in 0..2 {
            let answer = waypoint.workload(ANN).call(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{line}: {}", answer.text());
            let content = &answer.json()["choices"][0]["message"]["content"];
            assert_eq!(content, "hi", "{line}");
            let seen = upstream.last();
            assert_eq!(seen.number, turn, "{line}");
            let first = seen.head.lines().next().unwrap();
            assert_eq!(first, format!("POST /base/chat/completions {line}"));
            assert_eq!(seen.server_name.as_deref(), Some(NAME), "{line}");
            let name = format!("{NAME}:{}", upstream.address().port());
            assert_host(&seen, host_field, &name);
            assert_eq!(seen.body, body.as_bytes(), "{line}");
            for (name, values) in [
                ("authorization", &["Bearer sk-ours"][..]),
                ("content-type", &["application/json"]),
                ("x-stainless-lang", &["rust"]),
                ("cookie", &[]),
                ("transfer-encoding", &[]),
            ] {
                let found: Vec<&str> = seen.fields(name).collect();
                assert_eq!(found, values, "{line}: {name}");
            }
            if line == "HTTP/2" {
                // RFC 9113 §8.2.2.
                for name in ["connection", "keep-alive", "upgrade", "proxy-connection"] {
                    assert_eq!(seen.header(name), None, "{name}");
                }
            }
        }
        assert_eq!(upstream.connections(), 1, "{line}: the second call reuses");
        assert_eq!(upstream.server_names().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn large_bodies_pass_unchanged_in_both_directions() {
    for protocols in [HTTP1, BOTH] {
        let authority = Authority::new();
        let identity = authority.server_for(&[NAME], Validity::Now);
        let long: String = ('a'..='z').cycle().take(3 << 20).collect();
        let said = json!({"choices": [{"message": {"content": long}}]}).to_string();
        let reply = Reply::whole(200, &[("content-type", "application/json")], &said);
        let speaks = Speaks::tls(&identity, protocols);
        let upstream = Upstream::speaking(speaks, move |_| reply.clone()).await;
        let waypoint = start(&authority, &at(&upstream, NAME), TRUST).await;
        let body = chat_body("m", &json!({"metadata": {"padding": "p".repeat(3 << 20)}}));
        let request = Request::post("/ai/v1/chat/completions", body.clone());
        let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
        // Twice, so that windows that are not given back would show.
        for _ in 0..2 {
            let answer = waypoint.workload(ANN).call(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{protocols:?}");
            assert!(answer.text() == said, "{protocols:?}");
            assert!(upstream.last().body == body.as_bytes(), "{protocols:?}");
            let answer = http2.call(&request.clone().host("gateway")).await;
            let answer = answer.unwrap();
            assert!(answer.text() == said, "{protocols:?}: {}", answer.status);
            assert!(upstream.last().body == body.as_bytes(), "{protocols:?}");
        }
        assert_eq!(upstream.connections(), 1, "{protocols:?}");
    }
}

#[tokio::test]
async fn events_of_a_stream_are_passed_on_as_they_come() {
    for protocols in [HTTP1, BOTH] {
        let gate = Gate::new();
        let authority = Authority::new();
        let identity = authority.server_for(&[NAME], Validity::Now);
        let held = Reply::stream()
            .chunk(delta("one"))
            .wait(&gate)
            .chunk(delta("two"))
            .chunk(usage_chunk())
            .chunk(DONE)
            .end();
        let speaks = Speaks::tls(&identity, protocols);
        let upstream = Upstream::speaking(speaks, move |_| held.clone()).await;
        let waypoint = start(&authority, &at(&upstream, NAME), TRUST).await;
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        connection.send(&chat_stream("m")).await.unwrap();
        let head = connection.head().await.unwrap();
        assert_eq!(head.status, 200, "{protocols:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let begun = connection.read_until("one").await.unwrap();
        assert!(!begun.contains("two"), "{protocols:?}: {begun}");
        gate.open();
        let rest = String::from_utf8(connection.body().await.unwrap()).unwrap();
        let whole = begun + &rest;
        let expected = [delta("one"), delta("two"), DONE.to_owned()].concat();
        assert_eq!(whole, expected, "{protocols:?}");
        let event = waypoint.event(&head).await;
        assert_eq!(event["tokens"]["input"], 11, "{protocols:?}: {event}");
        assert_eq!(event["tokens"]["output"], 7, "{protocols:?}: {event}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_stream_and_not_its_neighbours() {
    let gate = Gate::new();
    let authority = Authority::new();
    let identity = authority.server_for(&[NAME], Validity::Now);
    let held = Reply::stream()
        .chunk(delta("one"))
        .wait(&gate)
        .chunk(DONE)
        .end();
    let upstream = Upstream::speaking(Speaks::tls(&identity, BOTH), move |_| held.clone()).await;
    let waypoint = start(&authority, &at(&upstream, NAME), TRUST).await;
    let mut stays = waypoint.workload(ANN).connect().await.unwrap();
    stays.send(&chat_stream("m")).await.unwrap();
    assert_eq!(stays.head().await.unwrap().status, 200);
    stays.read_until("one").await.unwrap();
    let mut leaves = waypoint.workload(ANN).connect().await.unwrap();
    leaves.send(&chat_stream("m")).await.unwrap();
    assert_eq!(leaves.head().await.unwrap().status, 200);
    leaves.read_until("one").await.unwrap();
    drop(leaves);
    upstream.abandoned(1).await;
    gate.open();
    let rest = String::from_utf8(stays.body().await.unwrap()).unwrap();
    assert!(rest.ends_with(DONE), "{rest}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn the_name_in_the_certificate_may_be_another_than_the_host() {
    for (protocols, host_field) in [(HTTP1, "host"), (BOTH, ":authority")] {
        let authority = Authority::new();
        let identity = authority.server_for(&["models.example.com"], Validity::Now);
        let speaks = Speaks::tls(&identity, protocols);
        let upstream = Upstream::speaking(speaks, |_| chat_answer()).await;
        let tls =
            "tls: {caCertificateRefs: [{name: provider-roots}], hostname: models.example.com}";
        let waypoint = start(&authority, &at(&upstream, "127.0.0.1"), tls).await;
        let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = upstream.only();
        assert_eq!(seen.server_name.as_deref(), Some("models.example.com"));
        assert_host(&seen, host_field, &upstream.address().to_string());
    }
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_gets_no_request() {
    let trusted = Authority::new();
    let stranger = Authority::new();
    let good = trusted.server_for(&[NAME], Validity::Now);
    for (case, identity, tls) in [
        (
            "unknown authority",
            stranger.server_for(&[NAME], Validity::Now),
            TRUST,
        ),
        (
            "another name",
            trusted.server_for(&["other.localhost"], Validity::Now),
            TRUST,
        ),
        (
            "a name below it",
            trusted.server_for(&["a.models.localhost"], Validity::Now),
            TRUST,
        ),
        ("an address", trusted.server(), TRUST),
        (
            "expired",
            trusted.server_for(&[NAME], Validity::Expired),
            TRUST,
        ),
        ("public roots only", good, ""),
    ] {
        for protocols in [HTTP1, BOTH] {
            let speaks = Speaks::tls(&identity, protocols);
            let upstream = Upstream::speaking(speaks, |_| chat_answer()).await;
            let waypoint = start(&trusted, &at(&upstream, NAME), tls).await;
            let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
            assert_eq!(
                (answer.status, answer.code()),
                (502, "upstream_connect".into()),
                "{case}: {}",
                answer.text()
            );
            upstream.refused(1).await;
            assert!(upstream.seen().is_empty(), "{case}");
            assert_eq!(upstream.server_names()[0].as_deref(), Some(NAME), "{case}");
            let event = waypoint.event(&answer).await;
            assert_eq!(event["code"], "upstream_connect", "{case}: {event}");
            assert_eq!(event["decision"], "allow", "{case}: {event}");
            let said = [waypoint.stderr(), waypoint.stdout(), answer.text()].concat();
            assert!(!said.contains("sk-ours"), "{case}: {said}");
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_hears_no_more_than_a_handshake() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let authority = Authority::new();
    let waypoint = start(&authority, &format!("https://{NAME}:{port}"), TRUST).await;
    let heard = tokio::spawn(async move {
        // The call, and its one retry.
        let mut heard = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 16 * 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            let refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
            bytes.truncate(read);
            stream.read_to_end(&mut bytes).await.ok();
            heard.push(bytes);
        }
        heard
    });
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_connect".into())
    );
    for bytes in soon("two connections", heard).await.unwrap() {
        // A record of the handshake, RFC 8446 §5.1.
        assert_eq!(bytes[0], 22);
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("sk-ours") && !text.contains("hello"));
    }
}

#[tokio::test]
async fn failover_leaves_a_provider_that_cannot_prove_its_name() {
    let authority = Authority::new();
    let stranger = Authority::new().server_for(&[NAME], Validity::Now);
    let good = authority.server_for(&[NAME], Validity::Now);
    let false_one = Upstream::speaking(Speaks::tls(&stranger, BOTH), |_| chat_answer()).await;
    let true_one = Upstream::speaking(Speaks::tls(&good, BOTH), |_| chat_answer()).await;
    let spec = format!("{CREDENTIAL}\n{TRUST}");
    let objects = [
        provider_at("first", "OpenAI", &at(&false_one, NAME), &spec),
        provider_at("second", "OpenAI", &at(&true_one, NAME), &spec),
        secret("keys", "sk-ours"),
        roots("provider-roots", &authority),
        route(
            "llm",
            "- backendRefs: [{name: first}, {name: second, priority: 1}]",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).start().await;
    let answer = waypoint.workload(ANN).call(&chat("m")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(false_one.seen().is_empty());
    assert_eq!(
        true_one.only().header("authorization"),
        Some("Bearer sk-ours")
    );
}

#[tokio::test]
async fn new_roots_count_for_connections_that_were_open_before() {
    let authority = Authority::new();
    let identity = authority.server_for(&[NAME], Validity::Now);
    let upstream = Upstream::speaking(Speaks::tls(&identity, BOTH), |_| chat_answer()).await;
    let waypoint = start(&authority, &at(&upstream, NAME), TRUST).await;
    let ann = waypoint.workload(ANN);
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
    let path = waypoint.config().join("objects.yaml");
    let objects = std::fs::read_to_string(path).unwrap();
    let own = roots("provider-roots", &authority);
    let other = roots("provider-roots", &Authority::new());
    assert!(objects.contains(&own));
    waypoint.reload(&objects.replace(&own, &other)).await;
    let answer = ann.call(&chat("m")).await.unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_connect".into())
    );
    assert_eq!(upstream.seen().len(), 1);
    waypoint.reload(&objects).await;
    assert_eq!(ann.call(&chat("m")).await.unwrap().status, 200);
}

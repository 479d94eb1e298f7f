//! Who gets in, by which protocol, and with what kind of request head.

use std::sync::Arc;

use waypoint_tests::certificates::{Authority, Validity};
use waypoint_tests::client::{Answer, Client, Request};
use waypoint_tests::llm::{chat, chat_answer};
use waypoint_tests::upstream::Upstream;
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{ANN, DEVELOPER, Setup, Waypoint, mcp_proxy, provider, route};

/// One provider, one route to it, and one MCP server behind the same upstream.
fn objects(upstream: &Upstream) -> String {
    [
        provider("openai", "OpenAI", upstream, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        mcp_proxy("tools", upstream, ""),
    ]
    .concat()
}

async fn start(limits: &str) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::always(chat_answer()).await;
    let setup = Setup::new(&objects(&upstream)).limits(limits);
    (upstream, setup.start().await)
}

/// A client of the listener where certificates are optional.
fn optional(waypoint: &Waypoint, spiffe: Option<&str>) -> Client {
    let identity = spiffe.map(|id| waypoint.authority.agent(id));
    Client::tls(
        waypoint.ports.optional,
        &waypoint.authority,
        identity.as_ref(),
    )
}

#[tokio::test]
async fn every_protocol_carries_the_principal() {
    let (upstream, waypoint) = start("").await;
    for (case, client, principal, source) in [
        ("dev", waypoint.developer(), DEVELOPER, "developer"),
        ("mtls", waypoint.workload(ANN), ANN, "certificate"),
        (
            "optional",
            optional(&waypoint, Some(ANN)),
            ANN,
            "certificate",
        ),
    ] {
        let http1 = client.call(&chat("m")).await.unwrap();
        let mut connection = client.connect_http2().await.unwrap();
        let http2 = connection.call(&chat("m")).await.unwrap();
        for (version, answer) in [("1.1", http1), ("2", http2)] {
            assert_eq!(answer.status, 200, "{case} {version}: {}", answer.text());
            assert_eq!(answer.json()["choices"][0]["message"]["content"], "hi");
            let event = waypoint.event(&answer).await;
            assert_eq!(event["principal"], principal, "{case} {version}");
            assert_eq!(event["identity_source"], source, "{case} {version}");
            assert_eq!(event["listener"], case, "{version}");
        }
    }
    assert_eq!(upstream.seen().len(), 6);
}

#[tokio::test]
async fn a_certificate_names_exactly_one_workload_of_ours() {
    let (upstream, waypoint) = start("").await;
    let ours = &waypoint.authority;
    let foreign = Authority::new();
    let mut refused = 0.0;
    for (case, identity) in [
        ("none", None),
        ("no URI", Some(ours.with_uris(&[], Validity::Now))),
        (
            "two SPIFFE IDs",
            Some(ours.with_uris(&[ANN, DEVELOPER], Validity::Now)),
        ),
        (
            "the same ID twice",
            Some(ours.with_uris(&[ANN, ANN], Validity::Now)),
        ),
        (
            "no SPIFFE ID",
            Some(ours.with_uris(&["https://cluster.local/ns/a/sa/b"], Validity::Now)),
        ),
        (
            "another trust domain",
            Some(ours.agent("spiffe://other.local/ns/agents/sa/ann")),
        ),
        (
            "a path with dots",
            Some(ours.agent("spiffe://cluster.local/ns/../sa/ann")),
        ),
        ("expired", Some(ours.with_uris(&[ANN], Validity::Expired))),
        ("another authority", Some(foreign.agent(ANN))),
    ] {
        // Without a certificate the optional listener lets a caller in, without an identity.
        let listeners = if identity.is_some() {
            vec![
                ("mtls", waypoint.ports.mtls),
                ("optional", waypoint.ports.optional),
            ]
        } else {
            vec![("mtls", waypoint.ports.mtls)]
        };
        for (name, port) in listeners {
            let client = Client::tls(port, ours, identity.as_ref());
            let answer = client.call(&chat("m")).await;
            assert!(answer.is_err(), "{case} at {name}: {answer:?}");
            refused += 1.0;
        }
    }
    let refusals = [("result", "handshake_failed")];
    waypoint
        .metric_reaches("waypoint_connections_total", &refusals, refused)
        .await;
    assert_eq!(upstream.connections(), 0);
    // The same listeners take a proper one.
    assert_eq!(
        waypoint
            .workload(ANN)
            .call(&chat("m"))
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn nobody_without_identity_reaches_a_model_or_a_server() {
    for posture in ["Observe", "Graduated", "Strict"] {
        let upstream = Upstream::always(chat_answer()).await;
        let setup = Setup::new(&objects(&upstream)).parameters(&format!("posture: {posture}"));
        let waypoint = setup.start().await;
        let ping = Request::post("/mcp/tools/", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        for (case, client) in [
            ("plain", waypoint.anonymous()),
            ("optional", optional(&waypoint, None)),
        ] {
            let llm = client.call(&chat("m")).await.unwrap();
            assert_eq!(llm.status, 401, "{posture} {case}");
            assert_eq!(llm.code(), "identity_required");
            assert_eq!(llm.header("x-should-retry"), Some("false"));
            // 401 would make MCP clients begin to log in.
            let mcp = client.call(&ping).await.unwrap();
            assert_eq!(mcp.status, 403, "{posture} {case}: {}", mcp.text());
            assert!(mcp.json()["error"]["code"].is_i64(), "{}", mcp.text());
            for answer in [llm, mcp] {
                let event = waypoint.event(&answer).await;
                assert_eq!(event["principal"], "anonymous");
                assert_eq!(event["decision"], "deny", "{event}");
                assert_eq!(event["flags"][0], "RBAC_ACCESS_DENIED", "{event}");
            }
        }
        assert_eq!(upstream.connections(), 0, "{posture}");
    }
}

/// Whether a caller says that it will send no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Finish,
    Wait,
}

/// What a connection gave back until it was closed: the statuses of its answers.
async fn statuses(client: &Client, bytes: &[u8], then: Then) -> Vec<u16> {
    let mut connection = client.connect().await.unwrap();
    // A refusal may come, and the connection close, while this is still being sent.
    let _ = connection.write(bytes).await;
    if then == Then::Finish {
        let _ = connection.finish().await;
    }
    let said = String::from_utf8_lossy(&connection.drain().await).into_owned();
    let heads = said.match_indices("HTTP/1.1 ");
    heads
        .filter_map(|(at, _)| said[at + 9..].get(..3)?.parse().ok())
        .collect()
}

#[tokio::test]
async fn heads_that_could_be_read_in_two_ways_are_refused() {
    let (upstream, waypoint) = start("").await;
    let body = "{\"model\":\"m\",\"messages\":[]}";
    let length = body.len();
    let client = waypoint.workload(ANN);
    let host = client.authority();
    let post = format!(
        "POST /ai/v1/chat/completions HTTP/1.1\r\nconnection: close\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    );
    let sized = format!("{post}content-length: {length}\r\n");
    for (case, request) in [
        (
            "length and chunks",
            format!("{sized}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "chunks and length",
            format!(
                "{post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            format!("{sized}content-length: 3\r\n\r\n{body}"),
        ),
        (
            "a length with a sign",
            format!("{post}content-length: +{length}\r\n\r\n{body}"),
        ),
        (
            "no number as length",
            format!("{post}content-length: many\r\n\r\n{body}"),
        ),
        (
            "an unknown coding",
            format!(
                "{post}transfer-encoding: gzip, chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ),
        ),
        (
            "a coding that is nearly chunked",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            format!(
                "{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ),
        ),
        (
            "chunked and then not",
            format!(
                "{post}transfer-encoding: chunked, identity\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ),
        ),
        ("two hosts", format!("{sized}host: other\r\n\r\n{body}")),
        (
            "no host",
            format!(
                "POST /ai/v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "another host in the target",
            format!(
                "POST http://other/ai/v1/chat/completions HTTP/1.1\r\nconnection: close\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "a user in the host",
            format!(
                "POST /ai/v1/chat/completions HTTP/1.1\r\nconnection: close\r\nhost: me@{host}\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "an encoded slash",
            format!(
                "POST /ai/v1%2fchat/completions HTTP/1.1\r\nconnection: close\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "an encoded NUL",
            format!(
                "POST /ai/v1/chat/completions%00 HTTP/1.1\r\nconnection: close\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "a space before the colon",
            format!("{post}content-length : {length}\r\n\r\n{body}"),
        ),
        (
            "a folded field",
            format!("{sized}x-a: b\r\n\tc\r\n\r\n{body}"),
        ),
    ] {
        let statuses = statuses(&client, request.as_bytes(), Then::Wait).await;
        // Closed without a word, or 400 and nothing after it.
        assert!(matches!(statuses[..], [] | [400]), "{case}: {statuses:?}");
        assert_eq!(upstream.connections(), 0, "{case}");
    }
    // The template itself is fine.
    let good = format!("{sized}\r\n{body}");
    assert_eq!(statuses(&client, good.as_bytes(), Then::Wait).await, [200]);
}

#[tokio::test]
async fn a_head_is_bounded_in_size() {
    let (upstream, waypoint) = start("headerBytes: 16384").await;
    let client = waypoint.developer();
    let over = client
        .call(&chat("m").header("x-filler", &"a".repeat(20_000)))
        .await;
    assert_eq!(over.unwrap().status, 431);
    // Two mebibytes are not even read.
    let mut huge = format!(
        "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: {}\r\n",
        client.authority()
    );
    while huge.len() < 2 << 20 {
        huge.push_str(&format!("x-filler: {}\r\n", "a".repeat(1 << 16)));
    }
    let statuses = statuses(&client, huge.as_bytes(), Then::Wait).await;
    assert!(matches!(statuses[..], [] | [431]), "{statuses:?}");
    let mut connection = waypoint.workload(ANN).connect_http2().await.unwrap();
    let http2 = connection
        .call(&chat("m").header("x-filler", &"a".repeat(200_000)))
        .await;
    assert!(
        http2.as_ref().map_or(true, |answer| answer.status == 431),
        "{http2:?}"
    );
    assert_eq!(upstream.connections(), 0);
    let under = client
        .call(&chat("m").header("x-filler", &"a".repeat(12_000)))
        .await;
    assert_eq!(under.unwrap().status, 200);
}

#[tokio::test]
async fn a_head_and_a_body_must_come_in_time() {
    let (upstream, waypoint) =
        start("headerTimeout: 300ms\nbodyTimeout: 300ms\nhandshakeTimeout: 300ms").await;
    let client = waypoint.developer();
    let host = client.authority();
    for (case, begun, expected) in [
        ("nothing", String::new(), &[][..]),
        ("half a method", "PO".into(), &[408]),
        (
            "half a head",
            format!("POST /ai/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nx-a"),
            &[408],
        ),
        (
            "half a body",
            format!(
                "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"model\""
            ),
            &[408],
        ),
    ] {
        let mut connection = client.connect().await.unwrap();
        connection.write(begun.as_bytes()).await.unwrap();
        // Nothing more is sent, and the socket stays open: the end must come from the other side.
        let said = String::from_utf8_lossy(&connection.drain().await).into_owned();
        let told = expected
            .iter()
            .any(|status| said.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(said.is_empty() || told, "{case}: {said}");
    }
    let silent = Client::plain(waypoint.ports.mtls);
    let mut connection = silent.connect().await.unwrap();
    assert_eq!(
        connection.drain().await,
        b"",
        "a handshake that never begins"
    );
    assert_eq!(upstream.connections(), 0);
    // On a busy machine an honest call may be late too.
    until("a call in time", || async {
        let answer = client.call(&chat("m")).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_body_that_ends_early_goes_nowhere() {
    let (upstream, waypoint) = start("").await;
    let client = waypoint.developer();
    let host = client.authority();
    let post = format!(
        "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    );
    for (case, request) in [
        (
            "by length",
            format!("{post}content-length: 50\r\n\r\n{{\"model\":\"m\"}}"),
        ),
        (
            "in a chunk",
            format!("{post}transfer-encoding: chunked\r\n\r\nff\r\n{{\"model\":\"m\"}}"),
        ),
        (
            "between chunks",
            format!("{post}transfer-encoding: chunked\r\n\r\nd\r\n{{\"model\":\"m\"}}\r\n"),
        ),
        (
            "not in chunks",
            format!("{post}transfer-encoding: chunked\r\n\r\nxyz\r\n"),
        ),
    ] {
        let statuses = statuses(&client, request.as_bytes(), Then::Finish).await;
        assert!(matches!(statuses[..], [] | [400]), "{case}: {statuses:?}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn open_connections_are_capped_and_come_free_again() {
    let (_upstream, waypoint) = start("connections: 2").await;
    let client = waypoint.developer();
    let mut first = client.connect().await.unwrap();
    let mut second = client.connect().await.unwrap();
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.call(&chat("m")).await.unwrap().status, 200);
    }
    let mut third = client.connect().await.unwrap();
    let _ = third.send(&chat("m")).await;
    let said = third.drain().await;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 503"),
        "{said}"
    );
    let full = [("listener", "dev"), ("result", "too_many")];
    waypoint
        .metric_reaches("waypoint_connections_total", &full, 1.0)
        .await;
    // Other listeners have their own.
    assert_eq!(
        waypoint
            .workload(ANN)
            .call(&chat("m"))
            .await
            .unwrap()
            .status,
        200
    );
    drop(first);
    waypoint_tests::wait::until("a free place", || async {
        client
            .call(&chat("m"))
            .await
            .ok()
            .filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(second.call(&chat("m")).await.unwrap().status, 200);
}

#[tokio::test]
async fn who_calls_is_never_taken_from_a_header() {
    const CLAIMS: [&str; 8] = [
        "x-spiffe-id",
        "X-Forwarded-Client-Cert",
        "x-waypoint-principal",
        "x-forwarded-user",
        "x-remote-user",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-envoy-original-path",
    ];
    let (upstream, waypoint) = start("").await;
    let mut requests = vec![chat("m")];
    requests.push(Request::post(
        "/mcp/tools/",
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
    ));
    for request in requests {
        let claiming = CLAIMS.iter().fold(request, |request, name| {
            request.header(name, "spiffe://cluster.local/ns/agents/sa/admin")
        });
        let answer = waypoint.workload(ANN).call(&claiming).await.unwrap();
        let event = waypoint.event(&answer).await;
        assert_eq!(event["principal"], ANN);
        let head = upstream.last().head.to_ascii_lowercase();
        assert!(!head.contains("spiffe://"), "{head}");
        // Anonymous stays anonymous.
        let refused = waypoint.anonymous().call(&claiming).await.unwrap();
        assert!(matches!(refused.status, 401 | 403), "{}", refused.status);
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_developer_identity_is_not_for_pages_of_other_sites() {
    let (upstream, waypoint) = start("").await;
    let port = waypoint.ports.dev;
    let own = format!("http://localhost:{port}");
    let mut allowed = 0;
    for (case, host, origins, status) in [
        ("as tools call", "127.0.0.1", &[][..], 200),
        ("by name", "localhost", &[], 200),
        ("with port", &format!("localhost:{port}"), &[], 200),
        ("a page of ours", "localhost", &[own.as_str()], 200),
        ("a rebound name", "evil.example", &[], 403),
        (
            "a name that looks like ours",
            "127.0.0.1.evil.example",
            &[],
            403,
        ),
        (
            "a foreign page",
            "localhost",
            &["https://evil.example"],
            403,
        ),
        ("a sandboxed page", "localhost", &["null"], 403),
        (
            "two origins",
            "localhost",
            &[own.as_str(), "https://evil.example"],
            403,
        ),
    ] {
        for request in [
            chat("m"),
            Request::post("/mcp/tools/", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
        ] {
            let request = origins.iter().fold(request.host(host), |request, origin| {
                request.header("origin", origin)
            });
            let answer: Answer = waypoint.developer().call(&request).await.unwrap();
            // What the scripted upstream says is no MCP answer; that it was asked is enough.
            let passed = answer.status != 403;
            assert_eq!(passed, status == 200, "{case}: {}", answer.text());
            allowed += usize::from(passed);
        }
    }
    assert_eq!(upstream.seen().len(), allowed);
}

/// A resumed session would bring back a certificate without looking at it again.
#[tokio::test]
async fn sessions_of_callers_with_certificates_are_not_resumed() {
    let (_upstream, waypoint) = start("").await;
    let identity = waypoint.authority.agent(ANN);
    let config = waypoint.authority.client(Some(&identity), b"http/1.1");
    for turn in 0..3 {
        let address = ("127.0.0.1", waypoint.ports.mtls);
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&config));
        let mut stream = connector.connect(name, stream).await.unwrap();
        // Tickets come with or behind the first answer.
        let request = b"GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request)
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 404"), "{turn}");
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full), "{turn}");
    }
}

//! Who gets no tunnel, and where none leads.

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use waypoint_tests::certificates::{Authority, Validity};
use waypoint_tests::client::Client;
use waypoint_tests::wait::{soon, until};

use super::*;

#[tokio::test]
async fn the_mesh_takes_exactly_one_workload_of_ours() {
    let (upstream, waypoint) = start(&Gate::new()).await;
    let ours = &waypoint.authority;
    let foreign = Authority::new();
    let port = waypoint.ports.plain;
    let mut refused = 0.0;
    for (case, identity) in [
        ("none", None),
        (
            "two names",
            Some(ours.with_uris(&[ANN, BOB], Validity::Now)),
        ),
        (
            "the same twice",
            Some(ours.with_uris(&[ANN, ANN], Validity::Now)),
        ),
        (
            "DNS only",
            Some(ours.server_for(&["ann.agents"], Validity::Now)),
        ),
        ("no URI", Some(ours.with_uris(&[], Validity::Now))),
        (
            "another domain",
            Some(ours.agent("spiffe://other.local/ns/agents/sa/ann")),
        ),
        ("expired", Some(ours.with_uris(&[ANN], Validity::Expired))),
        ("not yet", Some(ours.with_uris(&[ANN], Validity::NotYet))),
        ("another authority", Some(foreign.agent(ANN))),
    ] {
        let tunnel = async {
            let ztunnel = Ztunnel::dial(waypoint.ports.hbone, ours, identity.as_ref()).await?;
            ztunnel.tunnel(port).await
        };
        assert!(tunnel.await.is_err(), "{case}");
        refused += 1.0;
    }
    let labels = [("listener", "mesh"), ("result", "handshake_failed")];
    waypoint
        .metric_reaches("waypoint_connections_total", &labels, refused)
        .await;
    assert_eq!(upstream.connections(), 0);
    let ztunnel = dial(&waypoint, ANN).await;
    assert!(ztunnel.tunnel(port).await.is_ok());
}

#[tokio::test]
async fn tunnels_lead_to_our_listeners_alone() {
    let (upstream, waypoint) = start(&Gate::new()).await;
    let ztunnel = dial(&waypoint, ANN).await;
    let ports = waypoint.ports.clone();
    let behind = upstream.address.port();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let mut counted = [("unbound", 0.0), ("malformed", 0.0)];
    for (authority, result) in [
        // Where credentials of the machine are, and what else it could reach for a caller.
        ("169.254.169.254:80".to_owned(), "unbound"),
        (format!("169.254.169.254:{}", ports.plain), "unbound"),
        (at(behind), "unbound"),
        (at(ports.admin), "unbound"),
        (at(ports.metrics), "unbound"),
        (at(ports.ready), "unbound"),
        // Ours, and nothing for tunnels.
        (at(ports.hbone), "unbound"),
        (at(ports.mtls), "unbound"),
        (at(ports.optional), "unbound"),
        // Of this machine, and not where we listen.
        (format!("127.0.0.2:{}", ports.plain), "unbound"),
        (format!("0.0.0.0:{}", ports.plain), "unbound"),
        (format!("[::]:{}", ports.plain), "unbound"),
        (format!("[::1]:{}", ports.plain), "unbound"),
        (format!("localhost:{}", ports.plain), "unbound"),
        (format!("0177.0.0.1:{}", ports.plain), "unbound"),
        ("mcp.tools.svc.cluster.local:80".to_owned(), "unbound"),
        ("127.0.0.1:0".to_owned(), "malformed"),
        ("localhost:99999".to_owned(), "malformed"),
        (format!("ann@127.0.0.1:{}", ports.plain), "malformed"),
    ] {
        let Ok((status, _)) = ztunnel.connect(&authority).await else {
            panic!("{authority} was not answered");
        };
        assert_eq!(status, 400, "{authority}");
        for (name, count) in &mut counted {
            if *name == result {
                *count += 1.0;
            }
        }
    }
    // The same address in another form is the same.
    let mapped = format!("[::ffff:127.0.0.1]:{}", ports.plain);
    assert_eq!(ztunnel.connect(&mapped).await.unwrap().0, 200);
    for method in [Method::GET, Method::POST] {
        let request = http::Request::builder()
            .method(method.clone())
            .uri(format!("http://{}/", at(ports.plain)))
            .body(())
            .unwrap();
        assert_eq!(ztunnel.ask(request).await.unwrap().0, 405, "{method}");
        counted[1].1 += 1.0;
    }
    let metrics = waypoint.metrics().await;
    for (result, count) in counted {
        let labels = [("listener", "mesh"), ("result", result)];
        let found = metrics.sum("waypoint_connections_total", &labels);
        assert_eq!(found, count, "{result}");
    }
    assert_eq!(upstream.connections(), 0);
    assert!(
        ztunnel.tunnel(ports.plain).await.is_ok(),
        "none of this ends the connection"
    );
}

#[tokio::test]
async fn a_listener_with_tokens_takes_no_tunnels() {
    let (_upstream, waypoint) = start(&Gate::new()).await;
    let ztunnel = dial(&waypoint, ANN).await;
    let mut before = ztunnel.http1(waypoint.ports.plain).await.unwrap();
    assert_eq!(before.call(&chat("m")).await.unwrap().status, 200);
    let token = "{type: SPIFFE, audiences: [wp], jwksUri: \"https://127.0.0.1:1/keys\"}";
    let mtls = "    mtls: {clientCertificate";
    let with_tokens = format!("    plain: {{tokenPrincipals: [{token}]}}\n{mtls}");
    waypoint.edit_base(mtls, &with_tokens).await;
    let port = waypoint.ports.plain;
    let (status, _) = ztunnel.connect(&format!("127.0.0.1:{port}")).await.unwrap();
    assert_eq!(status, 400);
    // Nor does what was opened before lead there any more.
    assert_eq!(before.call(&chat("m")).await.unwrap().status, 404);
}

#[tokio::test]
async fn a_trust_domain_that_is_taken_back_opens_no_tunnel() {
    let (_upstream, waypoint) = start_with(&Gate::new(), |setup| {
        setup.parameters("trustDomains: [cluster.local, other.local]")
    })
    .await;
    let port = waypoint.ports.plain;
    let ztunnel = dial(&waypoint, "spiffe://other.local/ns/agents/sa/ann").await;
    assert!(ztunnel.tunnel(port).await.is_ok());
    waypoint
        .edit_base("[cluster.local, other.local]", "[cluster.local]")
        .await;
    let (status, _) = ztunnel.connect(&format!("127.0.0.1:{port}")).await.unwrap();
    assert_eq!(status, 401);
}

#[tokio::test]
async fn strangers_are_cut_off() {
    let limits = "handshakeTimeout: 300ms";
    let (_upstream, waypoint) = start_with(&Gate::new(), |setup| setup.limits(limits)).await;
    let mesh = ("127.0.0.1", waypoint.ports.hbone);
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0x16; 700],
    ] {
        let mut stream = TcpStream::connect(mesh).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        // A reset, or an alert and the end.
        let _ = soon("the end", stream.read_to_end(&mut said)).await;
        assert!(said.len() < 16, "{said:?}");
    }
    let failed = [("listener", "mesh"), ("result", "handshake_failed")];
    waypoint
        .metric_reaches("waypoint_connections_total", &failed, 3.0)
        .await;
    let ann = waypoint.authority.agent(ANN);
    let http1 = Client::tls(waypoint.ports.hbone, &waypoint.authority, Some(&ann));
    assert!(
        http1.call(&chat("m")).await.is_err(),
        "HTTP/2 alone is spoken"
    );
    waypoint
        .metric_reaches("waypoint_connections_total", &failed, 4.0)
        .await;
    // One that says nothing, and one that says too little, within the same bound.
    for bytes in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(mesh).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut said)).await;
        assert_eq!(said, b"");
    }
    let timed_out = [("listener", "mesh"), ("result", "timed_out")];
    waypoint
        .metric_reaches("waypoint_connections_total", &timed_out, 2.0)
        .await;
    // A tunnel that says nothing ends like a connection that says nothing.
    let ztunnel = dial(&waypoint, ANN).await;
    let mut tunnel = ztunnel.tunnel(waypoint.ports.plain).await.unwrap();
    let mut said = Vec::new();
    soon("the end", tunnel.read_to_end(&mut said))
        .await
        .unwrap();
    assert_eq!(said, b"");
    let silent = [("listener", "plain"), ("result", "timed_out")];
    waypoint
        .metric_reaches("waypoint_connections_total", &silent, 1.0)
        .await;
    assert!(ztunnel.tunnel(waypoint.ports.plain).await.is_ok());
}

#[tokio::test]
async fn tunnels_count_as_connections() {
    let (_upstream, waypoint) =
        start_with(&Gate::new(), |setup| setup.limits("connections: 3")).await;
    let port = waypoint.ports.plain;
    let ztunnel = dial(&waypoint, ANN).await;
    let mut first = ztunnel.http1(port).await.unwrap();
    let second = ztunnel.tunnel(port).await.unwrap();
    let target = format!("127.0.0.1:{port}");
    assert_eq!(ztunnel.connect(&target).await.unwrap().0, 503);
    assert!(
        dial_refused(&waypoint).await,
        "nor is there room for another node"
    );
    assert_eq!(first.call(&chat("m")).await.unwrap().status, 200);
    drop(second);
    until("room again", || async {
        let asked = ztunnel.connect(&target).await;
        matches!(asked, Ok((200, _))).then_some(())
    })
    .await;
}

async fn dial_refused(waypoint: &Waypoint) -> bool {
    let identity = waypoint.authority.agent(ANN);
    let dialled = Ztunnel::dial(waypoint.ports.hbone, &waypoint.authority, Some(&identity));
    dialled.await.is_err()
}

#[tokio::test]
async fn everywhere_is_where_the_caller_has_reached_us() {
    let (_upstream, waypoint) = start(&Gate::new()).await;
    let base = std::fs::read_to_string(waypoint.config().join("gateway.yaml")).unwrap();
    let all = base
        .replace("  addresses: [{type: IPAddress, value: 127.0.0.1}]\n", "")
        .replace("    dev: {principal", "    dev: {}\n    # {principal");
    assert_ne!(base, all);
    let before = waypoint.generation().await;
    waypoint.write("gateway.yaml", &all);
    waypoint.generation_after(before).await;
    let port = waypoint.ports.plain;
    let ztunnel = dial(&waypoint, ANN).await;
    let mut tunnel = ztunnel.http1(port).await.unwrap();
    assert_eq!(tunnel.call(&chat("m")).await.unwrap().status, 200);
    // These are ours too, and not by this connection.
    for authority in [
        format!("127.0.0.2:{port}"),
        format!("[::1]:{port}"),
        format!("[::]:{port}"),
    ] {
        let (status, _) = ztunnel.connect(&authority).await.unwrap();
        assert_eq!(status, 400, "{authority}");
    }
}

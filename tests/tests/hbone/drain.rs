//! How connections of the mesh live on: with stalled tunnels, new certificates, and to their end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use waypoint_tests::wait::until;
use waypoint_tests::waypoint::{Backend, WAYPOINT, write_identity};

use super::*;

/// Takes connections and reads nothing.
struct Deaf(SocketAddr);

impl Backend for Deaf {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

#[tokio::test]
async fn stalled_uploads_do_not_stop_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = Deaf(listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let upstream = Upstream::always(chat_answer()).await;
    let objects = [
        provider("openai", "OpenAI", &upstream, ""),
        route("llm", "- backendRefs: [{name: openai}]"),
        service("deaf", &deaf, "http"),
        http_route(
            "deaf",
            "rules:\n- matches: [{path: {type: PathPrefix, value: /deaf}}]\n  backendRefs: [{name: deaf, port: 80}]",
        ),
    ];
    let waypoint = Setup::new(&objects.concat()).hbone().start().await;
    let ztunnel = dial(&waypoint, ANN).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut uploads = Vec::new();
    for _ in 0..5 {
        let mut tunnel = ztunnel.tunnel(waypoint.ports.plain).await.unwrap();
        let sent = Arc::clone(&sent);
        uploads.push(tokio::spawn(async move {
            let head = "POST /deaf HTTP/1.1\r\nhost: wp\r\ncontent-length: 1000000000\r\n\r\n";
            tunnel.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'a'; 64 * 1024];
            while tunnel.write_all(&piece).await.is_ok() {
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }));
    }
    // Until nothing more is taken of any of them.
    let mut last = (0, 0);
    let stalled = || {
        let now = sent.load(Ordering::Relaxed);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        std::future::ready((last.1 > 50 && now > 5 * 256 * 1024).then_some(()))
    };
    until("five uploads stand still", stalled).await;
    for _ in 0..3 {
        let mut other = ztunnel.http1(waypoint.ports.plain).await.unwrap();
        assert_eq!(other.call(&chat("m")).await.unwrap().status, 200);
    }
    for upload in &uploads {
        assert!(!upload.is_finished(), "it still waits");
        upload.abort();
    }
    held.abort();
}

#[tokio::test]
async fn the_end_waits_for_what_runs() {
    let gate = Gate::new();
    let (_upstream, mut waypoint) =
        start_with(&gate, |setup| setup.parameters("drainTimeout: 10m")).await;
    let ztunnel = dial(&waypoint, ANN).await;
    let mut idle = ztunnel.http1(waypoint.ports.plain).await.unwrap();
    assert_eq!(idle.call(&chat("m")).await.unwrap().status, 200);
    let mut stream = open_stream(&ztunnel, &waypoint).await;
    waypoint.terminate().await;
    waypoint.draining().await;
    assert_eq!(idle.drain().await, b"", "an idle tunnel is closed");
    // Refused, or not even sent after GOAWAY.
    let target = format!("127.0.0.1:{}", waypoint.ports.plain);
    until("no new tunnels", || async {
        let asked = ztunnel.connect(&target).await;
        (!matches!(asked, Ok((200, _)))).then_some(())
    })
    .await;
    gate.open();
    let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
    assert!(rest.ends_with(DONE) && !rest.contains("error"), "{rest}");
    let ended = ztunnel.ended().await;
    assert!(ended.is_ok(), "told to go, not cut: {ended:?}");
    let code = waypoint.ended().await.code();
    assert_eq!(code, Some(0), "{}", waypoint.stderr());
}

#[tokio::test]
async fn a_listener_that_is_taken_away_lets_its_streams_go_on_no_further() {
    let gate = Gate::new();
    let (upstream, waypoint) = start(&gate).await;
    let ztunnel = dial(&waypoint, ANN).await;
    let mut stream = open_stream(&ztunnel, &waypoint).await;
    let mesh = format!(
        "\n  - {{name: mesh, port: {}, protocol: HBONE}}",
        waypoint.ports.hbone
    );
    waypoint.edit_base(&mesh, "").await;
    let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
    assert!(rest.contains("\"policy_revoked\""), "{rest}");
    upstream.abandoned(1).await;
    let again = stream.call(&chat("m")).await;
    assert!(!again.is_ok_and(|answer| answer.status == 200));
    // What is open is the caller's to close, as with other connections.
    drop(stream);
    let ended = ztunnel.ended().await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn certificates_change_without_a_break() {
    let gate = Gate::new();
    let (_upstream, waypoint) = start(&gate).await;
    let first = dial(&waypoint, ANN).await;
    let mut stream = open_stream(&first, &waypoint).await;
    let renewed = waypoint.authority.waypoint(WAYPOINT);
    let expected = CertificateDer::from_pem_slice(renewed.certificate_pem.as_bytes()).unwrap();
    assert_ne!(first.certificate, expected.as_ref());
    write_identity(&waypoint.path(""), &waypoint.authority, &renewed);
    let second = until("the new certificate", || async {
        let ztunnel = dial(&waypoint, ANN).await;
        (ztunnel.certificate == expected.as_ref()).then_some(ztunnel)
    })
    .await;
    for ztunnel in [&first, &second] {
        let mut other = ztunnel.http1(waypoint.ports.plain).await.unwrap();
        assert_eq!(other.call(&chat("m")).await.unwrap().status, 200);
    }
    gate.open();
    let rest = String::from_utf8(stream.body().await.unwrap()).unwrap();
    assert!(rest.ends_with(DONE), "{rest}");
}

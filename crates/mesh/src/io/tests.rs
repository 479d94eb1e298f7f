use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::sniff::{self, HttpVersion};

async fn pair() -> (Io, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (Io::from(accepted.unwrap().0), client.unwrap())
}

#[tokio::test]
async fn small_writes_leave_at_the_flush_and_large_ones_keep_their_order() {
    let (mut io, mut peer) = pair().await;
    let body = vec![b'b'; 200_000];
    let writer = tokio::spawn(async move {
        io.write_all(b"head").await.unwrap();
        io.write_all(&body).await.unwrap();
        io.write_all(b"tail").await.unwrap();
        io.flush().await.unwrap();
        io
    });
    let mut seen = vec![0; 4 + 200_000 + 4];
    peer.read_exact(&mut seen).await.unwrap();
    assert_eq!(
        (&seen[..4], &seen[4..6], &seen[200_004..]),
        (&b"head"[..], &b"bb"[..], &b"tail"[..])
    );
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn sniffing_stops_at_the_first_byte_that_decides() {
    for (case, pieces, expected) in [
        (
            "short HTTP/1.0",
            &[&b"GET / HTTP/1.0\r\n\r\n"[..]][..],
            HttpVersion::Http1,
        ),
        ("one byte", &[b"X"], HttpVersion::Http1),
        ("PRI as a method", &[b"PRI /x HTTP/1.1"], HttpVersion::Http1),
        ("whole preface", &[sniff::H2_PREFACE], HttpVersion::Http2),
        (
            "preface in pieces",
            &[b"PRI * HT", b"TP/2.0\r\n\r\nSM", b"\r\n\r\n"],
            HttpVersion::Http2,
        ),
    ] {
        let (mut io, mut peer) = pair().await;
        let sent: Vec<u8> = pieces.concat();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                peer.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer
        });
        assert_eq!(
            sniff::http_version(&mut io).await.unwrap(),
            expected,
            "{case}"
        );
        let mut again = vec![0; sent.len()];
        io.read_exact(&mut again).await.unwrap();
        assert_eq!(again, sent, "{case}: nothing is lost");
        drop(writer.await.unwrap());
    }
}

#[tokio::test]
async fn a_pooled_connection_is_idle_until_the_peer_speaks_or_leaves() {
    let (mut io, mut peer) = pair().await;
    assert!(io.is_idle());
    peer.write_all(b"unasked").await.unwrap();
    io.transport_readable().await;
    assert!(!io.is_idle());
    let (mut io, peer) = pair().await;
    drop(peer);
    io.transport_readable().await;
    assert!(!io.is_idle());
}

#[tokio::test]
async fn an_early_answer_ends_a_write_that_the_peer_does_not_read() {
    let (mut io, mut peer) = pair().await;
    peer.write_all(b"HTTP/1.1 413 Too Large\r\n\r\n")
        .await
        .unwrap();
    io.set_watch_for_answer(true);
    let body = vec![0u8; 64 << 20];
    let error = io.write_all(&body).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    let mut answer = [0; 12];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

impl Io {
    async fn transport_readable(&self) {
        if let Transport::Tcp(stream) = &self.transport {
            stream.readable().await.unwrap();
        }
    }
}

//! A connection in the form Pingora wants it, on either side.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use waypoint_mesh::{HttpVersion, Io};
use waypoint_policy::Code;

/// Reads beyond the head limit that are still tolerated here; the exact limit is held by the
/// request filter, which sees where the head ends.
const HEAD_SLACK_BYTES: usize = 16 * 1024;

/// Tells a connection's reader whether what arrives is a request head. Counts: even while a head
/// is awaited, odd within a request, so that the reader also sees that a new one has begun.
#[derive(Debug, Default)]
pub(crate) struct HeadPhase {
    turn: AtomicU32,
    fate: AtomicU8,
}

/// What has become of the head that arrives now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Fate {
    /// Nothing of it has come, or it was read.
    None,
    /// Some of it has come.
    Begun,
    TooLarge,
    TimedOut,
    /// Its sender left before it was whole.
    Left,
}

impl HeadPhase {
    /// The head has been parsed; what follows is body.
    pub(crate) fn head_done(&self) {
        self.turn.fetch_or(1, Ordering::Relaxed);
        self.set(Fate::None);
    }

    /// The request is over; the next byte begins a head.
    pub(crate) fn await_head(&self) {
        // Wraps after two thousand million requests, which only resets the bounds once.
        let in_request = self.turn.fetch_or(1, Ordering::Relaxed) | 1;
        self.turn
            .store(in_request.wrapping_add(1), Ordering::Relaxed);
    }

    /// Why the last head never became a request, when it was answered with an error all the same.
    pub(crate) fn refused(&self) -> Option<Code> {
        let fate = self.fate.load(Ordering::Relaxed);
        [
            (Fate::Begun, Code::BadRequest),
            (Fate::TooLarge, Code::HeadersTooLarge),
            (Fate::TimedOut, Code::RequestTimeout),
        ]
        .into_iter()
        .find_map(|(known, code)| (known as u8 == fate).then_some(code))
    }

    fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    fn set(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Relaxed);
    }
}

/// The bounds on a request head (HTTP/1; HTTP/2 has its own in the protocol library).
#[derive(Debug)]
pub(crate) struct HeadGuard {
    phase: Arc<HeadPhase>,
    limit_bytes: usize,
    timeout: Duration,
    turn: u32,
    seen: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    refused: bool,
}

impl HeadGuard {
    pub(crate) fn new(phase: Arc<HeadPhase>, limit_bytes: usize, timeout: Duration) -> Self {
        Self {
            phase,
            limit_bytes,
            timeout,
            turn: 0,
            seen: 0,
            deadline: None,
            refused: false,
        }
    }
}

/// An [`Io`] with what Pingora asks of a stream.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Io,
    version: HttpVersion,
    digest: Option<Arc<ProxyDigest>>,
    socket: Option<Arc<SocketDigest>>,
    guard: Option<HeadGuard>,
}

impl Wire {
    /// The upstream side of HTTP/2: no digest, no guard.
    pub(crate) fn upstream(io: Io) -> Self {
        Self {
            io,
            version: HttpVersion::Http2,
            digest: None,
            socket: None,
            guard: None,
        }
    }

    /// The downstream side; `digest` carries who calls.
    pub(crate) fn downstream(
        io: Io,
        version: HttpVersion,
        digest: Arc<ProxyDigest>,
        socket: Arc<SocketDigest>,
        guard: HeadGuard,
    ) -> Self {
        let guard = (version == HttpVersion::Http1).then_some(guard);
        Self {
            io,
            version,
            digest: Some(digest),
            socket: Some(socket),
            guard,
        }
    }

    /// Resolves when the peer has gone; see [`Io::closed`].
    pub(crate) async fn closed(&self) {
        self.io.closed().await;
    }

    /// Answers without a request and behaves as at the end of the stream: the head never became
    /// one that could be answered properly.
    fn refuse(&mut self, cx: &mut Context<'_>, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let io = Pin::new(&mut self.io);
        // Best effort: a peer that does not read its refusal is closed all the same.
        let _ = io.poll_write(cx, answer.as_bytes());
        let _ = Pin::new(&mut self.io).poll_flush(cx);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(guard) = &mut this.guard else {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        };
        let turn = guard.phase.turn();
        if turn != guard.turn {
            guard.turn = turn;
            guard.seen = 0;
            guard.deadline = None;
        }
        if turn % 2 == 1 {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        }
        if guard.refused {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buffer) {
            read?;
            let more = buffer.filled().len() - before;
            guard.seen += more;
            if guard.seen > 0 {
                let fate = if more == 0 { Fate::Left } else { Fate::Begun };
                guard.phase.set(fate);
            }
            if guard.seen <= guard.limit_bytes + HEAD_SLACK_BYTES {
                return Poll::Ready(Ok(()));
            }
            guard.refused = true;
            guard.phase.set(Fate::TooLarge);
            buffer.set_filled(before);
            this.refuse(cx, "431 Request Header Fields Too Large");
            return Poll::Ready(Ok(()));
        }
        if guard.seen == 0 {
            return Poll::Pending;
        }
        // Only a head that did not arrive in one piece pays for a timer.
        let timeout = guard.timeout;
        let deadline = guard
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        ready!(deadline.as_mut().poll(cx));
        guard.refused = true;
        guard.phase.set(Fate::TimedOut);
        this.refuse(cx, "408 Request Timeout");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(&mut self.io).await;
    }
}

impl UniqueID for Wire {
    /// Used for logging only on streams that Pingora does not pool.
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Wire {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(match self.version {
            HttpVersion::Http1 => ALPN::H1,
            HttpVersion::Http2 => ALPN::H2,
        })
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket.clone()
    }
}

impl Peek for Wire {}

//! One HTTP/2 stream as the bytes of a connection.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most one write takes: what is queued is a copy.
const PIECE_BYTES: usize = 64 * 1024;

/// A tunnel's two directions. The end of the peer's stream is the end of reading; shutting down, or
/// dropping, ends ours behind everything that was written, as closing a socket does.
pub struct Stream {
    /// Locked by whoever reads, and by whoever waits for the end meanwhile: the same task.
    receive: Mutex<Receive>,
    send: SendStream<Bytes>,
    is_ended: bool,
}

struct Receive {
    body: RecvStream,
    /// Come and not read yet, in order; within the stream's window, which opens again as it is read.
    held: Bytes,
    behind: BytesMut,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The peer has said everything.
    Whole,
    /// The stream was reset, or its connection is gone.
    Cut,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("is_ended", &self.is_ended)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(body: RecvStream, send: SendStream<Bytes>) -> Self {
        Self {
            receive: Mutex::new(Receive {
                body,
                held: Bytes::new(),
                behind: BytesMut::new(),
                end: None,
            }),
            send,
            is_ended: false,
        }
    }

    /// Resolves when the peer has ended its side or the stream is gone; what comes before that is
    /// kept for who reads.
    ///
    /// A caller that leaves and one that has said everything look the same in a mesh: both end
    /// their stream.
    pub(crate) async fn closed(&self) {
        std::future::poll_fn(|cx| {
            let mut receive = self.receive.lock().unwrap_or_else(PoisonError::into_inner);
            while receive.end.is_none() {
                ready!(receive.poll_more(cx));
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Receive {
    /// Takes what came next, or notes the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(piece)) if self.held.is_empty() => self.held = piece,
            // One piece of memory, however small the frames are.
            Some(Ok(piece)) => self.behind.extend_from_slice(&piece),
            Some(Err(_)) => self.end = Some(End::Cut),
            None => self.end = Some(End::Whole),
        }
        Poll::Ready(())
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.held.is_empty() && !self.behind.is_empty() {
                self.held = std::mem::take(&mut self.behind).freeze();
            }
            if !self.held.is_empty() {
                let length = self.held.len().min(buffer.remaining());
                buffer.put_slice(&self.held.split_to(length));
                // Fails only if the stream is gone, which the next read tells.
                let _ = self.body.flow_control().release_capacity(length);
                return Poll::Ready(Ok(()));
            }
            match self.end {
                None => ready!(self.poll_more(cx)),
                Some(End::Whole) => return Poll::Ready(Ok(())),
                Some(End::Cut) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let receive = self.get_mut().receive.get_mut();
        let receive = receive.unwrap_or_else(PoisonError::into_inner);
        receive.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(bytes.len().min(PIECE_BYTES));
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let length = this.send.capacity().min(bytes.len()).min(PIECE_BYTES);
        let piece = Bytes::copy_from_slice(bytes.get(..length).unwrap_or(bytes));
        match this.send.send_data(piece, false) {
            Ok(()) => Poll::Ready(Ok(length)),
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The connection sends what is queued by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_ended, true) {
            // Fails only if the stream is gone.
            let _ = this.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        if std::thread::panicking() {
            self.send.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
        // Without an end the stream would be reset, and what is still queued lost.
        let _ = self.send.send_data(Bytes::new(), true);
    }
}

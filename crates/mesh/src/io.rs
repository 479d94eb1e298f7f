//! One byte stream over TCP, TLS or a tunnel that coalesces small writes and can give bytes back.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::hbone::Stream;

/// Writes up to this many bytes wait for the flush, so that a head and its body, or a chunk and
/// its framing, leave in one system call.
const COALESCE_BYTES: usize = 16 * 1024;
/// What a buffer has room for beyond twice its first write, so that it is rarely moved.
const SPARE_BYTES: usize = 256;
/// First reads are small: most connections say little before anyone knows what they want.
const PREFIX_BYTES: usize = 2048;
/// The most one [`Io::read_piece`] gives: what a TLS record holds.
const PIECE_BYTES: usize = 16 * 1024;

enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Hbone(Box<Stream>),
}

/// A connection: TCP, TLS or a stream of HBONE, with a write buffer and bytes that were read ahead.
pub struct Io {
    transport: Transport,
    /// Read but not yet consumed; `prefix_at` is where the rest starts.
    prefix: Vec<u8>,
    prefix_at: usize,
    out: Vec<u8>,
    watch_for_answer: bool,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.transport {
            Transport::Tcp(_) => "tcp",
            Transport::Tls(_) => "tls",
            Transport::Hbone(_) => "hbone",
        };
        f.debug_struct("Io")
            .field("transport", &kind)
            .finish_non_exhaustive()
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Self::new(Transport::Tcp(stream))
    }
}

impl From<TlsStream<TcpStream>> for Io {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::new(Transport::Tls(Box::new(stream)))
    }
}

impl From<Stream> for Io {
    fn from(stream: Stream) -> Self {
        Self::new(Transport::Hbone(Box::new(stream)))
    }
}

impl Io {
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            prefix: Vec::new(),
            prefix_at: 0,
            out: Vec::new(),
            watch_for_answer: false,
        }
    }

    /// The negotiated ALPN protocol, if this is TLS and there is one.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.transport {
            Transport::Tcp(_) | Transport::Hbone(_) => None,
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Whether bytes on the wire are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// The leaf certificate the peer proved, DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match &self.transport {
            Transport::Tcp(_) | Transport::Hbone(_) => None,
            Transport::Tls(stream) => {
                let certificates = stream.get_ref().1.peer_certificates()?;
                certificates.first().map(|certificate| certificate.as_ref())
            }
        }
    }

    /// While set, a write that would block also reads, and fails with
    /// [`io::ErrorKind::ResourceBusy`] once the peer has begun to answer: the rest of a large
    /// request is pointless then, and waiting for the peer to read it could wait for ever.
    pub fn set_watch_for_answer(&mut self, watch: bool) {
        self.watch_for_answer = watch;
    }

    /// Whether a pooled connection is still open and silent. Reads nothing from the kernel that
    /// a later user could miss: unexpected bytes make it unusable.
    pub fn is_idle(&mut self) -> bool {
        if self.prefix_at < self.prefix.len() || !self.out.is_empty() {
            return false;
        }
        let mut byte = [0u8; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(std::task::Waker::noop());
        matches!(
            self.poll_transport_read(&mut context, &mut buffer),
            Poll::Pending
        )
    }

    /// Resolves when the peer has closed its side or the connection has failed, even if what it
    /// sent before has not been read, and reads nothing of that.
    ///
    /// A peer that closes behind more than fits into the kernel's buffer has not closed yet, as far
    /// as anyone here can know. Systems other than Linux do not tell. What comes through a tunnel is
    /// kept, within its window.
    pub async fn closed(&self) {
        if let Transport::Hbone(stream) = &self.transport {
            return stream.closed().await;
        }
        #[cfg(target_os = "linux")]
        {
            let tcp = match &self.transport {
                Transport::Tcp(stream) => Some(stream),
                Transport::Tls(stream) => Some(stream.get_ref().0),
                Transport::Hbone(_) => None,
            };
            // The one interest that is in the end of reading and not in what can be read; urgent
            // bytes themselves are not asked for.
            if let Some(tcp) = tcp
                && let Ok(ready) = tcp.ready(tokio::io::Interest::PRIORITY).await
                && ready.is_read_closed()
            {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads once and gives what came; empty at the end of the stream.
    ///
    /// Nothing is set aside while there is nothing to read: an idle connection holds no buffer.
    ///
    /// # Errors
    /// The connection's error.
    pub async fn read_piece(&mut self) -> io::Result<Bytes> {
        std::future::poll_fn(|cx| {
            if self.prefix_at < self.prefix.len() {
                let prefix = Bytes::from(std::mem::take(&mut self.prefix));
                let at = std::mem::take(&mut self.prefix_at);
                return Poll::Ready(Ok(prefix.slice(at..)));
            }
            let mut piece = [const { MaybeUninit::uninit() }; PIECE_BYTES];
            let mut buffer = ReadBuf::uninit(&mut piece);
            ready!(self.poll_transport_read(cx, &mut buffer))?;
            Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
        })
        .await
    }

    /// Reads once more and gives everything read so far and not yet consumed.
    ///
    /// # Errors
    /// The connection's error, or `UnexpectedEof` at its end.
    pub async fn fill_prefix(&mut self) -> io::Result<&[u8]> {
        std::future::poll_fn(|cx| self.poll_fill_prefix(cx)).await?;
        Ok(&self.prefix[self.prefix_at..])
    }

    fn poll_fill_prefix(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0u8; PREFIX_BYTES];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(self.poll_transport_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.prefix.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_transport_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Hbone(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_transport_write(
        &mut self,
        cx: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            // Without a second slice a plain write is the cheaper system call.
            Transport::Tcp(stream) if more.is_empty() => Pin::new(stream).poll_write(cx, &self.out),
            Transport::Tcp(stream) if self.out.is_empty() => Pin::new(stream).poll_write(cx, more),
            Transport::Tcp(stream) => {
                let slices = [IoSlice::new(&self.out), IoSlice::new(more)];
                Pin::new(stream).poll_write_vectored(cx, &slices)
            }
            // TLS cuts records itself; what is buffered goes first.
            Transport::Tls(stream) if self.out.is_empty() => Pin::new(stream).poll_write(cx, more),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, &self.out),
            // So does HTTP/2 its frames.
            Transport::Hbone(stream) if self.out.is_empty() => {
                Pin::new(stream).poll_write(cx, more)
            }
            Transport::Hbone(stream) => Pin::new(stream).poll_write(cx, &self.out),
        };
        if written.is_pending() && self.watch_for_answer {
            match self.poll_fill_prefix(cx) {
                Poll::Ready(Ok(())) => {
                    return Poll::Ready(Err(io::ErrorKind::ResourceBusy.into()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        written
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(self.poll_transport_write(cx, &[]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..written);
        }
        // An idle stream holds no buffer.
        self.out = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix_at < this.prefix.len() {
            let rest = &this.prefix[this.prefix_at..];
            let length = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..length]);
            this.prefix_at += length;
            if this.prefix_at == this.prefix.len() {
                this.prefix = Vec::new();
                this.prefix_at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        this.poll_transport_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.len() + bytes.len() <= COALESCE_BYTES {
            if this.out.capacity() == 0 {
                // A head is soon followed by its body, a chunk by its end.
                this.out.reserve(bytes.len() * 2 + SPARE_BYTES);
            }
            this.out.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let held = this.out.len();
            let written = ready!(this.poll_transport_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written <= held && held > 0 {
                this.out.drain(..written);
                continue;
            }
            this.out.clear();
            return Poll::Ready(Ok(written - held));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        match &mut this.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Hbone(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        match &mut this.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Hbone(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;

//! The server's side of its connections.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Past, Script, Seen, Speaks, Step, http2};

/// What a server needs of its side of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the close that follows a reset.
    fn reset(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn reset(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl Stream for TlsStream<TcpStream> {
    fn reset(&self) -> io::Result<()> {
        self.get_ref().0.set_zero_linger()
    }
}

/// What the requests of one connection have in common.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) number: usize,
    pub(super) server_name: Option<String>,
    pub(super) past: watch::Sender<Past>,
    pub(super) script: Arc<Script>,
}

impl Origin {
    /// Keeps a request, and says what to answer.
    pub(super) fn take(&self, head: String, body: Vec<u8>) -> Vec<Step> {
        let mut seen = Seen {
            number: 0,
            connection: self.number,
            server_name: self.server_name.clone(),
            head,
            body,
        };
        let mut steps = Vec::new();
        self.past.send_modify(|past| {
            seen.number = past.requests.len();
            steps = (self.script)(&seen).steps;
            past.requests.push(seen);
        });
        steps
    }

    /// Notes that a reader went before an answer had ended.
    pub(super) fn abandoned(&self) {
        self.past.send_modify(|past| past.abandoned += 1);
    }
}

/// Accepts until dropped, which also ends every connection.
pub(super) async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    script: Arc<Script>,
    past: watch::Sender<Past>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let mut number = 0;
        past.send_modify(|past| {
            number = past.connections;
            past.connections += 1;
        });
        let origin = Origin {
            number,
            server_name: None,
            past: past.clone(),
            script: Arc::clone(&script),
        };
        connections.spawn(serve(stream, speaks.clone(), origin));
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, speaks: Speaks, mut origin: Origin) {
    let config = match speaks {
        Speaks::Http1 => return http1(stream, origin).await,
        Speaks::Http2 => return http2::serve(stream, origin).await,
        Speaks::Tls(config) => config,
    };
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        origin.server_name = start.client_hello().server_name().map(str::to_owned);
        let name = origin.server_name.clone();
        origin.past.send_modify(|past| past.server_names.push(name));
        start.into_stream(config).await
    };
    let Ok(stream) = handshake.await else {
        origin.past.send_modify(|past| past.refused += 1);
        return;
    };
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2::serve(stream, origin).await,
        _ => http1(stream, origin).await,
    }
}

async fn http1(stream: impl Stream, origin: Origin) {
    let connection = Connection {
        stream,
        buffer: Vec::new(),
        origin,
    };
    connection.run().await;
}

struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    origin: Origin,
}

/// Whether the connection goes on after an answer.
enum After {
    Next,
    End,
    /// The reader went before the answer had ended.
    Abandoned,
}

impl<S: Stream> Connection<S> {
    async fn run(mut self) {
        while let Ok(Some((head, body))) = self.request().await {
            let steps = self.origin.take(head, body);
            match self.answer(steps).await {
                Ok(After::Next) => {}
                Ok(After::End) => return,
                Ok(After::Abandoned) | Err(_) => return self.origin.abandoned(),
            }
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Head and body of the next request; `None` at the end of the connection.
    async fn request(&mut self) -> io::Result<Option<(String, Vec<u8>)>> {
        let end = loop {
            let found = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(at) = found {
                break at + 4;
            }
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            let found = fields.find(|(held, _)| held.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned())
        };
        let mut body = Vec::new();
        if let Some(length) = field("content-length") {
            let length: usize = length.parse().map_err(io::Error::other)?;
            while self.buffer.len() < length {
                if !self.fill().await? {
                    return Ok(None);
                }
            }
            body = self.buffer.drain(..length).collect();
        } else if field("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await? {
                body.extend_from_slice(&chunk);
            }
        }
        Ok(Some((head, body)))
    }

    async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line_end = loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let line = String::from_utf8_lossy(&self.buffer[..line_end]).into_owned();
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let whole = line_end + 2 + length + 2;
        while self.buffer.len() < whole {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let chunk = self.buffer[line_end + 2..whole - 2].to_vec();
        self.buffer.drain(..whole);
        Ok((length > 0).then_some(chunk))
    }

    async fn answer(&mut self, steps: Vec<Step>) -> io::Result<After> {
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    self.stream.write_all(&bytes).await?;
                    self.stream.flush().await?;
                }
                Step::Wait(gate) => {
                    tokio::select! {
                        () = gate.passed() => {}
                        () = closed(&mut self.stream, &mut self.buffer) => {
                            return Ok(After::Abandoned);
                        }
                    }
                }
                Step::Stall => {
                    closed(&mut self.stream, &mut self.buffer).await;
                    return Ok(After::Abandoned);
                }
                Step::Endless(bytes) => loop {
                    self.stream.write_all(&bytes).await?;
                },
                Step::Close => {
                    self.stream.shutdown().await?;
                    return Ok(After::End);
                }
                Step::Reset => {
                    self.stream.reset()?;
                    return Ok(After::End);
                }
            }
        }
        Ok(After::Next)
    }
}

/// Resolves when the reader has closed; what it still sends is kept.
async fn closed(stream: &mut impl Stream, buffer: &mut Vec<u8>) {
    while matches!(stream.read_buf(buffer).await, Ok(read) if read > 0) {}
}

//! HTTP/1.1 by hand, so that wrong requests can be sent and every byte of an answer is seen.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Answer, Request, Socket};
use crate::wait::soon;

/// How the end of a body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left.
    Length(usize),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    Close,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    socket: Box<dyn Socket>,
    authority: String,
    buffer: Vec<u8>,
    framing: Framing,
    was_head: bool,
    /// Heads of 1xx answers that came before the last final one.
    pub interim: Vec<u16>,
}

impl Connection {
    /// Speaks over a socket of whatever kind.
    #[must_use]
    pub fn new(socket: Box<dyn Socket>, authority: String) -> Self {
        Self {
            socket,
            authority,
            buffer: Vec::new(),
            framing: Framing::Length(0),
            was_head: false,
            interim: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send(&mut self, request: &Request) -> std::io::Result<()> {
        let mut bytes = head(request, &self.authority).into_bytes();
        bytes.extend_from_slice(&request.body);
        self.was_head = request.method == "HEAD";
        self.write(&bytes).await
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// The socket's.
    pub async fn finish(&mut self) -> std::io::Result<()> {
        self.socket.shutdown().await
    }

    async fn fill(&mut self) -> anyhow::Result<bool> {
        self.buffer.reserve(16 * 1024);
        let read = self.socket.read_buf(&mut self.buffer);
        Ok(soon("bytes of an answer", read).await? > 0)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8(line[..end].to_vec())?);
            }
            if !self.fill().await? {
                bail!("the connection ended in a line: {:?}", self.rest());
            }
        }
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// The next final head; its body is still to be read.
    ///
    /// # Errors
    /// When the connection ends first, or what comes is no head.
    pub async fn head(&mut self) -> anyhow::Result<Answer> {
        self.interim.clear();
        loop {
            let line = self.line().await?;
            let mut words = line.split(' ');
            ensure!(words.next() == Some("HTTP/1.1"), "no status line: {line:?}");
            let status: u16 = words.next().context("no status")?.parse()?;
            let mut headers = Vec::new();
            loop {
                let line = self.line().await?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').context("no field")?;
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if (100..200).contains(&status) {
                self.interim.push(status);
                continue;
            }
            let answer = Answer {
                status,
                headers,
                body: Vec::new(),
            };
            self.framing = framing(&answer, self.was_head)?;
            return Ok(answer);
        }
    }

    /// The next piece of the body; `None` when it has ended properly.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub async fn piece(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.buffer.is_empty() && !self.fill().await? {
                    bail!("the connection ended {left} bytes before the body");
                }
                let taken = left.min(self.buffer.len());
                self.framing = Framing::Length(left - taken);
                Ok(Some(self.buffer.drain(..taken).collect()))
            }
            Framing::Close => {
                if self.buffer.is_empty() && !self.fill().await? {
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
            Framing::Chunked => {
                let line = self.line().await?;
                let length = usize::from_str_radix(line.trim(), 16).context("no chunk")?;
                while self.buffer.len() < length + 2 {
                    if !self.fill().await? {
                        bail!("the connection ended in a chunk: {:?}", self.rest());
                    }
                }
                let piece: Vec<u8> = self.buffer.drain(..length).collect();
                self.buffer.drain(..2);
                if length == 0 {
                    self.framing = Framing::Length(0);
                    return Ok(None);
                }
                Ok(Some(piece))
            }
        }
    }

    /// Pieces of a streamed body until it holds `text`; gives what came.
    ///
    /// # Errors
    /// When the body ends first.
    pub async fn read_until(&mut self, text: &str) -> anyhow::Result<String> {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.piece().await? {
                Some(piece) => seen.push_str(&String::from_utf8_lossy(&piece)),
                None => bail!("ended without {text:?}: {seen:?}"),
            }
        }
        Ok(seen)
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub async fn body(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next whole answer.
    ///
    /// # Errors
    /// When the connection ends before it does.
    pub async fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut answer = self.head().await?;
        answer.body = self.body().await?;
        Ok(answer)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub async fn call(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let sent = self.send(request).await;
        // A refusal may come while the body is still being sent (RFC 9112 §9.5).
        match (self.answer().await, sent) {
            (Ok(answer), _) => Ok(answer),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(sending)) => Err(error.context(sending)),
        }
    }

    /// Whatever still comes, up to the end of the connection.
    pub async fn drain(&mut self) -> Vec<u8> {
        // A reset ends a connection as well as a close.
        while self.fill().await.unwrap_or(false) {}
        std::mem::take(&mut self.buffer)
    }
}

fn framing(answer: &Answer, was_head: bool) -> anyhow::Result<Framing> {
    if was_head || matches!(answer.status, 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        ensure!(answer.header("content-length").is_none(), "two framings");
        return Ok(Framing::Chunked);
    }
    Ok(match answer.header("content-length") {
        Some(length) => Framing::Length(length.parse()?),
        None => Framing::Close,
    })
}

/// The head of a request.
fn head(request: &Request, authority: &str) -> String {
    use std::fmt::Write as _;
    let host = request.host.as_deref().unwrap_or(authority);
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: {host}\r\n",
        request.method, request.target
    );
    for (name, value) in &request.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let has_body = !request.body.is_empty() || request.method == "POST";
    let framed = request.headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length")
            || name.eq_ignore_ascii_case("transfer-encoding")
    });
    if has_body && !framed {
        let _ = write!(head, "content-length: {}\r\n", request.body.len());
    }
    head.push_str("\r\n");
    head
}

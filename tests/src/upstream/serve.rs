//! The server's side of its connections.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Past, Script, Seen, Step};

/// Accepts until dropped, which also ends every connection.
pub(super) async fn accept(listener: TcpListener, script: Arc<Script>, past: watch::Sender<Past>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let mut number = 0;
        past.send_modify(|past| {
            number = past.connections;
            past.connections += 1;
        });
        let connection = Connection {
            stream,
            buffer: Vec::new(),
            number,
            past: past.clone(),
        };
        connections.spawn(connection.run(Arc::clone(&script)));
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    number: usize,
    past: watch::Sender<Past>,
}

/// Whether the connection goes on after an answer.
enum After {
    Next,
    End,
    /// The reader went before the answer had ended.
    Abandoned,
}

impl Connection {
    async fn run(mut self, script: Arc<Script>) {
        while let Ok(Some(mut seen)) = self.request().await {
            let mut reply = None;
            self.past.send_modify(|past| {
                seen.number = past.requests.len();
                reply = Some(script(&seen));
                past.requests.push(seen);
            });
            let steps = reply.unwrap_or_default().steps;
            match self.answer(steps).await {
                Ok(After::Next) => {}
                Ok(After::End) => return,
                Ok(After::Abandoned) | Err(_) => {
                    self.past.send_modify(|past| past.abandoned += 1);
                    return;
                }
            }
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next request; `None` at the end of the connection.
    async fn request(&mut self) -> io::Result<Option<Seen>> {
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
        let mut seen = Seen {
            number: 0,
            connection: self.number,
            head: String::from_utf8_lossy(&head).into_owned(),
            body: Vec::new(),
        };
        let length = seen.header("content-length").map(str::to_owned);
        if let Some(length) = length {
            let length: usize = length.parse().map_err(io::Error::other)?;
            while self.buffer.len() < length {
                if !self.fill().await? {
                    return Ok(None);
                }
            }
            seen.body = self.buffer.drain(..length).collect();
        } else if seen.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await? {
                seen.body.extend_from_slice(&chunk);
            }
        }
        Ok(Some(seen))
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
                Step::Send(bytes) => self.stream.write_all(&bytes).await?,
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
                    self.stream.set_zero_linger()?;
                    return Ok(After::End);
                }
            }
        }
        Ok(After::Next)
    }
}

/// Resolves when the reader has closed; what it still sends is kept.
async fn closed(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    while matches!(stream.read_buf(buffer).await, Ok(read) if read > 0) {}
}

//! The upstream: answers chat calls and MCP messages from prepared bytes, as cheaply as it can.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior};

use crate::case::{Case, PACE};
use crate::http1::Reader;
use crate::traffic;

/// What is answered, ready to be sent.
#[derive(Debug)]
struct Answers {
    chat: Vec<u8>,
    stream_head: Vec<u8>,
    /// One chunk of the transfer coding for each event; the last ends the answer.
    events: Vec<Vec<u8>>,
    tool: AroundId,
    tools: AroundId,
    initialize: AroundId,
}

/// A JSON-RPC answer without its id.
#[derive(Debug)]
struct AroundId {
    /// What the head says besides.
    head: &'static str,
    before: String,
    after: String,
}

impl AroundId {
    fn new(answer: fn(&str) -> String, head: &'static str) -> Self {
        const HERE: &str = "<id>";
        let text = answer(HERE);
        let (before, after) = text.split_once(HERE).unwrap_or((&text, ""));
        Self {
            head,
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn with(&self, id: &str) -> Vec<u8> {
        let length = self.before.len() + id.len() + self.after.len();
        let mut answer = json_head(length, self.head);
        answer.reserve(length);
        for part in [&*self.before, id, &*self.after] {
            answer.extend_from_slice(part.as_bytes());
        }
        answer
    }
}

impl Answers {
    fn new() -> Self {
        let mut events: Vec<Vec<u8>> = traffic::chat_events()
            .iter()
            .map(|event| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes())
            .collect();
        if let Some(last) = events.last_mut() {
            last.extend_from_slice(b"0\r\n\r\n");
        }
        let chat = traffic::chat_answer();
        Self {
            chat: [json_head(chat.len(), ""), chat.into_bytes()].concat(),
            stream_head: head(
                "text/event-stream; charset=utf-8",
                "transfer-encoding: chunked\r\n",
            ),
            events,
            tool: AroundId::new(traffic::tool_answer, ""),
            tools: AroundId::new(traffic::tools_answer, ""),
            initialize: AroundId::new(
                traffic::initialize_answer,
                "mcp-session-id: 1868a90c-43b5-4d6b-9b7e-5b1e5c2d8f3a\r\n",
            ),
        }
    }
}

fn head(media: &str, more: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ndate: Tue, 11 Nov 2025 09:00:00 GMT\r\ncontent-type: {media}\r\n\
         server: bench\r\nopenai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\n\
         x-ratelimit-remaining-requests: 9999\r\n{more}\r\n"
    )
    .into_bytes()
}

fn json_head(length: usize, more: &str) -> Vec<u8> {
    head(
        "application/json",
        &format!("{more}content-length: {length}\r\n"),
    )
}

/// Serves until killed, on one thread.
///
/// # Errors
/// When the address cannot be bound.
pub fn run(address: SocketAddr) -> Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        serve(socket.listen(8192)?).await
    })
}

async fn serve(listener: TcpListener) -> Result<Infallible> {
    let answers = Arc::new(Answers::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &answers).await {
                eprintln!("upstream: {error:#}");
            }
        });
    }
}

async fn connection(mut stream: TcpStream, answers: &Answers) -> Result<()> {
    let mut request = Reader::default();
    loop {
        while !request.is_whole()? {
            match stream.read_buf(request.space()).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // The other end was killed, as it is at the end of every measurement.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let path = request.target();
        if path.starts_with(b"/mcp") {
            let answer = mcp(request.raw_body(), answers)?;
            stream.write_all(&answer).await?;
        } else if path.starts_with(b"/v1/chat/completions") {
            chat(&mut stream, request.raw_body(), answers).await?;
        } else {
            bail!("no such path: {}", String::from_utf8_lossy(path));
        }
        request.clear();
    }
}

async fn chat(stream: &mut TcpStream, body: &[u8], answers: &Answers) -> Result<()> {
    let model = text_after(body, b"\"model\":\"", b"\"")?;
    if model == traffic::model(Case::Chat1k) {
        stream.write_all(&answers.chat).await?;
        return Ok(());
    }
    let mut events = answers.events.iter();
    let mut first = answers.stream_head.clone();
    first.extend(events.next().into_iter().flatten());
    if model == traffic::model(Case::SseBurst) {
        first.extend(events.flatten());
        stream.write_all(&first).await?;
    } else if model == traffic::model(Case::Sse) {
        stream.write_all(&first).await?;
        let mut clock = tokio::time::interval_at(Instant::now() + PACE, PACE);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for event in events {
            clock.tick().await;
            // Whoever goes in the middle is no fault of ours.
            if stream.write_all(event).await.is_err() {
                return Ok(());
            }
        }
    } else if model == traffic::IDLE_MODEL {
        stream.write_all(&first).await?;
        // Nothing more, until the other end goes.
        let _ = stream.read(&mut [0]).await;
    } else {
        bail!("no such model: {model}");
    }
    Ok(())
}

fn mcp(body: &[u8], answers: &Answers) -> Result<Vec<u8>> {
    let id = text_after(body, b"\"id\":", b",")?;
    let answer = match text_after(body, b"\"method\":\"", b"\"")? {
        "tools/call" => &answers.tool,
        "tools/list" => &answers.tools,
        "initialize" => &answers.initialize,
        other => bail!("no such method: {other}"),
    };
    Ok(answer.with(id))
}

/// What stands between the first `start` and the `end` behind it.
fn text_after<'b>(body: &'b [u8], start: &[u8], end: &[u8]) -> Result<&'b str> {
    let missing = || format!("no {} in the body", String::from_utf8_lossy(start));
    let at = memmem::find(body, start).with_context(missing)? + start.len();
    let length = memmem::find(&body[at..], end).with_context(missing)?;
    Ok(std::str::from_utf8(&body[at..at + length])?)
}

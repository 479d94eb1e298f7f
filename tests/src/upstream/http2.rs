//! The server's side of an HTTP/2 connection: scripts are those of HTTP/1.1, framed anew.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Step;
use super::serve::{Origin, Stream};

/// Serves every request of a connection until it ends. A script that closes makes the connection
/// take no new requests (RFC 9113 §6.8); those that are under way go on.
pub(super) async fn serve(stream: impl Stream, origin: Origin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let closing = Arc::new(Notify::new());
    let mut requests = JoinSet::new();
    loop {
        let next = tokio::select! {
            next = connection.accept() => next,
            () = closing.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = next else {
            return;
        };
        let (origin, closing) = (origin.clone(), Arc::clone(&closing));
        requests.spawn(async move {
            if one(request, respond, &origin, &closing).await.is_err() {
                origin.abandoned();
            }
        });
        while requests.try_join_next().is_some() {}
    }
}

async fn one(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    origin: &Origin,
    closing: &Notify,
) -> Result<(), h2::Error> {
    let (parts, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let steps = origin.take(head(&parts), body);
    let mut sender: Option<(SendStream<Bytes>, bool)> = None;
    for step in steps {
        match (step, &mut sender) {
            (Step::Send(bytes), None) => {
                let (answer, is_chunked, rest) = answer(&bytes);
                let mut stream = respond.send_response(answer, false)?;
                send(&mut stream, rest).await?;
                sender = Some((stream, is_chunked));
            }
            (Step::Send(bytes), Some((stream, is_chunked))) => {
                let bytes = match is_chunked {
                    true => unframed(&bytes),
                    false => Bytes::from(bytes),
                };
                send(stream, bytes).await?;
            }
            (Step::Wait(gate), None) => {
                tokio::select! {
                    () = gate.passed() => {}
                    reason = poll_fn(|context| respond.poll_reset(context)) => {
                        return Err(reason?.into());
                    }
                }
            }
            (Step::Wait(gate), Some((stream, _))) => {
                tokio::select! {
                    () = gate.passed() => {}
                    reason = poll_fn(|context| stream.poll_reset(context)) => {
                        return Err(reason?.into());
                    }
                }
            }
            (Step::Stall, None) => {
                return Err(poll_fn(|context| respond.poll_reset(context)).await?.into());
            }
            (Step::Stall, Some((stream, _))) => {
                return Err(poll_fn(|context| stream.poll_reset(context)).await?.into());
            }
            (Step::Endless(bytes), Some((stream, is_chunked))) => {
                let bytes = match is_chunked {
                    true => unframed(&bytes),
                    false => Bytes::from(bytes),
                };
                loop {
                    send(stream, bytes.clone()).await?;
                }
            }
            (Step::Close, _) => closing.notify_one(),
            // The connection is shared, so a stream ends alone.
            (Step::Reset, Some((stream, _))) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            (Step::Reset | Step::Endless(_), None) => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
    match sender {
        Some((mut stream, _)) => stream.send_data(Bytes::new(), true),
        None => {
            respond.send_reset(Reason::CANCEL);
            Ok(())
        }
    }
}

/// A head as text.
fn head(parts: &http::request::Parts) -> String {
    let target = parts.uri.path_and_query();
    let target = target.map_or("", http::uri::PathAndQuery::as_str);
    let mut head = format!("{} {target} HTTP/2\r\n", parts.method);
    if let Some(authority) = parts.uri.authority() {
        let _ = write!(head, ":authority: {authority}\r\n");
    }
    for (name, value) in &parts.headers {
        let _ = write!(
            head,
            "{name}: {}\r\n",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    head.push_str("\r\n");
    head
}

/// The head of a scripted answer, whether its body is in chunks, and what of the body follows.
fn answer(bytes: &[u8]) -> (http::Response<()>, bool, Bytes) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("a script begins with a whole head");
    let head = std::str::from_utf8(&bytes[..end]).expect("a scripted head is text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut answer = http::Response::builder().status(status.expect("a status"));
    let mut is_chunked = false;
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a field");
        match name {
            "transfer-encoding" => is_chunked = true,
            _ => answer = answer.header(name, value),
        }
    }
    let rest = Bytes::copy_from_slice(&bytes[end + 4..]);
    (answer.body(()).expect("a head"), is_chunked, rest)
}

/// What one chunk holds; the last one holds nothing.
fn unframed(chunk: &[u8]) -> Bytes {
    let line = chunk.windows(2).position(|two| two == b"\r\n");
    let start = line.expect("a chunk has a length") + 2;
    let length = std::str::from_utf8(&chunk[..start - 2]).ok();
    let length = length.and_then(|text| usize::from_str_radix(text, 16).ok());
    let length = length.expect("a chunk has a length");
    Bytes::copy_from_slice(&chunk[start..start + length])
}

/// Sends bytes as the reader makes room for them.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(room) = room.transpose()? else {
            return Err(Reason::CANCEL.into());
        };
        let piece = bytes.split_to(room.min(bytes.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}

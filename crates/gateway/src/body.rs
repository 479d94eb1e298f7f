//! Reads a request body whole, within a bound of bytes and of time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header;
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorType};
use waypoint_policy::{Code, Refusal};

/// A declared length is believed only so far when memory is set aside for it.
const RESERVE_MAX_BYTES: usize = 1 << 20;

/// A body must arrive at least this fast, beyond one pause.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 * 1024;
/// What is still read of a body that was refused, and for how long: a caller that is cut off while
/// it sends never reads why (RFC 9112 §9.6).
const DISCARD_MAX_BYTES: usize = 256 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads the rest of a body to nowhere, within bounds.
pub(crate) async fn discard(session: &mut ServerSession) {
    let rest = async {
        let mut read = 0;
        while !session.is_body_done() && read < DISCARD_MAX_BYTES {
            match session.read_request_body().await {
                Ok(Some(piece)) => read += piece.len(),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
}

pub(crate) fn too_large(limit_bytes: usize) -> Refusal {
    Refusal::new(Code::BodyTooLarge)
        .with_message(format!("the body is larger than {limit_bytes} bytes"))
}

/// The length that the request's head declares.
pub(crate) fn declared(session: &ServerSession) -> Option<usize> {
    let headers = &session.req_header().headers;
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// The body of the request.
///
/// # Errors
/// [`Code::BodyTooLarge`] as soon as that is known, [`Code::RequestTimeout`] when two pieces lie
/// further apart than `between_pieces`, [`Code::BadRequest`] when it ends early.
pub(crate) async fn read(
    session: &mut ServerSession,
    limit_bytes: usize,
    between_pieces: Duration,
) -> Result<Bytes, Refusal> {
    if declared(session).is_some_and(|length| length > limit_bytes) {
        return Err(too_large(limit_bytes));
    }
    let body = read_until(session, limit_bytes, between_pieces, |_, _| ()).await?;
    match body.len() > limit_bytes {
        true => Err(too_large(limit_bytes)),
        false => Ok(body),
    }
}

/// The body of the request, or its beginning as soon as that is more than `limit_bytes`. Before each
/// piece `before` is told how much has been read.
///
/// # Errors
/// As [`read`], but for the size.
pub(crate) async fn read_until(
    session: &mut ServerSession,
    limit_bytes: usize,
    between_pieces: Duration,
    mut before: impl FnMut(&mut ServerSession, usize),
) -> Result<Bytes, Refusal> {
    let declared = declared(session);
    let headers = &session.req_header().headers;
    let expects = headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let broken =
        || Refusal::new(Code::BadRequest).with_message("the request body is cut or malformed");
    // Two clocks run, and either may be first.
    let failed = |error: Box<Error>| match error.etype() {
        ErrorType::ReadTimedout => Refusal::new(Code::RequestTimeout),
        _ => broken(),
    };
    if expects {
        session
            .write_continue_response()
            .await
            .map_err(|_| broken())?;
    }
    session.set_read_timeout(Some(between_pieces));
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    let started = Instant::now();
    loop {
        // Every piece in time is not enough: a body that trickles would hold its place for days.
        let received = first.len().max(whole.len());
        if received > limit_bytes {
            break;
        }
        let seconds = received as u64 / SLOWEST_BYTES_PER_SECOND;
        if started.elapsed() > between_pieces + Duration::from_secs(seconds) {
            return Err(Refusal::new(Code::RequestTimeout));
        }
        before(session, received);
        // HTTP/2 bodies have no read timeout of their own.
        let piece = tokio::time::timeout(between_pieces, session.read_request_body())
            .await
            .map_err(|_| Refusal::new(Code::RequestTimeout))
            .and_then(|piece| piece.map_err(failed));
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(refusal) => {
                // Nobody knows where this body ends: what follows must never be read as a request.
                session.set_keepalive(None);
                return Err(refusal);
            }
        };
        if first.is_empty() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            let length = declared.unwrap_or(first.len() * 2).min(RESERVE_MAX_BYTES);
            whole.reserve(length.max(first.len() + piece.len()));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        Bytes::from(whole)
    })
}

/// Whether the body is JSON in the only form that cannot be read in two ways.
///
/// # Errors
/// [`Code::MediaType`] for another media type, another charset than UTF-8, or a content coding.
pub(crate) fn check_json(session: &ServerSession) -> Result<(), Refusal> {
    let headers = &session.req_header().headers;
    let refused = |message: &'static str| Refusal::new(Code::MediaType).with_message(message);
    if let Some(coding) = headers.get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(refused("compressed request bodies are not accepted"));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    let (Some(media), None) = (first, second) else {
        return Err(refused("content-type must be application/json"));
    };
    let media = media.to_str().unwrap_or_default();
    let (essence, parameters) = media.split_once(';').unwrap_or((media, ""));
    let plain = parameters.split(';').map(str::trim).all(|parameter| {
        parameter.is_empty()
            || parameter.eq_ignore_ascii_case("charset=utf-8")
            || parameter.eq_ignore_ascii_case("charset=\"utf-8\"")
    });
    if essence.trim().eq_ignore_ascii_case("application/json") && plain {
        Ok(())
    } else {
        Err(refused("content-type must be application/json"))
    }
}

//! HTTP/1.1 to an upstream: one request out, the head of its answer in, then the body in pieces.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tokio::io::AsyncWriteExt;
use waypoint_mesh::Io;

use super::framing::{Decoded, Framing};
use super::pool::Upstream;
use super::{ExchangeError, Outgoing};

/// Largest answer head.
const HEAD_MAX_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// Interim answers (1xx) before the final one.
const INTERIM_MAX: usize = 16;

/// The body of an answer that is still on its connection.
#[derive(Debug)]
pub(super) struct Body {
    io: Io,
    /// Read, not yet decoded.
    input: Bytes,
    framing: Framing,
    /// Where the connection goes afterwards; `None` when it can serve no other request.
    upstream: Option<Arc<Upstream>>,
}

/// What came of a request.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `None` when the answer has no body.
    pub(super) body: Option<Body>,
}

fn reset(answered: bool) -> impl Fn(io::Error) -> ExchangeError {
    move |_| ExchangeError::Reset { answered }
}

/// Sends a request and reads the head of its final answer.
///
/// # Errors
/// [`ExchangeError::Reset`] with `answered` false when the connection ended before a byte came.
pub(super) async fn exchange(
    mut io: Io,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing<'_>,
) -> Result<Answered, ExchangeError> {
    // Head and body leave in one write. A write that fails because the peer began to answer, or
    // closed after answering, still leaves an answer to read; if there is none, reading says so.
    let whole = async {
        io.write_all(outgoing.head.as_bytes()).await?;
        io.write_all(b"\r\n").await?;
        io.write_all(outgoing.body).await?;
        io.flush().await
    };
    let whole = whole.await.is_ok();
    let mut input = Bytes::new();
    let mut interim = 0;
    let mut may_be_whole = false;
    let (version, status, headers) = loop {
        let parsed = if may_be_whole {
            parse_head(&input)?
        } else {
            None
        };
        if let Some((length, version, status, headers)) = parsed {
            let _ = input.split_to(length);
            match status.as_u16() {
                101 => return Err(ExchangeError::Malformed),
                // 100, 102, 103: none of them means anything to a caller of a JSON API.
                100..=199 if interim < INTERIM_MAX => interim += 1,
                100..=199 => return Err(ExchangeError::Malformed),
                _ => break (version, status, headers),
            }
            continue;
        }
        if input.len() > HEAD_MAX_BYTES {
            return Err(ExchangeError::Malformed);
        }
        let more = io.read_piece().await;
        if !whole && input.is_empty() && interim == 0 && more.as_ref().map_or(true, Bytes::is_empty)
        {
            return Err(ExchangeError::Stale);
        }
        let more = more.map_err(reset(!input.is_empty()))?;
        if more.is_empty() {
            return Err(ExchangeError::Reset {
                answered: !input.is_empty() || interim > 0,
            });
        }
        // Only a line break can end a head: one that trickles in is not read anew for each byte.
        may_be_whole = more.contains(&b'\n');
        input = joined(input, more);
    };
    let framing = match *outgoing.head.method() == Method::HEAD {
        // Whatever length it names (RFC 9112 §6.3).
        true => Framing::Done,
        false => Framing::of(status, &headers)?,
    };
    let keeps = whole && version == Version::HTTP_11 && !says_close(&headers);
    let upstream = (keeps && framing != Framing::UntilClose).then(|| Arc::clone(upstream));
    let body = Body {
        io,
        input,
        framing,
        upstream,
    };
    let body = if framing == Framing::Done {
        body.give_back();
        None
    } else {
        Some(body)
    };
    Ok(Answered {
        status,
        headers,
        body,
    })
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    // Grows in place, and by more than is needed, where nobody else holds the first.
    let mut both = BytesMut::from(first);
    both.extend_from_slice(&second);
    both.freeze()
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

type ParsedHead = (usize, Version, StatusCode, HeaderMap);

/// The head at the front of `input`, once it is complete.
fn parse_head(input: &Bytes) -> Result<Option<ParsedHead>, ExchangeError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ExchangeError::Malformed),
    };
    let version = match response.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let code = response.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| ExchangeError::Malformed)?;
    // With room for what we add before it goes to the caller.
    let mut headers = HeaderMap::with_capacity(response.headers.len() + 4);
    for field in response.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| ExchangeError::Malformed)?;
        headers.append(
            name,
            HeaderValue::from_bytes(field.value).map_err(malformed_value)?,
        );
    }
    Ok(Some((length, version, status, headers)))
}

fn malformed_value(_: header::InvalidHeaderValue) -> ExchangeError {
    ExchangeError::Malformed
}

impl Body {
    /// The next piece; `None` at the end. Loses nothing when the caller stops waiting.
    ///
    /// # Errors
    /// [`ExchangeError::Reset`] when the connection ends before the body does.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        loop {
            match self.framing.decode(&mut self.input)? {
                Decoded::Data(data) => return Ok(Some(data)),
                Decoded::End => return Ok(None),
                Decoded::Hungry => {}
            }
            let more = self.io.read_piece().await.map_err(reset(true))?;
            if more.is_empty() {
                return match self.framing.may_close() {
                    true => Ok(None),
                    false => Err(ExchangeError::Reset { answered: true }),
                };
            }
            let input = std::mem::take(&mut self.input);
            self.input = joined(input, more);
        }
    }

    /// A piece that has been read already, without waiting.
    pub(super) fn ready_piece(&mut self) -> Option<Bytes> {
        match self.framing.decode(&mut self.input) {
            Ok(Decoded::Data(data)) => Some(data),
            // An error shows again when the next piece is waited for.
            _ => None,
        }
    }

    /// Keeps the connection for the next request, if the body ended where it should.
    pub(super) fn give_back(self) {
        // Bytes beyond the answer mean that the two sides disagree about where it ended.
        if self.framing != Framing::Done || !self.input.is_empty() {
            return;
        }
        if let Some(upstream) = self.upstream {
            upstream.keep(self.io);
        }
    }
}

//! The answer of an upstream: its head at once, its body in pieces.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::v2::client::Http2Session;
use waypoint_mesh::Io;

use super::error::from_pingora;
use super::http1;
use super::pool::Upstream;
use super::{ExchangeError, Outgoing};

enum Body {
    Http1(http1::Body),
    Http2(Box<Http2Session>),
    /// Read to its end; the connection is given back.
    Done,
}

/// An answer whose head has arrived. Dropping it before its end closes the connection, or
/// resets the stream: the upstream learns at once that nobody listens.
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

pub(super) async fn http1(
    io: Io,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing<'_>,
) -> Result<Box<Answer>, ExchangeError> {
    let http1::Answered {
        status,
        headers,
        body,
    } = http1::exchange(io, upstream, outgoing).await?;
    let body = body.map_or(Body::Done, Body::Http1);
    Ok(Box::new(Answer {
        status,
        headers,
        body,
    }))
}

pub(super) async fn http2(
    mut session: Box<Http2Session>,
    outgoing: &Outgoing<'_>,
) -> Result<Box<Answer>, ExchangeError> {
    let body = outgoing.body;
    session
        .write_request_header(Box::new(outgoing.head.to_http2()?), body.is_empty())
        .map_err(|error| from_pingora(&error, false))?;
    if !body.is_empty() {
        // The body is written while the answer is awaited: an upstream may answer early.
        let writer = session.take_request_body_writer();
        let answered = match writer {
            None => session.read_response_header().await,
            Some(mut writer) => {
                let write = pingora_core::protocols::http::v2::write_body(
                    &mut writer,
                    body.clone(),
                    true,
                    None,
                );
                tokio::pin!(write);
                let read = session.read_response_header();
                tokio::pin!(read);
                tokio::select! {
                    biased;
                    read = &mut read => read,
                    written = &mut write => match written {
                        Ok(()) => read.await,
                        // A reset may follow an early answer; reading tells.
                        Err(_) => read.await,
                    },
                }
            }
        };
        answered.map_err(|error| from_pingora(&error, false))?;
    } else {
        session
            .read_response_header()
            .await
            .map_err(|error| from_pingora(&error, false))?;
    }
    let head = session.response_header().ok_or(ExchangeError::Malformed)?;
    let (status, headers) = (head.status, head.headers.clone());
    Ok(Box::new(Answer {
        status,
        headers,
        body: Body::Http2(session),
    }))
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header's value, when it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Gives the headers away; the answer has none from here on.
    pub(crate) fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.headers)
    }

    /// The next piece of the body; `None` at its end, when the connection is given back. Loses
    /// nothing when the caller stops waiting.
    ///
    /// # Errors
    /// [`ExchangeError::Reset`] when the body ends before its framing says so.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        let chunk = match &mut self.body {
            Body::Http1(body) => body.piece().await,
            Body::Http2(session) => session
                .read_response_body()
                .await
                .map_err(|error| from_pingora(&error, true)),
            Body::Done => return Ok(None),
        };
        match chunk {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                if let Body::Http1(body) = std::mem::replace(&mut self.body, Body::Done) {
                    body.give_back();
                }
                Ok(None)
            }
            Err(error) => {
                self.body = Body::Done;
                Err(error)
            }
        }
    }

    /// The whole body, at most `limit_bytes` of it, and the trailers behind it; HTTP/2 only.
    ///
    /// # Errors
    /// [`ExchangeError::TooLarge`], [`ExchangeError::Malformed`] over HTTP/1.1, or what
    /// [`Self::chunk`] says.
    pub(crate) async fn body_with_trailers(
        &mut self,
        limit_bytes: usize,
    ) -> Result<(Bytes, HeaderMap), ExchangeError> {
        let Body::Http2(session) = &mut self.body else {
            return Err(ExchangeError::Malformed);
        };
        let mut whole = Vec::new();
        let failed = |error: Box<pingora_error::Error>| from_pingora(&error, true);
        while let Some(piece) = session.read_response_body().await.map_err(failed)? {
            if whole.len() + piece.len() > limit_bytes {
                return Err(ExchangeError::TooLarge);
            }
            whole.extend_from_slice(&piece);
        }
        let trailers = session.read_trailers().await.map_err(failed)?;
        self.body = Body::Done;
        Ok((Bytes::from(whole), trailers.unwrap_or_default()))
    }

    /// A piece that has arrived together with the last one; never waits.
    pub(crate) fn ready_chunk(&mut self) -> Option<Bytes> {
        match &mut self.body {
            Body::Http1(body) => body.ready_piece(),
            Body::Http2(_) | Body::Done => None,
        }
    }

    /// The whole body, at most `limit_bytes` of it.
    ///
    /// # Errors
    /// [`ExchangeError::TooLarge`], or what [`Self::chunk`] says.
    pub(crate) async fn body(&mut self, limit_bytes: usize) -> Result<Bytes, ExchangeError> {
        let first = loop {
            match self.chunk().await? {
                None => return Ok(Bytes::new()),
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => break bytes,
            }
        };
        if first.len() > limit_bytes {
            return Err(ExchangeError::TooLarge);
        }
        // Most JSON answers arrive in one piece and are never copied again.
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        let mut whole = Vec::with_capacity((first.len() + second.len()) * 2);
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        loop {
            if whole.len() > limit_bytes {
                return Err(ExchangeError::TooLarge);
            }
            match self.chunk().await? {
                None => return Ok(Bytes::from(whole)),
                Some(bytes) => whole.extend_from_slice(&bytes),
            }
        }
    }
}

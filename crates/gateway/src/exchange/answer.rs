//! The answer of an upstream: its head at once, its body in pieces.

use std::sync::Arc;

use bytes::Bytes;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_http::ResponseHeader;

use super::error::from_pingora;
use super::pool::Upstream;
use super::{ExchangeError, Outgoing};
use crate::wire::Wire;

enum Session {
    /// `upstream` is where the connection is kept afterwards; `None` when it is out of step.
    Http1 {
        session: Box<HttpSession>,
        upstream: Option<Arc<Upstream>>,
    },
    Http2(Box<Http2Session>),
    /// The body has been read to its end and the connection is given back.
    Done,
}

/// An answer whose head has arrived. Dropping it before its end closes the connection, or
/// resets the stream: the upstream learns at once that nobody listens.
pub(crate) struct Answer {
    head: Box<ResponseHeader>,
    session: Session,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.head.status)
            .finish_non_exhaustive()
    }
}

pub(super) async fn http1(
    mut wire: Box<Wire>,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, ExchangeError> {
    let body = outgoing.body;
    if !body.is_empty() {
        wire.io_mut().hold_next_flush();
    }
    let stream: Stream = wire;
    let mut session = Box::new(HttpSession::new(stream));
    session
        .write_request_header(Box::new(outgoing.head.clone()))
        .await
        .map_err(|error| from_pingora(&error, false))?;
    // A write that fails because the peer began to answer, or closed after answering, still
    // leaves an answer to read; if there is none, reading says so.
    let mut whole = true;
    if !body.is_empty() {
        whole = session.write_body(body).await.is_ok();
    }
    if whole {
        whole = session.finish_body().await.is_ok();
    }
    loop {
        session
            .read_response()
            .await
            .map_err(|error| from_pingora(&error, false))?;
        match session.get_status().map(|status| status.as_u16()) {
            Some(101) | None => return Err(ExchangeError::Malformed),
            // 100, 102, 103: none of them means anything to a caller of a JSON API.
            Some(100..=199) => {}
            Some(_) => break,
        }
    }
    session.respect_keepalive();
    let head = session
        .resp_header()
        .ok_or(ExchangeError::Malformed)?
        .clone();
    // Without the whole request written the connection can serve no other.
    let upstream = whole.then(|| Arc::clone(upstream));
    Ok(Answer {
        head: Box::new(head),
        session: Session::Http1 { session, upstream },
    })
}

pub(super) async fn http2(
    mut session: Box<Http2Session>,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, ExchangeError> {
    let body = outgoing.body;
    session
        .write_request_header(Box::new(outgoing.head.clone()), body.is_empty())
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
    let head = session
        .response_header()
        .ok_or(ExchangeError::Malformed)?
        .clone();
    Ok(Answer {
        head: Box::new(head),
        session: Session::Http2(session),
    })
}

impl Answer {
    pub(crate) fn head(&self) -> &ResponseHeader {
        &self.head
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// A header's value, when it is there once and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body; `None` at its end, when the connection is given back.
    ///
    /// # Errors
    /// [`ExchangeError::Reset`] when the body ends before its framing says so.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        // Nothing is awaited after bytes have been read: a caller that stops waiting loses none.
        let chunk = match &mut self.session {
            Session::Http1 { session, .. } => session.read_body_bytes().await,
            Session::Http2(session) => session.read_response_body().await,
            Session::Done => return Ok(None),
        };
        match chunk {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.give_back().await;
                Ok(None)
            }
            Err(error) => {
                self.session = Session::Done;
                Err(from_pingora(&error, true))
            }
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

    async fn give_back(&mut self) {
        if let Session::Http1 { session, upstream } =
            std::mem::replace(&mut self.session, Session::Done)
            && let Some(upstream) = upstream
            && let Some(stream) = session.reuse().await
            && let Ok(wire) = stream.into_any().downcast::<Wire>()
        {
            upstream.keep(wire);
        }
    }
}

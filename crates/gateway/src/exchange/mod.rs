//! One upstream call: a pooled connection, a request, the head of the answer, its body.

mod answer;
mod connect;
mod dns;
mod error;
mod framing;
mod head;
mod http1;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use answer::Answer;
pub(crate) use connect::Connector;
pub(crate) use error::ExchangeError;
pub(crate) use head::RequestHead;
pub(crate) use pool::{Upstream, Upstreams};

use pool::Connection;

/// A request that can be sent more than once.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    /// Complete, `content-length` of the body included.
    pub(crate) head: &'a RequestHead,
    /// The whole body.
    pub(crate) body: &'a Bytes,
}

/// How long one try may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To a connection, TLS included.
    pub(crate) connect: Duration,
    /// To the head of the answer, the connection included.
    pub(crate) until: Instant,
}

/// Sends a request and waits for the head of the final answer.
///
/// A kept connection on which the request cannot even be written is replaced by a fresh one: the
/// upstream had given it up while it was idle. One that ends after the request was written is not:
/// the call may have been made, and whether to make it again is for the route's policy to say.
///
/// # Errors
/// [`ExchangeError`] says how far the try came, which decides whether it may be repeated.
pub(crate) async fn send(
    connector: &Connector,
    upstream: &Arc<Upstream>,
    outgoing: Outgoing<'_>,
    patience: Patience,
) -> Result<Box<Answer>, ExchangeError> {
    let deadline = patience.until;
    let tried = tokio::time::timeout_at(deadline, async {
        if let Some(connection) = upstream.idle() {
            match exchange(connection, upstream, &outgoing).await {
                Err(ExchangeError::Stale) => {}
                other => return other,
            }
        }
        // Boxed: its future is large, and most calls find a connection.
        let connect = Box::pin(upstream.connect(connector));
        let connection = tokio::time::timeout(patience.connect, connect)
            .await
            .map_err(|_| ExchangeError::ConnectTimeout)??;
        exchange(connection, upstream, &outgoing).await
    });
    tried.await.map_err(|_| ExchangeError::Timeout)?
}

async fn exchange(
    connection: Connection,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing<'_>,
) -> Result<Box<Answer>, ExchangeError> {
    match connection {
        Connection::Http1(io) => answer::http1(io, upstream, outgoing).await,
        Connection::Http2(session) => answer::http2(session, outgoing).await,
    }
}

//! HTTP/2, through the `h2` crate.

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::task::JoinHandle;

use super::{Answer, Request, Socket};
use crate::wait::soon;

/// One connection, which may carry many requests at once.
#[derive(Debug)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
    authority: String,
    driver: JoinHandle<()>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A head whose body is still coming.
#[derive(Debug)]
pub struct Streaming {
    /// The head; its body is empty.
    pub head: Answer,
    body: h2::RecvStream,
}

impl Http2 {
    /// Speaks over a socket of whatever kind.
    ///
    /// # Errors
    /// When it ends before it has begun.
    pub async fn new(socket: Box<dyn Socket>, authority: String) -> anyhow::Result<Self> {
        let (sender, connection) = h2::client::handshake(socket).await?;
        let driver = tokio::spawn(async move {
            // How it ended shows in the requests it carried.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            authority,
            driver,
        })
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// When the stream or the connection is reset.
    pub async fn open(&mut self, request: &Request) -> anyhow::Result<Streaming> {
        let mut sender = soon("room for a stream", self.sender.clone().ready()).await?;
        let host = request.host.as_deref().unwrap_or(&self.authority);
        let mut builder = http::Request::builder()
            .version(http::Version::HTTP_2)
            .method(request.method.as_str())
            .uri(format!("http://{host}{}", request.target));
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let is_empty = request.body.is_empty();
        let (answer, mut body) = sender.send_request(builder.body(())?, is_empty)?;
        if !is_empty {
            body.send_data(Bytes::from(request.body.clone()), true)?;
        }
        let answer = soon("an answer", answer).await?;
        let (head, body) = answer.into_parts();
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), value.into_owned())
        });
        let head = Answer {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: Vec::new(),
        };
        Ok(Streaming { head, body })
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the stream or the connection is reset.
    pub async fn call(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let mut streaming = self.open(request).await.context(request.target.clone())?;
        let mut answer = streaming.head.clone();
        while let Some(piece) = streaming.piece().await? {
            answer.body.extend_from_slice(&piece);
        }
        Ok(answer)
    }
}

impl Streaming {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When the stream is reset.
    pub async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        let Some(piece) = soon("bytes of an answer", self.body.data()).await else {
            return Ok(None);
        };
        let piece = piece?;
        self.body.flow_control().release_capacity(piece.len())?;
        Ok(Some(piece))
    }
}

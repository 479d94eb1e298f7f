//! A caller that says exactly what it is told to, over HTTP/1.1 or HTTP/2, plain or TLS.

mod http1;
mod http2;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use http1::{Connection, Framing};
pub use http2::Http2;

use crate::certificates::{Authority, Identity};
use crate::wait::soon;

/// Either kind of socket.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Socket for T {}

/// Where to call and as whom.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, Arc<ClientConfig>)>,
}

/// What a caller asks.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The authority; `None` for that of the connection.
    pub host: Option<String>,
    /// All other fields.
    pub headers: Vec<(String, String)>,
    /// The body, sent with `Content-Length` unless it is empty and the method is GET or DELETE.
    pub body: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The final status.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            host: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A POST of JSON.
    #[must_use]
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::new("POST", target)
        }
        .header("content-type", "application/json")
    }

    /// The same with one more field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same without fields of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(held, _)| held != name);
        self
    }

    /// The same to another host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }
}

impl Answer {
    /// The first field of a name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter().filter(|(held, _)| held == name);
        fields.next().map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages and comparisons.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `code` of an LLM refusal, in either dialect.
    #[must_use]
    pub fn code(&self) -> String {
        let body = self.json();
        let places = [
            &body["error"]["code"],
            &body["error"]["details"]["error_code"],
            &body["error"]["data"]["code"],
        ];
        let found = places.into_iter().find_map(Value::as_str);
        found.unwrap_or_default().to_owned()
    }

    /// The `data` of every event of a stream, in order.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        events(&self.text())
    }
}

/// The `data` of every event of a stream, in order; its lines end in LF or CRLF.
#[must_use]
pub fn events(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    let events = text.split("\n\n").map(|event| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<&str> = lines.map(str::trim_start).collect();
        data.join("\n")
    });
    events.filter(|data| !data.is_empty()).collect()
}

impl Client {
    /// Calls a loopback port by plain TCP.
    #[must_use]
    pub fn plain(port: u16) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            tls: None,
        }
    }

    /// Calls a loopback port by TLS.
    #[must_use]
    pub fn tls(port: u16, authority: &Authority, identity: Option<&Identity>) -> Self {
        let configs = (
            authority.client(identity, b"http/1.1"),
            authority.client(identity, b"h2"),
        );
        Self {
            tls: Some(configs),
            ..Self::plain(port)
        }
    }

    /// `host:port`, as in the `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    async fn socket(&self, is_http2: bool) -> anyhow::Result<Box<dyn Socket>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some((http1, http2)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let config = Arc::clone(if is_http2 { http2 } else { http1 });
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Box::new(stream))
    }

    /// An HTTP/1.1 connection.
    ///
    /// # Errors
    /// When there is nobody, or the handshake fails.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let socket = soon("a connection", self.socket(false)).await?;
        Ok(Connection::new(socket, self.authority()))
    }

    /// An HTTP/2 connection; by prior knowledge on plain TCP.
    ///
    /// # Errors
    /// When there is nobody, or a handshake fails.
    pub async fn connect_http2(&self) -> anyhow::Result<Http2> {
        let socket = soon("a connection", self.socket(true)).await?;
        soon("a preface", Http2::new(socket, self.authority())).await
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// When the connection fails, or ends before the answer does.
    pub async fn call(&self, request: &Request) -> anyhow::Result<Answer> {
        let mut connection = self.connect().await?;
        let answer = connection.call(request).await;
        answer.with_context(|| format!("{} {}", request.method, request.target))
    }
}

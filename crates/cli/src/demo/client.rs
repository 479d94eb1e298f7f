//! What an agent does: HTTP over mutual TLS, and MCP on top of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use waypoint_mesh::tls;
use waypoint_wire::sse;

use super::authority::Identity;

/// One request and its whole answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most of an answer that is read, in bytes.
const ANSWER_BYTES: usize = 1 << 20;
/// The revision of MCP that is spoken.
const MCP_VERSION: &str = "2025-06-18";
const SESSION: &str = "mcp-session-id";

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// By which the gateway's audit knows the request.
    pub(super) fn request_id(&self) -> Option<&str> {
        self.headers.get("x-request-id")?.to_str().ok()
    }

    /// The JSON-RPC message in it, whether it came plain or as an event.
    fn message(&self, id: u64) -> Option<Value> {
        let own = |value: &Value| value.get("id").and_then(Value::as_u64) == Some(id);
        let plain = serde_json::from_slice::<Value>(&self.body).ok();
        if let Some(message) = plain {
            return Some(message).filter(own);
        }
        let mut splitter = sse::Splitter::new(ANSWER_BYTES);
        splitter.push(self.body.clone());
        while let Ok(Some(event)) = splitter.next() {
            let message = serde_json::from_slice::<Value>(&sse::parse(&event).data).ok();
            if let Some(message) = message.filter(own) {
                return Some(message);
            }
        }
        None
    }
}

/// A caller: an identity, or none.
pub(super) struct Agent {
    tls: TlsConnector,
    gateway: SocketAddr,
}

impl Agent {
    pub(super) fn new(
        gateway: SocketAddr,
        root_pem: &str,
        identity: Option<&Identity>,
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(tls::roots(root_pem)?);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = tls::certificates(&identity.certificate_pem, "the agent")?;
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            gateway,
        })
    }

    /// Posts JSON to the gateway.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &Value,
    ) -> anyhow::Result<Reply> {
        let host = format!("localhost:{}", self.gateway.port());
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::from(body.to_string()))?).await
    }

    /// Gets a page of some host through the gateway.
    pub(super) async fn get(&self, host: &str, path: &str) -> anyhow::Result<Reply> {
        let request = Request::get(path).header(header::HOST, host);
        self.send(request.body(Full::default())?).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let exchange = async {
            let stream = TcpStream::connect(self.gateway).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost")?;
            let stream = self.tls.connect(name, stream).await?;
            exchange(stream, request).await
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .context("no answer in time")?
    }
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Reply> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    drop(sender);
    // A close that is not seen here is the server's affair.
    let _ = connection.await;
    Ok(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
    })
}

/// The gateway's own record of a request; waits until it is written.
pub(super) async fn audit(admin: SocketAddr, request_id: &str) -> anyhow::Result<Value> {
    let ask = async {
        loop {
            let path = format!("/decisions?request_id={request_id}");
            let request = Request::get(path).header(header::HOST, admin.to_string());
            let stream = TcpStream::connect(admin).await?;
            let reply = exchange(stream, request.body(Full::default())?).await?;
            let found: Value = serde_json::from_slice(&reply.body)?;
            if let Some(event) = found.get(0) {
                return Ok(event.clone());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .context("no audit event in time")?
}

/// A session with an MCP server behind the gateway.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: Option<String>,
    requests: u64,
}

impl Session {
    /// Opens a session; when that is refused, the refusal.
    pub(super) async fn open(agent: &Agent, path: &str) -> anyhow::Result<Result<Self, Reply>> {
        let mut session = Self::default();
        let hello = json!({
            "protocolVersion": MCP_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "demo", "version": env!("CARGO_PKG_VERSION")},
        });
        let (reply, message) = session.request(agent, path, "initialize", hello).await?;
        if message.is_none_or(|message| message.get("result").is_none()) {
            return Ok(Err(reply));
        }
        let id = reply.headers.get(SESSION).and_then(|id| id.to_str().ok());
        session.id = Some(id.context("the server gave no session")?.to_owned());
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let reply = session.post(agent, path, &ready).await?;
        if reply.status != 202 {
            bail!(
                "notifications/initialized was answered with {}",
                reply.status
            );
        }
        Ok(Ok(session))
    }

    /// Sends one request; gives the answer, and the message in it.
    pub(super) async fn request(
        &mut self,
        agent: &Agent,
        path: &str,
        method: &str,
        params: Value,
    ) -> anyhow::Result<(Reply, Option<Value>)> {
        self.requests += 1;
        let id = self.requests;
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let reply = self.post(agent, path, &body).await?;
        let message = reply.message(id);
        Ok((reply, message))
    }

    async fn post(&self, agent: &Agent, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let mut headers = vec![("accept", "application/json, text/event-stream")];
        if let Some(id) = &self.id {
            headers.push((SESSION, id));
            headers.push(("mcp-protocol-version", MCP_VERSION));
        }
        agent.post(path, &headers, body).await
    }
}

//! What a node proxy of the mesh does towards a waypoint: CONNECT streams over mutual TLS.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::certificates::{Authority, Identity};
use crate::client::{Connection, Http2};
use crate::wait::soon;

/// What is on its way in one direction of a tunnel, beside the windows.
const PIPE_BYTES: usize = 64 * 1024;

/// One HBONE connection of one workload.
#[derive(Debug)]
pub struct Ztunnel {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    /// The certificate that the waypoint has shown, DER.
    pub certificate: Vec<u8>,
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A CONNECT stream that was answered with 200.
#[derive(Debug)]
pub struct Opened {
    /// What the application writes.
    pub send: SendStream<Bytes>,
    /// What it reads.
    pub receive: RecvStream,
}

impl Ztunnel {
    /// Dials a loopback port, without a server name, with the windows of a ztunnel.
    ///
    /// # Errors
    /// When the handshake fails. A server that takes no certificate like this one may say so later.
    pub async fn dial(
        port: u16,
        authority: &Authority,
        identity: Option<&Identity>,
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = TlsConnector::from(authority.client(identity, b"h2"));
        let stream = soon("a TLS handshake", tls.connect(name, stream)).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|chain| chain.first());
        let certificate = leaf.context("no certificate")?.to_vec();
        let mut settings = h2::client::Builder::new();
        settings
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .enable_push(false);
        let opened = soon("a preface", settings.handshake(stream)).await?;
        let (sender, connection) = opened;
        Ok(Self {
            sender,
            driver: tokio::spawn(connection),
            certificate,
        })
    }

    /// Sends a request that opens a stream: its status, and the stream if that is 200.
    ///
    /// # Errors
    /// When the stream or the connection ends instead.
    pub async fn ask(&self, request: Request<()>) -> anyhow::Result<(u16, Opened)> {
        let ready = self.sender.clone().ready();
        let mut sender = soon("room for a stream", ready).await?;
        let (answer, send) = sender.send_request(request, false)?;
        let answer = soon("an answer to CONNECT", answer).await?;
        let status = answer.status().as_u16();
        let receive = answer.into_body();
        Ok((status, Opened { send, receive }))
    }

    /// CONNECT as a ztunnel sends it.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn connect(&self, authority: &str) -> anyhow::Result<(u16, Opened)> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .header("baggage", "k8s.namespace.name=other,service.name=other")
            .header("forwarded", "for=\"10.9.9.9:1\";host=other.example")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .body(())?;
        self.ask(request).await
    }

    /// A tunnel to a loopback port of the waypoint, as the application has it.
    ///
    /// # Errors
    /// When it is refused, with the status.
    pub async fn tunnel(&self, port: u16) -> anyhow::Result<DuplexStream> {
        let (status, opened) = self.connect(&format!("127.0.0.1:{port}")).await?;
        anyhow::ensure!(status == 200, "CONNECT was answered with {status}");
        let (application, ours) = tokio::io::duplex(PIPE_BYTES);
        let (from, to) = tokio::io::split(ours);
        tokio::spawn(upwards(from, opened.send));
        tokio::spawn(downwards(opened.receive, to));
        Ok(application)
    }

    /// HTTP/1.1 in a tunnel to a loopback port.
    ///
    /// # Errors
    /// As [`Self::tunnel`].
    pub async fn http1(&self, port: u16) -> anyhow::Result<Connection> {
        let tunnel = self.tunnel(port).await?;
        Ok(Connection::new(
            Box::new(tunnel),
            format!("127.0.0.1:{port}"),
        ))
    }

    /// HTTP/2 in a tunnel to a loopback port.
    ///
    /// # Errors
    /// As [`Self::tunnel`], and when the inner connection does not begin.
    pub async fn http2(&self, port: u16) -> anyhow::Result<Http2> {
        let tunnel = self.tunnel(port).await?;
        Http2::new(Box::new(tunnel), format!("127.0.0.1:{port}")).await
    }

    /// Waits until the waypoint has closed the connection; how.
    pub async fn ended(mut self) -> Result<(), h2::Error> {
        let driver = soon("the end of the connection", &mut self.driver).await;
        driver.unwrap_or(Ok(()))
    }
}

/// Writes what the application writes; its end, by leaving too, is the end of the stream.
async fn upwards(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: SendStream<Bytes>,
) -> anyhow::Result<()> {
    let mut piece = vec![0; PIPE_BYTES];
    loop {
        let read = from.read(&mut piece).await?;
        let Some(mut rest) = piece.get(..read).filter(|rest| !rest.is_empty()) else {
            to.send_data(Bytes::new(), true)?;
            return Ok(());
        };
        while !rest.is_empty() {
            to.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| to.poll_capacity(cx)).await;
            let room = room.context("the stream is gone")??;
            let (now, later) = rest.split_at(room.min(rest.len()));
            to.send_data(Bytes::copy_from_slice(now), false)?;
            rest = later;
        }
    }
}

/// Gives what comes to the application; a stream that was reset ends as one that has ended.
async fn downwards(
    mut from: RecvStream,
    mut to: tokio::io::WriteHalf<DuplexStream>,
) -> anyhow::Result<()> {
    while let Some(Ok(piece)) = from.data().await {
        to.write_all(&piece).await?;
        // Fails if the stream was reset meanwhile; what has come is still to be read.
        let _ = from.flow_control().release_capacity(piece.len());
    }
    to.shutdown().await?;
    Ok(())
}

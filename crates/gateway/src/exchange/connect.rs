//! Dials an upstream: address, TCP, TLS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use waypoint_config::{Address, Endpoint, UpstreamTls, is_private};
use waypoint_mesh::{HttpVersion, Io};

use super::dns::Dns;
use super::pool::{Security, Upstream};
use super::{ExchangeError, pool};

/// What all upstreams share: the resolver and TLS settings, which keep their session tickets.
#[derive(Debug)]
pub(crate) struct Connector {
    dns: Dns,
    tls: Mutex<HashMap<Option<String>, Arc<ClientConfig>>>,
}

impl Connector {
    pub(crate) fn new() -> Self {
        Self {
            dns: Dns::from_system(),
            tls: Mutex::default(),
        }
    }

    /// The settings for these roots, made once.
    pub(super) fn tls(&self, tls: &UpstreamTls) -> Result<pool::Tls, ExchangeError> {
        let name = ServerName::try_from(tls.hostname.clone()).map_err(|_| ExchangeError::Tls)?;
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&tls.roots_pem) {
            return Ok(pool::Tls {
                config: Arc::clone(config),
                name,
            });
        }
        let roots = match &tls.roots_pem {
            Some(pem) => waypoint_mesh::tls::roots(pem).map_err(|error| {
                tracing::error!(%error, hostname = tls.hostname, "roots of an upstream are unusable");
                ExchangeError::Tls
            })?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| ExchangeError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        known.insert(tls.roots_pem.clone(), Arc::clone(&config));
        Ok(pool::Tls { config, name })
    }

    /// The addresses of an endpoint that may be dialled.
    ///
    /// # Errors
    /// [`ExchangeError::PrivateAddress`] when the name resolves to none but private addresses that
    /// nobody allowed: a public name must not lead into our network.
    pub(crate) async fn addresses(
        &self,
        endpoint: &Endpoint,
        allow_private: &[IpNet],
    ) -> Result<Vec<SocketAddr>, ExchangeError> {
        let mut addresses = match &endpoint.address {
            Address::Fixed(addresses) => addresses.clone(),
            Address::Dns(name) => {
                let found = self.dns.lookup(name).await?;
                found
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, endpoint.port))
                    .collect()
            }
        };
        addresses.retain(|address| {
            let ip = address.ip();
            endpoint.private || !is_private(ip) || allow_private.iter().any(|net| net.contains(&ip))
        });
        match addresses.is_empty() {
            true => Err(ExchangeError::PrivateAddress),
            false => Ok(addresses),
        }
    }

    /// Dials the upstream's addresses in turn until one accepts.
    pub(super) async fn dial(
        &self,
        upstream: &Upstream,
    ) -> Result<(Io, HttpVersion), ExchangeError> {
        let allowed = self
            .addresses(upstream.endpoint(), upstream.allow_private())
            .await?;
        // Spread the load, yet try every address before giving up.
        let start = upstream.next_turn();
        let mut last = ExchangeError::Connect;
        for step in 0..allowed.len() {
            let address = allowed[(start + step) % allowed.len()];
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return secure(stream, upstream).await;
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "connect failed");
                    last = ExchangeError::Connect;
                }
            }
        }
        Err(last)
    }
}

async fn secure(
    stream: TcpStream,
    upstream: &Upstream,
) -> Result<(Io, HttpVersion), ExchangeError> {
    let tls = match upstream.security() {
        Security::Tls(tls) => tls,
        Security::Unusable => return Err(ExchangeError::Tls),
        Security::Clear if upstream.endpoint().http2 => {
            return Ok((Io::from(stream), HttpVersion::Http2));
        }
        Security::Clear => return Ok((Io::from(stream), HttpVersion::Http1)),
    };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let stream = connector
        .connect(tls.name.clone(), stream)
        .await
        .map_err(|error| {
            tracing::debug!(%error, "upstream TLS failed");
            ExchangeError::Tls
        })?;
    let io = Io::from(tokio_rustls::TlsStream::Client(stream));
    let version = match io.alpn() {
        Some(b"h2") => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    };
    Ok((io, version))
}

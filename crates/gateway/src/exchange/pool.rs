//! Connections kept open to each upstream, keyed by everything that makes them what they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pingora_core::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora_core::protocols::http::v2::client::Http2Session;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use waypoint_config::Endpoint;
use waypoint_mesh::{HttpVersion, Io};

use super::{Connector, ExchangeError};
use crate::wire::Wire;

/// Idle connections kept per upstream.
const IDLE_MAX: usize = 256;
/// Below the 60 s after which many servers close, so that a request rarely meets a dying one.
const IDLE_AGE: Duration = Duration::from_secs(50);
/// Streams per HTTP/2 connection before another is opened.
const HTTP2_STREAMS: usize = 100;
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
/// Streams times window: one slow reader never stops the others.
const HTTP2_CONNECTION_WINDOW: u32 = HTTP2_STREAMS as u32 * HTTP2_STREAM_WINDOW;

/// Two requests share connections exactly when their keys are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    endpoint: Endpoint,
    allow_private: Vec<IpNet>,
}

#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// What the bytes to an upstream are wrapped in.
#[derive(Debug)]
pub(super) enum Security {
    Clear,
    Tls(Tls),
    /// Its settings cannot be used, which was reported when they were read: never dialled.
    Unusable,
}

/// A connection ready for one request.
pub(super) enum Connection {
    Http1(Io),
    Http2(Box<Http2Session>),
}

/// One upstream and its connections.
pub(crate) struct Upstream {
    key: Key,
    security: Security,
    idle: Mutex<Vec<(Io, Instant)>>,
    http2: Mutex<Vec<ConnectionRef>>,
    turn: AtomicUsize,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.key.endpoint
    }

    pub(super) fn security(&self) -> &Security {
        &self.security
    }

    pub(super) fn allow_private(&self) -> &[IpNet] {
        &self.key.allow_private
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A kept HTTP/1 connection that is still open and silent.
    pub(super) fn idle(&self) -> Option<Connection> {
        loop {
            let newest = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let (mut io, since) = newest?;
            if since.elapsed() < IDLE_AGE && io.is_idle() {
                return Some(Connection::Http1(io));
            }
        }
    }

    /// Keeps an HTTP/1 connection for the next request.
    pub(super) fn keep(&self, io: Io) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest are at the front; most calls remove nothing.
        let stale = idle
            .iter()
            .take_while(|(_, since)| now - *since > IDLE_AGE)
            .count();
        idle.drain(..stale);
        if idle.len() < IDLE_MAX {
            idle.push((io, now));
        }
    }

    /// A stream on an open HTTP/2 connection, or a new connection.
    pub(super) async fn connect(&self, connector: &Connector) -> Result<Connection, ExchangeError> {
        if let Some(session) = self.open_stream().await {
            return Ok(Connection::Http2(Box::new(session)));
        }
        let (mut io, version) = connector.dial(self).await?;
        if version == HttpVersion::Http1 {
            io.set_watch_for_answer(true);
            return Ok(Connection::Http1(io));
        }
        let wire = Box::new(Wire::upstream(io));
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = HTTP2_STREAMS;
        settings.stream_window_size = Some(HTTP2_STREAM_WINDOW);
        settings.connection_window_size = Some(HTTP2_CONNECTION_WINDOW);
        settings.ping_interval = Some(Duration::from_secs(30));
        let connection = handshake(wire, settings)
            .await
            .map_err(|_| ExchangeError::Connect)?;
        let session = connection
            .spawn_stream()
            .await
            .ok()
            .flatten()
            .ok_or(ExchangeError::Reset { answered: false })?;
        self.http2
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        Ok(Connection::Http2(Box::new(session)))
    }

    async fn open_stream(&self) -> Option<Http2Session> {
        loop {
            let connection = {
                let mut open = self.http2.lock().unwrap_or_else(PoisonError::into_inner);
                open.retain(|connection| !connection.is_closed() && !connection.is_shutting_down());
                open.iter()
                    .find(|connection| connection.can_accept_streams(1))
                    .cloned()
            }?;
            match connection.spawn_stream().await {
                Ok(Some(session)) => return Some(session),
                Ok(None) => {}
                Err(_) => connection.mark_shutdown(),
            }
        }
    }
}

/// The upstreams of the configurations in force; equal ones are shared between generations, so
/// that a reload closes no connection.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    known: Mutex<HashMap<Key, Weak<Upstream>>>,
}

impl Upstreams {
    /// The upstream of an endpoint.
    pub(crate) fn of(
        &self,
        connector: &Connector,
        endpoint: &Endpoint,
        allow_private: &[IpNet],
    ) -> Arc<Upstream> {
        let key = Key {
            endpoint: endpoint.clone(),
            allow_private: allow_private.to_vec(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = known.get(&key).and_then(Weak::upgrade) {
            return upstream;
        }
        known.retain(|_, upstream| upstream.strong_count() > 0);
        let security = match endpoint.tls.as_ref().map(|tls| connector.tls(tls)) {
            None => Security::Clear,
            Some(Ok(tls)) => Security::Tls(tls),
            Some(Err(_)) => Security::Unusable,
        };
        let upstream = Arc::new(Upstream {
            key: key.clone(),
            security,
            idle: Mutex::default(),
            http2: Mutex::default(),
            turn: AtomicUsize::new(0),
        });
        known.insert(key, Arc::downgrade(&upstream));
        upstream
    }
}

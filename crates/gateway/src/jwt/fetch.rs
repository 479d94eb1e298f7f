//! Fetches an issuer's keys, and what names their place (OpenID Connect Discovery 1.0).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use waypoint_config::{JwtKeys, JwtPlace, Parameters, PlaceError};

use super::keys::{Fetched, Key, read};
use crate::exchange::{
    self, Connector, ExchangeError, Outgoing, Patience, RequestHead, Upstream, Upstreams,
};
use crate::record::Recorder;

/// Keys are fetched again after this, as Istio has it.
const REFRESH: Duration = Duration::from_secs(300);
/// After a failure, and at most so often for a key nobody knows.
const RETRY: Duration = Duration::from_secs(5);
/// Neither document is longer.
const DOCUMENT_MAX_BYTES: usize = 1 << 20;

/// Why there are no new keys. Carries no text of the issuer's.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the document is no JSON Web Key Set")]
    NoKeys,
    #[error("the document is no OpenID configuration")]
    NoConfiguration,
    #[error("the OpenID configuration is of another issuer")]
    OtherIssuer,
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// What we read of an OpenID configuration (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Where keys are fetched from, and with what.
pub(super) struct Place {
    pub(super) keys: JwtKeys,
    pub(super) connector: Arc<Connector>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) parameters: Parameters,
    pub(super) recorder: Arc<Recorder>,
}

impl Place {
    /// Fetches until nobody holds the keys any longer. What was fetched stays when a later fetch
    /// fails.
    pub(super) async fn watch(self, found: watch::Sender<Fetched>, wanted: Arc<Notify>) {
        let (JwtKeys::Remote { place, .. } | JwtKeys::Discovered { place, .. }) = &self.keys else {
            return;
        };
        // Connections are kept from one fetch to the next.
        let upstream = self.upstream(place);
        loop {
            let fetched = tokio::select! {
                () = found.closed() => return,
                fetched = self.fetch(&upstream) => fetched,
            };
            self.recorder
                .metrics
                .keys_fetched(&place.uri, fetched.is_ok());
            let pause = match fetched {
                Ok(keys) => {
                    found.send_replace(Fetched::Known(Arc::new(keys)));
                    REFRESH
                }
                Err(error) => {
                    tracing::warn!(uri = place.uri, %error, "keys of tokens cannot be fetched");
                    found.send_if_modified(|fetched| {
                        let is_first = matches!(fetched, Fetched::Pending);
                        if is_first {
                            *fetched = Fetched::Failed;
                        }
                        is_first
                    });
                    RETRY
                }
            };
            tokio::select! {
                () = found.closed() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
            tokio::select! {
                () = found.closed() => return,
                () = tokio::time::sleep(pause - RETRY) => {}
                () = wanted.notified() => {}
            }
        }
    }

    fn upstream(&self, place: &JwtPlace) -> Arc<Upstream> {
        let private = &self.parameters.allow_private;
        self.upstreams.of(&self.connector, &place.endpoint, private)
    }

    async fn fetch(&self, upstream: &Arc<Upstream>) -> Result<Vec<Key>, FetchError> {
        let body = match &self.keys {
            JwtKeys::Inline(text) => Bytes::copy_from_slice(text.as_bytes()),
            JwtKeys::Remote { place, timeout } => self.document(upstream, place, *timeout).await?,
            JwtKeys::Discovered {
                issuer,
                place,
                timeout,
            } => {
                let document = self.document(upstream, place, *timeout).await?;
                let configuration: Configuration =
                    serde_json::from_slice(&document).map_err(|_| FetchError::NoConfiguration)?;
                // §4.3: else whoever writes this document could speak for others.
                if configuration.issuer != *issuer {
                    return Err(FetchError::OtherIssuer);
                }
                let place = place.named(&configuration.jwks_uri, &self.parameters)?;
                let upstream = self.upstream(&place);
                self.document(&upstream, &place, *timeout).await?
            }
        };
        read(&body).ok_or(FetchError::NoKeys)
    }

    async fn document(
        &self,
        upstream: &Arc<Upstream>,
        place: &JwtPlace,
        timeout: Duration,
    ) -> Result<Bytes, FetchError> {
        let mut head = RequestHead::new(Method::GET, &place.target)?;
        crate::pipeline::llm::own_fields(&mut head, &place.endpoint, &Bytes::new())?;
        head.push(&header::ACCEPT, b"application/json")?;
        let patience = Patience {
            connect: timeout,
            until: Instant::now() + timeout,
        };
        let outgoing = Outgoing {
            head: &head,
            body: &Bytes::new(),
        };
        let fetched = async {
            let mut answer = exchange::send(&self.connector, upstream, outgoing, patience).await?;
            match answer.status() {
                200 => Ok(answer.body(DOCUMENT_MAX_BYTES).await?),
                status => Err(FetchError::Status(status)),
            }
        };
        tokio::time::timeout_at(patience.until, fetched)
            .await
            .map_err(|_| ExchangeError::Timeout)?
    }
}

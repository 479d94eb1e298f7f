//! Issuers' keys: read once, or fetched and fetched again without a request waiting for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::{Method, header};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use waypoint_config::JwtKeys;

use crate::exchange::{self, Connector, ExchangeError, Outgoing, Patience, RequestHead, Upstream};

/// Keys are fetched again after this, as Istio has it.
const REFRESH: Duration = Duration::from_secs(300);
/// After a failure, and at most so often for a key nobody knows.
const RETRY: Duration = Duration::from_secs(5);
/// A request waits so long for the very first keys.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The answer with keys is not longer.
const SET_MAX_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct Keys {
    set: watch::Receiver<Option<Arc<Vec<Key>>>>,
    /// Asks for another look; `None` for keys that do not change.
    wanted: Option<Arc<Notify>>,
}

impl Keys {
    fn fixed(text: &str) -> Self {
        let keys = read(text.as_bytes()).unwrap_or_default();
        Self {
            set: watch::channel(Some(Arc::new(keys))).1,
            wanted: None,
        }
    }

    /// The keys that may have signed a token: by its key id, else all of the right kind.
    ///
    /// An id that nobody knows may be that of a new key: it is asked for, and refused until then.
    pub(super) async fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Vec<DecodingKey> {
        let mut set = self.set.clone();
        let first = tokio::time::timeout(FIRST_WAIT, set.wait_for(Option::is_some));
        let keys = match first.await {
            Ok(Ok(keys)) => keys.clone().unwrap_or_default(),
            _ => return Vec::new(),
        };
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        let named = |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let found: Vec<_> = keys.iter().filter(fits).filter(named).collect();
        if found.is_empty()
            && let Some(wanted) = &self.wanted
        {
            wanted.notify_one();
        }
        found.into_iter().map(|key| key.key.clone()).collect()
    }
}

/// Reads a key set; keys that nobody may verify with are left out (RFC 8725 §3.1: a symmetric key in
/// a public set would let anybody sign).
fn read(text: &[u8]) -> Option<Vec<Key>> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let list = value.get("keys")?.as_array()?.clone();
    // One key that cannot be read is no reason to lose the others.
    let keys = list
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let set = JwkSet {
        keys: keys.collect(),
    };
    Some(set.keys.iter().filter_map(key).collect())
}

fn key(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return None;
    }
    let fitting: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        _ => return None,
    };
    let own = match jwk.common.key_algorithm {
        None => None,
        // One that is named and not known fits nothing.
        Some(named) => Some(named.to_string().parse::<Algorithm>().ok()?),
    };
    let algorithms = fitting.iter().copied();
    let algorithms: Vec<_> = algorithms
        .filter(|a| own.is_none_or(|own| own == *a))
        .collect();
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithms,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

/// All keys of the configurations in force; equal places are shared between generations.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    remote: Mutex<HashMap<String, Weak<Keys>>>,
}

impl KeyRing {
    /// The keys of a rule; those of a place are fetched for as long as somebody holds them.
    pub(crate) fn of(
        &self,
        keys: &JwtKeys,
        connector: &Arc<Connector>,
        upstream: impl FnOnce(&waypoint_config::Endpoint) -> Arc<Upstream>,
    ) -> Arc<Keys> {
        let (uri, endpoint, timeout) = match keys {
            JwtKeys::Inline(text) => return Arc::new(Keys::fixed(text)),
            JwtKeys::Remote {
                uri,
                endpoint,
                timeout,
            } => (uri, endpoint, *timeout),
        };
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remote.get(uri).and_then(Weak::upgrade) {
            return known;
        }
        remote.retain(|_, keys| keys.strong_count() > 0);
        let (found, set) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let keys = Arc::new(Keys {
            set,
            wanted: Some(Arc::clone(&wanted)),
        });
        remote.insert(uri.clone(), Arc::downgrade(&keys));
        let place = Place {
            uri: uri.clone(),
            upstream: upstream(endpoint),
            connector: Arc::clone(connector),
            timeout,
        };
        tokio::spawn(place.watch(found, wanted));
        keys
    }
}

/// Where keys are fetched from.
struct Place {
    uri: String,
    upstream: Arc<Upstream>,
    connector: Arc<Connector>,
    timeout: Duration,
}

impl Place {
    /// Fetches until nobody holds the keys any longer. What was fetched stays when a later fetch
    /// fails.
    async fn watch(self, found: watch::Sender<Option<Arc<Vec<Key>>>>, wanted: Arc<Notify>) {
        loop {
            let pause = match self.fetch().await {
                Ok(keys) => {
                    found.send_replace(Some(Arc::new(keys)));
                    REFRESH
                }
                Err(error) => {
                    tracing::warn!(uri = self.uri, %error, "keys cannot be fetched");
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

    async fn fetch(&self) -> Result<Vec<Key>, ExchangeError> {
        let endpoint = self.upstream.endpoint();
        let target = match &*endpoint.prefix {
            "" => "/",
            path => path,
        };
        let mut head = RequestHead::new(Method::GET, target)?;
        crate::pipeline::llm::own_fields(&mut head, endpoint, &bytes::Bytes::new())?;
        head.push(&header::ACCEPT, b"application/json")?;
        let patience = Patience {
            connect: self.timeout,
            until: Instant::now() + self.timeout,
        };
        let outgoing = Outgoing {
            head: &head,
            body: &bytes::Bytes::new(),
        };
        let fetched = async {
            let mut answer =
                exchange::send(&self.connector, &self.upstream, outgoing, patience).await?;
            match answer.status() {
                200 => answer.body(SET_MAX_BYTES).await,
                _ => Err(ExchangeError::Malformed),
            }
        };
        let body = tokio::time::timeout_at(patience.until, fetched)
            .await
            .map_err(|_| ExchangeError::Timeout)??;
        let keys = read(&body).ok_or(ExchangeError::Malformed)?;
        Ok(keys)
    }
}

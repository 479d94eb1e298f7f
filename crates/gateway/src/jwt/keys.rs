//! Issuers' keys: read once, or fetched and fetched again without a request waiting for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ipnet::IpNet;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::{Notify, watch};
use waypoint_config::{JwtKeys, Parameters};

use super::fetch::Place;
use crate::exchange::{Connector, Upstreams};
use crate::record::Recorder;

/// A request that comes before the first attempt to fetch keys has ended waits so long for it.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// What came of fetching keys.
#[derive(Debug, Clone)]
pub(super) enum Fetched {
    /// The first attempt is still under way.
    Pending,
    /// There never were any.
    Failed,
    /// What was fetched last.
    Known(Arc<Vec<Key>>),
}

#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct Keys {
    set: watch::Receiver<Fetched>,
    /// Asks for another look; `None` for keys that do not change.
    wanted: Option<Arc<Notify>>,
}

impl Keys {
    fn fixed(text: &str) -> Self {
        let keys = read(text.as_bytes()).unwrap_or_default();
        Self {
            set: watch::channel(Fetched::Known(Arc::new(keys))).1,
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
        let Some(keys) = self.known().await else {
            return Vec::new();
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

    /// The keys there are; nobody waits for an issuer that has failed to answer.
    async fn known(&self) -> Option<Arc<Vec<Key>>> {
        let known = |fetched: &Fetched| match fetched {
            Fetched::Known(keys) => Some(Arc::clone(keys)),
            Fetched::Pending | Fetched::Failed => None,
        };
        if !matches!(*self.set.borrow(), Fetched::Pending) {
            return known(&self.set.borrow());
        }
        let mut set = self.set.clone();
        let first = set.wait_for(|fetched| !matches!(fetched, Fetched::Pending));
        let first = tokio::time::timeout(FIRST_WAIT, first).await;
        known(&*first.ok()?.ok()?)
    }
}

/// Reads a key set; keys that nobody may verify with are left out (RFC 8725 §3.1: a symmetric key in
/// a public set would let anybody sign).
pub(super) fn read(text: &[u8]) -> Option<Vec<Key>> {
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
    match &jwk.common.public_key_use {
        Some(PublicKeyUse::Encryption) => return None,
        // In a SPIFFE bundle this one signs certificates (SPIFFE Trust Domain and Bundle §4.2.2).
        Some(PublicKeyUse::Other(other)) if other == "x509-svid" => return None,
        _ => {}
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

/// Two rules share what is fetched exactly when these are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shared {
    keys: JwtKeys,
    allow_private: Vec<IpNet>,
    dns_suffix: String,
}

/// All keys of the configurations in force; equal ones are shared between generations.
#[derive(Debug)]
pub(crate) struct KeyRing {
    remote: Mutex<HashMap<Shared, Weak<Keys>>>,
    recorder: Arc<Recorder>,
}

impl KeyRing {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            remote: Mutex::default(),
            recorder,
        }
    }

    /// The keys of a rule; those of a place are fetched for as long as somebody holds them.
    pub(crate) fn of(
        &self,
        keys: &JwtKeys,
        connector: &Arc<Connector>,
        upstreams: &Arc<Upstreams>,
        parameters: &Parameters,
    ) -> Arc<Keys> {
        if let JwtKeys::Inline(text) = keys {
            return Arc::new(Keys::fixed(text));
        }
        let shared = Shared {
            keys: keys.clone(),
            allow_private: parameters.allow_private.clone(),
            dns_suffix: parameters.dns_suffix.clone(),
        };
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remote.get(&shared).and_then(Weak::upgrade) {
            return known;
        }
        remote.retain(|_, keys| keys.strong_count() > 0);
        let (found, set) = watch::channel(Fetched::Pending);
        let wanted = Arc::new(Notify::new());
        let held = Arc::new(Keys {
            set,
            wanted: Some(Arc::clone(&wanted)),
        });
        remote.insert(shared, Arc::downgrade(&held));
        let place = Place {
            keys: keys.clone(),
            connector: Arc::clone(connector),
            upstreams: Arc::clone(upstreams),
            parameters: parameters.clone(),
            recorder: Arc::clone(&self.recorder),
        };
        tokio::spawn(place.watch(found, wanted));
        held
    }
}

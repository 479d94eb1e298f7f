//! Tokens for rows that bring one, and the keys that verify them.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

/// The one key of this run.
fn key() -> &'static EncodingKey {
    static KEY: OnceLock<EncodingKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let pair = rcgen::KeyPair::generate().unwrap();
        EncodingKey::from_ec_der(&pair.serialize_der())
    })
}

/// A JSON Web Key Set with its public half.
pub(super) fn jwks() -> String {
    let keys = vec![Jwk::from_encoding_key(key(), Algorithm::ES256).unwrap()];
    serde_json::to_string(&JwkSet { keys }).unwrap()
}

/// An `Authorization` value with a token of these claims, which ends in a while.
pub(super) fn bearer(claims: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut claims = claims.clone();
    claims["exp"] = (now.as_secs() + 600).into();
    let token = encode(&Header::new(Algorithm::ES256), &claims, key()).unwrap();
    format!("Bearer {token}")
}

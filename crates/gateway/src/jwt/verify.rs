//! One token against one issuer (RFC 7519, RFC 7515; RFC 8725 for what to refuse).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Validation, decode};
use serde_json::{Map, Value};
use waypoint_config::JwtRule;
use waypoint_policy::istio::Claims;

use super::keys::Keys;

/// Clocks may differ by so much, as Istio has it. Unit: seconds.
const CLOCK_SKEW: u64 = 60;
/// No token is longer; heads are bounded too.
const TOKEN_MAX_BYTES: usize = 32 * 1024;

/// A token that its issuer signed.
pub(super) struct Verified {
    pub(super) claims: Claims,
    /// The payload as it was signed.
    pub(super) payload: Vec<u8>,
}

/// The token's claims if it is the issuer's, for this audience, and of this time.
pub(super) async fn verify(rule: &JwtRule, keys: Option<&Keys>, token: &str) -> Option<Verified> {
    if token.len() > TOKEN_MAX_BYTES {
        return None;
    }
    let (header, payload) = parts(token)?;
    // An extension that must be understood is not (RFC 7515 §4.1.11).
    if header.contains_key("crit") {
        return None;
    }
    // A token of another issuer is not worth a signature check.
    let unverified: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
    if unverified.get("iss").and_then(Value::as_str) != Some(rule.issuer.as_str()) {
        return None;
    }
    let kid = header.get("kid").and_then(Value::as_str);
    let algorithm = header.get("alg").and_then(Value::as_str)?.parse().ok()?;
    let candidates = keys?.candidates(kid, algorithm).await;
    let mut validation = Validation::new(algorithm);
    validation.leeway = CLOCK_SKEW;
    validation.validate_nbf = true;
    validation.set_issuer(&[&rule.issuer]);
    validation.required_spec_claims = HashSet::from(["iss".to_owned()]);
    match rule.audiences.is_empty() {
        true => validation.validate_aud = false,
        false => {
            validation.set_audience(&rule.audiences);
            validation.required_spec_claims.insert("aud".to_owned());
        }
    }
    let mut claims = candidates.iter().find_map(|key| {
        let token = decode::<Map<String, Value>>(token, key, &validation);
        token.ok().map(|token| token.claims)
    })?;
    for name in &rule.space_delimited {
        if let Some(Value::String(text)) = claims.get(name) {
            let parts = text.split(' ').map(Value::from).collect();
            claims.insert(name.clone(), Value::Array(parts));
        }
    }
    Some(Verified {
        claims: Claims(claims),
        payload,
    })
}

/// Header and payload of a token in compact form.
fn parts(token: &str) -> Option<(Map<String, Value>, Vec<u8>)> {
    let mut parts = token.split('.');
    let (header, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let header = URL_SAFE_NO_PAD.decode(header).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    Some((serde_json::from_slice(&header).ok()?, payload))
}

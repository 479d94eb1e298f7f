//! One token against one issuer (RFC 7519, RFC 7515; RFC 8725 for what to refuse).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde_json::{Map, Value};
use waypoint_config::JwtRule;
use waypoint_policy::istio::Claims;

use super::keys::Keys;

/// Clocks may differ by so much, as Istio has it. Unit: seconds.
pub(super) const CLOCK_SKEW: u64 = 60;
/// No token is longer; heads are bounded too.
const TOKEN_MAX_BYTES: usize = 32 * 1024;

/// A token that its issuer signed.
pub(super) struct Verified {
    pub(super) claims: Claims,
    /// The payload as it was signed.
    pub(super) payload: Vec<u8>,
    pub(super) algorithm: Algorithm,
}

/// What a token must say to be one for us.
pub(super) struct Wanted<'r> {
    /// What `iss` must be; nothing if that is not asked.
    pub(super) issuer: Option<&'r str>,
    /// What `aud` must have one of; empty is any, or none.
    pub(super) audiences: &'r [String],
    /// Whether it must have an end.
    pub(super) ends: bool,
}

/// The token's claims if it is the issuer's, for this audience, and of this time.
pub(super) async fn verify(rule: &JwtRule, keys: Option<&Keys>, token: &str) -> Option<Verified> {
    let wanted = Wanted {
        issuer: Some(&rule.issuer),
        audiences: &rule.audiences,
        ends: false,
    };
    let mut verified = signed(&wanted, keys, token).await?;
    let claims = &mut verified.claims.0;
    for name in &rule.space_delimited {
        if let Some(Value::String(text)) = claims.get(name) {
            let parts = text.split(' ').map(Value::from).collect();
            claims.insert(name.clone(), Value::Array(parts));
        }
    }
    Some(verified)
}

/// The token's claims if one of these keys signed it and it says what is wanted.
pub(super) async fn signed(
    wanted: &Wanted<'_>,
    keys: Option<&Keys>,
    token: &str,
) -> Option<Verified> {
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
    let issuer = unverified.get("iss").and_then(Value::as_str);
    if wanted.issuer.is_some() && issuer != wanted.issuer {
        return None;
    }
    let kid = header.get("kid").and_then(Value::as_str);
    let algorithm = header.get("alg").and_then(Value::as_str)?.parse().ok()?;
    let candidates = keys?.candidates(kid, algorithm).await;
    let mut validation = Validation::new(algorithm);
    validation.leeway = CLOCK_SKEW;
    validation.validate_nbf = true;
    validation.required_spec_claims = HashSet::new();
    let mut required = |claim: &str| validation.required_spec_claims.insert(claim.to_owned());
    if wanted.issuer.is_some() {
        required("iss");
    }
    if wanted.ends {
        required("exp");
    }
    if !wanted.audiences.is_empty() {
        required("aud");
    }
    match wanted.audiences.is_empty() {
        true => validation.validate_aud = false,
        false => validation.set_audience(wanted.audiences),
    }
    if let Some(issuer) = wanted.issuer {
        validation.set_issuer(&[issuer]);
    }
    let claims = candidates.iter().find_map(|key| {
        let token = decode::<Map<String, Value>>(token, key, &validation);
        token.ok().map(|token| token.claims)
    })?;
    Some(Verified {
        claims: Claims(claims),
        payload,
        algorithm,
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

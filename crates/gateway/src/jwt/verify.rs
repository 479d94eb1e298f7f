//! One token against one issuer (RFC 7519, RFC 7515; RFC 8725 for what to refuse).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde_json::{Map, Value};
use waypoint_config::JwtRule;
use waypoint_policy::istio::Claims;
use waypoint_policy::{By, Code, Refusal};

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

/// Why a token counts for nothing, for the operator alone. Of several reasons the last counts: that
/// token came furthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unfit {
    Malformed,
    Algorithm,
    Issuer,
    Keys,
    Signature,
    Claim,
    Audience,
    NotYet,
    Ended,
    Workload,
    Several,
}

impl Unfit {
    /// The refusal of a request that brought it.
    pub(super) fn refusal(self) -> Refusal {
        let why = match self {
            Self::Malformed => "token: not a JSON Web Token",
            Self::Algorithm => "token: an algorithm that is not taken",
            Self::Issuer => "token: another issuer",
            Self::Keys => "token: no key of its issuer fits",
            Self::Signature => "token: the signature is not its issuer's",
            Self::Claim => "token: a claim is missing",
            Self::Audience => "token: another audience",
            Self::NotYet => "token: not valid yet",
            Self::Ended => "token: expired",
            Self::Workload => "token: it names no workload of ours",
            Self::Several => "token: more than one",
        };
        let refusal = Refusal::new(Code::IdentityInvalid).with_message("the token is not valid");
        refusal.decided_by(By::Transport(why))
    }

    fn of(error: &jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Ended,
            ErrorKind::ImmatureSignature => Self::NotYet,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::MissingRequiredClaim(_) => Self::Claim,
            _ => Self::Signature,
        }
    }
}

/// The token's claims if it is the issuer's, for this audience, and of this time.
pub(super) async fn verify(
    rule: &JwtRule,
    keys: Option<&Keys>,
    token: &str,
) -> Result<Verified, Unfit> {
    let wanted = Wanted {
        issuer: rule.issuer.as_deref(),
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
    Ok(verified)
}

/// The token's claims if one of these keys signed it and it says what is wanted.
pub(super) async fn signed(
    wanted: &Wanted<'_>,
    keys: Option<&Keys>,
    token: &str,
) -> Result<Verified, Unfit> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(Unfit::Malformed);
    }
    let (header, payload) = parts(token).ok_or(Unfit::Malformed)?;
    // An extension that must be understood is not (RFC 7515 §4.1.11).
    if header.contains_key("crit") {
        return Err(Unfit::Malformed);
    }
    // A token of another issuer is not worth a signature check.
    let unverified: Map<String, Value> =
        serde_json::from_slice(&payload).map_err(|_| Unfit::Malformed)?;
    let issuer = unverified.get("iss").and_then(Value::as_str);
    if wanted.issuer.is_some() && issuer != wanted.issuer {
        return Err(Unfit::Issuer);
    }
    let kid = header.get("kid").and_then(Value::as_str);
    let algorithm = header.get("alg").and_then(Value::as_str);
    let algorithm = algorithm.and_then(|algorithm| algorithm.parse().ok());
    let algorithm = algorithm.ok_or(Unfit::Algorithm)?;
    let candidates = keys.ok_or(Unfit::Keys)?.candidates(kid, algorithm).await;
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
    let mut unfit = Unfit::Keys;
    let claims = candidates.iter().find_map(|key| {
        let token = decode::<Map<String, Value>>(token, key, &validation);
        let token = token.map_err(|error| unfit = unfit.max(Unfit::of(&error)));
        token.ok().map(|token| token.claims)
    });
    let claims = claims.ok_or(unfit)?;
    Ok(Verified {
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

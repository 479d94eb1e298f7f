//! Callers without a certificate who say by a token who they are.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::Algorithm;
use pingora_http::RequestHeader;
use serde_json::Value;
use waypoint_config::{Listener, TokenForm, TokenPrincipal};
use waypoint_policy::istio::Claims;
use waypoint_policy::{Refusal, SpiffeId};

use super::locations;
use super::verify::{CLOCK_SKEW, Unfit, Verified, Wanted, signed};
use crate::edge::Head;
use crate::state::State;

/// A workload that has proved who it is by a token.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    pub(crate) id: SpiffeId,
    /// When that ends.
    pub(crate) expires: SystemTime,
    /// What the listener takes such tokens by.
    pub(crate) by: Arc<TokenPrincipal>,
}

/// Who the request's token says is calling; nobody if it brings none. The token goes no further,
/// unless the operator says so.
///
/// # Errors
/// `Code::IdentityInvalid` for a token that does not verify or names no workload of ours, and for
/// several: nobody could say which of them counts.
pub(crate) async fn principal(
    state: &State,
    listener: &Listener,
    request: &mut RequestHeader,
    head: &mut Head,
) -> Result<Option<Proven>, Refusal> {
    let all = &listener.tokens;
    let found = locations::tokens(all.iter().map(|token| &token.locations), request, head);
    let one = match found.as_slice() {
        [] => return Ok(None),
        [one] => one,
        _ => return Err(Unfit::Several.refusal()),
    };
    let mut unfit = Unfit::Malformed;
    for by in one.rules.iter().filter_map(|index| all.get(*index)) {
        let wanted = Wanted {
            issuer: by.issuer.as_deref(),
            audiences: &by.audiences,
            ends: true,
        };
        let token = match signed(&wanted, state.keys(&by.keys), &one.token).await {
            Ok(token) => token,
            Err(other) => {
                unfit = unfit.max(other);
                continue;
            }
        };
        let (Some(id), Some(expires)) = (
            workload(by.form, &token, &state.snapshot.parameters.trust_domains),
            end(&token.claims),
        ) else {
            unfit = unfit.max(Unfit::Workload);
            continue;
        };
        if !by.forward {
            locations::remove(&one.place, request, head);
        }
        return Ok(Some(Proven {
            id,
            expires,
            by: Arc::clone(by),
        }));
    }
    Err(unfit.refusal())
}

/// The workload that a verified token names.
fn workload(form: TokenForm, token: &Verified, domains: &[String]) -> Option<SpiffeId> {
    let claims = &token.claims;
    match form {
        TokenForm::ServiceAccount => {
            let own = claims.0.get("kubernetes.io")?;
            let namespace = own.get("namespace")?.as_str()?;
            let name = own.get("serviceaccount")?.get("name")?.as_str()?;
            // The API server writes it twice; what differs is not its token.
            if claims.text("sub") != format!("system:serviceaccount:{namespace}:{name}") {
                return None;
            }
            SpiffeId::of_workload(domains.first()?, namespace, name).ok()
        }
        TokenForm::Spiffe => {
            // JWT-SVID §3.1 has no others.
            if token.algorithm == Algorithm::EdDSA {
                return None;
            }
            let id: SpiffeId = claims.text("sub").parse().ok()?;
            let is_ours = domains.iter().any(|domain| domain == id.trust_domain());
            // A trust domain's own ID is no workload's.
            (is_ours && !id.path().is_empty()).then_some(id)
        }
    }
}

/// When a token ends, as far as clocks agree: with the second that is the last to let it in.
pub(crate) fn end(claims: &Claims) -> Option<SystemTime> {
    let seconds = match claims.0.get("exp")? {
        Value::Number(number) => number.as_u64().or_else(|| {
            // RFC 7519 §2 lets it have a fraction.
            let seconds = number.as_f64().filter(|seconds| seconds.is_finite())?;
            (0.0..9e15).contains(&seconds).then_some(seconds as u64)
        })?,
        _ => return None,
    };
    let last = seconds.checked_add(CLOCK_SKEW)?.checked_add(1)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(last))
}

#[cfg(test)]
mod tests;

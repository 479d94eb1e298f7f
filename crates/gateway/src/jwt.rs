//! Tokens that requests bring: found, verified, taken away (`RequestAuthentication`).

mod fetch;
mod keys;
mod locations;
mod principal;
mod verify;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pingora_http::RequestHeader;
use serde_json::Value;
use waypoint_config::{JwtRule, RequestAuthentication};
use waypoint_policy::istio::Claims;
use waypoint_policy::{Code, Refusal};

pub(crate) use keys::{KeyRing, Keys};
pub(crate) use principal::{Proven, end, principal};

use crate::edge::Head;
use crate::state::State;

/// Verifies what tokens a request brings, and changes the request as the rules say.
///
/// A request without a token passes without claims; asking for one is authorization's job. A token
/// that is there and that no rule of its place verifies is refused. Of several that verify, the
/// first by rule gives the claims.
///
/// # Errors
/// [`Code::IdentityInvalid`] for a token that does not verify.
pub(crate) async fn authenticate(
    state: &State,
    request: &mut RequestHeader,
    head: &mut Head,
    hosts: &[Arc<str>],
) -> Result<Option<Claims>, Refusal> {
    let all = &state.snapshot.authentication;
    let about = |policy: &&RequestAuthentication| {
        policy.always || hosts.iter().any(|host| policy.is_about(host))
    };
    let rules: Vec<&JwtRule> = all
        .iter()
        .filter(about)
        .flat_map(|policy| &policy.rules)
        .collect();
    if rules.is_empty() {
        return Ok(None);
    }
    // What only a verified token may put there.
    for rule in &rules {
        for name in rule
            .payload_header
            .iter()
            .chain(rule.claim_headers.iter().map(|(name, _)| name))
        {
            request.remove_header(name.as_str());
        }
    }
    if is_preflight(head, request) {
        return Ok(None);
    }
    let tokens = locations::tokens(rules.iter().map(|rule| &rule.locations), request, head);
    let mut first: Option<(usize, verify::Verified)> = None;
    for found in &tokens {
        let mut verified = Err(verify::Unfit::Malformed);
        for &index in &found.rules {
            let Some(rule) = rules.get(index) else {
                continue;
            };
            let token = verify::verify(rule, state.keys(&rule.keys), &found.token).await;
            verified = match (token, verified) {
                (Err(unfit), Err(other)) => Err(unfit.max(other)),
                (token, _) => token.map(|token| (index, token)),
            };
            if verified.is_ok() {
                break;
            }
        }
        let (index, token) = verified.map_err(verify::Unfit::refusal)?;
        if first.as_ref().is_none_or(|(best, _)| index < *best) {
            first = Some((index, token));
        }
    }
    for found in &tokens {
        let keeps = |index: &usize| rules.get(*index).is_some_and(|rule| rule.forward);
        if !found.rules.iter().any(keeps) {
            locations::remove(&found.place, request, head);
        }
    }
    let Some((index, verified)) = first else {
        return Ok(None);
    };
    if let Some(rule) = rules.get(index) {
        output(rule, &verified, request)?;
    }
    Ok(Some(verified.claims))
}

/// A CORS preflight carries no credentials by its nature (Fetch, "CORS-preflight request").
fn is_preflight(head: &Head, request: &RequestHeader) -> bool {
    &*head.method == "OPTIONS"
        && request.headers.contains_key("origin")
        && request
            .headers
            .contains_key("access-control-request-method")
}

/// Puts claims where the destination looks for them.
fn output(
    rule: &JwtRule,
    verified: &verify::Verified,
    request: &mut RequestHeader,
) -> Result<(), Refusal> {
    let internal = |_| Refusal::new(Code::Internal);
    if let Some(name) = &rule.payload_header {
        let payload = URL_SAFE_NO_PAD.encode(&verified.payload);
        request
            .insert_header(name.clone(), payload)
            .map_err(internal)?;
    }
    for (name, path) in &rule.claim_headers {
        let text = match verified.claims.at(path) {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            _ => continue,
        };
        // A claim may hold what no header can: then it is not there.
        let _ = request.insert_header(name.clone(), text);
    }
    Ok(())
}

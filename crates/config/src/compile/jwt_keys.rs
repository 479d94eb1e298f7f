//! Where the keys of an issuer of tokens come from.

use std::time::Duration;

use url::Url;

use super::endpoint;
use crate::jwt::{JwtKeys, JwtPlace};
use crate::object::{At, Diagnostics};
use crate::raw;
use crate::snapshot::Parameters;

/// Istio's default for fetching keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Where an issuer's OpenID configuration is, below the issuer (OpenID Connect Discovery 1.0 §4).
const CONFIGURATION: &str = "/.well-known/openid-configuration";

/// What is written about an issuer's keys.
pub(super) struct Source<'r> {
    pub(super) issuer: Option<&'r str>,
    pub(super) jwks: Option<&'r str>,
    pub(super) jwks_uri: Option<&'r str>,
    pub(super) timeout: Option<raw::Duration>,
    /// Who may have signed the certificate of where keys are; by default the public roots.
    pub(super) roots_pem: Option<String>,
}

impl Source<'_> {
    /// The keys: those that are written, else of the place that is, else what the issuer names.
    pub(super) fn keys(
        self,
        parameters: &Parameters,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Option<JwtKeys> {
        let timeout = self.timeout.map_or(FETCH_TIMEOUT, |timeout| timeout.0);
        if timeout.is_zero() {
            let message = "`timeout` must be longer than 0s";
            out.error(at.key("timeout"), "bad-value", message);
            return None;
        }
        match (self.jwks, self.jwks_uri) {
            (Some(_), Some(_)) => {
                let message = "only one of `jwks` and `jwksUri` can be set";
                out.error(at.key("jwksUri"), "bad-value", message);
                None
            }
            (Some(text), None) => inline(text, at.key("jwks"), out),
            (None, Some(uri)) => Some(JwtKeys::Remote {
                place: place(uri, self.roots_pem, parameters, at.key("jwksUri"), out)?,
                timeout,
            }),
            (None, None) => {
                let issuer = self.issuer.filter(|issuer| !issuer.is_empty())?;
                let at = at.key("issuer");
                let place = configuration(issuer, self.roots_pem, parameters, at, out)?;
                Some(JwtKeys::Discovered {
                    issuer: issuer.to_owned(),
                    place,
                    timeout,
                })
            }
        }
    }
}

fn inline(text: &str, at: At<'_>, out: &mut Diagnostics) -> Option<JwtKeys> {
    let set: Result<serde_json::Value, _> = serde_json::from_str(text);
    let keys = set
        .as_ref()
        .ok()
        .and_then(|set| set.get("keys")?.as_array());
    let Some(keys) = keys.filter(|keys| !keys.is_empty()) else {
        let message = "`jwks` is not a JSON Web Key Set with a key: {\"keys\": [{…}]}";
        out.error(at, "bad-value", message);
        return None;
    };
    // RFC 7518 §6.4.
    let is_symmetric = |key: &serde_json::Value| key.get("kty").is_some_and(|kty| kty == "oct");
    if keys.iter().all(is_symmetric) {
        let message = "`jwks` has symmetric keys only (`kty: oct`), by which no token is verified: \
                       who can verify with one can sign with it; every token of this issuer is \
                       refused";
        out.warning(at, "symmetric-keys", message);
    }
    Some(JwtKeys::Inline(text.to_owned()))
}

fn place(
    uri: &str,
    roots_pem: Option<String>,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<JwtPlace> {
    let (endpoint, target) = endpoint::of_document(uri, roots_pem, parameters, at, out)?;
    if endpoint.tls.is_none() && !endpoint.private {
        let message = format!(
            "keys of tokens are fetched in clear text from `{uri}`: whoever is on the way can put \
             others in their place"
        );
        out.warning(at, "keys-in-clear", message);
    }
    Some(JwtPlace {
        uri: uri.to_owned(),
        endpoint,
        target,
    })
}

/// The place of an issuer's OpenID configuration (OpenID Connect Discovery 1.0 §4.1).
fn configuration(
    issuer: &str,
    roots_pem: Option<String>,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<JwtPlace> {
    let is_url = Url::parse(issuer).is_ok_and(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !is_url {
        let message = format!(
            "the keys of `{issuer}` cannot be discovered, for it is no URL without query and \
             fragment; set `jwksUri` or `jwks`"
        );
        out.error(at, "bad-value", message);
        return None;
    }
    let uri = format!(
        "{}{CONFIGURATION}",
        issuer.strip_suffix('/').unwrap_or(issuer)
    );
    place(&uri, roots_pem, parameters, at, out)
}

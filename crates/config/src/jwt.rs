//! Which tokens a request may bring, and who vouches for them (`RequestAuthentication`).

use std::time::Duration;

use waypoint_policy::ObjectName;

use crate::compile::endpoint;
use crate::snapshot::{Endpoint, Parameters};

/// The tokens of requests to some destinations.
#[derive(Debug)]
pub struct RequestAuthentication {
    /// The object.
    pub name: ObjectName,
    /// Whether it is about every request of the waypoint.
    pub always: bool,
    /// Else the hosts that address what it is attached to, in lower case; `*.` in front stands for
    /// any name below.
    pub hosts: Vec<String>,
    /// A token that is there must satisfy one of these.
    pub rules: Vec<JwtRule>,
}

impl JwtRule {
    /// Whether it takes tokens that say they are of this issuer.
    #[must_use]
    pub fn takes(&self, issuer: &str) -> bool {
        self.issuer.as_ref().is_none_or(|known| known == issuer)
    }
}

impl RequestAuthentication {
    /// Whether it is about requests to `host` (without port).
    #[must_use]
    pub fn is_about(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let named = |known: &String| match known.strip_prefix('*') {
            None => known.eq_ignore_ascii_case(host),
            Some(below) => host.len() > below.len() && host.to_ascii_lowercase().ends_with(below),
        };
        self.always || self.hosts.iter().any(named)
    }
}

/// One issuer of tokens.
#[derive(Debug)]
pub struct JwtRule {
    /// What `iss` must be; nothing if that is not asked.
    pub issuer: Option<String>,
    /// What `aud` must have one of; empty is any, or none.
    pub audiences: Vec<String>,
    /// The issuer's keys.
    pub keys: JwtKeys,
    /// Where its tokens are looked for.
    pub locations: JwtLocations,
    /// Whether the token goes on to the destination.
    pub forward: bool,
    /// The header that the payload is put into, base64url; in lower case.
    pub payload_header: Option<String>,
    /// Headers that claims are put into, each with the names that lead to the claim.
    pub claim_headers: Vec<(String, Vec<Box<str>>)>,
    /// Claims that hold several values with spaces between, beside `scope` and `permission`.
    pub space_delimited: Vec<String>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JwtKeys {
    /// A JSON Web Key Set.
    Inline(String),
    /// A place that has one.
    Remote {
        /// Where it is.
        place: JwtPlace,
        /// For one attempt to fetch it.
        timeout: Duration,
    },
    /// The place that the issuer's OpenID configuration names (OpenID Connect Discovery 1.0 §4).
    Discovered {
        /// Who the configuration must be of.
        issuer: String,
        /// Where the configuration is.
        place: JwtPlace,
        /// For one attempt to fetch either document.
        timeout: Duration,
    },
}

/// A document on the web.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwtPlace {
    /// As it was written.
    pub uri: String,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// Path and query.
    pub target: String,
}

/// An issuer's document names a place that keys are not fetched from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the place of the keys is no URL that may be asked")]
pub struct PlaceError;

impl JwtPlace {
    /// The place that a document from this place names: trusted no further than the document is.
    ///
    /// # Errors
    /// [`PlaceError`] for what is no URL, a private address that is not allowed, and for clear text
    /// behind TLS.
    pub fn named(&self, uri: &str, parameters: &Parameters) -> Result<Self, PlaceError> {
        let tls = self.endpoint.tls.as_ref();
        let roots = tls.and_then(|tls| tls.roots_pem.clone());
        let (mut endpoint, target) =
            endpoint::document(uri, roots, parameters).map_err(|_| PlaceError)?;
        if tls.is_some() && endpoint.tls.is_none() {
            return Err(PlaceError);
        }
        // Whoever writes the document must not choose among our Services.
        endpoint.private &= self.endpoint.private;
        Ok(Self {
            uri: uri.to_owned(),
            endpoint,
            target,
        })
    }
}

/// A token by which callers of a listener may say who they are.
#[derive(Debug)]
pub struct TokenPrincipal {
    /// Which claims name the workload.
    pub form: TokenForm,
    /// The issuer; nothing for SPIFFE tokens that name none.
    pub issuer: Option<String>,
    /// What `aud` must have one of; never empty.
    pub audiences: Vec<String>,
    /// The issuer's keys.
    pub keys: JwtKeys,
    /// Where it is looked for: in headers.
    pub locations: JwtLocations,
    /// Whether the token goes on, to the policies about tokens and to the destination.
    pub forward: bool,
}

impl TokenPrincipal {
    /// Whether both let in the same callers, whatever keys are theirs at the time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.form == other.form && self.issuer == other.issuer && self.audiences == other.audiences
    }
}

/// Which claims name a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenForm {
    /// A Kubernetes service account token: `kubernetes.io`, in the own trust domain.
    ServiceAccount,
    /// A JWT-SVID: `sub` is a SPIFFE ID.
    Spiffe,
}

/// Where tokens are looked for.
#[derive(Debug, Default)]
pub struct JwtLocations {
    /// Header names in lower case, and what stands before the token there.
    pub headers: Vec<(String, String)>,
    /// Query parameters.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
}

impl JwtLocations {
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.params.is_empty() && self.cookies.is_empty()
    }
}

#[cfg(test)]
mod tests;

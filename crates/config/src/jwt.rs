//! Which tokens a request may bring, and who vouches for them (`RequestAuthentication`).

use std::time::Duration;

use waypoint_policy::ObjectName;

use crate::snapshot::Endpoint;

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
    /// What `iss` must be.
    pub issuer: String,
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
#[derive(Debug)]
pub enum JwtKeys {
    /// A JSON Web Key Set.
    Inline(String),
    /// A place that has one.
    Remote {
        /// As it was written.
        uri: String,
        /// The same; the path is its prefix.
        endpoint: Endpoint,
        /// For one attempt to fetch it.
        timeout: Duration,
    },
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

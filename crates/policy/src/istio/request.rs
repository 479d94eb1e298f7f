//! What a request shows to Istio's policies.

use std::net::IpAddr;

use serde_json::Value as Json;

use super::CustomVerdict;
use crate::Principal;

/// What travels on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, with everything a policy can look at.
    Http,
    /// Anything else: only the connection is known.
    Tcp,
}

/// Header fields by name.
pub trait Headers {
    /// Whether `found` is true for a value of this field (name in lower case); each value of a
    /// repeated field is looked at on its own. `None` when there is no such field.
    fn any(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool>;
}

/// No header fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn any(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        None
    }
}

/// Names and values, as tests and `explain` have them; names in any case.
impl Headers for Vec<(String, String)> {
    fn any(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let mut is_there = None;
        for (_, value) in self
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            if found(value.as_bytes()) {
                return Some(true);
            }
            is_there = Some(false);
        }
        is_there
    }
}

/// The last address in a value of `X-Forwarded-For`, which may have a port; nothing if that is none.
#[must_use]
pub fn last_forwarded(value: &str) -> Option<IpAddr> {
    let last = value.rsplit(',').next()?.trim();
    let address = match last.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => last.parse().ok()?,
    };
    Some(address.to_canonical())
}

/// The claims of a token that was verified.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims(pub serde_json::Map<String, Json>);

impl Eq for Claims {}

impl Claims {
    /// A top-level claim that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Json::as_str).unwrap_or_default()
    }

    /// The claim that these names lead to.
    #[must_use]
    pub fn at<'c>(&'c self, path: &[Box<str>]) -> Option<&'c Json> {
        let (first, rest) = path.split_first()?;
        let first = self.0.get(&**first)?;
        rest.iter()
            .try_fold(first, |value, name| value.get(&**name))
    }

    /// Whether `found` is true for the claim at `path` or one of its list's elements. Only text
    /// counts. `scope` and `permission` are split at spaces, as Istio does.
    pub(crate) fn any(&self, path: &[Box<str>], found: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let is_split = matches!(path, [only] if matches!(&**only, "scope" | "permission"));
        match self.at(path) {
            Some(Json::String(text)) if is_split => {
                text.split(' ').any(|part| found(part.as_bytes()))
            }
            Some(Json::String(text)) => found(text.as_bytes()),
            Some(Json::Array(list)) => list
                .iter()
                .filter_map(Json::as_str)
                .any(|text| found(text.as_bytes())),
            _ => false,
        }
    }
}

/// A request, or a connection.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What it is.
    pub protocol: Protocol,
    /// The peer's identity.
    pub principal: &'a Principal,
    /// The peer's address.
    pub source_ip: Option<IpAddr>,
    /// The client's address, behind trusted proxies.
    pub remote_ip: Option<IpAddr>,
    /// The address that was asked for.
    pub destination_ip: Option<IpAddr>,
    /// The port of the Service that was asked for.
    pub port: u16,
    /// The name in the inner TLS handshake; empty when there is none.
    pub sni: &'a str,
    /// The method as sent.
    pub method: &'a str,
    /// The authority as sent.
    pub host: &'a str,
    /// The normalized path that is forwarded, without the query.
    pub path: &'a str,
    /// The header fields.
    pub headers: &'a dyn Headers,
    /// The verified token's claims, if there is one.
    pub claims: Option<&'a Claims>,
    /// What external authorizers said of this request.
    pub custom: &'a [CustomVerdict],
}

impl<'a> Request<'a> {
    /// A request over HTTP of which nothing is known but who sends it.
    #[must_use]
    pub fn of(principal: &'a Principal) -> Self {
        Self {
            protocol: Protocol::Http,
            principal,
            source_ip: None,
            remote_ip: None,
            destination_ip: None,
            port: 0,
            sni: "",
            method: "GET",
            host: "",
            path: "/",
            headers: &NoHeaders,
            claims: None,
            custom: &[],
        }
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("principal", &self.principal)
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

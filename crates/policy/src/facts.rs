//! What of a request policies may look at beside who asks and what for.

use std::fmt;

use crate::istio::{Claims, Headers, NoHeaders};

#[cfg(test)]
mod tests;

/// The request that carries an action. A call of a model or a tool is one HTTP request, and so is
/// each entry of a list decided by the request that asks for the list.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The host as sent, without port.
    pub host: &'a str,
    /// The normalized path, without the query.
    pub path: &'a str,
    /// The port the request was sent to.
    pub port: u16,
    /// The header fields.
    pub headers: &'a dyn Headers,
    /// What the request's token says, if one was verified.
    pub claims: Option<&'a Claims>,
}

/// A request of which nothing is known: rules that look at any of it do not grant.
impl Default for Facts<'_> {
    fn default() -> Self {
        Self {
            method: "",
            host: "",
            path: "",
            port: 0,
            headers: &NoHeaders,
            claims: None,
        }
    }
}

/// Without headers and claims, which may be secrets.
impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

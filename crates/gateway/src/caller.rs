//! Who calls: what a connection or a token said, and whether that still counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use waypoint_config::{Snapshot, TokenPrincipal};
use waypoint_mesh::IdentitySource;
use waypoint_policy::Principal;

use crate::context::Context;
use crate::hbone;
use crate::wire::HeadPhase;

/// What is known about a downstream connection; travels in Pingora's `ProxyDigest`.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) principal: Principal,
    pub(crate) identity_source: IdentitySource,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) listener: Arc<str>,
    /// The HBONE listener through which it came, if it did.
    pub(crate) via: Option<Arc<str>>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) head_phase: Arc<HeadPhase>,
}

/// Who calls, where, and how we know: asked again at each generation while a stream runs.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    listener: Arc<str>,
    via: Option<Arc<str>>,
    source: IdentitySource,
    expires: Option<SystemTime>,
    /// What the listener took the caller's token by.
    token: Option<Arc<TokenPrincipal>>,
}

impl Caller {
    pub(crate) fn of(context: &Context) -> Self {
        Self {
            principal: context.record.principal.clone(),
            listener: Arc::clone(&context.record.listener),
            via: (context.connection.as_ref()).and_then(|connection| connection.via.clone()),
            source: context.record.identity_source,
            expires: match &context.proven {
                Some(proven) => Some(proven.expires),
                None => (context.connection.as_ref()).and_then(|connection| connection.expires),
            },
            token: (context.proven.as_ref()).map(|proven| Arc::clone(&proven.by)),
        }
    }

    /// Whether the listener is still there and the caller is still one that we know: of a trust
    /// domain that is accepted, or vouched for by the operator.
    pub(crate) fn is_known(&self, snapshot: &Snapshot) -> bool {
        let mut listeners = snapshot.listeners.iter();
        let Some(listener) = listeners.find(|listener| listener.name == self.listener) else {
            return false;
        };
        if !hbone::is_open(snapshot, listener, self.via.as_deref()) {
            return false;
        }
        match self.source {
            IdentitySource::Developer => listener.developer.as_ref() == self.principal.spiffe(),
            IdentitySource::Token => {
                let mut tokens = listener.tokens.iter();
                let by = self.token.as_ref();
                by.is_some_and(|by| tokens.any(|token| token.is_same(by)))
                    && is_trusted(&self.principal, self.expires, snapshot)
            }
            _ => is_trusted(&self.principal, self.expires, snapshot),
        }
    }
}

/// Whether a principal is of a trust domain that is accepted now, and its certificate not over. It is
/// verified when its connection begins, which may be long ago.
pub(crate) fn is_trusted(
    principal: &Principal,
    expires: Option<SystemTime>,
    snapshot: &Snapshot,
) -> bool {
    if expires.is_some_and(|end| SystemTime::now() > end) {
        return false;
    }
    let domains = &snapshot.parameters.trust_domains;
    principal
        .spiffe()
        .is_none_or(|id| domains.iter().any(|domain| domain == id.trust_domain()))
}

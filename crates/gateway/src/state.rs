//! A snapshot with what the gateway holds beside it: one connection pool per upstream.

use std::sync::Arc;

use waypoint_config::{ExtAuthz, JwtKeys, Provider, Server, Snapshot};
use waypoint_policy::{ProviderId, ServerId};

use crate::exchange::{Connector, Upstream, Upstreams};
use crate::jwt::{KeyRing, Keys};

/// What a request works with from its start to its end.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) snapshot: Arc<Snapshot>,
    providers: Vec<Arc<Upstream>>,
    servers: Vec<Arc<Upstream>>,
    /// As the snapshot has them.
    ext_authz: Vec<Arc<Upstream>>,
    /// Of every place in the snapshot that has keys, in the order of [`places`].
    keys: Vec<Arc<Keys>>,
}

/// Every place in a snapshot that has keys.
fn places(snapshot: &Snapshot) -> impl Iterator<Item = &JwtKeys> {
    let policies = snapshot.authentication.iter();
    let rules = policies.flat_map(|policy| policy.rules.iter().map(|rule| &rule.keys));
    let listeners = snapshot.listeners.iter();
    rules.chain(listeners.flat_map(|listener| listener.tokens.iter().map(|token| &token.keys)))
}

impl State {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        connector: &Arc<Connector>,
        upstreams: &Arc<Upstreams>,
        ring: &KeyRing,
    ) -> Self {
        let parameters = &snapshot.parameters;
        let private = &parameters.allow_private;
        let keys = places(&snapshot)
            .map(|keys| ring.of(keys, connector, upstreams, parameters))
            .collect();
        let providers = snapshot.providers.iter();
        let servers = snapshot.servers.iter();
        let ext_authz = snapshot.ext_authz.iter();
        Self {
            ext_authz: ext_authz
                .map(|e| upstreams.of(connector, &e.endpoint, private))
                .collect(),
            providers: providers
                .map(|p| upstreams.of(connector, &p.endpoint, private))
                .collect(),
            servers: servers
                .map(|s| upstreams.of(connector, &s.endpoint, private))
                .collect(),
            keys,
            snapshot,
        }
    }

    /// The keys of a place of this snapshot.
    pub(crate) fn keys(&self, keys: &JwtKeys) -> Option<&Keys> {
        let mut places = places(&self.snapshot).zip(&self.keys);
        let (_, found) = places.find(|(place, _)| std::ptr::eq(*place, keys))?;
        Some(found)
    }

    /// An external authorizer and its connections.
    pub(crate) fn ext_authz(&self, index: usize) -> Option<(&ExtAuthz, &Arc<Upstream>)> {
        Some((
            self.snapshot.ext_authz.get(index)?,
            self.ext_authz.get(index)?,
        ))
    }

    /// A provider and its connections.
    pub(crate) fn provider(&self, id: ProviderId) -> Option<(&Provider, &Arc<Upstream>)> {
        let upstream = self.providers.get(usize::try_from(id.0).ok()?)?;
        Some((self.snapshot.provider(id)?, upstream))
    }

    /// An MCP destination and its connections.
    pub(crate) fn server(&self, id: ServerId) -> Option<(&Server, &Arc<Upstream>)> {
        let upstream = self.servers.get(usize::try_from(id.0).ok()?)?;
        Some((self.snapshot.server(id)?, upstream))
    }
}

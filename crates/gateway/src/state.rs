//! A snapshot with what the gateway holds beside it: one connection pool per upstream.

use std::sync::Arc;

use waypoint_config::{ExtAuthz, JwtKeys, JwtRule, Provider, Server, Snapshot};
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
    /// By policy, then by rule, as the snapshot has them.
    keys: Vec<Vec<Arc<Keys>>>,
}

impl State {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        connector: &Arc<Connector>,
        upstreams: &Upstreams,
        ring: &KeyRing,
    ) -> Self {
        let private = &snapshot.parameters.allow_private;
        let of = |rule: &JwtRule| {
            ring.of(&rule.keys, connector, |endpoint| {
                upstreams.of(connector, endpoint, private)
            })
        };
        let policies = snapshot.authentication.iter();
        let keys = policies
            .map(|policy| policy.rules.iter().map(of).collect())
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

    /// The keys of a rule of this snapshot.
    pub(crate) fn keys(&self, keys: &JwtKeys) -> Option<&Keys> {
        let policies = self.snapshot.authentication.iter().zip(&self.keys);
        let mut rules = policies.flat_map(|(policy, keys)| policy.rules.iter().zip(keys));
        let (_, found) = rules.find(|(rule, _)| std::ptr::eq(&rule.keys, keys))?;
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

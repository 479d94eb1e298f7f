//! A snapshot with what the gateway holds beside it: one connection pool per upstream.

use std::sync::Arc;

use waypoint_config::{Provider, Server, Snapshot};
use waypoint_policy::{ProviderId, ServerId};

use crate::exchange::{Connector, Upstream, Upstreams};

/// What a request works with from its start to its end.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) snapshot: Arc<Snapshot>,
    providers: Vec<Arc<Upstream>>,
    servers: Vec<Arc<Upstream>>,
}

impl State {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        connector: &Connector,
        upstreams: &Upstreams,
    ) -> Self {
        let private = &snapshot.parameters.allow_private;
        let providers = snapshot.providers.iter();
        let servers = snapshot.servers.iter();
        Self {
            providers: providers
                .map(|p| upstreams.of(connector, &p.endpoint, private))
                .collect(),
            servers: servers
                .map(|s| upstreams.of(connector, &s.endpoint, private))
                .collect(),
            snapshot,
        }
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

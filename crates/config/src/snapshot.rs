//! One immutable configuration in force: everything a request may ask, with names resolved.

mod listener;
mod parameters;
mod routing;
mod store;
mod upstream;

use std::sync::Arc;

use smallvec::SmallVec;
pub use waypoint_mcp::Denial;
use waypoint_policy::istio::{CustomCall, Request, Verdict};
use waypoint_policy::{ObjectName, PolicySet, ProviderId, RuleName, ServerId, TargetId};

use crate::ext_authz::ExtAuthz;
use crate::istio_targets::IstioTargets;
use crate::jwt::RequestAuthentication;
use crate::route::RouteTable;
pub use listener::{ClientCertificate, Listener, Protocol, ServerTls};
pub use parameters::{Audit, AuditFile, IdentityFiles, Limits, Parameters};
pub use routing::{
    Filter, HeaderChanges, LlmRoute, McpRoute, McpTimeouts, PathMatch, PathRewrite, PlainBackend,
    PlainMatch, PlainRoute, Redirect, Rewrite, Route,
};
pub use store::LimitStore;
pub use upstream::{Address, Credential, Endpoint, Provider, Server, UpstreamTls};

/// What a waypoint works with between two changes of its configuration.
///
/// A request takes one `Arc<Snapshot>` at its start and keeps it to its end.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up from 1 as snapshots are published; 0 until then.
    pub generation: u64,
    /// The `Gateway` this was compiled for.
    pub gateway: ObjectName,
    /// The Gateway as a place policies are attached to; `None` when there are none.
    pub gateway_target: Option<TargetId>,
    /// What Istio's policies for a request are attached to.
    pub istio: IstioTargets,
    /// Which tokens are verified, by name.
    pub authentication: Vec<RequestAuthentication>,
    /// Settings of the waypoint as a whole.
    pub parameters: Parameters,
    /// The listeners that are served, in the order they were written.
    pub listeners: Vec<Listener>,
    /// Who may do what.
    pub policy: PolicySet,
    /// Whom `CUSTOM` policies ask, by name.
    pub ext_authz: Vec<ExtAuthz>,
    /// LLM providers; [`ProviderId`] is the index.
    pub providers: Vec<Provider>,
    /// MCP destinations, one per distinct destination; [`ServerId`] is the index.
    pub servers: Vec<Server>,
    /// Which request goes where.
    pub routes: RouteTable,
}

impl Snapshot {
    /// The provider with this id; ids come from the same snapshot.
    #[must_use]
    pub fn provider(&self, id: ProviderId) -> Option<&Provider> {
        self.providers.get(usize::try_from(id.0).ok()?)
    }

    /// The MCP destination with this id; ids come from the same snapshot.
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(usize::try_from(id.0).ok()?)
    }

    /// The hosts that a route may forward to, each once: what a request through it is addressed to.
    #[must_use]
    pub fn hosts_behind(&self, route: &Route) -> SmallVec<[Arc<str>; 2]> {
        let mut hosts: SmallVec<[Arc<str>; 2]> = SmallVec::new();
        let mut add = |endpoint: &Endpoint| {
            if !hosts.contains(&endpoint.host) {
                hosts.push(Arc::clone(&endpoint.host));
            }
        };
        match route {
            Route::Plain(route) => {
                let live = route.backends.iter().filter(|backend| backend.weight > 0);
                live.for_each(|backend| add(&backend.endpoint));
            }
            Route::Mcp(route) => {
                if let Some(server) = self.server(route.server) {
                    add(&server.endpoint);
                }
            }
            Route::Llm(route) => {
                let backends = route.rules.iter().flat_map(|rule| &rule.backends);
                let live = backends.filter(|backend| backend.weight > 0);
                let providers = live.filter_map(|backend| self.provider(backend.provider));
                providers.for_each(|provider| add(&provider.endpoint));
            }
        }
        hosts
    }

    /// Judges a request by Istio's policies, for each of the hosts that it may be forwarded to: it
    /// may go on only if it may go to all of them.
    ///
    /// The host that the caller named is asked about as well: what a Service denies is denied under
    /// its name too. It never grants anything, or a caller could borrow another Service's ALLOW. A
    /// name that leads to nothing of its own, such as the waypoint's, adds nothing: what holds for
    /// all requests has been asked with each host.
    pub fn authorize(&self, request: &Request<'_>, hosts: &[Arc<str>], named: &str) -> Verdict {
        let mut first: Option<Verdict> = None;
        let mut asked: SmallVec<[SmallVec<[TargetId; 4]>; 2]> = SmallVec::new();
        for host in asked_about(hosts) {
            let targets = self.istio.of(host);
            if asked.contains(&targets) {
                continue;
            }
            let verdict = self.policy.authorize(request, &targets);
            if verdict.denied().is_some() {
                return verdict;
            }
            first.get_or_insert(verdict);
            asked.push(targets);
        }
        let own = self.istio.of(named);
        let within = |asked: &SmallVec<[TargetId; 4]>| own.iter().all(|own| asked.contains(own));
        if !asked.iter().any(within) {
            let verdict = self.policy.authorize(request, &own);
            if verdict.denied().is_some() {
                return verdict;
            }
        }
        first.unwrap_or_default()
    }

    /// Which external authorizers have to be asked about a request before it is judged; as
    /// [`Self::authorize`] goes over the hosts, so that no answer is missing there.
    #[must_use]
    pub fn custom(
        &self,
        request: &Request<'_>,
        hosts: &[Arc<str>],
        named: &str,
    ) -> SmallVec<[CustomCall; 1]> {
        let mut calls: SmallVec<[CustomCall; 1]> = SmallVec::new();
        for host in asked_about(hosts).chain([named]) {
            for call in self.policy.custom(request, &self.istio.of(host)) {
                if calls.iter().all(|known| known.provider != call.provider) {
                    calls.push(call);
                }
            }
        }
        calls
    }

    /// The rules of Istio's policies that match a request and decide nothing, each once.
    #[must_use]
    pub fn marked(
        &self,
        request: &Request<'_>,
        hosts: &[Arc<str>],
        named: &str,
    ) -> Vec<Arc<RuleName>> {
        let mut marked: Vec<Arc<RuleName>> = Vec::new();
        for host in asked_about(hosts).chain([named]) {
            for rule in self.policy.marked(request, &self.istio.of(host)) {
                if !marked.iter().any(|known| Arc::ptr_eq(known, &rule)) {
                    marked.push(rule);
                }
            }
        }
        marked
    }

    /// The external authorizer of this name.
    #[must_use]
    pub fn ext_authz(&self, name: &str) -> Option<usize> {
        self.ext_authz.iter().position(|known| &*known.name == name)
    }

    /// The provider of this name. Linear; for commands, not for requests.
    #[must_use]
    pub fn provider_by_name(&self, name: &ObjectName) -> Option<&Provider> {
        self.providers.iter().find(|p| p.llm.name == *name)
    }

    /// The MCP route `(proxy, section)`. Linear; for commands, not for requests.
    #[must_use]
    pub fn mcp_route(&self, proxy: &ObjectName, section: &str) -> Option<&McpRoute> {
        self.routes.iter().find_map(|route| match route {
            Route::Mcp(r) if r.name == *proxy && &*r.section == section => Some(r),
            _ => None,
        })
    }
}

/// The hosts that a request is judged for: where none is behind its route, what holds for all.
fn asked_about(hosts: &[Arc<str>]) -> impl Iterator<Item = &str> {
    let none = hosts.is_empty().then_some("");
    hosts.iter().map(|host| &**host).chain(none)
}

//! One immutable configuration in force: everything a request may ask, with names resolved.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use smallvec::SmallVec;
use waypoint_llm as llm;
pub use waypoint_mcp::Denial;
use waypoint_policy::istio::{CustomCall, Request, Verdict};
use waypoint_policy::{
    ObjectName, PolicySet, ProviderId, RuleName, Secret, ServerId, SpiffeId, TargetId,
};

use crate::ext_authz::ExtAuthz;
use crate::istio_targets::IstioTargets;
use crate::jwt::{RequestAuthentication, TokenPrincipal};
use crate::path::PathNormalization;
use crate::route::RouteTable;

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
        let behind = hosts.iter().map(|host| &**host);
        let none = hosts.is_empty().then_some("");
        let mut first: Option<Verdict> = None;
        let mut asked: SmallVec<[SmallVec<[TargetId; 4]>; 2]> = SmallVec::new();
        for host in behind.chain(none) {
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
        let behind = hosts.iter().map(|host| &**host);
        let none = hosts.is_empty().then_some("");
        for host in behind.chain(none).chain([named]) {
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
        let behind = hosts.iter().map(|host| &**host);
        let none = hosts.is_empty().then_some("");
        for host in behind.chain(none).chain([named]) {
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

/// Settings of a waypoint (`WaypointParameters`, and mesh facts of the `istio` ConfigMap).
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Own trust domain first, then its aliases.
    pub trust_domains: Vec<String>,
    /// Private ranges that providers and external hosts may resolve to. Services are exempt.
    pub allow_private: Vec<IpNet>,
    /// Where audit events go.
    pub audit: Audit,
    /// Bounds on what strangers may make us hold.
    pub limits: Limits,
    /// How long streams may finish after shutdown was asked for.
    pub drain: Duration,
    /// What is made of a plain request's path before it is matched and forwarded.
    pub path_normalization: PathNormalization,
    /// What follows `.svc.` in the DNS names of Services.
    pub dns_suffix: String,
    /// Our own certificate, when it comes from files.
    pub identity: Option<IdentityFiles>,
}

/// Where audit events go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// One line each on standard output.
    pub stdout: bool,
    /// One line each in a file.
    pub file: Option<AuditFile>,
}

/// An audit file that is rotated by size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFile {
    /// The file to append to.
    pub path: PathBuf,
    /// The size at which a new file is begun, in bytes.
    pub max_size_bytes: u64,
}

/// Our own certificate, as files that are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
    /// PEM roots that sign our peers.
    pub trust_bundle: PathBuf,
}

/// Bounds on what strangers may make us hold; sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open downstream connections.
    pub connections: usize,
    /// Request head.
    pub header_bytes: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Body of an LLM request.
    pub llm_body_bytes: usize,
    /// Body of an MCP request.
    pub mcp_body_bytes: usize,
    /// One server-sent event.
    pub sse_event_bytes: usize,
    /// A plain JSON answer, where it has to be held whole.
    pub answer_bytes: usize,
    /// TLS handshake of a caller.
    pub handshake_timeout: Duration,
    /// A kept connection without a request.
    pub idle_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            llm_body_bytes: 32 << 20,
            mcp_body_bytes: 4 << 20,
            sse_event_bytes: 16 << 20,
            answer_bytes: 64 << 20,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
        }
    }
}

/// An address we accept on, with its protocol.
#[derive(Debug)]
pub struct Listener {
    /// The listener's name in the Gateway.
    pub name: Arc<str>,
    /// Addresses to bind; empty means all.
    pub addresses: Vec<IpAddr>,
    /// Port to bind.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Only requests for this host are served; lower case, may begin with `*.`.
    pub hostname: Option<Arc<str>>,
    /// Our certificate and what we ask of callers; present exactly for [`Protocol::Https`].
    pub tls: Option<ServerTls>,
    /// Who everyone on this listener is taken to be; loopback addresses only.
    pub developer: Option<SpiffeId>,
    /// Tokens by which callers may say who they are; none where there are certificates or a
    /// developer identity.
    pub tokens: Vec<Arc<TokenPrincipal>>,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in clear.
    Http,
    /// HTTP over TLS.
    Https,
}

/// The server side of TLS.
#[derive(Debug)]
pub struct ServerTls {
    /// PEM chain, leaf first.
    pub certificate_pem: String,
    /// PEM private key.
    pub private_key_pem: Secret<String>,
    /// What is asked of callers.
    pub client: ClientCertificate,
}

/// Whether callers show a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Not asked for; every caller is anonymous.
    Off,
    /// Asked for and checked when shown.
    Optional {
        /// PEM roots that may sign it.
        roots_pem: String,
    },
    /// No connection without one.
    Required {
        /// PEM roots that may sign it.
        roots_pem: String,
    },
}

/// An LLM provider, where it is and whose key is used.
#[derive(Debug)]
pub struct Provider {
    /// What the LLM pipeline needs of it.
    pub llm: llm::Provider,
    /// The provider as a place policies are attached to.
    pub target: Option<TargetId>,
    /// Where requests go.
    pub endpoint: Endpoint,
    /// With whose key.
    pub credential: Credential,
}

/// An MCP destination.
#[derive(Debug)]
pub struct Server {
    /// Its index in [`Snapshot::servers`].
    pub id: ServerId,
    /// `namespace/proxy/route` of the first route that names it.
    pub label: Arc<str>,
    /// Where requests go.
    pub endpoint: Endpoint,
    /// The path of the MCP endpoint there, beginning with `/`.
    pub path: String,
}

/// Where to connect, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// TLS to the upstream; `None` is clear text.
    pub tls: Option<UpstreamTls>,
    /// What is sent as `Host`, without port.
    pub host: Arc<str>,
    /// Port to connect to when [`Address::Dns`]; part of `Host` when not the scheme's default.
    pub port: u16,
    /// Goes before every path; empty or `/…` without a trailing slash.
    pub prefix: String,
    /// The addresses, or the name to look up.
    pub address: Address,
    /// Whether private addresses are fine: true for Services and what `allowPrivateEndpoints`
    /// let pass. When false, resolved addresses are checked against
    /// [`Parameters::allow_private`] by [`Parameters::may_connect`].
    pub private: bool,
    /// HTTP/2 with prior knowledge (`appProtocol: kubernetes.io/h2c`).
    pub http2: bool,
}

/// TLS to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// The name in SNI that the certificate must carry.
    pub hostname: String,
    /// PEM roots; `None` is the public set.
    pub roots_pem: Option<String>,
}

/// The addresses of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name to look up when connecting.
    Dns(String),
    /// Known addresses; never empty.
    Fixed(Vec<SocketAddr>),
}

/// What is shown to an upstream.
#[derive(Debug)]
pub enum Credential {
    /// Nothing; the caller's own is removed.
    None,
    /// The caller's own.
    Passthrough,
    /// A value from a Secret.
    Inline(Secret<String>),
    /// The value of an environment variable of the gateway.
    Env(String),
    /// The content of a file, read again when it changes.
    File(PathBuf),
}

/// What is done with a request.
#[derive(Debug)]
pub enum Route {
    /// To LLM providers.
    Llm(LlmRoute),
    /// To an MCP server.
    Mcp(McpRoute),
    /// Forwarded as it is.
    Plain(PlainRoute),
}

/// A route to LLM providers.
#[derive(Debug)]
pub struct LlmRoute {
    /// The `LLMRoute`, or the `gateway.solo.io` Gateway it was imported from.
    pub name: ObjectName,
    /// As audit events and metrics name it: `LLMRoute/namespace/name`.
    pub label: Arc<str>,
    /// The Gateway and the route, where policies are attached to them.
    pub targets: Vec<TargetId>,
    /// What is taken off the path before the provider's API begins: `/`, or `/…` without a
    /// trailing slash.
    pub prefix: String,
    /// The first that matches the requested model.
    pub rules: Vec<llm::Rule>,
    /// Callers use the provider's own host name.
    pub host_form: bool,
}

/// A route to an MCP server.
#[derive(Debug)]
pub struct McpRoute {
    /// The `MCPProxy`.
    pub name: ObjectName,
    /// As audit events and metrics name it: `MCPProxy/namespace/name/route`.
    pub label: Arc<str>,
    /// The name of the route in it.
    pub section: Arc<str>,
    /// The Gateway, the MCPProxy and this route of it, where policies are attached to them.
    pub targets: Vec<TargetId>,
    /// The prefix as written, without a trailing slash.
    pub prefix: String,
    /// Where it goes.
    pub server: ServerId,
    /// What is shown there; the caller's own never passes.
    pub credential: Credential,
    /// How long we wait.
    pub timeouts: McpTimeouts,
    /// How a denied tool looks to the caller.
    pub denial: Denial,
}

/// How long an MCP call may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpTimeouts {
    /// To the head of the answer, and to the end of a plain one.
    pub request: Duration,
    /// To a connection.
    pub connect: Duration,
    /// Between two pieces of a stream.
    pub stream_idle: Duration,
}

impl Default for McpTimeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            stream_idle: Duration::from_secs(600),
        }
    }
}

/// One match of one rule of an `HTTPRoute`.
#[derive(Debug)]
pub struct PlainRoute {
    /// The `HTTPRoute`.
    pub name: ObjectName,
    /// As audit events and metrics name it: `HTTPRoute/namespace/name`.
    pub label: Arc<str>,
    /// Index of the rule in it.
    pub rule: usize,
    /// The Gateway and the route, where policies are attached to them.
    pub targets: Vec<TargetId>,
    /// The match that leads here.
    pub matched: PlainMatch,
    /// What is changed on the way, in order.
    pub filters: Arc<[Filter]>,
    /// Where it goes; empty with a redirect, or when every weight is 0 (answer 500, Gateway API).
    pub backends: Arc<[PlainBackend]>,
    /// From the request's head to the end of the answer; `None` is no limit.
    pub request_timeout: Option<Duration>,
}

/// What a request must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainMatch {
    /// The path.
    pub path: PathMatch,
    /// Upper-case method; `None` is any.
    pub method: Option<String>,
    /// Lower-case name and exact value; all must be there.
    pub headers: Vec<(String, String)>,
}

/// How a path is matched, on the normalized path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Segment by segment; `/`, or `/…` without a trailing slash.
    Prefix(String),
    /// The whole path.
    Exact(String),
}

/// A backend of an `HTTPRoute`.
#[derive(Debug, Clone)]
pub struct PlainBackend {
    /// The Service (`namespace/name`) or external host.
    pub name: ObjectName,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Share of the requests; never 0.
    pub weight: u32,
    /// Outside the cluster (a `ServiceEntry`).
    pub external: bool,
}

/// A change to a request or an answer (Gateway API `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Headers of the request.
    RequestHeaders(HeaderChanges),
    /// Headers of the answer.
    ResponseHeaders(HeaderChanges),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Send another host or path upstream.
    Rewrite(Rewrite),
}

/// Header changes; names are lower case. Removed first, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// Replaced.
    pub set: Vec<(String, String)>,
    /// Added.
    pub add: Vec<(String, String)>,
    /// Removed.
    pub remove: Vec<String>,
}

/// A redirect (Gateway API `HTTPRequestRedirectFilter`); absent fields stay as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathRewrite>,
    /// 301 or 302.
    pub status: u16,
}

/// A rewrite (Gateway API `HTTPURLRewriteFilter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The `Host` to send.
    pub hostname: Option<String>,
    /// The path to send.
    pub path: Option<PathRewrite>,
}

/// A new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// In place of the matched prefix.
    Prefix(String),
}

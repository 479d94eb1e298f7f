//! The objects of a test's configuration, as YAML.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::certificates::{Authority, Identity};
use crate::clients::Running;
use crate::ports;
use crate::upstream::Upstream;

/// What stands behind a gateway.
pub trait Backend {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
}

impl Backend for Upstream {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Backend for Running {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl<T: Backend> Backend for Arc<T> {
    fn address(&self) -> SocketAddr {
        T::address(self)
    }
}

/// Where a gateway listens, on loopback.
#[derive(Debug, Clone)]
pub struct Ports {
    /// HTTP, developer identity.
    pub dev: u16,
    /// HTTP, no identity.
    pub plain: u16,
    /// HTTPS, client certificate required.
    pub mtls: u16,
    /// HTTPS, client certificate optional.
    pub optional: u16,
    /// HBONE, where there is such a listener.
    pub hbone: u16,
    /// Admin.
    pub admin: u16,
    /// Metrics.
    pub metrics: u16,
    /// Readiness.
    pub ready: u16,
}

impl Ports {
    /// Free ones.
    #[must_use]
    pub fn take() -> Self {
        Self {
            dev: ports::free(),
            plain: ports::free(),
            mtls: ports::free(),
            optional: ports::free(),
            hbone: ports::free(),
            admin: ports::free(),
            metrics: ports::free(),
            ready: ports::free(),
        }
    }
}

/// What the base of every configuration is made of.
pub(super) struct Base<'a> {
    pub(super) ports: &'a Ports,
    pub(super) authority: &'a Authority,
    pub(super) server: &'a Identity,
    pub(super) audit: &'a Path,
    pub(super) parameters: &'a str,
    pub(super) limits: &'a str,
    /// Where the files of the waypoint's own certificate are, if it has one and serves HBONE.
    pub(super) identity: Option<&'a Path>,
}

/// Gateway `agents/wp`, its parameters and its certificates.
pub(super) fn base(base: &Base<'_>) -> String {
    let Ports {
        dev,
        plain,
        mtls,
        optional,
        ..
    } = base.ports;
    let audit = base.audit.display();
    let parameters = indent(base.parameters, 2);
    let limits = match base.limits {
        "" => String::new(),
        limits => format!("  limits:\n{}", indent(limits, 4)),
    };
    let (mut hbone, mut identity) = (String::new(), String::new());
    if let Some(files) = base.identity {
        let (files, port) = (files.display(), base.ports.hbone);
        hbone = format!("\n  - {{name: mesh, port: {port}, protocol: HBONE}}");
        identity = format!(
            "\n  identity: {{files: {{certificate: \"{files}/tls.crt\", privateKey: \"{files}/tls.key\", \
             trustBundle: \"{files}/root.crt\"}}}}"
        );
    }
    let roots = indent(&base.authority.pem, 4);
    let certificate = indent(&base.server.certificate_pem, 4);
    let key = indent(&base.server.key_pem, 4);
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: wp, namespace: agents}}
spec:
  gatewayClassName: kgateway-waypoint
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  infrastructure:
    parametersRef: {{group: waypoint.kgateway.io, kind: WaypointParameters, name: wp}}
  listeners:
  - {{name: dev, port: {dev}, protocol: HTTP}}
  - {{name: plain, port: {plain}, protocol: HTTP}}
  - {{name: mtls, port: {mtls}, protocol: HTTPS, tls: {{certificateRefs: [{{name: server}}]}}}}
  - {{name: optional, port: {optional}, protocol: HTTPS, tls: {{certificateRefs: [{{name: server}}]}}}}{hbone}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: WaypointParameters
metadata: {{name: wp, namespace: agents}}
spec:
  listeners:
    dev: {{principal: \"spiffe://cluster.local/ns/agents/sa/dev\"}}
    mtls: {{clientCertificate: {{mode: Required, caCertificateRefs: [{{name: roots}}]}}}}
    optional: {{clientCertificate: {{mode: Optional, caCertificateRefs: [{{name: roots}}]}}}}
  allowPrivateEndpoints: [127.0.0.0/8]
  audit: {{file: {{path: \"{audit}\"}}}}{identity}
{parameters}{limits}---
apiVersion: v1
kind: Secret
metadata: {{name: roots, namespace: agents}}
stringData:
  ca.crt: |
{roots}---
apiVersion: v1
kind: Secret
metadata: {{name: server, namespace: agents}}
stringData:
  tls.crt: |
{certificate}  tls.key: |
{key}"
    )
}

fn indent(text: &str, by: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let _ = writeln!(out, "{:by$}{line}", "");
    }
    out
}

/// Any object of the namespace `agents`; `spec` is YAML without indentation.
#[must_use]
pub fn object(api: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: agents}}\nspec:\n{}---\n",
        indent(spec, 2)
    )
}

const OURS: &str = "waypoint.kgateway.io/v1alpha1";

/// An `LLMProvider` at an upstream; `more` are further fields of its spec.
#[must_use]
pub fn provider(name: &str, dialect: &str, upstream: &impl Backend, more: &str) -> String {
    let endpoint = format!("http://{}", upstream.address());
    provider_at(name, dialect, &endpoint, more)
}

/// An `LLMProvider` at a URL; `more` are further fields of its spec.
#[must_use]
pub fn provider_at(name: &str, dialect: &str, endpoint: &str, more: &str) -> String {
    let spec = format!("dialect: {dialect}\nendpoint: {endpoint}\n{more}");
    object(OURS, "LLMProvider", name, &spec)
}

/// An `LLMRoute` under `/ai`; `rules` is the YAML list of its rules.
#[must_use]
pub fn route(name: &str, rules: &str) -> String {
    let spec = format!("pathPrefix: /ai\nrules:\n{rules}");
    object(OURS, "LLMRoute", name, &spec)
}

/// A `Secret` with one key, `key`.
#[must_use]
pub fn secret(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: agents}}\nstringData: {{key: \"{value}\"}}\n---\n"
    )
}

/// A `Secret` with the certificate of an authority.
#[must_use]
pub fn roots(name: &str, authority: &Authority) -> String {
    let pem = indent(&authority.pem, 4);
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: agents}}\nstringData:\n  ca.crt: |\n{pem}---\n"
    )
}

/// A `Service` whose only endpoint is an upstream; `protocol` is its `appProtocol`.
#[must_use]
pub fn service(name: &str, upstream: &impl Backend, protocol: &str) -> String {
    let address = upstream.address();
    let (ip, port) = (address.ip(), address.port());
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: agents}}
spec: {{clusterIP: None, ports: [{{name: http, port: 80, targetPort: {port}, appProtocol: {protocol}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: agents, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [\"{ip}\"]}}]
ports: [{{name: http, port: {port}}}]
---
"
    )
}

/// An `HTTPRoute` of all listeners; `spec` are its hostnames and rules.
#[must_use]
pub fn http_route(name: &str, spec: &str) -> String {
    let spec = format!("parentRefs: [{{name: wp}}]\n{spec}");
    object("gateway.networking.k8s.io/v1", "HTTPRoute", name, &spec)
}

/// An `MCPProxy` whose route of the same name under `/mcp/NAME/` leads to an upstream; `more` are
/// further fields of the route.
#[must_use]
pub fn mcp_proxy(name: &str, upstream: &impl Backend, more: &str) -> String {
    let spec = format!(
        "routes:\n- name: {name}\n  match: {{prefix: /mcp/{name}/}}\n  destination: {{service: {name}, port: 80, path: /server}}\n{}",
        indent(more, 2)
    );
    let proxy = object("mcp.kgateway.io/v1", "MCPProxy", name, &spec);
    proxy + &service(name, upstream, "http")
}

/// An `AgentPolicy` on the Gateway; `action` is `Allow` or `Deny`, `rules` the YAML list.
#[must_use]
pub fn agent(name: &str, action: &str, rules: &str) -> String {
    let rules = if rules.is_empty() { "  []" } else { rules };
    let spec = format!(
        "targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: wp}}]\naction: {action}\nrules:\n{rules}"
    );
    object(OURS, "AgentPolicy", name, &spec)
}

/// A `UsageLimit` on the Gateway; `more` are the fields of its spec beside the target.
#[must_use]
pub fn usage_limit(name: &str, more: &str) -> String {
    let spec = format!(
        "targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: wp}}]\n{more}"
    );
    object(OURS, "UsageLimit", name, &spec)
}

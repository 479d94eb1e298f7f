//! From what was written to where to connect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use url::{Host, Url};
use waypoint_policy::ObjectName;

use super::set::{Decoded, Set};
use crate::address::is_private;
use crate::object::{At, Diagnostics};
use crate::raw::core::Service;
use crate::snapshot::{Address, Endpoint, Parameters, UpstreamTls};

/// TLS as it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsChoice {
    pub(super) hostname: Option<String>,
    pub(super) roots_pem: Option<String>,
}

impl TlsChoice {
    fn upstream(self, host: &str) -> UpstreamTls {
        UpstreamTls {
            hostname: self.hostname.unwrap_or_else(|| host.to_owned()),
            roots_pem: self.roots_pem,
        }
    }
}

/// Why there is no connecting to what was written.
#[derive(Debug)]
pub(crate) struct Fault {
    code: &'static str,
    message: String,
}

/// Where `scheme://host[:port][/prefix]` is.
pub(super) fn of_url(
    text: &str,
    tls: Option<TlsChoice>,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Endpoint> {
    reported(url(text, tls, parameters), at, out)
}

/// Where a host is that may be anywhere.
pub(super) fn of_host(
    host: &str,
    port: u16,
    tls: Option<TlsChoice>,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Endpoint> {
    reported(anywhere(host, port, tls, parameters), at, out)
}

fn reported<T>(found: Result<T, Fault>, at: At<'_>, out: &mut Diagnostics) -> Option<T> {
    found
        .map_err(|fault| out.error(at, fault.code, fault.message))
        .ok()
}

fn url(text: &str, tls: Option<TlsChoice>, parameters: &Parameters) -> Result<Endpoint, Fault> {
    let bad = |why: &str| Fault {
        code: "bad-endpoint",
        message: format!("`{text}` is not `http(s)://host[:port][/prefix]`: {why}"),
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials belong in `credential`"));
    }
    if url.query().is_some() {
        return Err(bad("it must end with the path"));
    }
    let path = crate::normalize_path(url.path()).map_err(|error| bad(&error.to_string()))?;
    Ok(Endpoint {
        prefix: path.trim_end_matches('/').to_owned(),
        ..origin(&url, tls, parameters, bad)?
    })
}

/// Where a document on the web is, and what is asked for there.
pub(crate) fn document(
    text: &str,
    roots_pem: Option<String>,
    parameters: &Parameters,
) -> Result<(Endpoint, String), Fault> {
    let bad = |why: &str| Fault {
        code: "bad-endpoint",
        message: format!("`{text}` is not `http(s)://host[:port]/path`: {why}"),
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    let tls = roots_pem.map(|roots_pem| TlsChoice {
        roots_pem: Some(roots_pem),
        hostname: None,
    });
    let endpoint = origin(&url, tls, parameters, bad)?;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Ok((endpoint, target))
}

/// The same, with mistakes reported.
pub(super) fn of_document(
    text: &str,
    roots_pem: Option<String>,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<(Endpoint, String)> {
    reported(document(text, roots_pem, parameters), at, out)
}

/// Where the host of a URL is.
fn origin(
    url: &Url,
    tls: Option<TlsChoice>,
    parameters: &Parameters,
    bad: impl Fn(&str) -> Fault,
) -> Result<Endpoint, Fault> {
    let https = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(bad("the scheme must be http or https")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials do not belong into it"));
    }
    if url.fragment().is_some() {
        return Err(bad("it must not have a fragment"));
    }
    if tls.is_some() && !https {
        return Err(bad("roots and `tls` need https"));
    }
    let Some(port) = url.port_or_known_default().filter(|port| *port > 0) else {
        return Err(bad("the port must be 1 to 65535"));
    };
    let host = match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => return Err(bad("there is no host")),
    };
    let tls = https.then(|| tls.unwrap_or_default());
    anywhere(&host, port, tls, parameters)
}

fn anywhere(
    host: &str,
    port: u16,
    tls: Option<TlsChoice>,
    parameters: &Parameters,
) -> Result<Endpoint, Fault> {
    let literal = host.parse::<IpAddr>().ok();
    let (address, private) = match literal {
        Some(ip) => {
            let private = private_literal(ip, &parameters.allow_private)?;
            (Address::Fixed(vec![SocketAddr::new(ip, port)]), private)
        }
        // The cluster's own names are Services, which are exempt.
        None => (
            Address::Dns(host.to_owned()),
            service_of(host, &parameters.dns_suffix).is_some(),
        ),
    };
    let authority = match literal {
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    Ok(Endpoint {
        tls: tls.map(|tls| tls.upstream(host)),
        host: authority.into(),
        port,
        prefix: String::new(),
        address,
        private,
        http2: false,
    })
}

/// Whether a literal address is a private one that is allowed.
fn private_literal(ip: IpAddr, allowed: &[IpNet]) -> Result<bool, Fault> {
    if !is_private(ip) {
        return Ok(false);
    }
    if allowed.iter().any(|net| net.contains(&ip)) {
        return Ok(true);
    }
    Err(Fault {
        code: "private-endpoint",
        message: format!(
            "{ip} is a private address; name it in `allowPrivateEndpoints` of the \
             WaypointParameters if requests may go there"
        ),
    })
}

/// The Service a cluster DNS name belongs to: `(namespace, service)`.
pub(super) fn service_of<'h>(host: &'h str, suffix: &str) -> Option<(&'h str, &'h str)> {
    let bare = match host
        .strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
    {
        Some(bare) => bare,
        None => host,
    };
    let mut labels = bare.strip_suffix(".svc")?.split('.');
    let (service, namespace) = (labels.next()?, labels.next()?);
    labels.next().is_none().then_some((namespace, service))
}

/// Where a port of a Service is. The Service need not be known: then its DNS name is asked.
pub(super) fn of_service(
    set: &Set<'_>,
    name: &ObjectName,
    port: u16,
    tls: Option<TlsChoice>,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Endpoint> {
    let host = format!(
        "{}.{}.svc.{}",
        name.name, name.namespace, parameters.dns_suffix
    );
    let unknown = Endpoint {
        tls: tls.clone().map(|tls| tls.upstream(&host)),
        host: host.as_str().into(),
        port,
        prefix: String::new(),
        address: Address::Dns(host.clone()),
        private: true,
        http2: false,
    };
    let Some(service) = set.services.get(name) else {
        return Some(unknown);
    };
    if service.raw.kind.as_deref() == Some("ExternalName") {
        let Some(external) = service
            .raw
            .external_name
            .as_deref()
            .filter(|n| !n.is_empty())
        else {
            out.error(
                service.object.spec(),
                "missing-field",
                "`spec.externalName` is missing",
            );
            return None;
        };
        let external = external.trim_end_matches('.').to_ascii_lowercase();
        return of_host(&external, port, tls, parameters, at, out);
    }
    let Some(service_port) = service.raw.ports.iter().find(|p| {
        p.port == port
            && p.protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP")
    }) else {
        let known: Vec<String> = service
            .raw
            .ports
            .iter()
            .map(|p| p.port.to_string())
            .collect();
        let message = format!(
            "Service {name} has no port {port}; it has {}",
            known.join(", ")
        );
        out.error(at, "missing-reference", message);
        return None;
    };
    let (addresses, app_protocol) = ready(set, name, service_port.name.as_deref());
    let http2 = [
        service_port.app_protocol.as_deref(),
        app_protocol.as_deref(),
    ]
    .contains(&Some("kubernetes.io/h2c"));
    let address = if !addresses.is_empty() {
        Address::Fixed(addresses)
    } else if let Some(ip) = cluster_ip(service) {
        Address::Fixed(vec![SocketAddr::new(ip, port)])
    } else {
        Address::Dns(host)
    };
    // A headless Service's name gives its pods, which listen on the target port.
    let headless = service.raw.cluster_ip.as_deref() == Some("None");
    let target = service_port
        .target_port
        .as_ref()
        .and_then(|port| port.0.parse().ok());
    let port = match address {
        Address::Dns(_) if headless => target.unwrap_or(port),
        _ => port,
    };
    Some(Endpoint {
        address,
        http2,
        port,
        ..unknown
    })
}

fn cluster_ip(service: &Decoded<'_, Service>) -> Option<IpAddr> {
    service.raw.cluster_ip.as_deref()?.parse().ok()
}

/// The ready endpoints of a Service's port, and its protocol as the slices have it.
fn ready(
    set: &Set<'_>,
    service: &ObjectName,
    port_name: Option<&str>,
) -> (Vec<SocketAddr>, Option<String>) {
    let key = (service.namespace.to_string(), service.name.to_string());
    let mut addresses = Vec::new();
    let mut app_protocol = None;
    for slice in set.slices_of.get(&key).into_iter().flatten() {
        let Some(slice) = set.slices.get(slice).map(|slice| &slice.raw) else {
            continue;
        };
        if slice.address_type.as_deref() == Some("FQDN") {
            continue;
        }
        let wanted = port_name.unwrap_or_default();
        let Some(port) = slice
            .ports
            .iter()
            .find(|port| port.name.as_deref().unwrap_or_default() == wanted)
        else {
            continue;
        };
        let Some(number) = port.port else { continue };
        app_protocol = app_protocol.or_else(|| port.app_protocol.clone());
        for endpoint in slice
            .endpoints
            .iter()
            .filter(|e| e.conditions.ready != Some(false))
        {
            // All addresses of an endpoint are the same pod: the first is enough.
            let first = endpoint
                .addresses
                .iter()
                .find_map(|address| address.parse::<IpAddr>().ok());
            addresses.extend(first.map(|ip| SocketAddr::new(ip, number)));
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    (addresses, app_protocol)
}

/// A host name as routes know it, or why it is none. `*.` may come first where a pattern is taken.
pub(super) fn host_name(text: &str, pattern: bool) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let name = match lower.strip_prefix("*.") {
        Some(rest) if pattern => rest,
        _ => &lower,
    };
    if crate::object::is_name(name) && name.parse::<IpAddr>().is_err() {
        return Ok(lower);
    }
    let wildcard = if pattern {
        ", which may begin with `*.`"
    } else {
        ""
    };
    Err(format!(
        "`{text}` is not a host name{wildcard}, without scheme, port and path"
    ))
}

/// Host names of a route; those that are none are reported.
pub(super) fn host_names(names: &[String], at: At<'_>, out: &mut Diagnostics) -> Vec<String> {
    let mut hosts = Vec::new();
    for (index, text) in names.iter().enumerate() {
        match host_name(text, true) {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(why) => out.error(at.index(index), "bad-hostname", why),
        }
    }
    hosts
}

/// A path prefix as routes know it: `/`, or `/…` without a trailing slash.
pub(super) fn prefix(text: &str, at: At<'_>, out: &mut Diagnostics) -> Option<String> {
    let problem = match crate::normalize_path(text) {
        Ok(normal) if normal == text => {
            let trimmed = text.trim_end_matches('/');
            return Some(if trimmed.is_empty() { "/" } else { trimmed }.to_owned());
        }
        Ok(normal) => format!("write it as `{normal}`"),
        Err(error) => error.to_string(),
    };
    out.error(
        at,
        "bad-path",
        format!("`{text}` is not a path prefix in normal form: {problem}"),
    );
    None
}

/// The name of an external host, as backends are named.
pub(super) fn external_name(namespace: &str, host: &Arc<str>) -> ObjectName {
    ObjectName {
        namespace: namespace.into(),
        name: host.clone(),
    }
}

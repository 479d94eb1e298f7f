//! Where a host of a `ServiceEntry` is.

use std::net::SocketAddr;

use super::endpoint::{self, TlsChoice};
use super::set::Decoded;
use crate::address::is_private;
use crate::object::{At, Diagnostics};
use crate::raw::istio;
use crate::snapshot::{Address, Endpoint, Parameters};

/// The endpoint, and whether it is outside the mesh.
pub(super) fn of_host(
    entry: &Decoded<'_, istio::ServiceEntry>,
    host: &str,
    port: u16,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<(Endpoint, bool)> {
    let host = match endpoint::host_name(host, false) {
        Ok(host) => host,
        Err(why) => {
            out.error(at, "bad-hostname", why);
            return None;
        }
    };
    let name = &entry.object.name;
    let Some(entry_port) = entry.raw.ports.iter().find(|p| p.number == port) else {
        out.error(
            at,
            "missing-reference",
            format!("ServiceEntry {name} has no port {port}"),
        );
        return None;
    };
    let external = entry.raw.location != Some(istio::Location::Internal);
    let protocol = entry_port
        .protocol
        .as_deref()
        .unwrap_or("HTTP")
        .to_ascii_uppercase();
    let tls = matches!(protocol.as_str(), "HTTPS" | "TLS").then(TlsChoice::default);
    let target = entry_port.target_port.unwrap_or(port);
    let base = endpoint::of_host(&host, target, tls, parameters, at, out)?;
    let address = addresses(entry, entry_port, parameters, at, out)?;
    let endpoint = Endpoint {
        address: address.unwrap_or(base.address.clone()),
        private: base.private || !external,
        http2: matches!(protocol.as_str(), "HTTP2" | "GRPC"),
        ..base
    };
    Some((endpoint, external))
}

/// The addresses a ServiceEntry gives; `Some(None)` when its host is to be looked up.
fn addresses(
    entry: &Decoded<'_, istio::ServiceEntry>,
    port: &istio::EntryPort,
    parameters: &Parameters,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Option<Address>> {
    let spec = entry.raw.endpoints.iter().enumerate();
    let port_of = |endpoint: &istio::EntryEndpoint| {
        let own = endpoint.ports.get(&port.name).copied();
        own.or(port.target_port).unwrap_or(port.number)
    };
    match entry.raw.resolution.unwrap_or(istio::Resolution::None) {
        istio::Resolution::Static => {
            let mut fixed = Vec::new();
            for (index, endpoint) in spec {
                let at = entry
                    .object
                    .spec()
                    .key("endpoints")
                    .index(index)
                    .key("address");
                let Ok(ip) = endpoint.address.parse() else {
                    let message = format!("`{}` is not an IP address", endpoint.address);
                    out.error(at, "bad-value", message);
                    continue;
                };
                let allowed = &parameters.allow_private;
                let external = entry.raw.location != Some(istio::Location::Internal);
                if external && is_private(ip) && !allowed.iter().any(|net| net.contains(&ip)) {
                    let message = format!(
                        "{ip} is a private address; name it in `allowPrivateEndpoints` of the \
                         WaypointParameters if requests may go there"
                    );
                    out.error(at, "private-endpoint", message);
                    continue;
                }
                fixed.push(SocketAddr::new(ip, port_of(endpoint)));
            }
            if entry.raw.endpoints.is_empty() {
                let message = format!(
                    "ServiceEntry {} is STATIC and has no endpoints",
                    entry.object.name
                );
                out.error(at, "bad-backend", message);
            }
            (!fixed.is_empty()).then_some(Some(Address::Fixed(fixed)))
        }
        istio::Resolution::Dns | istio::Resolution::DnsRoundRobin => {
            match entry.raw.endpoints.as_slice() {
                [] => Some(None),
                [one] if one.address.parse::<std::net::IpAddr>().is_err() => {
                    Some(Some(Address::Dns(one.address.to_ascii_lowercase())))
                }
                _ => {
                    let message = "a DNS entry is looked up by its host or by one endpoint's name";
                    out.error(
                        entry.object.spec().key("endpoints"),
                        "not-enforced",
                        message,
                    );
                    None
                }
            }
        }
        istio::Resolution::None | istio::Resolution::DynamicDns => {
            let message = format!(
                "ServiceEntry {} must have `resolution: DNS` or `STATIC` to be a backend",
                entry.object.name
            );
            out.error(at, "bad-backend", message);
            None
        }
    }
}

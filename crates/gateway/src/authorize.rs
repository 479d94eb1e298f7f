//! Istio's policies, asked about a request as it came.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use pingora_core::protocols::http::ServerSession;
use waypoint_config::Snapshot;
use waypoint_policy::Principal;
use waypoint_policy::istio::{Claims, Headers, Protocol, Request, Verdict, last_forwarded};

use crate::edge::Head;
use crate::proxy::Connection;

struct Fields<'a>(&'a HeaderMap);

impl Headers for Fields<'_> {
    fn any(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.0.get_all(name).iter().peekable();
        values.peek()?;
        Some(values.any(|value| found(value.as_bytes())))
    }
}

/// What Istio's policies in this snapshot say of a request that may go to these hosts; asked again
/// while its answer streams.
pub(crate) fn verdict(
    snapshot: &Snapshot,
    session: &ServerSession,
    connection: &Connection,
    principal: &Principal,
    head: &Head,
    claims: Option<&Claims>,
    hosts: &[Arc<str>],
) -> Verdict {
    if !snapshot.policy.has_istio() {
        return Verdict::default();
    }
    let headers = &session.req_header().headers;
    let peer = connection.peer.ip().to_canonical();
    let request = Request {
        protocol: Protocol::Http,
        principal,
        source_ip: Some(peer),
        remote_ip: Some(forwarded_for(headers).unwrap_or(peer)),
        destination_ip: Some(connection.local.ip().to_canonical()),
        port: connection.local.port(),
        sni: "",
        method: &head.method,
        host: &head.authority,
        path: &head.path,
        headers: &Fields(headers),
        claims,
    };
    snapshot.authorize(&request, hosts, head.host())
}

/// The last address of `X-Forwarded-For`, as an Istio waypoint takes it (`use_remote_address` is
/// off there): whoever is in the mesh can write one.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last_forwarded(last.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_last_address_counts() {
        for (values, expected) in [
            (&[][..], None),
            (&["10.0.0.1"], Some("10.0.0.1")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.2")),
            (&["10.0.0.1", "10.0.0.2 , 10.0.0.3"], Some("10.0.0.3")),
            (&["10.0.0.1:80"], Some("10.0.0.1")),
            (&["[::1]:80"], Some("::1")),
            (&["::ffff:10.0.0.1"], Some("10.0.0.1")),
            (&["10.0.0.1, unknown"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(forwarded_for(&headers), expected, "{values:?}");
        }
    }
}

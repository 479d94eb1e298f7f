//! Istio's policies, asked about a request as it came.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use pingora_core::protocols::http::ServerSession;
use smallvec::SmallVec;
use waypoint_config::Snapshot;
use waypoint_policy::istio::{
    Claims, CustomCall, CustomVerdict, Headers, Protocol, Request, Verdict, last_forwarded,
};
use waypoint_policy::{Principal, RuleName};

use crate::caller::Connection;
use crate::edge::Head;

struct Fields<'a>(&'a HeaderMap);

impl Headers for Fields<'_> {
    fn any(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.0.get_all(name).iter().peekable();
        values.peek()?;
        Some(values.any(|value| found(value.as_bytes())))
    }
}

/// A request as it came, with what was found out about it.
pub(crate) struct Inbound<'a> {
    headers: Fields<'a>,
    connection: &'a Connection,
    principal: &'a Principal,
    head: &'a Head,
    claims: Option<&'a Claims>,
    custom: &'a [CustomVerdict],
}

impl<'a> Inbound<'a> {
    pub(crate) fn new(
        session: &'a ServerSession,
        connection: &'a Connection,
        principal: &'a Principal,
        head: &'a Head,
    ) -> Self {
        Self {
            headers: Fields(&session.req_header().headers),
            connection,
            principal,
            head,
            claims: None,
            custom: &[],
        }
    }

    /// The same with what its token says, and what external authorizers said.
    pub(crate) fn with(self, claims: Option<&'a Claims>, custom: &'a [CustomVerdict]) -> Self {
        Self {
            claims,
            custom,
            ..self
        }
    }

    fn request(&self) -> Request<'_> {
        let peer = self.connection.peer.ip().to_canonical();
        Request {
            protocol: Protocol::Http,
            principal: self.principal,
            source_ip: Some(peer),
            remote_ip: Some(forwarded_for(self.headers.0).unwrap_or(peer)),
            destination_ip: Some(self.connection.local.ip().to_canonical()),
            port: self.connection.local.port(),
            sni: "",
            method: &self.head.method,
            host: &self.head.authority,
            path: &self.head.path,
            headers: &self.headers,
            claims: self.claims,
            custom: self.custom,
        }
    }

    /// What Istio's policies in this snapshot say of the request if it may go to these hosts; asked
    /// again while its answer streams.
    pub(crate) fn judge(&self, snapshot: &Snapshot, hosts: &[Arc<str>]) -> Verdict {
        match snapshot.policy.has_istio() {
            true => snapshot.authorize(&self.request(), hosts, self.head.host()),
            false => Verdict::default(),
        }
    }

    /// Which rules of Istio's policies match and decide nothing.
    pub(crate) fn marked(&self, snapshot: &Snapshot, hosts: &[Arc<str>]) -> Vec<Arc<RuleName>> {
        snapshot.marked(&self.request(), hosts, self.head.host())
    }

    /// Which external authorizers have to be asked before that.
    pub(crate) fn custom_calls(
        &self,
        snapshot: &Snapshot,
        hosts: &[Arc<str>],
    ) -> SmallVec<[CustomCall; 1]> {
        snapshot.custom(&self.request(), hosts, self.head.host())
    }
}

/// The last address of `X-Forwarded-For`, as an Istio waypoint takes it (`use_remote_address` is
/// off there): whoever is in the mesh can write one.
pub(crate) fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
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

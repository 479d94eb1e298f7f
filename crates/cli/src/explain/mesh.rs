//! What Istio's policies see of the request, and what they say.

use std::net::IpAddr;
use std::sync::Arc;

use waypoint_config::Snapshot;
use waypoint_policy::istio::{Claims, CustomVerdict, Protocol, Request, Verdict};
use waypoint_policy::{Kind, ObjectName, ObjectRef, Principal, TraceEntry};

use super::request::Http;

/// What only a mesh knows of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mesh {
    pub(super) source_ip: Option<IpAddr>,
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) dest_ip: Option<IpAddr>,
    pub(super) sni: String,
    pub(super) claims: Option<Claims>,
    /// What external authorizers said; one that is not here did not allow.
    pub(super) custom: Vec<CustomVerdict>,
    pub(super) is_tcp: bool,
    /// The Service or ServiceEntry that is addressed.
    pub(super) service: Option<(Kind, ObjectName)>,
    /// The header fields that the gateway leaves, in the order they were given.
    pub(super) headers: Vec<(String, String)>,
}

/// What Istio's policies say of a request with this method and path, and what each rule said.
pub(super) fn judge(
    snapshot: &Snapshot,
    principal: &Principal,
    http: &Http,
    (method, path): (&str, &str),
    hosts: &[Arc<str>],
) -> (Verdict, Vec<TraceEntry>) {
    let mesh = &http.mesh;
    let request = Request {
        protocol: match mesh.is_tcp {
            true => Protocol::Tcp,
            false => Protocol::Http,
        },
        principal,
        source_ip: mesh.source_ip,
        remote_ip: mesh.remote_ip.or(mesh.source_ip),
        destination_ip: mesh.dest_ip,
        port: http.port.unwrap_or(0),
        sni: &mesh.sni,
        method,
        host: &http.host,
        path,
        headers: &mesh.headers,
        claims: mesh.claims.as_ref(),
        custom: &mesh.custom,
    };
    let mut targets = snapshot.istio.of("");
    let Some((kind, name)) = &mesh.service else {
        let named = super::decide::bare_host(&http.host);
        for host in hosts.iter().map(|host| &**host).chain([named]) {
            let more = snapshot.istio.of(host).into_iter();
            let new: Vec<_> = more.filter(|target| !targets.contains(target)).collect();
            targets.extend(new);
        }
        return (
            snapshot.authorize(&request, hosts, named),
            snapshot.policy.explain_istio(&request, &targets),
        );
    };
    // In the mesh it is the Service that is addressed, whatever lies behind.
    targets.extend(
        snapshot
            .policy
            .target(&ObjectRef::whole(*kind, name.clone())),
    );
    (
        snapshot.policy.authorize(&request, &targets),
        snapshot.policy.explain_istio(&request, &targets),
    )
}

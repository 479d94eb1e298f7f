use super::{JwtPlace, PlaceError};
use crate::compile::endpoint;
use crate::snapshot::Parameters;
use crate::{File, Options, compile};

fn parameters(allowed: &str) -> Parameters {
    let text = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: wp, namespace: apps}}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{{name: a, port: 80, protocol: HTTP}}]
  infrastructure:
    parametersRef: {{group: waypoint.kgateway.io, kind: WaypointParameters, name: wp}}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: WaypointParameters
metadata: {{name: wp, namespace: apps}}
spec: {{allowPrivateEndpoints: [{allowed}]}}
"
    );
    let file = File {
        path: "a.yaml".to_owned(),
        text,
    };
    let outcome = compile(&[file], &Options::default());
    outcome.snapshot.unwrap().parameters
}

/// What a document at one place names: `https host:port target private`, or nothing.
#[test]
fn documents_are_trusted_no_further_than_their_place() {
    let parameters = parameters("10.1.0.0/16");
    for (case, from, named, expected) in [
        (
            "another host",
            "https://a.example/doc",
            "https://keys.example:8443/a/../b//c/?d=%2F",
            Some("https keys.example:8443 /b//c/?d=%2F false"),
        ),
        (
            "TLS from clear text",
            "http://a.example/doc",
            "https://a.example",
            Some("https a.example:443 / false"),
        ),
        (
            "clear text from TLS",
            "https://a.example/doc",
            "http://a.example/keys",
            None,
        ),
        (
            "a private address",
            "https://a.example/doc",
            "https://10.0.0.1/keys",
            None,
        ),
        (
            "one that is allowed, and will be asked about again",
            "https://a.example/doc",
            "https://10.1.0.1/keys",
            Some("https 10.1.0.1:443 /keys false"),
        ),
        (
            "a Service, by a stranger",
            "https://a.example/doc",
            "https://keys.apps.svc.cluster.local/keys",
            Some("https keys.apps.svc.cluster.local:443 /keys false"),
        ),
        (
            "a Service, by a Service",
            "https://kubernetes.default.svc/doc",
            "https://kubernetes.default.svc.cluster.local/keys",
            Some("https kubernetes.default.svc.cluster.local:443 /keys true"),
        ),
        ("no URL", "https://a.example/doc", "keys", None),
        ("a file", "https://a.example/doc", "file:///keys", None),
        (
            "a password",
            "https://a.example/doc",
            "https://a:b@a.example/",
            None,
        ),
        (
            "a fragment",
            "https://a.example/doc",
            "https://a.example/#a",
            None,
        ),
    ] {
        let (endpoint, target) = endpoint::document(from, None, &parameters).unwrap();
        let place = JwtPlace {
            uri: from.to_owned(),
            endpoint,
            target,
        };
        let found = place.named(named, &parameters).map(|place| {
            let at = &place.endpoint;
            let scheme = if at.tls.is_some() { "https" } else { "http" };
            let private = at.private;
            format!(
                "{scheme} {}:{} {} {private}",
                at.host, at.port, place.target
            )
        });
        assert_eq!(
            found.as_deref(),
            expected.ok_or(PlaceError).as_ref().copied(),
            "{case}"
        );
    }
}

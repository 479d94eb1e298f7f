//! Where shared limits are kept.

use std::net::SocketAddr;
use std::time::Duration;

use waypoint_policy::limit::{Store, StoreFailure};

use super::{file, render};
use crate::snapshot::{Address, Credential, LimitStore};
use crate::{Options, Outcome, Snapshot, compile};

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: apps}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{name: a, port: 80, protocol: HTTP}]
  infrastructure:
    parametersRef: {group: waypoint.kgateway.io, kind: WaypointParameters, name: wp}
---
apiVersion: v1
kind: Secret
metadata: {name: valkey, namespace: apps}
stringData: {password: sesame}
---
";

fn compiled(redis: &str, limit: &str) -> Outcome {
    let parameters = format!(
        "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: WaypointParameters\n\
         metadata: {{name: wp, namespace: apps}}\nspec: {{limitStore: {{redis: {{{redis}}}}}}}\n---\n"
    );
    let limit = format!(
        "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: UsageLimit\n\
         metadata: {{name: all, namespace: apps}}\n\
         spec: {{targetRefs: [{{kind: Gateway, name: wp}}], concurrency: 3, {limit}}}\n"
    );
    let text = [GATEWAY, &parameters, &limit].concat();
    compile(&[file("it.yaml", &text)], &Options::default())
}

fn snapshot(redis: &str, limit: &str) -> Snapshot {
    let compiled = compiled(redis, limit);
    let errors = compiled.diagnostics.iter().filter(|d| d.is_error());
    assert_eq!(errors.count(), 0, "{}", render(&compiled));
    compiled.snapshot.unwrap()
}

#[test]
fn finds_what_is_wrong() {
    for (redis, expected) in [
        ("url: \"http://x\"", "the scheme must be redis or rediss"),
        ("url: valkey", "relative URL without a base"),
        ("url: \"redis:///1\"", "there is no host"),
        ("url: \"redis://valkey:0\"", "the port must be 1 to 65535"),
        (
            "url: \"redis://valkey/first\"",
            "the database must be a number",
        ),
        (
            "url: \"redis://valkey/+1\"",
            "the database must be a number",
        ),
        (
            "url: \"redis://valkey/1/2\"",
            "the database must be a number",
        ),
        (
            "url: \"redis://valkey?db=1\"",
            "it must end with the database",
        ),
        (
            "url: \"redis://:hunter2@valkey\"",
            "a password belongs in `credential`",
        ),
        ("url: \"redis://hunter2@valkey\"", "a user in `username`"),
        (
            "url: \"redis://valkey\", timeout: 0s",
            "`timeout` must be from 1ms to 10s",
        ),
        (
            "url: \"redis://valkey\", timeout: 10001ms",
            "`timeout` must be from 1ms to 10s",
        ),
        (
            "url: \"redis://valkey\", replicas: 0",
            "`replicas` must be at least 1",
        ),
        (
            "url: \"redis://valkey\", tls: {}",
            "`tls` needs a URL that begins with `rediss://`",
        ),
        (
            "url: \"rediss://valkey\", tls: {hostname: \"a:b\"}",
            "`a:b` is not a host name",
        ),
        (
            "url: \"rediss://valkey\", tls: {caCertificateRefs: [{name: nowhere}]}",
            "Secret apps/nowhere",
        ),
        (
            "url: \"redis://valkey\", username: waypoint",
            "`username` needs a `credential`",
        ),
        (
            "url: \"redis://valkey\", credential: {passthrough: true}",
            "no caller has a password for the store",
        ),
        (
            "url: \"redis://valkey\", credential: {secretRef: {name: valkey, key: pass}}",
            "has no key `pass`",
        ),
    ] {
        let compiled = compiled(redis, "store: Shared");
        assert!(compiled.snapshot.is_none(), "{redis}");
        let said = render(&compiled);
        assert!(said.contains(expected), "{redis}: {said}");
        // What may be a password is not repeated, and one mistake is one error.
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

fn store(redis: &str) -> LimitStore {
    let snapshot = snapshot(redis, "store: Shared");
    snapshot.parameters.limit_store.unwrap()
}

#[test]
fn says_what_was_written() {
    let whole = store(
        "url: \"rediss://Valkey.apps.svc.cluster.local:7000/12\", timeout: 20ms, replicas: 3,
         username: waypoint, credential: {secretRef: {name: valkey, key: password}},
         tls: {hostname: valkey.example}",
    );
    assert_eq!(whole.endpoint.port, 7000);
    let name = "valkey.apps.svc.cluster.local";
    assert_eq!(whole.endpoint.address, Address::Dns(name.into()));
    let tls = whole.endpoint.tls.as_ref().unwrap();
    assert_eq!((&*tls.hostname, &tls.roots_pem), ("valkey.example", &None));
    assert_eq!((whole.database, whole.replicas.get()), (12, 3));
    assert_eq!(whole.timeout, Duration::from_millis(20));
    assert_eq!(whole.username.as_deref(), Some("waypoint"));
    let password = Credential::Inline("sesame".to_owned().into());
    assert_eq!(whole.credential, password);
    // Nothing prints the password.
    assert!(!format!("{whole:?}").contains("sesame"));
}

#[test]
fn has_defaults() {
    for (url, address) in [
        ("redis://valkey", Address::Dns("valkey".into())),
        ("redis://10.0.0.1/", fixed("10.0.0.1:6379")),
        ("redis://[::1]", fixed("[::1]:6379")),
    ] {
        let least = store(&format!("url: \"{url}\""));
        assert_eq!(least.endpoint.address, address, "{url}");
        assert_eq!(least.endpoint.tls, None);
        assert!(least.endpoint.private);
        assert_eq!((least.database, least.replicas.get()), (0, 1));
        assert_eq!(least.timeout, Duration::from_millis(100));
        assert_eq!((least.username, least.credential), (None, Credential::None));
    }
    let tls = store("url: \"rediss://valkey\"").endpoint.tls.unwrap();
    assert_eq!(tls.hostname, "valkey");
}

fn fixed(address: &str) -> Address {
    Address::Fixed(vec![address.parse::<SocketAddr>().unwrap()])
}

#[test]
fn limits_say_where_and_what_if_it_is_down() {
    for (text, expected) in [
        ("store: Local", Store::Local),
        ("store: Shared", Store::Shared(StoreFailure::Closed)),
        (
            "store: Shared, storeFailure: Closed",
            Store::Shared(StoreFailure::Closed),
        ),
        (
            "store: Shared, storeFailure: Open",
            Store::Shared(StoreFailure::Open),
        ),
        (
            "store: Shared, storeFailure: LocalShare",
            Store::Shared(StoreFailure::LocalShare),
        ),
    ] {
        let snapshot = snapshot("url: \"redis://valkey\"", text);
        assert_eq!(snapshot.policy.usage_limits()[0].store, expected, "{text}");
    }
}

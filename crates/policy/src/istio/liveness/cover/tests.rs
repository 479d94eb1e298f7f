#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::istio::PathTemplate;

/// A value covers what it is seen to match all of; what cannot be seen is not covered.
#[rustfmt::skip]
#[test]
fn covers() {
    use Attribute::{DestinationPort, Header, Host, Method, Namespace, Path, Principal, RequestPrincipal, ServiceAccount, SourceIp};
    let text = |text: &str| Value::Text(TextMatch::new(text));
    let host = |text: &str| Value::Text(TextMatch::lower(text));
    let template = |text: &str| Value::Template(PathTemplate::new(text).unwrap());
    let namespace = |text: &str| Value::Namespace(text.parse().unwrap());
    let net = |text: &str| Value::Network(text.parse().unwrap());
    let account = |namespace: &str, name: &str| Value::ServiceAccount {
        namespace: namespace.into(),
        name: name.into(),
    };
    let issued = |issuer: &str, subject: &str| Value::RequestPrincipal {
        issuer: TextMatch::new(issuer),
        subject: TextMatch::new(subject),
    };
    let header = || Header("x-a".into());
    for (attribute, by, covered, expected) in [
        (Method, text("GET"), text("GET"), true),
        (Method, text("GET"), text("get"), false),
        (Method, text("GET"), text("GET*"), false),
        (Principal, text("td/*"), text("td/ns/a/sa/b"), true),
        (Principal, text("td/*"), text("td/ns/*"), true),
        (Principal, text("td/ns/*"), text("td/*"), false),
        (Principal, text("*/b"), text("*/sa/b"), true),
        (Principal, text("*/sa/b"), text("*/b"), false),
        (Principal, text("td*"), text("*td"), false),
        (Principal, text("*td"), text("td*"), false),
        // Some text is needed, but for a header, which may be empty.
        (Principal, text("*"), text("*"), true),
        (Principal, text("*"), text("td/*"), true),
        (Principal, text("*"), text("*/b"), true),
        (Principal, text("*"), text("b"), true),
        (Principal, text("*"), text(""), false),
        (Principal, text("td/*"), text("*"), false),
        (header(), text("*"), text("*"), true),
        (header(), text("*"), text(""), true),
        (header(), text("a*"), text("*"), false),
        (header(), text("a*"), text("b"), false),
        (Host, host("A.example"), host("a.EXAMPLE"), true),
        (Host, host("*.Example"), host("a.example"), true),
        (Host, host("*.example"), host("a.test"), false),
        (Path, text("*"), template("/{*}"), true),
        (Path, text("/a/*"), template("/a/{*}"), true),
        (Path, text("/a/b*"), template("/a/{*}"), false),
        (Path, text("*/b"), template("/{*}/b"), false),
        (Path, template("/a/{*}"), text("/a/b"), true),
        (Path, template("/a/{*}"), text("/a/b/c"), false),
        (Path, template("/a/{*}"), text("/a/*"), false),
        (Path, template("/a/{*}"), template("/a/{*}"), true),
        (Path, template("/a/{*}"), template("/{*}"), false),
        (Namespace, namespace("*"), namespace("a*"), true),
        (Namespace, namespace("a*"), namespace("*"), false),
        (Namespace, namespace("a*"), namespace("a*"), true),
        (Namespace, namespace("a*"), namespace("b*"), false),
        (Namespace, namespace("a*"), namespace("ab"), true),
        (Namespace, namespace("a*"), namespace("b"), false),
        (RequestPrincipal, issued("*", "*"), issued("i", "s"), true),
        (RequestPrincipal, issued("i", "*"), issued("i", "s"), true),
        (RequestPrincipal, issued("i", "*"), issued("j", "s"), false),
        (RequestPrincipal, issued("*", "s"), issued("i", "t"), false),
        (SourceIp, net("10.0.0.0/8"), net("10.1.0.0/16"), true),
        (SourceIp, net("10.1.0.0/16"), net("10.0.0.0/8"), false),
        (SourceIp, net("::/0"), net("10.0.0.0/8"), false),
        (DestinationPort, Value::Port(80), Value::Port(80), true),
        (DestinationPort, Value::Port(80), Value::Port(81), false),
        (ServiceAccount, account("a", "x"), account("a", "x"), true),
        (ServiceAccount, account("a", "x"), account("a", "y"), false),
        (ServiceAccount, account("a", "x"), account("b", "x"), false),
    ] {
        assert_eq!(by.covers(&attribute, &covered), expected, "{attribute:?} {by} {covered}");
    }
}

//! Each attribute by itself: what it is compared with, and what it is when a request lacks it.

use serde_json::json;

use super::*;
use crate::istio::matching::Failed;

pub(super) static NOBODY: Principal = Principal::Anonymous;

/// A request that has nothing but a method, a host and a path.
pub(super) fn bare() -> Request<'static> {
    Request {
        port: 80,
        method: "GET",
        host: "a.example",
        path: "/",
        ..Request::of(&NOBODY)
    }
}

pub(super) fn test(attribute: Attribute, values: &[Value], not_values: &[Value]) -> Test {
    Test {
        attribute,
        field: "field".into(),
        values: (!values.is_empty()).then(|| values.to_vec()),
        not_values: not_values.to_vec(),
    }
}

pub(super) fn when(tests: Vec<Test>) -> IstioRule {
    IstioRule {
        name: "rule[0]".into(),
        from: None,
        to: None,
        when: tests,
    }
}

fn text(value: &str) -> Value {
    Value::Text(TextMatch::new(value))
}

fn names(path: &[&str]) -> Vec<Box<str>> {
    path.iter().map(|name| (*name).into()).collect()
}

fn claims(json: serde_json::Value) -> Claims {
    match json {
        serde_json::Value::Object(claims) => Claims(claims),
        other => panic!("{other}"),
    }
}

/// A value that has to match and a value that must not agree about every request.
fn check(case: &str, attribute: &Attribute, value: &Value, request: &Request<'_>, expected: bool) {
    for action in [IstioAction::Allow, IstioAction::Deny] {
        let matches = |values: &[Value], not_values: &[Value]| {
            let rule = when(vec![test(attribute.clone(), values, not_values)]);
            rule.failed(action, request).is_none()
        };
        let value = std::slice::from_ref(value);
        assert_eq!(matches(value, &[]), expected, "{case}, {action:?}");
        assert_eq!(matches(&[], value), !expected, "not {case}, {action:?}");
    }
}

#[rustfmt::skip]
#[test]
fn of_a_token() {
    use Attribute::{Audiences, Claim, Presenter, RequestPrincipal};
    let full = claims(json!({
        "iss": "https://i", "sub": "ann", "aud": ["one", "two"], "azp": "app",
        "scope": "read write", "permission": "p q", "note": "two words", "flag": true,
        "groups": ["dev", 7, "ops"], "deep": {"er": {"est": "found"}, "scope": "a b"},
    }));
    let lone = claims(json!({"iss": "https://i", "aud": "one"}));
    let principal = |issuer: &str, subject: &str| Value::RequestPrincipal {
        issuer: TextMatch::new(issuer),
        subject: TextMatch::new(subject),
    };
    let claim = |path: &[&str]| Claim(names(path));
    for (case, attribute, value, token, expected) in [
        ("issuer and subject", RequestPrincipal, principal("https://i", "ann"), Some(&full), true),
        ("another issuer", RequestPrincipal, principal("https://j", "ann"), Some(&full), false),
        ("another subject", RequestPrincipal, principal("https://i", "bob"), Some(&full), false),
        ("any principal", RequestPrincipal, principal("*", "*"), Some(&full), true),
        ("any principal without a subject", RequestPrincipal, principal("*", "*"), Some(&lone), false),
        ("any principal without a token", RequestPrincipal, principal("*", "*"), None, false),
        ("audience", Audiences, text("one"), Some(&full), true),
        ("second audience", Audiences, text("two"), Some(&full), true),
        ("another audience", Audiences, text("three"), Some(&full), false),
        ("audience that is no list", Audiences, text("one"), Some(&lone), true),
        ("audience without a token", Audiences, text("*"), None, false),
        ("presenter", Presenter, text("app"), Some(&full), true),
        ("another presenter", Presenter, text("one"), Some(&full), false),
        ("no presenter", Presenter, text("*"), Some(&lone), false),
        ("one of a scope", claim(&["scope"]), text("write"), Some(&full), true),
        ("a scope as a whole", claim(&["scope"]), text("read write"), Some(&full), false),
        ("no such scope", claim(&["scope"]), text("delete"), Some(&full), false),
        ("one of the permissions", claim(&["permission"]), text("q"), Some(&full), true),
        ("words of another claim", claim(&["note"]), text("two"), Some(&full), false),
        ("all words of another claim", claim(&["note"]), text("two words"), Some(&full), true),
        ("an element", claim(&["groups"]), text("ops"), Some(&full), true),
        ("an element that is a number", claim(&["groups"]), text("7"), Some(&full), false),
        ("a claim that is a flag", claim(&["flag"]), text("true"), Some(&full), false),
        ("deeper", claim(&["deep", "er", "est"]), text("found"), Some(&full), true),
        ("not deep enough", claim(&["deep", "er"]), text("*"), Some(&full), false),
        ("too deep", claim(&["note", "er"]), text("*"), Some(&full), false),
        ("a scope further in is one text", claim(&["deep", "scope"]), text("a"), Some(&full), false),
        ("no path", claim(&[]), text("*"), Some(&full), false),
        ("a port in a claim", claim(&["note"]), Value::Port(2), Some(&full), false),
    ] {
        check(case, &attribute, &value, &Request { claims: token, ..bare() }, expected);
    }
}

#[rustfmt::skip]
#[test]
fn of_a_connection() {
    use Attribute::{DestinationIp, DestinationPort, RemoteIp, SourceIp};
    let net = |text: &str| Value::Network(text.parse().unwrap());
    let at = |ip: &str| Some(ip.parse().unwrap());
    let request = Request {
        source_ip: at("10.0.0.1"),
        remote_ip: at("192.0.2.7"),
        destination_ip: at("::ffff:172.16.0.9"),
        port: 8080,
        ..bare()
    };
    for (case, attribute, value, expected) in [
        ("source", SourceIp, net("10.0.0.0/8"), true),
        ("the client is not the peer", SourceIp, net("192.0.2.0/24"), false),
        ("client", RemoteIp, net("192.0.2.7/32"), true),
        ("the peer is not the client", RemoteIp, net("10.0.0.0/8"), false),
        ("destination, mapped into IPv6", DestinationIp, net("172.16.0.0/12"), true),
        ("a range of IPv6 has no mapped address", DestinationIp, net("::/0"), false),
        ("the peer is not the destination", DestinationIp, net("10.0.0.0/8"), false),
        ("port", DestinationPort, Value::Port(8080), true),
        ("another port", DestinationPort, Value::Port(80), false),
        ("a value of another kind", DestinationPort, text("8080"), false),
    ] {
        check(case, &attribute, &value, &request, expected);
    }
    for attribute in [SourceIp, RemoteIp, DestinationIp] {
        check("no address", &attribute, &net("0.0.0.0/0"), &bare(), false);
    }
}

#[rustfmt::skip]
#[test]
fn of_an_identity() {
    use Attribute::{Namespace, Principal as Peer, ServiceAccount, TrustDomain};
    let namespace = |text: &str| Value::Namespace(text.parse().unwrap());
    let account = |namespace: &str, name: &str| Value::ServiceAccount {
        namespace: namespace.into(),
        name: name.into(),
    };
    let id = "spiffe://td/ns/a/sa/x";
    for (case, id, attribute, value, expected) in [
        ("without the scheme", id, Peer, text("td/ns/a/sa/x"), true),
        ("with the scheme", id, Peer, text("spiffe://td/ns/a/sa/x"), false),
        ("trust domain", id, TrustDomain, text("td"), true),
        ("another trust domain", id, TrustDomain, text("t"), false),
        ("namespace", id, Namespace, namespace("a"), true),
        ("the service account is no namespace", id, Namespace, namespace("x"), false),
        ("a namespace that is the end", "spiffe://td/ns/a", Namespace, namespace("a"), false),
        ("a namespace further in", "spiffe://td/x/ns/a/y", Namespace, namespace("a"), true),
        ("service account", id, ServiceAccount, account("a", "x"), true),
        ("of another namespace", id, ServiceAccount, account("b", "x"), false),
        ("another of the namespace", id, ServiceAccount, account("a", "y"), false),
        ("no workload", "spiffe://td/ns/a/sa/x/y", ServiceAccount, account("a", "x"), false),
    ] {
        let principal = Principal::Workload(id.parse().unwrap());
        check(case, &attribute, &value, &Request { principal: &principal, ..bare() }, expected);
    }
    for (attribute, value) in [
        (Peer, text("*")),
        (TrustDomain, text("*")),
        (Namespace, namespace("*")),
        (ServiceAccount, account("", "")),
    ] {
        check("nobody", &attribute, &value, &bare(), false);
    }
}

#[rustfmt::skip]
#[test]
fn of_a_request() {
    use Attribute::{Header, Host, Method, Path, Sni};
    let header = |name: &str| Header(name.into());
    let template = |text: &str| Value::Template(PathTemplate::new(text).unwrap());
    let headers = vec![
        ("X-A".to_owned(), "1".to_owned()),
        ("x-b".to_owned(), String::new()),
        ("x-a".to_owned(), "2".to_owned()),
    ];
    let request = Request {
        sni: "sni.example",
        method: "POST",
        host: "A.example:80",
        path: "/a/b",
        headers: &headers,
        ..bare()
    };
    for (case, attribute, value, expected) in [
        ("server name", Sni, text("*.example"), true),
        ("the host is no server name", Sni, text("A.example:80"), false),
        ("method", Method, text("POST"), true),
        ("a method in lower case", Method, text("post"), false),
        ("host in another case", Host, text("a.EXAMPLE:80"), true),
        ("another port of the host", Host, text("a.example:8"), false),
        ("prefix of a host", Host, text("a.ex*"), true),
        ("prefix that is longer than the host", Host, text("a.example:80800*"), false),
        ("suffix of a host", Host, text("*.example:80"), true),
        ("suffix that is longer than the host", Host, text("*.a.example:80"), false),
        ("some host", Host, text("*"), true),
        ("path", Path, text("/a/b"), true),
        ("template", Path, template("/a/{*}"), true),
        ("another template", Path, template("/{*}"), false),
        ("header, first value", header("x-a"), text("1"), true),
        ("header, second value", header("x-a"), text("2"), true),
        ("header, no value", header("x-a"), text("3"), false),
        ("empty header is there", header("x-b"), text("*"), true),
        ("empty header", header("x-b"), text(""), true),
        ("no header", header("x-c"), text("*"), false),
    ] {
        check(case, &attribute, &value, &request, expected);
    }
    check("no server name", &Sni, &text("*"), &bare(), false);
    check("no host", &Host, &text("*"), &Request { host: "", ..bare() }, false);
    assert_eq!(NoHeaders.any("x-a", &mut |_| true), None);
    assert_eq!(headers.any("x-a", &mut |_| false), Some(false));
    assert_eq!(headers.any("x-c", &mut |_| true), None);
}

/// What stands before the last address is what a caller may have written.
#[test]
fn the_last_address_of_a_list() {
    for (value, expected) in [
        ("192.0.2.7", Some("192.0.2.7")),
        ("10.0.0.1, 192.0.2.7 ", Some("192.0.2.7")),
        ("10.0.0.1,192.0.2.7:8443", Some("192.0.2.7")),
        ("2001:db8::1", Some("2001:db8::1")),
        ("[2001:db8::1]:443", Some("2001:db8::1")),
        ("::ffff:192.0.2.7", Some("192.0.2.7")),
        ("10.0.0.1, unknown", None),
        ("10.0.0.1,", None),
        ("", None),
    ] {
        let expected = expected.map(|address| address.parse().unwrap());
        assert_eq!(last_forwarded(value), expected, "{value}");
    }
}

/// An ALLOW rule is dropped by what nobody can evaluate; a DENY rule is read without it.
#[test]
fn what_cannot_be_evaluated() {
    let unusable = || Value::Unusable("x".into());
    let unknown = || Attribute::Unknown("x".into());
    let tcp = Request {
        protocol: Protocol::Tcp,
        ..bare()
    };
    for (case, test, request, expected) in [
        (
            "unknown",
            test(unknown(), &[text("*")], &[]),
            bare(),
            (false, true),
        ),
        (
            "not unknown",
            test(unknown(), &[], &[text("*")]),
            bare(),
            (false, true),
        ),
        (
            "value",
            test(Attribute::SourceIp, &[unusable()], &[]),
            bare(),
            (false, true),
        ),
        (
            "not value",
            test(Attribute::SourceIp, &[], &[unusable()]),
            bare(),
            (false, true),
        ),
        (
            "beside one that does not match",
            test(Attribute::Method, &[unusable(), text("POST")], &[]),
            bare(),
            (false, false),
        ),
        (
            "beside one that matches",
            test(Attribute::Method, &[unusable(), text("GET")], &[]),
            bare(),
            (false, true),
        ),
        (
            "beside one that must not match and does",
            test(Attribute::Method, &[], &[unusable(), text("GET")]),
            bare(),
            (false, false),
        ),
        (
            "a method on TCP",
            test(Attribute::Method, &[text("POST")], &[]),
            tcp,
            (false, true),
        ),
        (
            "a port on TCP",
            test(Attribute::DestinationPort, &[Value::Port(80)], &[]),
            tcp,
            (true, true),
        ),
        (
            "another port on TCP",
            test(Attribute::DestinationPort, &[Value::Port(81)], &[]),
            tcp,
            (false, false),
        ),
    ] {
        let rule = when(vec![test]);
        let matches = |action| rule.failed(action, &request).is_none();
        let both = (matches(IstioAction::Allow), matches(IstioAction::Deny));
        assert_eq!(both, expected, "{case}");
    }
    // A list that is empty is a list that nothing is in.
    let nothing = Test {
        values: Some(vec![]),
        ..test(Attribute::Method, &[], &[])
    };
    assert!(!nothing.holds(&bare()));
}

/// Of several alternatives the one that got furthest is told of, of equals the first.
#[test]
fn the_test_that_is_told_of() {
    let get = || test(Attribute::Method, &[text("GET")], &[]);
    let fails = |field: &str| Test {
        field: field.into(),
        ..test(Attribute::Method, &[text("POST")], &[])
    };
    let rule = |to| IstioRule {
        to: Some(to),
        ..when(vec![])
    };
    for (case, to, expected) in [
        (
            "the first of equals",
            vec![vec![fails("a")], vec![fails("b")]],
            Some("a"),
        ),
        (
            "the furthest first",
            vec![vec![get(), fails("a")], vec![fails("b")]],
            Some("a"),
        ),
        (
            "the furthest last",
            vec![vec![fails("a")], vec![get(), fails("b")]],
            Some("b"),
        ),
        ("one holds", vec![vec![fails("a")], vec![get()]], None),
    ] {
        let rule = rule(to);
        let failed = rule.failed(IstioAction::Allow, &bare());
        let field = failed.map(|failed| match failed {
            Failed::Test(test) | Failed::Unusable(test) => &*test.field,
        });
        assert_eq!(field, expected, "{case}");
    }
}

#[test]
fn a_request_shows_no_secrets() {
    let headers = vec![("authorization".to_owned(), "hunter2".to_owned())];
    let token = claims(json!({"email": "hunter2"}));
    let request = Request {
        path: "/path",
        headers: &headers,
        claims: Some(&token),
        custom: &[],
        ..bare()
    };
    let shown = format!("{request:?}");
    assert!(
        shown.contains("/path") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[rustfmt::skip]
#[test]
fn texts_in_any_case() {
    for (value, text, exact, any_case) in [
        ("ab", "ab", true, true),
        ("ab", "AB", false, true),
        ("ab", "abc", false, false),
        ("ab*", "abc", true, true),
        ("ab*", "ABC", false, true),
        ("ab*", "a", false, false),
        ("*bc", "abc", true, true),
        ("*bc", "ABC", false, true),
        ("*bc", "c", false, false),
        ("*bc", "bca", false, false),
        ("*", "a", true, true),
        ("*", "", false, false),
        ("a*b", "a*b", true, true),
        ("a*b", "acb", false, false),
        ("*a*", "ba*", true, true),
        ("*a*", "bab", false, false),
        ("é*", "éa", true, true),
    ] {
        let matcher = TextMatch::new(value);
        assert_eq!(matcher.to_string(), value);
        assert_eq!(matcher.matches(text.as_bytes()), exact, "{value} {text}");
        assert_eq!(matcher.matches_any_case(text.as_bytes()), any_case, "{value} {text}");
    }
    assert_eq!(TextMatch::lower("*.AB"), TextMatch::Suffix(".ab".into()));
}

//! What is said of a rule that does not match.

use super::attributes::{bare, test, when};
use super::*;
use crate::Outcome;

fn text(value: &str) -> Value {
    Value::Text(TextMatch::new(value))
}

/// What is said of a rule with this one test.
fn said(action: IstioAction, test: Test, request: &Request<'_>) -> String {
    traced(action, vec![test], |set, targets| {
        set.explain_istio(request, targets)
    })
}

/// What `explain` says of a rule with these tests.
fn traced(
    action: IstioAction,
    tests: Vec<Test>,
    explain: impl Fn(&PolicySet, &[TargetId]) -> Vec<TraceEntry>,
) -> String {
    let policy = AuthorizationPolicy {
        name: ObjectName::new("ns", "p"),
        targets: vec![object(0)],
        action,
        provider: None,
        mode: Mode::Enforce,
        rules: vec![when(tests)],
    };
    let elsewhere = AuthorizationPolicy {
        name: ObjectName::new("ns", "q"),
        targets: vec![object(1)],
        ..policy.clone()
    };
    let settings = Settings {
        posture: Posture::Graduated,
        namespace: "ns".into(),
        trust_domains: vec!["td".into()],
    };
    let set = PolicySet::compile_all(vec![], vec![policy, elsewhere], settings);
    let target = set.target(&object(0)).unwrap();
    let trace = explain(&set, &[target]);
    assert_eq!(
        trace.len(),
        1,
        "a policy that is attached elsewhere says nothing"
    );
    assert_eq!(
        trace[0].effect == crate::Does::Deny,
        action == IstioAction::Deny
    );
    match &trace[0].outcome {
        Outcome::Matched => "matched".into(),
        Outcome::NotMatched {
            field,
            expected,
            actual,
        } => {
            assert_eq!(field, "field");
            format!("{expected}; {actual}")
        }
    }
}

#[rustfmt::skip]
#[test]
fn what_was_expected_and_what_there_was() {
    use Attribute::*;
    let ip = |text: &str| Some(text.parse().unwrap());
    let net = |text: &str| Value::Network(text.parse().unwrap());
    let principal = crate::Principal::Workload("spiffe://td/ns/a/sa/x".parse().unwrap());
    let odd = crate::Principal::Workload("spiffe://td/x".parse().unwrap());
    let headers = vec![("x-a".to_owned(), "hunter2".to_owned())];
    let token = super::super::Claims::default();
    let full = Request {
        principal: &principal,
        source_ip: ip("10.0.0.1"),
        remote_ip: ip("10.0.0.2"),
        destination_ip: ip("10.0.0.3"),
        sni: "sni",
        headers: &headers,
        claims: Some(&token),
        custom: &[],
        ..bare()
    };
    let oddly = Request { principal: &odd, ..bare() };
    let account = Value::ServiceAccount { namespace: "n".into(), name: "s".into() };
    let issued = Value::RequestPrincipal { issuer: TextMatch::new("i"), subject: TextMatch::new("*") };
    let namespace = Value::Namespace("n*".parse().unwrap());
    let template = Value::Template(PathTemplate::new("/{*}/x").unwrap());
    for (attribute, value, request, expected) in [
        (Principal, text("td/ns/*"), bare(), "td/ns/*; no identity"),
        (Principal, text("*/y"), full, "*/y; td/ns/a/sa/x"),
        (TrustDomain, text("t"), full, "t; td"),
        (TrustDomain, text("t"), bare(), "t; no identity"),
        (Namespace, namespace.clone(), full, "n*; a/x"),
        (Namespace, namespace.clone(), oddly, "n*; spiffe://td/x (no workload)"),
        (Namespace, namespace, bare(), "n*; no identity"),
        (ServiceAccount, account, full, "n/s; a/x"),
        (SourceIp, net("192.0.2.0/24"), full, "192.0.2.0/24; 10.0.0.1"),
        (RemoteIp, net("192.0.2.1/32"), full, "192.0.2.1; 10.0.0.2"),
        (DestinationIp, net("::/0"), full, "::/0; 10.0.0.3"),
        (SourceIp, net("0.0.0.0/0"), bare(), "0.0.0.0/0; no address"),
        (DestinationPort, Value::Port(81), full, "81; 80"),
        (Sni, text("x"), full, "x; \"sni\""),
        (Host, text("x"), full, "x; \"a.example\""),
        (Method, text("PUT"), full, "PUT; \"GET\""),
        (Path, template, full, "/{*}/x; \"/\""),
        (Header("x-a".into()), text("x"), full, "x; another value"),
        (Header("x-b".into()), text("x"), full, "x; no such header"),
        (RequestPrincipal, issued, full, "i/*; a token that says otherwise"),
        (Audiences, text("x"), bare(), "x; no token"),
        (Presenter, text("x"), full, "x; a token that says otherwise"),
        (Claim(vec!["c".into()]), text("x"), bare(), "x; no token"),
    ] {
        for action in [IstioAction::Allow, IstioAction::Deny, IstioAction::Audit] {
            let test = test(attribute.clone(), std::slice::from_ref(&value), &[]);
            assert_eq!(said(action, test, &request), expected, "{attribute:?}");
        }
    }
    let dropped = "something that can be evaluated (the rule is dropped)";
    let unusable = || Value::Unusable("?".into());
    for (action, test, expected) in [
        (IstioAction::Allow, test(Method, &[text("GET"), text("PUT")], &[]), "matched"),
        (IstioAction::Allow, test(Method, &[text("PUT"), text("POST")], &[]), "PUT or POST; \"GET\""),
        (IstioAction::Allow, test(Method, &[], &[text("GET")]), "not GET; \"GET\""),
        (IstioAction::Allow, test(Method, &[text("*")], &[text("GET"), text("PUT")]), "*, not GET or PUT; \"GET\""),
        (IstioAction::Allow, test(Method, &[unusable()], &[]), &format!("{dropped}; \"GET\"")),
        (IstioAction::Allow, test(Unknown("x".into()), &[], &[]), &format!("{dropped}; nobody knows \"x\"")),
        (IstioAction::Deny, test(Method, &[unusable(), text("PUT")], &[]), "\"?\" (cannot be used) or PUT; \"GET\""),
    ] {
        assert_eq!(said(action, test, &bare()), expected);
    }
}

/// Of headers and tokens that are not known any longer nothing is claimed, of all else what is true.
#[test]
fn what_is_said_without_the_head() {
    use Attribute::*;
    let blind = |action, tests: Vec<Test>| {
        traced(action, tests, |set, targets| {
            set.explain_istio_without_head(&bare(), targets)
        })
    };
    let x = |attribute: Attribute| test(attribute, &[text("x")], &[]);
    let get = || test(Method, &[text("GET")], &[]);
    let not_kept = format!("x; {NOT_KEPT}");
    for action in [IstioAction::Allow, IstioAction::Deny] {
        for attribute in [
            Header("x-a".into()),
            RequestPrincipal,
            Audiences,
            Presenter,
            Claim(vec!["c".into()]),
        ] {
            let shown = format!("{attribute:?}");
            let tests = vec![get(), x(attribute.clone())];
            assert_eq!(blind(action, tests), not_kept, "{shown}");
            let tests = vec![x(attribute), x(Path)];
            assert_eq!(blind(action, tests), "x; \"/\"", "{shown}");
        }
        for attribute in [Principal, TrustDomain, Sni, Host, Method, Path] {
            let shown = format!("{attribute:?}");
            let expected = said(action, x(attribute.clone()), &bare());
            assert_eq!(blind(action, vec![x(attribute)]), expected, "{shown}");
        }
        assert_eq!(blind(action, vec![get()]), "matched");
    }
    let unusable = vec![
        x(Header("x-a".into())),
        test(Method, &[Value::Unusable("?".into())], &[]),
    ];
    let dropped = "something that can be evaluated (the rule is dropped); \"GET\"";
    assert_eq!(blind(IstioAction::Allow, unusable.clone()), dropped);
    assert_eq!(blind(IstioAction::Deny, unusable), not_kept);
}

/// A CUSTOM rule that is met denies, unless its own provider was asked and allowed.
#[test]
fn what_a_provider_said() {
    let policy = Written {
        name: "p".into(),
        target: 0,
        action: IstioAction::Custom,
        provider: Some("own"),
        mode: Mode::Enforce,
        rules: vec![WrittenRule::default()],
    };
    let set = set(&[policy]);
    let target = set.target(&object(0)).unwrap();
    let said = |provider: &str, allows| CustomVerdict {
        provider: provider.into(),
        allows,
    };
    for (case, custom, denies) in [
        ("nobody was asked", vec![], true),
        ("it denied", vec![said("own", false)], true),
        ("another allowed", vec![said("other", true)], true),
        ("it allowed", vec![said("own", true)], false),
    ] {
        let request = Request {
            custom: &custom,
            ..bare()
        };
        let expected = match denies {
            true => Outcome::Matched,
            false => Outcome::NotMatched {
                field: "provider".into(),
                expected: "a denial by own".into(),
                actual: "it allowed".into(),
            },
        };
        let trace = set.explain_istio(&request, &[target]);
        assert_eq!(trace[0].outcome, expected, "{case}");
        assert_eq!(trace[0].effect, crate::Does::Custom, "{case}");
        let verdict = set.authorize(&request, &[target]);
        assert_eq!(verdict.denied().is_some(), denies, "{case}");
    }
}

/// A workload has one provider; where its policies name several, nobody is asked, and what their
/// rules match is denied whatever anybody said.
#[test]
fn providers_that_differ() {
    let custom = |name: &str, target, provider| Written {
        name: name.into(),
        target,
        action: IstioAction::Custom,
        provider: Some(provider),
        mode: Mode::Enforce,
        rules: vec![WrittenRule::default()],
    };
    let allows = ["one", "two"].map(|provider| CustomVerdict {
        provider: provider.into(),
        allows: true,
    });
    for (case, target, provider, is_denied) in [
        ("the same at one object", 0, "one", false),
        ("the same at two", 1, "one", false),
        ("two at one object", 0, "two", true),
        ("two at two", 1, "two", true),
    ] {
        let set = set(&[custom("p", 0, "one"), custom("q", target, provider)]);
        let targets: Vec<TargetId> = [0, target]
            .iter()
            .filter_map(|target| set.target(&object(*target)))
            .collect();
        let calls = set.custom(&bare(), &targets);
        assert_eq!(calls.is_empty(), is_denied, "{case}");
        let request = Request {
            custom: &allows,
            ..bare()
        };
        let verdict = set.authorize(&request, &targets);
        assert_eq!(verdict.denied().is_some(), is_denied, "{case}");
    }
}

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Case, text, trust domain and path.
type Row<'a> = (&'a str, &'a str, Result<(&'a str, &'a str), SpiffeError>);

#[rustfmt::skip]
#[test]
fn parses_ids() {
    let long_domain = format!("spiffe://{}/x", "d".repeat(256));
    let long_id = format!("spiffe://d/{}", "p".repeat(2048 - 11 + 1));
    let rows: &[Row<'_>] = &[
        ("workload", "spiffe://cluster.local/ns/a/sa/b", Ok(("cluster.local", "/ns/a/sa/b"))),
        ("trust domain alone", "spiffe://cluster.local", Ok(("cluster.local", ""))),
        ("all characters", "spiffe://a-z_0.9/A-Z_0.9/...", Ok(("a-z_0.9", "/A-Z_0.9/..."))),
        ("nothing", "", Err(SpiffeError::Scheme)),
        ("another scheme", "https://d/x", Err(SpiffeError::Scheme)),
        ("scheme in capitals", "SPIFFE://d/x", Err(SpiffeError::Scheme)),
        ("one slash", "spiffe:/d/x", Err(SpiffeError::Scheme)),
        ("space before", " spiffe://d/x", Err(SpiffeError::Scheme)),
        ("no trust domain", "spiffe:///x", Err(SpiffeError::NoTrustDomain)),
        ("nothing after the scheme", "spiffe://", Err(SpiffeError::NoTrustDomain)),
        ("capital in the trust domain", "spiffe://D/x", Err(SpiffeError::TrustDomainCharacter { found: 'D' })),
        ("port", "spiffe://d:80/x", Err(SpiffeError::TrustDomainCharacter { found: ':' })),
        ("user info", "spiffe://u@d/x", Err(SpiffeError::TrustDomainCharacter { found: '@' })),
        ("encoded trust domain", "spiffe://%64/x", Err(SpiffeError::TrustDomainCharacter { found: '%' })),
        ("query in place of a path", "spiffe://d?x", Err(SpiffeError::TrustDomainCharacter { found: '?' })),
        ("look-alike trust domain", "spiffe://сluster.local/x", Err(SpiffeError::TrustDomainCharacter { found: 'с' })),
        ("trailing slash", "spiffe://d/x/", Err(SpiffeError::EmptySegment)),
        ("slash alone", "spiffe://d/", Err(SpiffeError::EmptySegment)),
        ("empty segment", "spiffe://d//x", Err(SpiffeError::EmptySegment)),
        ("dot", "spiffe://d/./x", Err(SpiffeError::DotSegment)),
        ("dot dot", "spiffe://d/ns/../x", Err(SpiffeError::DotSegment)),
        ("encoded path", "spiffe://d/%2e%2e", Err(SpiffeError::PathCharacter { found: '%' })),
        ("query", "spiffe://d/x?y", Err(SpiffeError::PathCharacter { found: '?' })),
        ("fragment", "spiffe://d/x#y", Err(SpiffeError::PathCharacter { found: '#' })),
        ("colon", "spiffe://d/x:y", Err(SpiffeError::PathCharacter { found: ':' })),
        ("backslash", "spiffe://d/x\\y", Err(SpiffeError::PathCharacter { found: '\\' })),
        ("newline", "spiffe://d/x\n", Err(SpiffeError::PathCharacter { found: '\n' })),
        ("null", "spiffe://d/x\0", Err(SpiffeError::PathCharacter { found: '\0' })),
        ("star", "spiffe://d/*", Err(SpiffeError::PathCharacter { found: '*' })),
        ("not ASCII", "spiffe://d/é", Err(SpiffeError::PathCharacter { found: 'é' })),
        ("long trust domain", &long_domain, Err(SpiffeError::TrustDomainTooLong { bytes: 256 })),
        ("long", &long_id, Err(SpiffeError::TooLong { bytes: 2049 })),
    ];
    for (case, text, expected) in rows {
        let parsed: Result<SpiffeId, _> = text.parse();
        let parts = parsed.as_ref().map(|id| (id.trust_domain(), id.path()));
        assert_eq!(parts.map_err(|e| *e), *expected, "{case}");
        if let Ok(id) = parsed {
            assert_eq!(id.to_string(), *text, "{case}");
            assert_eq!(format!("{id:?}"), *text, "{case}");
        }
    }
}

#[test]
fn parses_the_longest() {
    let domain = "d".repeat(255);
    assert!(format!("spiffe://{domain}/x").parse::<SpiffeId>().is_ok());
    let id = format!("spiffe://d/{}", "p".repeat(2048 - 11));
    assert!(id.parse::<SpiffeId>().is_ok());
}

#[test]
fn reads_workloads() {
    for (id, expected) in [
        ("spiffe://d/ns/a/sa/b", Some(("a", "b"))),
        ("spiffe://d/ns/a/sa/b/c", None),
        ("spiffe://d/ns/a/sa", None),
        ("spiffe://d/ns/a/b/sa/c", None),
        ("spiffe://d/x/ns/a/sa/b", None),
        ("spiffe://d/NS/a/sa/b", None),
        ("spiffe://d", None),
    ] {
        let parsed: SpiffeId = id.parse().unwrap();
        let workload = parsed.workload().map(|w| (w.namespace, w.service_account));
        assert_eq!(workload, expected, "{id}");
    }
    let id = SpiffeId::of_workload("d", "a", "b").unwrap();
    assert_eq!(id.as_str(), "spiffe://d/ns/a/sa/b");
    for (domain, namespace, account) in [("d", "a/sa/x", "b"), ("d/x", "a", "b"), ("d", "", "b")] {
        assert!(SpiffeId::of_workload(domain, namespace, account).is_err());
    }
}

#[test]
fn patterns_match_below_a_segment() {
    for (pattern, id, expected) in [
        ("spiffe://d/ns/a", "spiffe://d/ns/a", true),
        ("spiffe://d/ns/a", "spiffe://d/ns/a/sa/b", false),
        ("spiffe://d/ns/a/*", "spiffe://d/ns/a/sa/b", true),
        ("spiffe://d/ns/a/*", "spiffe://d/ns/a", false),
        ("spiffe://d/ns/a/*", "spiffe://d/ns/ab/sa/b", false),
        ("spiffe://d/*", "spiffe://d/x", true),
        ("spiffe://d/*", "spiffe://d", false),
        ("spiffe://d/*", "spiffe://dd/x", false),
    ] {
        let parsed: SpiffePattern = pattern.parse().unwrap();
        assert_eq!(
            parsed.matches(&id.parse().unwrap()),
            expected,
            "{pattern} {id}"
        );
        assert_eq!(parsed.to_string(), pattern);
    }
    // A prefix made by hand without its slash matches nothing rather than half a segment.
    let bare = SpiffePattern::Prefix("spiffe://d/ns/a".into());
    assert!(!bare.matches(&"spiffe://d/ns/ab".parse().unwrap()));
}

#[test]
fn refuses_other_patterns() {
    for (pattern, expected) in [
        ("*", SpiffeError::Wildcard),
        ("spiffe://*", SpiffeError::Scheme),
        ("spiffe:///*", SpiffeError::NoTrustDomain),
        ("spiffe://d*", SpiffeError::Wildcard),
        ("spiffe://*/ns/a/*", SpiffeError::Wildcard),
        ("spiffe://d/ns/*/sa/b", SpiffeError::Wildcard),
        ("spiffe://d/ns/a*", SpiffeError::Wildcard),
        ("spiffe://d/ns/a/**", SpiffeError::Wildcard),
        ("spiffe://d/ns//*", SpiffeError::EmptySegment),
        ("spiffe://d/../*", SpiffeError::DotSegment),
        ("", SpiffeError::Scheme),
    ] {
        let parsed: Result<SpiffePattern, _> = pattern.parse();
        assert_eq!(parsed, Err(expected), "{pattern}");
    }
}

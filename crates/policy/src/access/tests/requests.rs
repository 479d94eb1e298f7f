//! Fields of the HTTP request.

use super::*;

#[test]
fn requests_match_the_fields_of_a_rule() {
    let path = |path: PathAccess| HttpAccess {
        paths: vec![path],
        ..HttpAccess::default()
    };
    let prefix = |text: &str| path(PathAccess::Prefix(text.into()));
    let regex = |text: &str| path(PathAccess::Regex(text.parse().unwrap()));
    let host = |host: HostAccess| HttpAccess {
        hosts: vec![host],
        ..HttpAccess::default()
    };
    let header = |value: HeaderValue| HttpAccess {
        headers: vec![HeaderAccess {
            name: "x-env".into(),
            value,
        }],
        ..HttpAccess::default()
    };
    let exact = || header(HeaderValue::Exact("prod".into()));
    let fields = |values: &[&str]| -> Vec<(String, String)> {
        let field = |value: &&str| ("X-Env".to_owned(), (*value).to_owned());
        values.iter().map(field).collect()
    };
    let (none, one, two, twice) = (
        fields(&[]),
        fields(&["prod"]),
        fields(&["prod", "dev"]),
        fields(&["prod", "prod"]),
    );
    let base = Facts {
        method: "POST",
        host: "api.example.com",
        path: "/mcp/tools",
        port: 8443,
        headers: &none,
        claims: None,
    };
    let with = |headers| Facts { headers, ..base };
    let at = |path| Facts { path, ..base };
    let named = |host| Facts { host, ..base };
    for (case, http, facts, expected) in [
        ("anything", HttpAccess::default(), base, true),
        (
            "method",
            HttpAccess {
                methods: vec!["POST".into()],
                ..HttpAccess::default()
            },
            base,
            true,
        ),
        (
            "other method",
            HttpAccess {
                methods: vec!["post".into()],
                ..HttpAccess::default()
            },
            base,
            false,
        ),
        (
            "port",
            HttpAccess {
                ports: vec![80, 8443],
                ..HttpAccess::default()
            },
            base,
            true,
        ),
        (
            "other port",
            HttpAccess {
                ports: vec![80],
                ..HttpAccess::default()
            },
            base,
            false,
        ),
        (
            "exact path",
            path(PathAccess::Exact("/mcp/tools".into())),
            base,
            true,
        ),
        (
            "exact path, more",
            path(PathAccess::Exact("/mcp".into())),
            base,
            false,
        ),
        ("prefix", prefix("/mcp"), base, true),
        ("prefix, whole", prefix("/mcp/tools"), base, true),
        ("prefix, half a segment", prefix("/mcp/to"), base, false),
        ("prefix of all", prefix(""), base, true),
        ("prefix of all, root", prefix(""), at("/"), true),
        ("expression", regex("/mcp/[a-z]+"), base, true),
        ("expression, a part", regex("mcp"), base, false),
        (
            "expression, first of two",
            regex("/a|/mcp/tools"),
            base,
            true,
        ),
        ("expression, part of two", regex("/mcp|x"), base, false),
        (
            "expression, a line",
            regex("/mcp/.*"),
            at("/mcp/a\nb"),
            false,
        ),
        (
            "host",
            host(HostAccess::Exact("api.example.com".into())),
            base,
            true,
        ),
        (
            "host, as written",
            host(HostAccess::Exact("api.example.com".into())),
            named("API.example.com."),
            true,
        ),
        (
            "another host",
            host(HostAccess::Exact("example.com".into())),
            base,
            false,
        ),
        (
            "below",
            host(HostAccess::Below(".example.com".into())),
            base,
            true,
        ),
        (
            "far below",
            host(HostAccess::Below(".example.com".into())),
            named("a.b.Example.COM"),
            true,
        ),
        (
            "not below",
            host(HostAccess::Below(".example.com".into())),
            named("example.com"),
            false,
        ),
        (
            "nothing in front",
            host(HostAccess::Below(".example.com".into())),
            named(".example.com"),
            false,
        ),
        (
            "no host",
            host(HostAccess::Exact("example.com".into())),
            named(""),
            false,
        ),
        ("header", exact(), with(&one), true),
        ("header, twice", exact(), with(&twice), true),
        ("header, another beside it", exact(), with(&two), false),
        ("no header", exact(), with(&none), false),
        (
            "header by expression",
            header(HeaderValue::Regex("pr.d".parse().unwrap())),
            with(&one),
            true,
        ),
        (
            "header, a part",
            header(HeaderValue::Regex("pro".parse().unwrap())),
            with(&one),
            false,
        ),
    ] {
        let set = set(
            vec![policy("p", Some(vec![rule(None, http, None)]))],
            Posture::Graduated,
        );
        let decided = decide(&set, &Principal::Anonymous, plain(), facts);
        assert_eq!(
            decided.starts_with("allow by XAccessPolicy"),
            expected,
            "{case}: {decided}"
        );
    }
}

#[test]
fn an_expression_cannot_leave_its_group() {
    for text in ["a)|(b", "(?x)a #", "("] {
        assert!(text.parse::<WholePattern>().is_err(), "{text}");
    }
    let pattern: WholePattern = "a|b".parse().unwrap();
    assert_eq!(pattern.to_string(), "a|b");
}

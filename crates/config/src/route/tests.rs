use std::sync::Arc;

use proptest::prelude::*;
use waypoint_policy::ObjectName;

use super::{RouteQuery, RouteTable, canonical_host, host_matches};
use crate::snapshot::{PathMatch, PlainMatch, PlainRoute, Route};

fn route(rule: usize, matched: &PlainMatch) -> Route {
    Route::Plain(PlainRoute {
        name: ObjectName::new("n", "r"),
        label: "HTTPRoute/n/r".into(),
        rule,
        targets: Vec::new(),
        matched: matched.clone(),
        filters: Arc::new([]),
        backends: Arc::new([]),
        request_timeout: None,
    })
}

fn prefix(path: &str) -> PlainMatch {
    PlainMatch {
        path: PathMatch::Prefix(path.to_owned()),
        method: None,
        headers: Vec::new(),
    }
}

fn table(routes: &[(&str, &str)]) -> RouteTable {
    let mut table = RouteTable::new(1);
    for (index, (host, path)) in routes.iter().enumerate() {
        let hosts: Vec<String> = (!host.is_empty())
            .then(|| (*host).to_owned())
            .into_iter()
            .collect();
        table.insert(route(index, &prefix(path)), &[0], &hosts, &prefix(path));
    }
    table
}

fn find(table: &RouteTable, host: &str, path: &str) -> Option<usize> {
    let query = RouteQuery {
        listener: 0,
        host,
        path,
        method: "GET",
        header: &|_| None,
    };
    table.listeners[0].find(&canonical_host(host), &query)
}

#[test]
fn named_hosts_come_first() {
    let routes = [
        ("", "/"),
        ("*.example.com", "/"),
        ("*.a.example.com", "/a"),
        ("b.a.example.com", "/a/b"),
    ];
    let table = table(&routes);
    for (host, path, expected) in [
        ("b.a.example.com", "/a/b/c", Some(3)),
        ("B.A.example.com.:443", "/a/b", Some(3)),
        ("b.a.example.com", "/a", Some(2)),
        ("b.a.example.com", "/", Some(1)),
        ("a.example.com", "/a", Some(1)),
        ("example.com", "/a", Some(0)),
        ("xexample.com", "/a", Some(0)),
        ("", "/a", Some(0)),
        ("[::1]:80", "/a", Some(0)),
    ] {
        assert_eq!(find(&table, host, path), expected, "{host}{path}");
    }
    let long = format!("{}example.com", "a.".repeat(40_000));
    assert_eq!(find(&table, &long, "/"), Some(0));
}

#[test]
fn patterns_match_below() {
    for (pattern, host, expected) in [
        ("a.b", "a.b", true),
        ("*.b", "a.b", true),
        ("*.b", "x.a.b", true),
        ("*.b", "b", false),
        ("*.b", ".b", false),
        ("*.b", "ab", false),
    ] {
        assert_eq!(host_matches(pattern, host), expected, "{pattern} {host}");
    }
}

#[test]
fn slashes_that_are_not_merged_are_segments() {
    let table = table(&[("", "/"), ("", "/a"), ("", "/a/b")]);
    for (path, expected) in [
        ("/a/b", 2),
        ("/a/b/", 2),
        ("/a/b//c", 2),
        ("/a//b", 1),
        ("/a/", 1),
        ("//a/b", 0),
        ("/", 0),
        ("//", 0),
    ] {
        assert_eq!(find(&table, "x", path), Some(expected), "{path}");
    }
}

#[test]
fn dots_that_stay_must_not_lead_out_of_a_prefix() {
    for (at, path, expected) in [
        ("/a", "/a", true),
        ("/a", "/a/b/../c", true),
        ("/a", "/a/../a/b", true),
        ("/a", "/a/../b", false),
        ("/a", "/a/%2e%2E/b", false),
        ("/a", "/a\\..\\b", false),
        ("/a", "/a/../ab", false),
        ("/", "/a/../../b", true),
    ] {
        let Route::Plain(route) = route(0, &prefix(at)) else {
            panic!("a plain route");
        };
        assert_eq!(route.holds(path), expected, "{path}");
    }
}

proptest! {
    /// The trie agrees with trying all prefixes.
    #[test]
    fn finds_the_longest_prefix(
        prefixes in prop::collection::btree_set("(/[ab]{1,2}){0,4}", 0..8),
        path in "(/[ab]{1,2}){0,5}/?",
    ) {
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let routes: Vec<_> = prefixes.iter().map(|p| ("", *p)).collect();
        let below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let naive = (0..prefixes.len())
            .filter(|index| below(prefixes[*index]))
            .max_by_key(|index| prefixes[*index].len());
        prop_assert_eq!(find(&table(&routes), "x", &path), naive);
    }
}

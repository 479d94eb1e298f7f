//! What a Gateway API user expects of `HTTPRoute`: what a rule changes, and how long it waits.

mod timeouts;

use std::sync::Arc;

use waypoint_tests::client::{Answer, Request};
use waypoint_tests::upstream::{Reply, Seen, Speaks, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, http_route, service};

/// Rules with these matches and filters, to one service.
fn rules(list: &[(&str, &str)]) -> String {
    list.iter().fold("rules:\n".to_owned(), |text, (matched, filters)| {
        format!(
            "{text}- matches: [{matched}]\n  filters: [{filters}]\n  backendRefs: [{{name: app, port: 80}}]\n"
        )
    })
}

async fn start(upstream: &Arc<Upstream>, protocol: &str, spec: &str) -> Waypoint {
    let objects = service("app", upstream, protocol) + &http_route("app", spec);
    let setup = Setup::new(&objects).parameters("posture: Observe");
    setup.start().await
}

async fn ask(waypoint: &Waypoint, request: &Request) -> Answer {
    waypoint.workload(ANN).call(request).await.unwrap()
}

fn get(path: &str) -> Request {
    Request::new("GET", path).host("shop.example.com")
}

fn values<'a>(seen: &'a Seen, name: &'a str) -> Vec<&'a str> {
    seen.fields(name).collect()
}

#[tokio::test]
async fn request_headers_are_set_added_and_removed() {
    let filter = "{type: RequestHeaderModifier, requestHeaderModifier: {\
        set: [{name: X-Set, value: new}, {name: x-fresh, value: \"a, b\"}], \
        add: [{name: x-add, value: more}, {name: X-Added, value: first}], \
        remove: [X-Remove, x-absent]}}";
    for (protocol, speaks) in [
        ("http", Speaks::Http1),
        ("kubernetes.io/h2c", Speaks::Http2),
    ] {
        let upstream = Upstream::speaking(speaks, |_| Reply::whole(200, &[], "hello")).await;
        let spec = rules(&[("{path: {value: /a}}", filter), ("{path: {value: /b}}", "")]);
        let waypoint = start(&upstream, protocol, &spec).await;
        let request = |path: &str| {
            get(path)
                .header("x-set", "old")
                .header("X-Set", "older")
                .header("x-add", "own")
                .header("x-remove", "1")
                .header("X-REMOVE", "2")
                .header("x-kept", "kept")
        };
        assert_eq!(ask(&waypoint, &request("/a")).await.status, 200);
        let seen = upstream.last();
        for (name, expected) in [
            ("x-set", &["new"][..]),
            ("x-fresh", &["a, b"]),
            ("x-add", &["own", "more"]),
            ("x-added", &["first"]),
            ("x-remove", &[]),
            ("x-kept", &["kept"]),
        ] {
            assert_eq!(values(&seen, name), expected, "{protocol}: {name}");
        }
        assert_eq!(ask(&waypoint, &request("/b")).await.status, 200);
        let seen = upstream.last();
        assert_eq!(values(&seen, "x-set"), ["old", "older"], "another rule");
        assert_eq!(values(&seen, "x-remove"), ["1", "2"], "another rule");
    }
}

#[tokio::test]
async fn response_headers_are_set_added_and_removed() {
    let filter = "{type: ResponseHeaderModifier, responseHeaderModifier: {\
        set: [{name: X-Set, value: new}, {name: x-fresh, value: fresh}], \
        add: [{name: x-add, value: more}], \
        remove: [X-Remove]}}";
    let fields = [
        ("x-set", "old"),
        ("X-Set", "older"),
        ("x-add", "own"),
        ("x-remove", "1"),
        ("x-remove", "2"),
        ("x-kept", "kept"),
    ];
    for (protocol, speaks) in [
        ("http", Speaks::Http1),
        ("kubernetes.io/h2c", Speaks::Http2),
    ] {
        for status in [200, 503] {
            let reply = Reply::whole(status, &fields.map(|(n, v)| (lower(n), v)), "hello");
            let upstream = Upstream::speaking(speaks.clone(), move |_| reply.clone()).await;
            let spec = rules(&[("{path: {value: /a}}", filter)]);
            let waypoint = start(&upstream, protocol, &spec).await;
            let answer = ask(&waypoint, &get("/a")).await;
            assert_eq!((answer.status, &*answer.text()), (status, "hello"));
            for (name, expected) in [
                ("x-set", &["new"][..]),
                ("x-fresh", &["fresh"]),
                ("x-add", &["own", "more"]),
                ("x-remove", &[]),
                ("x-kept", &["kept"]),
            ] {
                let found = answer.headers.iter().filter(|(held, _)| held == name);
                let found: Vec<&str> = found.map(|(_, value)| value.as_str()).collect();
                assert_eq!(found, expected, "{protocol}: {name}");
            }
        }
    }
}

/// HTTP/2 has no capitals.
fn lower(name: &str) -> &str {
    if name == "X-Set" { "x-set" } else { name }
}

#[tokio::test]
async fn paths_are_rewritten_and_queries_are_not() {
    let rewrite = |path: &str| format!("{{type: URLRewrite, urlRewrite: {{path: {{{path}}}}}}}");
    let prefix = |to: &str| {
        rewrite(&format!(
            "type: ReplacePrefixMatch, replacePrefixMatch: \"{to}\""
        ))
    };
    let full = rewrite("type: ReplaceFullPath, replaceFullPath: /whole/new");
    let upstream = Upstream::always(Reply::whole(200, &[], "")).await;
    // The table of Gateway API, `replacePrefixMatch`.
    for (matched, filter, rows) in [
        (
            "/foo",
            prefix("/xyz"),
            &[
                ("/foo/bar", "/xyz/bar"),
                ("/foo", "/xyz"),
                ("/foo/", "/xyz/"),
                ("/foo?a=/foo&b", "/xyz?a=/foo&b"),
                ("/foo/foo/foo", "/xyz/foo/foo"),
                ("/foo/b%20r/%E2%82%AC", "/xyz/b%20r/%E2%82%AC"),
            ][..],
        ),
        ("/foo", prefix("/xyz/"), &[("/foo/bar", "/xyz/bar")]),
        ("/foo/", prefix("/xyz"), &[("/foo/bar", "/xyz/bar")]),
        ("/foo/", prefix("/xyz/"), &[("/foo/bar", "/xyz/bar")]),
        (
            "/foo",
            prefix(""),
            &[("/foo/bar", "/bar"), ("/foo/", "/"), ("/foo", "/")],
        ),
        (
            "/foo",
            prefix("/"),
            &[
                ("/foo/bar", "/bar"),
                ("/foo/", "/"),
                ("/foo", "/"),
                ("/foo?a", "/?a"),
            ],
        ),
        (
            "/",
            prefix("/xyz"),
            &[("/", "/xyz/"), ("/a", "/xyz/a"), ("/?q", "/xyz/?q")],
        ),
        (
            "/foo",
            full,
            &[
                ("/foo", "/whole/new"),
                ("/foo/bar", "/whole/new"),
                ("/foo/bar?a=b", "/whole/new?a=b"),
            ],
        ),
    ] {
        let spec = rules(&[(&format!("{{path: {{value: {matched}}}}}"), &filter)]);
        let waypoint = start(&upstream, "http", &spec).await;
        for (path, expected) in rows {
            let answer = ask(&waypoint, &get(path)).await;
            assert_eq!(answer.status, 200, "{matched} {filter} {path}");
            assert_eq!(
                upstream.last().target(),
                *expected,
                "{matched} {filter} {path}"
            );
            assert_eq!(values(&upstream.last(), "host"), ["shop.example.com"]);
        }
    }
}

#[tokio::test]
async fn hosts_are_rewritten_in_both_protocols() {
    let filter = "{type: URLRewrite, urlRewrite: {hostname: inner.example.org}}";
    for (protocol, speaks, field) in [
        ("http", Speaks::Http1, "host"),
        ("kubernetes.io/h2c", Speaks::Http2, ":authority"),
    ] {
        let upstream = Upstream::speaking(speaks, |_| Reply::whole(200, &[], "")).await;
        let spec = rules(&[("{path: {value: /a}}", filter), ("{path: {value: /b}}", "")]);
        let waypoint = start(&upstream, protocol, &spec).await;
        for (path, host) in [("/a/b?c", "inner.example.org"), ("/b", "shop.example.com")] {
            let answer = ask(&waypoint, &get(path)).await;
            assert_eq!(answer.status, 200, "{protocol} {path}");
            assert_host(&upstream.last(), field, host);
            assert_eq!(upstream.last().target(), path);
        }
        let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
        let answer = http2.call(&get("/a/b?c")).await.unwrap();
        assert_eq!(answer.status, 200, "{protocol}");
        assert_host(&upstream.last(), field, "inner.example.org");
    }
}

#[tokio::test]
async fn a_caller_by_http2_is_led_like_one_by_http1() {
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    let spec = format!(
        "{}- matches: [{{path: {{value: /old}}}}]\n  filters: [{redirect}]\n",
        rules(&[("{path: {value: /a}}", "")])
    );
    let waypoint = start(&upstream, "http", &spec).await;
    let mut http2 = waypoint.workload(ANN).connect_http2().await.unwrap();
    let answer = http2.call(&get("/a/b?c")).await.unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    assert_eq!(upstream.only().target(), "/a/b?c");
    assert_host(&upstream.only(), "host", "shop.example.com");
    let head = Request {
        method: "HEAD".into(),
        ..get("/a")
    };
    let answer = http2.call(&head).await.unwrap();
    assert_eq!((answer.status, upstream.last().method()), (200, "HEAD"));
    let answer = http2.call(&get("/old?a")).await.unwrap();
    assert_eq!(answer.status, 302);
    let location = answer.header("location");
    assert_eq!(location, Some("https://shop.example.com/old?a"));
}

/// HTTP/2 has the host as `:authority`, and a `host` beside it may not differ (RFC 9113 §8.3.1).
fn assert_host(seen: &Seen, field: &str, expected: &str) {
    assert_eq!(values(seen, field), [expected], "{seen:?}");
    for also in seen.fields("host") {
        assert_eq!(also, expected, "{seen:?}");
    }
}

#[tokio::test]
async fn redirects_are_answered_without_a_backend() {
    let redirect =
        |fields: &str| format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}");
    let replace = |how: &str| redirect(&format!("path: {{{how}}}"));
    let list = [
        (
            "/all",
            redirect("scheme: https, hostname: other.example.org, port: 8443, statusCode: 301"),
        ),
        ("/host", redirect("hostname: other.example.org")),
        ("/https", redirect("scheme: https")),
        ("/http", redirect("scheme: http, statusCode: 301")),
        ("/port", redirect("port: 8080")),
        ("/well-known", redirect("scheme: http, port: 80")),
        ("/odd", redirect("scheme: http, port: 443")),
        (
            "/full",
            replace("type: ReplaceFullPath, replaceFullPath: /new/place"),
        ),
        (
            "/prefix",
            replace("type: ReplacePrefixMatch, replacePrefixMatch: /new"),
        ),
        (
            "/gone",
            replace("type: ReplacePrefixMatch, replacePrefixMatch: /"),
        ),
    ];
    let spec = list
        .iter()
        .fold("rules:\n".to_owned(), |text, (path, filter)| {
            format!("{text}- matches: [{{path: {{value: {path}}}}}]\n  filters: [{filter}]\n")
        });
    let objects = http_route("app", &spec);
    let waypoint = Setup::new(&objects)
        .parameters("posture: Observe")
        .start()
        .await;
    let (tls, plain) = (waypoint.ports.mtls, waypoint.ports.dev);
    for (path, status, expected) in [
        (
            "/all/a?b=c",
            301,
            "https://other.example.org:8443/all/a?b=c".to_owned(),
        ),
        (
            "/host/a",
            302,
            format!("https://other.example.org:{tls}/host/a"),
        ),
        ("/https", 302, "https://shop.example.com/https".to_owned()),
        ("/http?a", 301, "http://shop.example.com/http?a".to_owned()),
        (
            "/port",
            302,
            "https://shop.example.com:8080/port".to_owned(),
        ),
        (
            "/well-known",
            302,
            "http://shop.example.com/well-known".to_owned(),
        ),
        ("/odd", 302, "http://shop.example.com:443/odd".to_owned()),
        (
            "/full/a/b?c",
            302,
            format!("https://shop.example.com:{tls}/new/place?c"),
        ),
        (
            "/prefix/a/b?c",
            302,
            format!("https://shop.example.com:{tls}/new/a/b?c"),
        ),
        ("/gone/a", 302, format!("https://shop.example.com:{tls}/a")),
        ("/gone", 302, format!("https://shop.example.com:{tls}/")),
    ] {
        let answer = ask(&waypoint, &get(path)).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("location"), Some(&*expected), "{path}");
        assert!(answer.body.is_empty(), "{path}: {}", answer.text());
    }
    let request = Request::new("GET", "/host/a").host("localhost");
    let answer = waypoint.developer().call(&request).await.unwrap();
    let expected = format!("http://other.example.org:{plain}/host/a");
    assert_eq!(
        answer.header("location"),
        Some(&*expected),
        "a plain listener"
    );
    // What a caller writes never becomes another place.
    let answer = ask(&waypoint, &get("/evil.example/..//../http/%2e%2e/https")).await;
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_eq!(
        answer.header("location"),
        Some("https://shop.example.com/https")
    );
}

#[tokio::test]
async fn filters_hold_for_what_policy_has_allowed_only() {
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let spec = rules(&[(
        "{path: {value: /open}}",
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /closed}}}",
    )]);
    let policy = waypoint_tests::waypoint::agent(
        "app",
        "Deny",
        "- name: closed\n  http: [{paths: [\"/open/secret*\"]}]",
    );
    let objects = [
        service("app", &upstream, "http"),
        http_route("app", &spec),
        policy,
    ];
    let waypoint = Setup::new(&objects.concat())
        .parameters("posture: Observe")
        .start()
        .await;
    assert_eq!(ask(&waypoint, &get("/open/a")).await.status, 200);
    assert_eq!(upstream.last().target(), "/closed/a");
    // Decisions are made on what was asked, before anything is rewritten.
    assert_eq!(ask(&waypoint, &get("/open/secret/b")).await.status, 403);
    assert_eq!(upstream.seen().len(), 1);
}

/// RFC 3986 §3.2.2: the brackets of an IPv6 literal are part of the host.
#[tokio::test]
async fn a_redirect_keeps_the_brackets_of_an_ipv6_host() {
    let rules = "rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]";
    let waypoint = Setup::new(&http_route("app", rules))
        .parameters("posture: Observe")
        .start()
        .await;
    let answer = waypoint
        .developer()
        .call(&Request::new("GET", "/a").host("[::1]:80"))
        .await
        .unwrap();
    assert_eq!(answer.header("location"), Some("https://[::1]/a"));
}

//! What a Gateway API user expects of `HTTPRoute`: which rule a request takes.

use std::sync::Arc;

use waypoint_tests::client::{Answer, Request};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, http_route, service};

/// Services `one`, `two`, `three` and `four` that answer with their names.
async fn services() -> (Vec<Arc<Upstream>>, String) {
    let mut upstreams = Vec::new();
    let mut objects = String::new();
    for name in ["one", "two", "three", "four"] {
        let upstream = Upstream::always(Reply::whole(200, &[], name)).await;
        objects += &service(name, &upstream, "http");
        upstreams.push(upstream);
    }
    (upstreams, objects)
}

async fn ask(waypoint: &Waypoint, request: &Request) -> Answer {
    waypoint.workload(ANN).call(request).await.unwrap()
}

fn get(path: &str) -> Request {
    Request::new("GET", path)
}

#[tokio::test]
async fn the_most_specific_match_takes_the_request() {
    let (_upstreams, services) = services().await;
    // The rules stand in the order that is wrong by everything but their matches.
    let rules = |rules: &[(&str, &str)]| {
        rules
            .iter()
            .fold("rules:\n".to_owned(), |text, (matches, to)| {
                format!("{text}- matches: [{matches}]\n  backendRefs: [{{name: {to}, port: 80}}]\n")
            })
    };
    let path = |kind: &str, value: &str| format!("path: {{type: {kind}, value: {value}}}");
    let prefix = |value: &str| path("PathPrefix", value);
    for (case, list, rows) in [
        (
            "an exact path before a longer prefix, a longer prefix before a shorter one",
            rules(&[
                (&format!("{{{}}}", prefix("/")), "one"),
                (&format!("{{{}}}", prefix("/a")), "two"),
                (&format!("{{{}}}", prefix("/a/b")), "three"),
                (&format!("{{{}}}", path("Exact", "/a/b")), "four"),
            ]),
            vec![
                (get("/"), "one"),
                (get("/ab"), "one"),
                (get("/A"), "one"),
                (get("/a"), "two"),
                (get("/a/"), "two"),
                (get("/a/bc"), "two"),
                (get("/a/b/"), "three"),
                (get("/a/b/c?d=/a/b"), "three"),
                (get("/a/b"), "four"),
                (get("/a/b?x"), "four"),
            ],
        ),
        (
            "a method before headers, more headers before fewer, a longer path before all",
            rules(&[
                (&format!("{{{}}}", prefix("/a")), "one"),
                (
                    &format!(
                        "{{{}, headers: [{{name: x-a, value: \"1\"}}, {{name: x-b, value: \"2\"}}]}}",
                        prefix("/a")
                    ),
                    "two",
                ),
                (&format!("{{{}, method: GET}}", prefix("/a")), "three"),
                (&format!("{{{}}}", prefix("/a/b")), "four"),
            ]),
            vec![
                (Request::post("/a", ""), "one"),
                (get("/a"), "three"),
                (get("/a").header("x-a", "1").header("x-b", "2"), "three"),
                (
                    Request::post("/a", "")
                        .header("x-a", "1")
                        .header("x-b", "2"),
                    "two",
                ),
                (Request::post("/a", "").header("x-a", "1"), "one"),
                (
                    Request::post("/a/b", "")
                        .header("x-a", "1")
                        .header("x-b", "2"),
                    "four",
                ),
            ],
        ),
        (
            "all conditions of a match, any match of a rule, names of any case, whole values",
            rules(&[
                (
                    "{headers: [{name: X-Canary, value: \"Yes\"}], method: GET}, {path: {value: /b}}",
                    "one",
                ),
                (
                    "{headers: [{name: x-canary, value: \"Yes\"}, {name: x-more, value: \"1\"}]}",
                    "two",
                ),
                ("{path: {value: /}}", "three"),
                ("{headers: [{name: x-canary, value: \"Yes\"}]}", "four"),
            ]),
            vec![
                (get("/a").header("x-canary", "Yes"), "one"),
                (get("/b"), "one"),
                (Request::post("/b", "").header("x-canary", "Yes"), "one"),
                (Request::post("/a", "").header("X-CANARY", "Yes"), "four"),
                (
                    Request::post("/a", "")
                        .header("x-canary", "Yes")
                        .header("x-more", "1"),
                    "two",
                ),
                (get("/a").header("x-canary", "yes"), "three"),
                (get("/a").header("x-canary", "Yes!"), "three"),
                (get("/a").header("x-canary", ""), "three"),
            ],
        ),
        (
            "the first rule of those that are as specific",
            rules(&[
                ("{path: {value: /a}, method: GET}", "one"),
                ("{path: {value: /a}, method: POST}", "two"),
                ("{headers: [{name: x-a, value: \"1\"}]}", "three"),
                ("{headers: [{name: x-b, value: \"1\"}]}", "four"),
            ]),
            vec![
                (get("/a"), "one"),
                (Request::post("/a", ""), "two"),
                (get("/b").header("x-b", "1"), "four"),
                (get("/b").header("x-a", "1").header("x-b", "1"), "three"),
            ],
        ),
    ] {
        let objects = services.clone() + &http_route("app", &list);
        let waypoint = Setup::new(&objects)
            .parameters("posture: Observe")
            .start()
            .await;
        for (request, expected) in rows {
            let what = format!(
                "{case}: {} {} {:?}",
                request.method, request.target, request.headers
            );
            let answer = ask(&waypoint, &request).await;
            assert_eq!((answer.status, &*answer.text()), (200, expected), "{what}");
        }
    }
}

#[tokio::test]
async fn what_no_rule_matches_is_not_found() {
    let (upstreams, services) = services().await;
    let rules = "\
hostnames: [shop.example.com]
rules:
- matches: [{path: {value: /a}, method: GET, headers: [{name: x-a, value: \"1\"}]}]
  backendRefs: [{name: one, port: 80}]
";
    let objects = services + &http_route("app", rules);
    let waypoint = Setup::new(&objects)
        .parameters("posture: Observe")
        .start()
        .await;
    let right = get("/a").header("x-a", "1").host("shop.example.com");
    assert_eq!(ask(&waypoint, &right).await.status, 200);
    for (case, request) in [
        (
            "path",
            Request {
                target: "/b".into(),
                ..right.clone()
            },
        ),
        (
            "longer word",
            Request {
                target: "/ab".into(),
                ..right.clone()
            },
        ),
        (
            "method",
            Request {
                method: "DELETE".into(),
                ..right.clone()
            },
        ),
        ("header", right.clone().without("x-a")),
        ("host", right.clone().host("example.com")),
        ("host below", right.clone().host("a.shop.example.com")),
    ] {
        assert_eq!(ask(&waypoint, &request).await.status, 404, "{case}");
    }
    assert_eq!(upstreams[0].seen().len(), 1);
}

#[tokio::test]
async fn the_most_specific_host_takes_the_request() {
    let (_upstreams, services) = services().await;
    let to = |name: &str, hosts: &str, path: &str, service: &str| {
        http_route(
            name,
            &format!(
                "{hosts}\nrules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {service}, port: 80}}]}}]"
            ),
        )
    };
    let objects = [
        services,
        to("any", "", "/long/path", "one"),
        to("below", "hostnames: [\"*.example.com\"]", "/long", "two"),
        to(
            "further",
            "hostnames: [\"*.shop.example.com\"]",
            "/",
            "three",
        ),
        to("exact", "hostnames: [www.shop.example.com]", "/", "four"),
    ];
    let waypoint = Setup::new(&objects.concat())
        .parameters("posture: Observe")
        .start()
        .await;
    for (host, expected) in [
        ("www.shop.example.com", "four"),
        ("www.shop.example.com:8443", "four"),
        ("WWW.Shop.Example.COM", "four"),
        ("a.shop.example.com", "three"),
        ("b.a.shop.example.com", "three"),
        ("shop.example.com", "two"),
        ("a.b.example.com", "two"),
        // A wildcard needs a label of its own.
        ("example.com", "one"),
        ("notexample.com", "one"),
        ("example.org", "one"),
    ] {
        let answer = ask(&waypoint, &get("/long/path").host(host)).await;
        assert_eq!((answer.status, &*answer.text()), (200, expected), "{host}");
    }
}

#[tokio::test]
async fn matches_as_specific_of_two_routes_go_to_the_first_by_name() {
    // Gateway API: by creation first, which files do not have, then by name.
    let (_upstreams, services) = services().await;
    let spec = |header: &str, to: &str| {
        format!(
            "rules: [{{matches: [{{headers: [{{name: {header}, value: \"1\"}}]}}], backendRefs: [{{name: {to}, port: 80}}]}}]"
        )
    };
    let objects = [
        services,
        http_route("zebra", &spec("x-a", "one")),
        http_route("ant", &spec("x-b", "two")),
    ];
    let waypoint = Setup::new(&objects.concat())
        .parameters("posture: Observe")
        .start()
        .await;
    let both = get("/a").header("x-a", "1").header("x-b", "1");
    let answer = ask(&waypoint, &both).await;
    assert_eq!((answer.status, &*answer.text()), (200, "two"));
}

#[tokio::test]
async fn weights_share_the_requests_and_zero_is_none() {
    let (upstreams, services) = services().await;
    let rules = "\
rules:
- matches: [{path: {value: /shared}}]
  backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80}, {name: three, port: 80, weight: 0}]
- matches: [{path: {value: /none}}]
  backendRefs: [{name: four, port: 80, weight: 0}]
";
    let objects = services + &http_route("app", rules);
    let waypoint = Setup::new(&objects)
        .parameters("posture: Observe")
        .start()
        .await;
    let mut connection = waypoint.workload(ANN).connect().await.unwrap();
    for _ in 0..400 {
        let answer = connection.call(&get("/shared")).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let [one, two, three] = [0, 1, 2].map(|index| upstreams[index].seen().len());
    assert_eq!((one + two, three), (400, 0));
    // Of 400 requests 300 are expected, with a deviation of 9: seven of them are never reached.
    assert!((237..=363).contains(&one), "{one} of 400");
    // Gateway API, `weight`: a rule that has only zeros answers 500.
    let answer = connection.call(&get("/none")).await.unwrap();
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(upstreams[3].seen().is_empty());
}

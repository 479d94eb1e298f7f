//! `pathNormalization` of the mesh: the path that is judged is the one the upstream receives.

use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat, chat_answer};
use waypoint_tests::upstream::{Reply, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, http_route, object, provider, route, service};

/// A path as a caller sends it, and what NONE, BASE, MERGE_SLASHES and DECODE_AND_MERGE_SLASHES
/// make of it.
const PATHS: [(&str, [&str; 4]); 9] = [
    ("/plain", ["/plain"; 4]),
    ("/a/./b/../c", ["/a/./b/../c", "/a/c", "/a/c", "/a/c"]),
    ("/%64ots/%2E%2e", ["/%64ots/%2E%2e", "/", "/", "/"]),
    ("/x%c3%a9", ["/x%c3%a9", "/x%C3%A9", "/x%C3%A9", "/x%C3%A9"]),
    (
        "//two///three//",
        [
            "//two///three//",
            "//two///three//",
            "/two/three/",
            "/two/three/",
        ],
    ),
    (
        "/back\\slash",
        ["/back\\slash", "/back/slash", "/back/slash", "/back/slash"],
    ),
    ("/f%2Fg", ["/f%2Fg", "/f%2Fg", "/f%2Fg", "/f/g"]),
    ("/h%5ci", ["/h%5ci", "/h%5Ci", "/h%5Ci", "/h/i"]),
    ("/j/..%2fk", ["/j/..%2fk", "/j/..%2Fk", "/j/..%2Fk", "/k"]),
];

fn mesh(mode: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data: {{mesh: \"pathNormalization: {{normalization: {mode}}}\"}}\n"
    )
}

/// Denies each row's request, by its number, when it is judged as what is expected.
fn denials(mode: usize) -> String {
    let rule = |(row, (_, forms)): (usize, &(&str, [&str; 4]))| {
        format!(
            "- to: [{{operation: {{paths: ['{}']}}}}]
  when: [{{key: \"request.headers[x-row]\", values: [\"{row}\"]}}]
",
            forms[mode]
        )
    };
    let rules: String = PATHS.iter().enumerate().map(rule).collect();
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]";
    let spec = format!("{target}\naction: DENY\nrules:\n{rules}");
    object("security.istio.io/v1", "AuthorizationPolicy", "one", &spec)
}

#[tokio::test]
async fn what_is_judged_is_what_the_upstream_receives() {
    let upstream = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let app = format!(
        "{}{}",
        service("app", &upstream, "http"),
        http_route("app", "rules: [{backendRefs: [{name: app, port: 80}]}]")
    );
    let waypoint = Setup::new(&app).start().await;
    let ann = waypoint.workload(ANN);
    for (mode, form) in [
        ("NONE", 0),
        ("BASE", 1),
        ("DEFAULT", 1),
        ("MERGE_SLASHES", 2),
        ("DECODE_AND_MERGE_SLASHES", 3),
    ] {
        let objects = format!("{app}{}{}", denials(form), mesh(mode));
        waypoint.reload(&objects).await;
        for (row, (sent, forms)) in PATHS.into_iter().enumerate() {
            let request = Request::new("GET", &format!("{sent}?q=/../%2F"));
            let denied = request.clone().header("x-row", &row.to_string());
            let answer = ann.call(&denied).await.unwrap();
            assert_eq!(answer.status, 403, "{mode} {sent}: {}", answer.text());
            let answer = ann.call(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{mode} {sent}: {}", answer.text());
            let expected = format!("{}?q=/../%2F", forms[form]);
            assert_eq!(upstream.last().target(), expected, "{mode} {sent}");
        }
        let before = upstream.seen().len();
        for sent in [
            "/a%00", "/a%0Ab", "/a%zz", "/a%2", "/a\u{1}", "/a#b", "/a?b#c",
        ] {
            let answer = ann.call(&Request::new("GET", sent)).await.unwrap();
            assert_eq!(answer.status, 400, "{mode} {sent}: {}", answer.text());
        }
        assert_eq!(upstream.seen().len(), before, "{mode}");
    }
}

/// Without the mesh configuration it is BASE; and what leads to models has one reading everywhere.
#[tokio::test]
async fn paths_to_models_are_unambiguous_in_every_form() {
    let openai = Upstream::always(chat_answer()).await;
    let app = Upstream::always(Reply::whole(200, &[], "hello")).await;
    let objects = [
        provider("openai", "OpenAI", &openai, ""),
        route("llm", "- backendRefs: [{kind: LLMProvider, name: openai}]"),
        service("app", &app, "http"),
        http_route(
            "app",
            "rules:
- matches: [{path: {value: /app}}]
  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1/app}}}]
  backendRefs: [{name: app, port: 80}]",
        ),
    ]
    .concat();
    let waypoint = Setup::new(&objects).start().await;
    let ann = waypoint.workload(ANN);
    let chat = |path: &str| Request {
        target: path.to_owned(),
        ..chat("gpt-4o")
    };
    for (mode, sent, status) in [
        ("", "/ai/v1/chat/completions", 200),
        ("", "/ai/x/../v1/chat/completions", 200),
        ("", "/ai//v1/chat/completions", 400),
        ("", "/ai/v1/chat%2Fcompletions", 400),
        ("", "/ai/..;/ai/v1/chat/completions", 400),
        ("MERGE_SLASHES", "/ai//v1/chat/completions", 200),
        ("DECODE_AND_MERGE_SLASHES", "/ai/v1/chat%2Fcompletions", 200),
        ("NONE", "/ai/v1/chat/completions", 200),
        ("NONE", "/ai/x/../v1/chat/completions", 400),
        ("NONE", "/ai/v1/%63hat/completions", 400),
    ] {
        let more = if mode.is_empty() {
            String::new()
        } else {
            mesh(mode)
        };
        waypoint
            .reload(&format!("{objects}{more}\n# {mode}{sent}"))
            .await;
        let answer = ann.call(&chat(sent)).await.unwrap();
        assert_eq!(answer.status, status, "{mode} {sent}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        let code = (status == 400).then_some("bad_request");
        assert_eq!(event["code"].as_str(), code, "{mode} {sent}");
    }
    // A prefix is one for the receiver too.
    waypoint.reload(&format!("{objects}{}", mesh("NONE"))).await;
    for (sent, received) in [
        ("/app/a/../b", Some("/v1/app/a/../b")),
        ("/app/../../admin", None),
        ("/app/%2e%2e/admin", None),
        ("/app/a\\..\\..\\..\\admin", None),
    ] {
        let before = app.seen().len();
        let answer = ann.call(&Request::new("GET", sent)).await.unwrap();
        match received {
            Some(target) => assert_eq!((answer.status, app.last().target()), (200, target)),
            None => assert_eq!((answer.status, app.seen().len()), (400, before), "{sent}"),
        }
    }
}

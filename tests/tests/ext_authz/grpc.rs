//! A real gRPC server of `envoy.service.auth.v3.Authorization`, built from Envoy's own messages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse, DeniedHttpResponse,
    HeaderValue, HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse, QueryParameter,
};
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request as Call, Response, Status};
use waypoint_tests::client::Request;
use waypoint_tests::llm::chat;
use waypoint_tests::waypoint::ANN;

use super::{ASKED, Parts, ask, by, call_tool, custom, get, mesh_with, policy};

const PERMISSION_DENIED: i32 = 7;

/// Says what the header `x-say` of a request asks for.
#[derive(Debug, Default)]
struct Authorizer {
    seen: Mutex<Vec<CheckRequest>>,
}

/// Keeps what it was asked, and shares it.
#[derive(Debug, Clone)]
struct Shared(Arc<Authorizer>);

#[tonic::async_trait]
impl Authorization for Shared {
    async fn check(&self, call: Call<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = call.into_inner();
        let say = http(&request).headers.get("x-say").cloned();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(request);
        say.map_or_else(|| Ok(ok(OkHttpResponse::default())), |say| answer(&say))
            .map(Response::new)
    }
}

fn http(request: &CheckRequest) -> &HttpRequest {
    let attributes = request.attributes.as_ref().unwrap();
    attributes.request.as_ref().unwrap().http.as_ref().unwrap()
}

#[expect(
    deprecated,
    reason = "the older way to say it, which authorizers still use"
)]
fn header(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.into(),
            value: value.into(),
            ..HeaderValue::default()
        }),
        append: append.map(|value| BoolValue { value }),
        ..HeaderValueOption::default()
    }
}

fn response(code: i32, http_response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus {
            code,
            ..RpcStatus::default()
        }),
        http_response,
        ..CheckResponse::default()
    }
}

fn ok(ok: OkHttpResponse) -> CheckResponse {
    response(0, Some(HttpResponse::OkResponse(ok)))
}

fn parameter(key: &str, value: &str) -> QueryParameter {
    QueryParameter {
        key: key.into(),
        value: value.into(),
    }
}

fn answer(say: &str) -> Result<CheckResponse, Status> {
    let denied = |code: i32, body: &str| {
        let denied = DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            headers: vec![header("x-why", "because", None)],
            body: body.into(),
        };
        response(
            PERMISSION_DENIED,
            Some(HttpResponse::DeniedResponse(denied)),
        )
    };
    Ok(match say {
        "changes" => ok(OkHttpResponse {
            headers: vec![
                header("x-user", "ann", None),
                header("x-list", "two", Some(true)),
            ],
            headers_to_remove: vec!["x-drop".into()],
            response_headers_to_add: vec![header("x-note", "for the caller", None)],
            ..OkHttpResponse::default()
        }),
        "nothing" => response(0, None),
        "denied" => denied(418, "said the authorizer"),
        "denied by code" => response(PERMISSION_DENIED, None),
        "denied with ok" => response(
            PERMISSION_DENIED,
            Some(HttpResponse::OkResponse(OkHttpResponse::default())),
        ),
        "denied as 200" => denied(200, ""),
        "another host" => ok(OkHttpResponse {
            headers: vec![header(":authority", "evil.example", None)],
            ..OkHttpResponse::default()
        }),
        "two parameters in one" => ok(OkHttpResponse {
            query_parameters_to_set: vec![parameter("user", "ann&admin=1")],
            ..OkHttpResponse::default()
        }),
        "another query" => ok(OkHttpResponse {
            query_parameters_to_set: vec![parameter("user", "ann"), parameter("limit", "5")],
            query_parameters_to_remove: vec!["admin".into(), "after".into()],
            ..OkHttpResponse::default()
        }),
        "no query" => ok(OkHttpResponse {
            query_parameters_to_remove: vec!["q".into()],
            ..OkHttpResponse::default()
        }),
        _ => return Err(Status::unavailable("not now")),
    })
}

/// A running server; ends when it is dropped.
struct Server {
    address: SocketAddr,
    authorizer: Arc<Authorizer>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authorizer = Arc::<Authorizer>::default();
        let service = AuthorizationServer::new(Shared(Arc::clone(&authorizer)));
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let incoming = TcpListenerStream::new(listener);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            address,
            authorizer,
            task,
        }
    }

    fn seen(&self) -> Vec<CheckRequest> {
        let seen = self.authorizer.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn mesh(&self, more: &str) -> String {
        let port = self.address.port();
        mesh_with(&format!(
            "- name: authz\n  envoyExtAuthzGrpc: {{service: 127.0.0.1, port: {port}, timeout: 5s{more}}}\n"
        ))
    }
}

#[tokio::test]
async fn grpc_allows_and_denies() {
    let server = Server::start().await;
    let parts = Parts::new().await;
    let objects = [
        server.mesh(", statusOnError: \"503\""),
        custom("ask", "authz", ASKED),
    ];
    let waypoint = parts.start(&objects).await;
    for (say, status, body, code) in [
        ("nothing", 200, "hello", Value::Null),
        ("changes", 200, "hello", Value::Null),
        ("denied", 418, "said the authorizer", "forbidden".into()),
        (
            "denied by code",
            403,
            "RBAC: access denied",
            "forbidden".into(),
        ),
        (
            "denied with ok",
            403,
            "RBAC: access denied",
            "forbidden".into(),
        ),
        (
            "denied as 200",
            403,
            "RBAC: access denied",
            "forbidden".into(),
        ),
        (
            "another host",
            503,
            "nobody could be asked",
            "authorizer_unavailable".into(),
        ),
        (
            "two parameters in one",
            503,
            "nobody could be asked",
            "authorizer_unavailable".into(),
        ),
        (
            "an error",
            503,
            "nobody could be asked",
            "authorizer_unavailable".into(),
        ),
    ] {
        let before = parts.app.seen().len();
        let request = get("/asked").header("x-say", say).header("x-list", "one");
        let request = request.header("x-user", "forged").header("x-drop", "1");
        let answer = ask(&waypoint, &request).await;
        assert_eq!(answer.status, status, "{say}: {}", answer.text());
        assert!(answer.text().starts_with(body), "{say}: {}", answer.text());
        let event = waypoint.event(&answer).await;
        assert_eq!(event["code"], code, "{say}: {event}");
        let reached = parts.app.seen().len() - before;
        assert_eq!(reached, usize::from(code.is_null()), "{say}");
        if !code.is_null() {
            assert_eq!(event["by"], by("ask"), "{say}: {event}");
        }
        match say {
            "denied" => assert_eq!(answer.header("x-why"), Some("because")),
            "changes" => {
                assert_eq!(answer.header("x-note"), Some("for the caller"));
                let forwarded = parts.app.last();
                assert_eq!(forwarded.fields("x-user").collect::<Vec<_>>(), ["ann"]);
                assert_eq!(
                    forwarded.fields("x-list").collect::<Vec<_>>(),
                    ["one", "two"]
                );
                assert_eq!(forwarded.header("x-drop"), None);
            }
            _ => {}
        }
    }
    // LLM and MCP calls are asked about as well.
    for request in [chat("m"), call_tool()] {
        let denied = ask(&waypoint, &request.clone().header("x-say", "denied")).await;
        assert_eq!(
            (denied.status, &*denied.text()),
            (418, "said the authorizer")
        );
        assert_eq!(ask(&waypoint, &request).await.status, 200);
    }
    // Nobody is there.
    let port = waypoint_tests::ports::free();
    let nobody = mesh_with(&format!(
        "- name: authz\n  envoyExtAuthzGrpc: {{service: 127.0.0.1, port: {port}, statusOnError: \"503\"}}\n"
    ));
    let objects = [nobody, custom("ask", "authz", ASKED)];
    waypoint
        .reload(&format!("{}{}", parts.objects, objects.concat()))
        .await;
    let answer = ask(&waypoint, &get("/asked")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
}

#[tokio::test]
async fn a_check_says_who_asks_for_what() {
    let server = Server::start().await;
    let parts = Parts::new().await;
    let body = ", includeRequestBodyInCheck: {maxRequestBytes: 10, allowPartialMessage: true}";
    let objects = [server.mesh(body), custom("ask", "authz", ASKED)];
    let waypoint = parts.start(&objects).await;
    let request = Request::post("/asked/x?q=1", "0123456789abc")
        .host("app.example.com")
        .header("x-many", "1")
        .header("x-many", "2")
        .header("x-forwarded-client-cert", "forged");
    assert_eq!(ask(&waypoint, &request).await.status, 200);
    let seen = server.seen();
    let [check] = &*seen else {
        panic!("{} checks", seen.len())
    };
    let attributes = check.attributes.as_ref().unwrap();
    let source = attributes.source.as_ref().unwrap();
    assert_eq!(source.principal, ANN);
    let address = source.address.as_ref().unwrap().address.as_ref().unwrap();
    let Address::SocketAddress(address) = address else {
        panic!("{address:?}")
    };
    assert_eq!(address.address, "127.0.0.1");
    assert!(attributes.destination.is_some());
    let time = attributes.request.as_ref().unwrap().time.as_ref().unwrap();
    assert!(time.seconds > 1_700_000_000, "{time:?}");
    let http = http(check);
    assert_eq!(http.method, "POST");
    assert_eq!(http.path, "/asked/x?q=1");
    assert_eq!(http.host, "app.example.com");
    assert_eq!(http.scheme, "https");
    assert_eq!(http.protocol, "HTTP/1.1");
    assert_eq!(http.size, 13);
    assert_eq!(http.body, "0123456789");
    assert!(!http.id.is_empty());
    for (name, value) in [
        (":method", Some("POST")),
        (":path", Some("/asked/x?q=1")),
        (":authority", Some("app.example.com")),
        ("x-many", Some("1,2")),
        ("x-envoy-auth-partial-body", Some("true")),
        ("x-forwarded-client-cert", None),
    ] {
        assert_eq!(http.headers.get(name).map(|v| &**v), value, "{name}");
    }
    // As bytes, where the operator wants them so.
    let body = ", includeRequestBodyInCheck: {maxRequestBytes: 100, packAsBytes: true}";
    let objects = [server.mesh(body), custom("ask", "authz", ASKED)];
    waypoint
        .reload(&format!("{}{}", parts.objects, objects.concat()))
        .await;
    let binary = Request::post("/asked", [0xff, 0x00, 0xfe]).host("app.example.com");
    assert_eq!(ask(&waypoint, &binary).await.status, 200);
    let seen = server.seen();
    let shown = self::http(seen.last().unwrap());
    assert_eq!(
        (&*shown.body, &shown.raw_body[..]),
        ("", &[0xff, 0x00, 0xfe][..])
    );
    assert_eq!(parts.app.last().body, [0xff, 0x00, 0xfe]);
}

#[tokio::test]
async fn the_query_goes_on_as_the_authorizer_changed_it() {
    let server = Server::start().await;
    let parts = Parts::new().await;
    // What comes after it is asked about the same request as goes on.
    let deny = policy(
        "deny",
        "action: DENY\nrules: [{to: [{operation: {paths: [\"/asked/no\"]}}]}]",
    );
    let objects = [server.mesh(""), custom("ask", "authz", ASKED), deny];
    let waypoint = parts.start(&objects).await;
    let another = "another query";
    for (sent, say, forwarded) in [
        ("/asked", another, Some("/asked?user=ann&limit=5")),
        (
            "/asked/x?admin=1&q=%20&user=bob&%61dmin&user=eve",
            another,
            Some("/asked/x?q=%20&user=ann&limit=5"),
        ),
        ("/asked?q=1", "no query", Some("/asked")),
        ("/asked?b=1&&a", "nothing", Some("/asked?b=1&&a")),
        ("/asked/no?admin=1", another, None),
    ] {
        let before = parts.app.seen().len();
        let answer = ask(&waypoint, &get(sent).header("x-say", say)).await;
        assert_eq!(http(server.seen().last().unwrap()).path, sent);
        let Some(forwarded) = forwarded else {
            assert_eq!(answer.status, 403, "{sent}");
            assert_eq!(waypoint.event(&answer).await["by"], by("deny"), "{sent}");
            assert_eq!(parts.app.seen().len(), before, "{sent}");
            continue;
        };
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        assert_eq!(parts.app.last().target(), forwarded, "{sent}");
    }
    // To a model goes what may pass, whoever put it there; to a tool no query goes.
    let mut request = chat("m").header("x-say", another);
    request.target.push_str("?limit=9&after=x&before=y&key=1");
    let answer = ask(&waypoint, &request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        parts.llm.last().target(),
        "/v1/chat/completions?limit=5&before=y"
    );
    let answer = ask(&waypoint, &call_tool().header("x-say", another)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!parts.mcp.last().target().contains('?'));
}

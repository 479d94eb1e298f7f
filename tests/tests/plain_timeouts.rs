//! Timeouts of plain routes: they hold for each part of a request.

use waypoint_tests::client::Request;
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Backend, Setup, http_route, object, service};

struct At(std::net::SocketAddr);

impl Backend for At {
    fn address(&self) -> std::net::SocketAddr {
        self.0
    }
}

/// Gateway API, `timeouts.request`: an answer must come by then. Connecting has a bound of its own,
/// 5 s, that the route's does not shorten.
#[tokio::test]
async fn a_handshake_that_never_ends_counts_for_the_timeout_of_a_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let entry = object(
        "networking.istio.io/v1",
        "ServiceEntry",
        "shop",
        &format!(
            "hosts: [shop.localhost]\nlocation: MESH_EXTERNAL\nports: [{{number: 443, name: https, protocol: HTTPS, targetPort: {port}}}]\nresolution: DNS"
        ),
    );
    let silent = Upstream::always(Reply::default().then(Step::Stall)).await;
    let rules = "\
rules:
- matches: [{path: {value: /short}}]
  timeouts: {request: 300ms}
  backendRefs: [{group: networking.istio.io, kind: Hostname, name: shop.localhost, port: 443}]
- matches: [{path: {value: /long}}]
  timeouts: {request: 3s}
  backendRefs: [{name: app, port: 80}]
";
    let objects = [
        entry,
        service("app", &silent, "http"),
        http_route("app", rules),
    ];
    let waypoint = Setup::new(&objects.concat())
        .parameters("posture: Observe")
        .start()
        .await;
    let (one, other) = (waypoint.workload(ANN), waypoint.workload(ANN));
    let get = |path| Request::new("GET", path).host("shop.localhost");
    let (short, long) = (get("/short"), get("/long"));
    tokio::select! {
        answer = one.call(&short) => {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 504, "{}", answer.text());
        }
        _ = other.call(&long) => panic!("the short timeout outlived the long one"),
    }
}

/// The same for a backend that accepts a connection and reads nothing of a large body.
#[tokio::test]
async fn a_backend_that_does_not_read_counts_for_the_timeout_of_a_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = At(listener.local_addr().unwrap());
    let rules = "rules: [{timeouts: {request: 300ms}, backendRefs: [{name: app, port: 80}]}]";
    let waypoint = Setup::new(&(service("app", &at, "http") + &http_route("app", rules)))
        .parameters("posture: Observe")
        .start()
        .await;
    let mut connection = waypoint.developer().connect().await.unwrap();
    let request = Request {
        body: vec![b'a'; 32 << 20],
        ..Request::new("POST", "/a").host("localhost")
    };
    let answer = connection.call(&request).await;
    assert_eq!(answer.unwrap().status, 504);
}

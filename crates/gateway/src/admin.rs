//! What operators ask: health, metrics, the configuration in force, the last decisions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Response, StatusCode, header};
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::edge;
use crate::explain;
use crate::proxy::Waypoint;
use crate::record::RequestId;
use crate::serve::Phase;
use crate::tunnel;

/// Open connections of each port.
const CONNECTIONS: usize = 512;
/// For each request, the wait for it included: a connection that does nothing frees its place.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which of the three ports a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Admin,
    Metrics,
    Ready,
}

/// Answers on one port.
pub(crate) struct Admin {
    waypoint: Arc<Waypoint>,
    port: Port,
}

/// Serves one port until the process ends; readiness must be answered while draining.
pub(crate) async fn run(waypoint: Arc<Waypoint>, port: Port, listener: TcpListener) {
    let server = Arc::new(HttpServer::new_app(Admin { waypoint, port }));
    let (_keep, shutdown) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            continue;
        };
        let (server, shutdown) = (Arc::clone(&server), shutdown.clone());
        tokio::spawn(async move {
            let stream = Box::new(Stream::from(stream));
            tunnel::http1(&server, stream, &shutdown, Some(PATIENCE)).await;
            drop(slot);
        });
    }
}

fn answer(status: StatusCode, media: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let length = response.body().len();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(media),
    );
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    response
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    answer(
        status,
        "text/plain; charset=utf-8",
        format!("{body}\n").into_bytes(),
    )
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    answer(status, "application/json", body)
}

const INDEX: &str = "\
/healthz       the process is alive
/config_dump   the configuration in force, without secrets
/decisions     the last decisions, newest last (?request_id=ID for one)
/explain/ID    why a request was allowed or denied, by its x-request-id";

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        if request.method != http::Method::GET && request.method != http::Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        let path = request.uri.path();
        let query = request.uri.query().unwrap_or_default();
        match (self.port, path) {
            (Port::Metrics, "/metrics" | "/stats/prometheus") => answer(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                {
                    let metrics = &self.waypoint.recorder.metrics;
                    let buckets = self.waypoint.limits.buckets();
                    let buckets = i64::try_from(buckets).unwrap_or(i64::MAX);
                    metrics.limit_buckets.set(buckets);
                    metrics.render()
                },
            ),
            (Port::Ready, "/healthz/ready") => self.ready(),
            (Port::Admin, path) => {
                // A page in the operator's browser must not read this through a rebound name.
                let host = request
                    .headers
                    .get(header::HOST)
                    .and_then(|host| host.to_str().ok());
                if !host.is_some_and(|host| {
                    edge::is_authority(host) && edge::is_loopback_host(edge::host_of(host))
                }) {
                    return text(StatusCode::FORBIDDEN, "only by a loopback host name");
                }
                self.admin(path, query)
            }
            _ => text(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

impl Admin {
    fn ready(&self) -> Response<Vec<u8>> {
        let serving = *self.waypoint.phase.borrow() == Phase::Serving;
        let generation = self.waypoint.state.load().snapshot.generation;
        let body = serde_json::json!({"ready": serving, "generation": generation});
        let status = if serving {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json(status, body.to_string().into_bytes())
    }

    fn explain(&self, id: &str) -> Response<Vec<u8>> {
        let found = RequestId::parse(id).and_then(|id| self.waypoint.recent.find(&id));
        let Some(request) = found else {
            let why = "nothing is kept of a request with this id: it is not of this process, has not \
                       ended, or many have ended since";
            return text(StatusCode::NOT_FOUND, why);
        };
        let state = self.waypoint.state.load();
        match explain::explain(&request, &state.snapshot) {
            Ok(explanation) => json(StatusCode::OK, explanation),
            Err(error) => {
                tracing::error!(%error, "a decision cannot be explained");
                text(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be written")
            }
        }
    }

    fn admin(&self, path: &str, query: &str) -> Response<Vec<u8>> {
        match path {
            "/" | "/help" => text(StatusCode::OK, INDEX),
            "/healthz" => text(StatusCode::OK, "ok"),
            "/config_dump" => {
                let state = self.waypoint.state.load();
                let mut dump = state.snapshot.redacted_json();
                let metrics = &self.waypoint.recorder.metrics;
                dump["rule_hits"] = metrics.rule_hits(&state.snapshot.policy).into();
                let pretty = serde_json::to_vec_pretty(&dump).unwrap_or_default();
                json(StatusCode::OK, pretty)
            }
            "/decisions" => {
                let wanted = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("request_id="));
                let events = self.waypoint.recorder.audit.recent(wanted);
                json(StatusCode::OK, events)
            }
            path => match path.strip_prefix("/explain/") {
                Some(id) => self.explain(id),
                None => text(StatusCode::NOT_FOUND, "not found; see /"),
            },
        }
    }
}

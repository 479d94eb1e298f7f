//! External authorizers, whom `CUSTOM` policies ask (Istio's `extensionProviders`).

use std::sync::Arc;
use std::time::Duration;

use waypoint_policy::istio::TextMatch;

use crate::snapshot::Endpoint;

/// An authorizer, and what it means when it does not answer.
#[derive(Debug)]
pub struct ExtAuthz {
    /// Its name, by which policies ask for it.
    pub name: Arc<str>,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Until its whole answer; Istio's default is 600 s.
    pub timeout: Duration,
    /// Whether requests may go on when it cannot be asked.
    pub fail_open: bool,
    /// The status of requests that may not; 400 to 599.
    pub status_on_error: u16,
    /// How much of a request's body it sees; `None` is nothing.
    pub body: Option<CheckedBody>,
    /// What it speaks.
    pub protocol: ExtAuthzProtocol,
}

/// How much of a request's body an authorizer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedBody {
    /// At most so much, in bytes.
    pub max_bytes: usize,
    /// Whether it sees the beginning of a longer one; else that is refused with 413.
    pub allow_partial: bool,
    /// In `raw_body` rather than `body` (gRPC).
    pub as_bytes: bool,
}

/// What an authorizer speaks.
#[derive(Debug)]
pub enum ExtAuthzProtocol {
    /// Envoy's HTTP contract: it gets a request like the caller's, and 200 allows.
    Http(HttpAuthz),
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
}

/// What of a request and an answer passes. Names of headers are compared in lower case.
#[derive(Debug, Default)]
pub struct HttpAuthz {
    /// Goes before the request's path; empty or `/…`.
    pub path_prefix: String,
    /// Headers of the caller that it sees, beside those that it always does.
    pub request_headers: Vec<TextMatch>,
    /// Headers that it gets from us; lower-case names.
    pub additional_headers: Vec<(String, String)>,
    /// Headers of its answer that replace the caller's.
    pub to_upstream_on_allow: Vec<TextMatch>,
    /// Headers of its answer that are added to the destination's.
    pub to_downstream_on_allow: Vec<TextMatch>,
    /// Headers of its denial that the caller gets; empty is all.
    pub to_downstream_on_deny: Vec<TextMatch>,
}

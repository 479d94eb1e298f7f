//! What is done with a request: the routes, and what they change on the way.

use std::sync::Arc;
use std::time::Duration;

use waypoint_llm as llm;
use waypoint_mcp::Denial;
use waypoint_policy::{ObjectName, ServerId, TargetId};

use super::{Credential, Endpoint};

/// What is done with a request.
#[derive(Debug)]
pub enum Route {
    /// To LLM providers.
    Llm(LlmRoute),
    /// To an MCP server.
    Mcp(McpRoute),
    /// Forwarded as it is.
    Plain(PlainRoute),
}

/// A route to LLM providers.
#[derive(Debug)]
pub struct LlmRoute {
    /// The `LLMRoute`, or the `gateway.solo.io` Gateway it was imported from.
    pub name: ObjectName,
    /// As audit events and metrics name it: `LLMRoute/namespace/name`.
    pub label: Arc<str>,
    /// The Gateway and the route, where policies are attached to them.
    pub targets: Vec<TargetId>,
    /// What is taken off the path before the provider's API begins: `/`, or `/…` without a
    /// trailing slash.
    pub prefix: String,
    /// The first that matches the requested model.
    pub rules: Vec<llm::Rule>,
    /// Callers use the provider's own host name.
    pub host_form: bool,
}

/// A route to an MCP server.
#[derive(Debug)]
pub struct McpRoute {
    /// The `MCPProxy`.
    pub name: ObjectName,
    /// As audit events and metrics name it: `MCPProxy/namespace/name/route`.
    pub label: Arc<str>,
    /// The name of the route in it.
    pub section: Arc<str>,
    /// The Gateway, the MCPProxy and this route of it, where policies are attached to them.
    pub targets: Vec<TargetId>,
    /// The prefix as written, without a trailing slash.
    pub prefix: String,
    /// Where it goes.
    pub server: ServerId,
    /// What is shown there; the caller's own never passes.
    pub credential: Credential,
    /// How long we wait.
    pub timeouts: McpTimeouts,
    /// How a denied tool looks to the caller.
    pub denial: Denial,
}

/// How long an MCP call may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpTimeouts {
    /// To the head of the answer, and to the end of a plain one.
    pub request: Duration,
    /// To a connection.
    pub connect: Duration,
    /// Between two pieces of a stream.
    pub stream_idle: Duration,
}

impl Default for McpTimeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            stream_idle: Duration::from_secs(600),
        }
    }
}

/// One match of one rule of an `HTTPRoute`.
#[derive(Debug)]
pub struct PlainRoute {
    /// The `HTTPRoute`.
    pub name: ObjectName,
    /// As audit events and metrics name it: `HTTPRoute/namespace/name`.
    pub label: Arc<str>,
    /// Index of the rule in it.
    pub rule: usize,
    /// The Gateway and the route, where policies are attached to them.
    pub targets: Vec<TargetId>,
    /// The match that leads here.
    pub matched: PlainMatch,
    /// What is changed on the way, in order.
    pub filters: Arc<[Filter]>,
    /// Where it goes; empty with a redirect, or when every weight is 0 (answer 500, Gateway API).
    pub backends: Arc<[PlainBackend]>,
    /// From the request's head to the end of the answer; `None` is no limit.
    pub request_timeout: Option<Duration>,
}

/// What a request must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainMatch {
    /// The path.
    pub path: PathMatch,
    /// Upper-case method; `None` is any.
    pub method: Option<String>,
    /// Lower-case name and exact value; all must be there.
    pub headers: Vec<(String, String)>,
}

/// How a path is matched, on the normalized path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Segment by segment; `/`, or `/…` without a trailing slash.
    Prefix(String),
    /// The whole path.
    Exact(String),
}

/// A backend of an `HTTPRoute`.
#[derive(Debug, Clone)]
pub struct PlainBackend {
    /// The Service (`namespace/name`) or external host.
    pub name: ObjectName,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Share of the requests; never 0.
    pub weight: u32,
    /// Outside the cluster (a `ServiceEntry`).
    pub external: bool,
}

/// A change to a request or an answer (Gateway API `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Headers of the request.
    RequestHeaders(HeaderChanges),
    /// Headers of the answer.
    ResponseHeaders(HeaderChanges),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Send another host or path upstream.
    Rewrite(Rewrite),
}

/// Header changes; names are lower case. Removed first, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// Replaced.
    pub set: Vec<(String, String)>,
    /// Added.
    pub add: Vec<(String, String)>,
    /// Removed.
    pub remove: Vec<String>,
}

/// A redirect (Gateway API `HTTPRequestRedirectFilter`); absent fields stay as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathRewrite>,
    /// 301 or 302.
    pub status: u16,
}

/// A rewrite (Gateway API `HTTPURLRewriteFilter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The `Host` to send.
    pub hostname: Option<String>,
    /// The path to send.
    pub path: Option<PathRewrite>,
}

/// A new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// In place of the matched prefix.
    Prefix(String),
}

//! The examples that were written from documents, by the built gateway: cells of the documents'
//! tables, asked on the wire.

mod overlay;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use waypoint_tests::client::Request;
use waypoint_tests::llm::{chat_answer, chat_body, messages_answer};
use waypoint_tests::mcp_server::legacy;
use waypoint_tests::upstream::{Reply, Seen, Upstream};
use waypoint_tests::waypoint::{Setup, Waypoint};

/// An example that runs, and what stands behind it.
struct Example {
    waypoint: Waypoint,
    namespace: &'static str,
    upstreams: HashMap<&'static str, Arc<Upstream>>,
}

/// A cell: who asks for what, with which status it is answered, and by whom if it is allowed.
struct Cell {
    caller: &'static str,
    request: Request,
    status: u16,
    reaches: Option<&'static str>,
}

fn allowed(caller: &'static str, request: Request, reaches: &'static str) -> Cell {
    Cell {
        caller,
        request,
        status: 200,
        reaches: Some(reaches),
    }
}

fn denied(caller: &'static str, request: Request) -> Cell {
    Cell {
        caller,
        request,
        status: 403,
        reaches: None,
    }
}

/// A denied tool looks like one that is not there.
fn hidden(caller: &'static str, request: Request) -> Cell {
    Cell {
        status: 200,
        ..denied(caller, request)
    }
}

fn answer(seen: &Seen) -> Reply {
    match seen.target() {
        target if target.ends_with("/v1/chat/completions") => chat_answer(),
        target if target.ends_with("/v1/messages") => messages_answer(),
        _ => match seen.json() {
            Value::Null => Reply::whole(200, &[], "hello"),
            message => Reply::json(&json!({
                "jsonrpc": "2.0", "id": message["id"], "result": {"content": []},
            })),
        },
    }
}

impl Example {
    async fn start(
        name: &str,
        gateway: Option<&str>,
        namespace: &'static str,
        destinations: &[&'static str],
    ) -> Self {
        let mut upstreams = HashMap::new();
        for destination in destinations {
            upstreams.insert(*destination, Upstream::start(answer).await);
        }
        let places = upstreams.iter();
        let places = places.map(|(name, upstream)| (*name, upstream.address));
        let whole = overlay::example(name, gateway, &places.collect()).unwrap();
        Self {
            waypoint: Setup::whole(whole).start().await,
            namespace,
            upstreams,
        }
    }

    /// How many requests each destination has got.
    fn reached(&self) -> Vec<(&'static str, usize)> {
        let all = self.upstreams.iter();
        let mut all: Vec<_> = all.map(|(name, one)| (*name, one.seen().len())).collect();
        all.sort_unstable();
        all
    }

    async fn holds(&self, cells: Vec<Cell>) {
        for cell in cells {
            let Cell {
                caller,
                request,
                status,
                reaches,
            } = cell;
            let (namespace, account) = caller.split_once('/').unwrap_or((self.namespace, caller));
            let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
            let case = format!(
                "{caller}: {} {:?} {} {:?}",
                request.method, request.host, request.target, request.headers
            );
            let mut expected = self.reached();
            for (name, count) in &mut expected {
                *count += usize::from(Some(*name) == reaches);
            }
            let answer = self.waypoint.workload(&id).call(&request).await.unwrap();
            assert_eq!(answer.status, status, "{case}: {}", answer.text());
            assert_eq!(self.reached(), expected, "{case}");
            let event = self.waypoint.event(&answer).await;
            let decision = match reaches {
                Some(_) => "allow",
                None => "deny",
            };
            assert_eq!(event["decision"], decision, "{case}: {event}");
            assert_eq!(event["principal"], id, "{case}: {event}");
        }
    }
}

fn chat(model: &str) -> Request {
    let body = chat_body(model, &json!({}));
    Request::post("/ai-gateway/v1/chat/completions", body)
}

fn messages(model: &str) -> Request {
    let body = chat_body(model, &json!({"max_tokens": 16}));
    Request::post("/ai-gateway/v1/messages", body).header("anthropic-version", "2026-10-21")
}

fn tool(server: &str, name: &str) -> Request {
    let params = json!({"name": name, "arguments": {}});
    let body = legacy(1, "tools/call", &params);
    Request::post(&format!("/mcp/{server}/"), body)
        .header("accept", "application/json, text/event-stream")
}

fn plain(method: &str, path: &str) -> Request {
    Request::new(method, path)
}

#[tokio::test]
async fn a_platform_works_with_an_application() {
    let gateway = Some("app-travelexample/app-travelexample-waypoint");
    let destinations = [
        "openai",
        "anthropic",
        "travel-api",
        "travel-database",
        "team-alpha-tools",
        "team-beta-tools",
    ];
    let example = Example::start("zero-trust", gateway, "app-travelexample", &destinations).await;
    let (zenml, argo, blocks) = (
        "zenml-system/zenml-server",
        "argo/argo-workflow",
        "kb-system/kubeblocks",
    );
    let operational = |request: Request| request.header("x-workflow-type", "operational");
    let datasets = "/api/v1/datasets/flights";
    example
        .holds(vec![
            allowed(zenml, plain("GET", datasets), "travel-api"),
            allowed(zenml, plain("PUT", "/api/v1/models/m"), "travel-api"),
            allowed(zenml, plain("GET", "/database/tables"), "travel-database"),
            denied(zenml, plain("DELETE", datasets)),
            denied(zenml, plain("GET", "/api/v1/users/1")),
            denied(zenml, plain("GET", "/api/v1/datasets/../users/1")),
            denied(zenml, plain("GET", "/db/tables")),
            denied(zenml, operational(plain("GET", "/workflows/w"))),
            denied(zenml, chat("gpt-4o")),
            denied(
                zenml,
                Request::post("/v1/chat/completions", chat_body("m", &json!({})))
                    .host("api.openai.com"),
            ),
            allowed(
                argo,
                operational(plain("DELETE", "/operations/o")),
                "travel-api",
            ),
            allowed(
                argo,
                operational(plain("GET", "/workflows/w")),
                "travel-api",
            ),
            // The header has to be there, and to say so, and all of it.
            denied(argo, plain("GET", "/workflows/w")),
            denied(
                argo,
                plain("GET", "/workflows/w").header("x-workflow-type", "deployment"),
            ),
            denied(
                argo,
                plain("GET", "/workflows/w").header("x-workflow-type", "operational, deployment"),
            ),
            denied(argo, operational(plain("PATCH", "/workflows/w"))),
            denied(argo, operational(plain("GET", datasets))),
            denied(argo, operational(tool("teamalpha", "search"))),
            allowed(blocks, plain("DELETE", "/db/tables"), "travel-database"),
            denied(blocks, plain("GET", "/database/tables")),
            denied(blocks, plain("GET", datasets)),
            allowed("default", chat("gpt-4o"), "openai"),
            allowed("default", messages("claude-sonnet-4-5"), "anthropic"),
            allowed("default", tool("teamalpha", "search"), "team-alpha-tools"),
            allowed("default", tool("teambeta", "search"), "team-beta-tools"),
            denied("default", plain("GET", datasets)),
            denied("default", operational(plain("GET", "/workflows/w"))),
            // The same names elsewhere are somebody else, as are others here.
            denied("other", chat("gpt-4o")),
            denied("other", tool("teamalpha", "search")),
            denied("zenml-system/default", chat("gpt-4o")),
            denied("app-travelexample/zenml-server", plain("GET", datasets)),
            denied("argo/other", operational(plain("DELETE", "/operations/o"))),
        ])
        .await;
    // Without a certificate nobody even has a connection.
    let tls = waypoint_tests::client::Client::tls(
        example.waypoint.ports.mtls,
        &example.waypoint.authority,
        None,
    );
    assert!(tls.call(&plain("GET", datasets)).await.is_err());
}

#[tokio::test]
async fn strictly_nothing_but_exceptions() {
    let destinations = [
        "openai",
        "team-alpha-tools",
        "travel-ai-service",
        "travel-web-ui",
    ];
    let example = Example::start(
        "zero-trust-strict",
        None,
        "app-travelexample",
        &destinations,
    )
    .await;
    let (zenml, argo) = ("zenml-system/zenml-server", "argo/argo-workflow");
    let to = |service: &str, method: &str, path: &str| {
        plain(method, path).host(&format!("{service}.app-travelexample.svc.cluster.local"))
    };
    let app = |method: &str, path: &str| to("travel-ai-service", method, path);
    let platform = |request: Request| request.header("x-request-source", "platform");
    let service = "travel-ai-service";
    example
        .holds(vec![
            allowed(zenml, platform(app("GET", "/health")), service),
            allowed(zenml, platform(app("POST", "/api/v1/models")), service),
            denied(zenml, app("GET", "/health")),
            denied(
                zenml,
                app("GET", "/health").header("x-request-source", "external"),
            ),
            denied(zenml, platform(app("POST", "/health"))),
            denied(zenml, platform(app("GET", "/api/v1/models"))),
            denied(zenml, platform(app("GET", "/health/../admin"))),
            denied(zenml, platform(to("travel-web-ui", "GET", "/health"))),
            denied(zenml, platform(chat("gpt-4o"))),
            allowed(argo, platform(app("GET", "/anything")), service),
            allowed(argo, platform(app("POST", "/api/v1/models")), service),
            denied(argo, app("GET", "/anything")),
            denied(argo, platform(app("DELETE", "/anything"))),
            denied(argo, platform(to("travel-web-ui", "GET", "/"))),
            denied("kb-system/kubeblocks", platform(app("GET", "/health"))),
            denied("default", platform(app("GET", "/health"))),
            denied("default", chat("gpt-4o")),
            denied("default", tool("teamalpha", "search")),
        ])
        .await;
}

#[tokio::test]
async fn agents_review_code() {
    let destinations = [
        "openai",
        "anthropic",
        "github",
        "code-scanning",
        "pr-agent",
        "summary-agent",
        "semgrep",
        "github-api",
    ];
    let example = Example::start("code-review", None, "agensys-demo-1", &destinations).await;
    let (lead, review, summary) = ("orchestrator-agent", "pr-agent", "summary-agent");
    let (scanner, github) = ("mcp-scanning", "github-mcp");
    let agent = |name: &str, method: &str| {
        plain(method, "/tasks").host(&format!("{name}.agensys-demo-1.svc.cluster.local"))
    };
    let outside = |host: &str| plain("GET", "/api/v1/me").host(host);
    let (semgrep, api) = ("semgrep.dev", "api.github.com");
    example
        .holds(vec![
            allowed(lead, agent(review, "POST"), "pr-agent"),
            allowed(lead, agent(summary, "POST"), "summary-agent"),
            denied(lead, agent(review, "GET")),
            denied(lead, agent(summary, "DELETE")),
            denied(review, agent(summary, "POST")),
            denied(summary, agent(review, "POST")),
            denied(scanner, agent(review, "POST")),
            allowed(lead, tool("code-scanning", "semgrep_scan"), "code-scanning"),
            allowed(lead, tool("github", "add_issue_comment"), "github"),
            hidden(lead, tool("github", "merge_pull_request")),
            hidden(lead, tool("github", "delete_repository")),
            hidden(lead, tool("code-scanning", "add_issue_comment")),
            denied(review, tool("code-scanning", "semgrep_scan")),
            denied(summary, tool("github", "add_issue_comment")),
            allowed(review, chat("gpt-4o"), "openai"),
            denied(review, chat("o3")),
            denied(review, messages("claude-sonnet-4-5")),
            allowed(summary, messages("claude-sonnet-4-5"), "anthropic"),
            denied(summary, chat("gpt-4o")),
            denied(lead, chat("gpt-4o")),
            denied(lead, messages("claude-sonnet-4-5")),
            // Each MCP server reaches its own tool and nothing else.
            allowed(scanner, outside(semgrep), "semgrep"),
            allowed(github, outside(api), "github-api"),
            denied(scanner, outside(api)),
            denied(github, outside(semgrep)),
            denied(scanner, chat("gpt-4o")),
            denied(github, tool("code-scanning", "semgrep_scan")),
            denied(lead, outside(api)),
            denied(review, outside(semgrep)),
            denied("other", outside(api)),
            denied("default/github-mcp", outside(api)),
        ])
        .await;
}

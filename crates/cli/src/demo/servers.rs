//! Two MCP servers, as any Rust project would write them.

use std::sync::Arc;

use axum::Router;
use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;

/// Tools and what they say of themselves.
type Tools = &'static [(&'static str, &'static str)];

const GITHUB: Tools = &[
    ("get_issue", "Read one issue"),
    ("list_issues", "List the issues of a repository"),
    ("post_comment", "Comment on a pull request"),
    ("merge_pr", "Merge a pull request"),
    ("delete_repo", "Delete a repository for good"),
];
const CODE_SCANNING: Tools = &[
    ("scan_repo", "Scan a repository"),
    ("scan_diff", "Scan the changes of a pull request"),
    ("update_rules", "Replace the rules that scans follow"),
];

/// The tools of GitHub, without GitHub.
pub(super) fn github() -> Router {
    serve("github-mcp", GITHUB)
}

/// The tools of a code scanner, without the scanner.
pub(super) fn code_scanning() -> Router {
    serve("mcp-code-scanning", CODE_SCANNING)
}

fn serve(name: &'static str, tools: Tools) -> Router {
    let host = format!("{name}.agensys-demo-1.svc.cluster.local");
    let config = StreamableHttpServerConfig::default().with_allowed_hosts([host]);
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(Server { name, tools }), sessions, config);
    Router::new().route_service("/mcp", service)
}

#[derive(Debug, Clone, Copy)]
struct Server {
    name: &'static str,
    tools: Tools,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(self.name, env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({"type": "object", "properties": {"repo": {"type": "string"}}});
        let schema = Arc::new(schema.as_object().cloned().unwrap_or_default());
        let tools = self.tools.iter();
        let tools = tools.map(|(name, about)| Tool::new(*name, *about, Arc::clone(&schema)));
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !self.tools.iter().any(|(name, _)| *name == request.name) {
            return Err(ErrorData::invalid_params("unknown tool", None));
        }
        let text = format!("{} of {}: done", request.name, self.name);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

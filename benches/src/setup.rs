//! The gateway's configuration: the same traffic as bare Pingora's, with policy, audit and metrics.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::traffic::MCP_PATH;

/// Policies of other callers, beside the four that speak about ours.
const OTHER_POLICIES: usize = 20;

/// All objects as one YAML text.
///
/// The caller is a developer identity on a plain listener, so that no contender does TLS. 24
/// policies: 20 of other agents, and for this one an Allow and a Deny for each family.
#[must_use]
pub fn configuration(listen: SocketAddr, upstream: SocketAddr, audit: &Path) -> String {
    let mut text = format!(
        r#"apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: wp, namespace: bench}}
spec:
  gatewayClassName: kgateway-waypoint
  addresses:
  - {{type: IPAddress, value: "{listen_ip}"}}
  listeners:
  - {{name: agents, port: {listen_port}, protocol: HTTP}}
  infrastructure:
    parametersRef: {{group: waypoint.kgateway.io, kind: WaypointParameters, name: wp}}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: WaypointParameters
metadata: {{name: wp, namespace: bench}}
spec:
  posture: Strict
  listeners:
    agents: {{principal: "spiffe://cluster.local/ns/agents/sa/me"}}
  allowPrivateEndpoints: ["127.0.0.0/8"]
  audit: {{file: {{path: "{audit}", maxSizeMiB: 64}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: provider, namespace: bench}}
stringData: {{api-key: sk-provider}}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: LLMProvider
metadata: {{name: provider, namespace: bench}}
spec:
  dialect: OpenAI
  endpoint: http://{upstream}
  credential: {{secretRef: {{name: provider, key: api-key}}}}
---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: LLMRoute
metadata: {{name: models, namespace: bench}}
spec:
  rules:
  - backendRefs:
    - {{kind: LLMProvider, name: provider}}
---
apiVersion: mcp.kgateway.io/v1
kind: MCPProxy
metadata: {{name: tools, namespace: bench}}
spec:
  routes:
  - name: bench
    match: {{prefix: {MCP_PATH}/}}
    destination: {{hostname: "{upstream_ip}", port: {upstream_port}}}
"#,
        listen_ip = listen.ip(),
        listen_port = listen.port(),
        audit = audit.display(),
        upstream_ip = upstream.ip(),
        upstream_port = upstream.port(),
    );
    let me = "serviceAccount: {namespace: agents, name: me}";
    let tools = |params: &str| {
        format!("mcp: [{{servers: [bench], methods: [{{name: tools/call, params: [{params}]}}]}}]")
    };
    policy(
        &mut text,
        "models",
        "Allow",
        me,
        "llm: [{providers: [provider], models: [\"gpt-*\"], operations: [chat], maxOutputTokens: 4096}]",
    );
    policy(
        &mut text,
        "no-previews",
        "Deny",
        me,
        "llm: [{models: [\"*-preview\", \"o1*\"]}]",
    );
    policy(
        &mut text,
        "tools",
        "Allow",
        me,
        &tools("\"tool_0*\", tool_150, tool_151"),
    );
    policy(
        &mut text,
        "no-deletion",
        "Deny",
        me,
        &tools("\"tool_08*\", tool_150, tool_151"),
    );
    for other in 0..OTHER_POLICIES {
        let from = format!("spiffe: \"spiffe://cluster.local/ns/agents/sa/agent-{other}\"");
        let block = if other % 2 == 0 {
            format!("llm: [{{providers: [provider], models: [\"gpt-4o\", \"claude-{other}*\"]}}]")
        } else {
            tools(&format!("tool_0{other:02}, \"search_{other}*\""))
        };
        policy(&mut text, &format!("agent-{other}"), "Allow", &from, &block);
    }
    text
}

/// Four limits that each call falls under, and none exceeds.
#[must_use]
pub fn limits() -> String {
    let numbers = [
        (
            "calls",
            "[Principal]",
            "requests: {limit: 1000000000, window: 1h}",
        ),
        (
            "tokens",
            "[Principal, Model]",
            "tokens: {limit: 1000000000000, window: 1h}\n  requests: {limit: 1000000000, window: 1h}",
        ),
        (
            "budget",
            "[Namespace]",
            "cost: {limit: \"10000000\", calendar: Month, unknownModel: Alert}\n  concurrency: 100000",
        ),
        ("all", "[Route, Tool]", "concurrency: 100000"),
    ];
    let mut text = String::new();
    for (name, per, numbers) in numbers {
        let _ = write!(
            text,
            r"---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: UsageLimit
metadata: {{name: {name}, namespace: bench}}
spec:
  targetRefs:
  - {{group: gateway.networking.k8s.io, kind: Gateway, name: wp}}
  per: {per}
  {numbers}
"
        );
    }
    text
}

fn policy(text: &mut String, name: &str, action: &str, from: &str, block: &str) {
    let _ = write!(
        text,
        r"---
apiVersion: waypoint.kgateway.io/v1alpha1
kind: AgentPolicy
metadata: {{name: {name}, namespace: bench}}
spec:
  targetRefs:
  - {{group: gateway.networking.k8s.io, kind: Gateway, name: wp}}
  action: {action}
  rules:
  - name: rule
    from:
    - {from}
    {block}
"
    );
}

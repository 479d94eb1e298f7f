#![allow(clippy::unwrap_used, reason = "tests")]
//! Decisions by table. The laws stand in `laws`, the candidates a decision looks at in `cost`.

use std::sync::Arc;

use super::*;
use crate::{
    Caller, HttpBlock, Kind, LlmBlock, McpBlock, MethodRule, Operation, Outcome, Pattern,
    ProviderId, Rule, ServerId,
};

mod cost;
mod laws;

pub(super) fn patterns(list: &[&str]) -> Option<Vec<Pattern>> {
    Some(list.iter().map(|text| text.parse().unwrap()).collect())
}

pub(super) fn gateway() -> ObjectRef {
    ObjectRef::whole(Kind::Gateway, ObjectName::new("infra", "wp"))
}

pub(super) fn proxy() -> ObjectRef {
    ObjectRef::whole(Kind::McpProxy, ObjectName::new("infra", "tools"))
}

pub(super) fn settings(posture: Posture) -> Settings {
    Settings {
        posture,
        namespace: "agents".into(),
        trust_domains: vec!["cluster.local".into(), "old.local".into()],
    }
}

pub(super) fn policy(name: &str, effect: Effect, rules: Vec<Rule>) -> AgentPolicy {
    AgentPolicy {
        name: ObjectName::new("infra", name),
        targets: vec![gateway()],
        effect,
        mode: Mode::Enforce,
        rules,
    }
}

pub(super) fn rule(name: &str) -> Rule {
    Rule {
        name: name.into(),
        from: None,
        llm: vec![],
        mcp: vec![],
        http: vec![],
    }
}

/// `from`: SPIFFE patterns, `ns/name` service accounts or `name` namespaces.
fn from(mut rule: Rule, callers: &[&str]) -> Rule {
    let caller = |text: &&str| match (text.starts_with("spiffe://"), text.split_once('/')) {
        (true, _) => Caller {
            spiffe: Some(text.parse().unwrap()),
            ..Caller::default()
        },
        (false, Some((namespace, name))) => Caller {
            service_account: Some((namespace.into(), name.into())),
            ..Caller::default()
        },
        (false, None) => Caller {
            namespace: Some((*text).into()),
            ..Caller::default()
        },
    };
    rule.from = Some(callers.iter().map(caller).collect());
    rule
}

fn models(models: &[&str]) -> Rule {
    llm(LlmBlock {
        models: patterns(models),
        ..LlmBlock::default()
    })
}

fn llm(block: LlmBlock) -> Rule {
    Rule {
        llm: vec![block],
        ..rule("r")
    }
}

fn tools(method: &str, params: &[&str]) -> Rule {
    Rule {
        mcp: vec![McpBlock {
            servers: None,
            methods: Some(vec![MethodRule {
                method: method.parse().unwrap(),
                params: patterns(params),
            }]),
        }],
        ..rule("r")
    }
}

fn all_mcp() -> Rule {
    Rule {
        mcp: vec![McpBlock::default()],
        ..rule("r")
    }
}

fn http(block: HttpBlock) -> Rule {
    Rule {
        http: vec![block],
        ..rule("r")
    }
}

fn hosts(hosts: &[&str]) -> HttpBlock {
    HttpBlock {
        hosts: patterns(hosts),
        ..HttpBlock::default()
    }
}

use Effect::{Allow, Deny};
use Posture::{Graduated, Observe, Strict};

const ME: &str = "spiffe://cluster.local/ns/agents/sa/me";
const ALIAS: &str = "spiffe://old.local/ns/agents/sa/me";
const OTHER: &str = "spiffe://cluster.local/ns/other/sa/me";
const FOREIGN: &str = "spiffe://evil.example/ns/agents/sa/me";

fn chat(requested: &'static str, upstream: &'static str) -> Action<'static> {
    Action::Llm {
        provider: ProviderId(0),
        requested,
        upstream,
        operation: Some(Operation::Chat),
        max_output_tokens: Some(100),
    }
}

fn call(method: &'static str, name: &'static str) -> Action<'static> {
    Action::Mcp {
        server: ServerId(0),
        method,
        name,
    }
}

const SESSION: Action<'static> = Action::McpSession {
    server: ServerId(0),
};

fn get(host: &'static str, path: &'static str) -> Action<'static> {
    Action::Http {
        method: "GET",
        host,
        path,
        port: 443,
        external: true,
    }
}

/// `allow by …` or `deny <code> by …`, then what would deny.
fn check(posture: Posture, policies: &[AgentPolicy], who: &str, action: Action<'_>) -> String {
    let set = PolicySet::compile(policies.to_vec(), settings(posture));
    let principal = match who {
        "" => Principal::Anonymous,
        id => Principal::Workload(id.parse().unwrap()),
    };
    let targets: Vec<TargetId> = set.target(&gateway()).into_iter().collect();
    let query = Query {
        principal: &principal,
        targets: &targets,
        action,
    };
    let decision = set.decide(&query);
    assert_eq!(set.explain(&query).decision, decision);
    let mut text = match decision.code() {
        None => format!("allow by {}", decision.by()),
        Some(code) => format!("deny {code} by {}", decision.by()),
    };
    for name in decision.would_deny() {
        text += &format!("; would deny: {name}");
    }
    text
}

fn check_all(rows: Vec<(&str, Posture, Vec<AgentPolicy>, &str, Action<'_>, &str)>) {
    for (case, posture, policies, who, action, expected) in rows {
        assert_eq!(check(posture, &policies, who, action), expected, "{case}");
    }
}

const BY_R: &str = "allow by AgentPolicy infra/a rule r";
const NO_MODEL: &str = "deny model_not_allowed by Default no rule allows this";
const NO_TOOL: &str = "deny tool_denied by Default no rule allows this";
const DENY_MODEL: &str = "deny model_not_allowed by AgentPolicy infra/d rule r";
const DENY_TOOL: &str = "deny tool_denied by AgentPolicy infra/d rule r";
const GRADUATED: &str = "allow by Posture Graduated";

fn allow(rule: Rule) -> Vec<AgentPolicy> {
    vec![policy("a", Allow, vec![rule])]
}

fn deny(rule: Rule) -> Vec<AgentPolicy> {
    vec![policy("d", Deny, vec![rule])]
}

fn dry(mut policies: Vec<AgentPolicy>) -> Vec<AgentPolicy> {
    for policy in &mut policies {
        policy.mode = Mode::DryRun;
    }
    policies
}

#[test]
fn decides_by_posture() {
    let m = chat("m", "m");
    let inside = Action::Http {
        method: "GET",
        host: "db",
        path: "/",
        port: 80,
        external: false,
    };
    check_all(vec![
        ("own namespace", Graduated, vec![], ME, m, GRADUATED),
        (
            "alias of the trust domain",
            Graduated,
            vec![],
            ALIAS,
            m,
            GRADUATED,
        ),
        (
            "other namespace",
            Graduated,
            vec![],
            OTHER,
            m,
            "deny model_not_allowed by Posture Graduated",
        ),
        (
            "other trust domain",
            Graduated,
            vec![],
            FOREIGN,
            m,
            "deny model_not_allowed by Posture Graduated",
        ),
        (
            "own namespace, strict",
            Strict,
            vec![],
            ME,
            m,
            "deny model_not_allowed by Posture Strict",
        ),
        (
            "own namespace, observed",
            Observe,
            vec![],
            ME,
            m,
            "allow by Posture Observe",
        ),
        (
            "other namespace, observed",
            Observe,
            vec![],
            OTHER,
            m,
            "allow by Posture Observe; would deny: Posture Graduated",
        ),
        (
            "mcp item",
            Graduated,
            vec![],
            ME,
            call("tools/call", "x"),
            GRADUATED,
        ),
        (
            "mcp session of another",
            Graduated,
            vec![],
            OTHER,
            SESSION,
            "deny forbidden by Posture Graduated",
        ),
        (
            "egress",
            Graduated,
            vec![],
            ME,
            get("h", "/"),
            "deny forbidden by Posture Graduated",
        ),
        (
            "inside the mesh",
            Graduated,
            vec![],
            OTHER,
            inside,
            GRADUATED,
        ),
        (
            "inside the mesh, anonymous",
            Graduated,
            vec![],
            "",
            inside,
            GRADUATED,
        ),
        (
            "inside the mesh, strict",
            Strict,
            vec![],
            ME,
            inside,
            "deny forbidden by Posture Strict",
        ),
        (
            "no match, observed",
            Observe,
            allow(models(&["x"])),
            ME,
            m,
            "allow by Posture Observe; would deny: Default no rule allows this",
        ),
        (
            "deny, observed",
            Observe,
            deny(models(&["m"])),
            ME,
            m,
            DENY_MODEL,
        ),
        (
            "anonymous llm",
            Graduated,
            vec![],
            "",
            m,
            "deny identity_required by Identity no workload identity",
        ),
        (
            "anonymous llm, observed",
            Observe,
            vec![],
            "",
            m,
            "deny identity_required by Identity no workload identity",
        ),
        (
            "anonymous mcp, observed",
            Observe,
            vec![],
            "",
            SESSION,
            "deny identity_required by Identity no workload identity",
        ),
        (
            "anonymous llm, allowed to anyone",
            Observe,
            allow(models(&["*"])),
            "",
            m,
            "deny identity_required by Identity no workload identity",
        ),
    ]);
}

#[test]
fn decides_by_effect_and_coverage() {
    let m = chat("m", "m");
    let both = |a: Rule, d: Rule| [allow(a), deny(d)].concat();
    check_all(vec![
        ("allow", Strict, allow(models(&["m"])), OTHER, m, BY_R),
        (
            "deny beats allow",
            Graduated,
            both(models(&["*"]), models(&["m"])),
            ME,
            m,
            DENY_MODEL,
        ),
        (
            "deny without allow covers nothing",
            Graduated,
            deny(models(&["x"])),
            ME,
            m,
            GRADUATED,
        ),
        (
            "allow covers its family",
            Graduated,
            allow(models(&["x"])),
            ME,
            m,
            NO_MODEL,
        ),
        (
            "allow for others covers too",
            Graduated,
            allow(from(models(&["m"]), &["other"])),
            ME,
            m,
            NO_MODEL,
        ),
        (
            "allow leaves other families",
            Graduated,
            allow(models(&["x"])),
            ME,
            SESSION,
            GRADUATED,
        ),
        (
            "an allow without rules covers all",
            Graduated,
            vec![policy("a", Allow, vec![])],
            ME,
            SESSION,
            "deny forbidden by Default no rule allows this",
        ),
        (
            "a deny without rules does nothing",
            Graduated,
            vec![policy("d", Deny, vec![])],
            ME,
            m,
            GRADUATED,
        ),
        (
            "a dry-run allow grants nothing",
            Strict,
            dry(allow(models(&["m"]))),
            ME,
            m,
            "deny model_not_allowed by Posture Strict",
        ),
        (
            "a dry-run allow that matches",
            Graduated,
            dry(allow(models(&["m"]))),
            ME,
            m,
            GRADUATED,
        ),
        (
            "a dry-run allow that would cover",
            Graduated,
            dry(allow(models(&["x"]))),
            ME,
            m,
            "allow by Posture Graduated; would deny: AgentPolicy infra/a",
        ),
        (
            "a dry-run deny",
            Graduated,
            dry(deny(models(&["m"]))),
            ME,
            m,
            "allow by Posture Graduated; would deny: AgentPolicy infra/d rule r",
        ),
        (
            "a dry-run deny beside an allow",
            Strict,
            [allow(models(&["m"])), dry(deny(models(&["*"])))].concat(),
            ME,
            m,
            "allow by AgentPolicy infra/a rule r; would deny: AgentPolicy infra/d rule r",
        ),
        (
            "the first by name",
            Strict,
            vec![
                policy("b", Allow, vec![models(&["m"])]),
                policy("a", Allow, vec![models(&["m"])]),
            ],
            ME,
            m,
            BY_R,
        ),
    ]);
}

#[test]
fn decides_by_caller() {
    let m = chat("m", "m");
    let rows = [
        ("exact", ME, ME, true),
        (
            "exact is exact",
            "spiffe://cluster.local/ns/agents/sa/me2",
            ME,
            false,
        ),
        ("exact knows no alias", ME, ALIAS, false),
        ("prefix", "spiffe://cluster.local/ns/agents/*", ME, true),
        (
            "prefix of the trust domain",
            "spiffe://cluster.local/*",
            ME,
            true,
        ),
        (
            "prefix ends at a segment",
            "spiffe://cluster.local/ns/age/*",
            ME,
            false,
        ),
        (
            "prefix does not match itself",
            "spiffe://cluster.local/ns/agents/sa/me/*",
            ME,
            false,
        ),
        (
            "prefix of another trust domain",
            "spiffe://cluster.loca/*",
            ME,
            false,
        ),
        ("service account", "agents/me", ME, true),
        ("service account by alias", "agents/me", ALIAS, true),
        ("service account elsewhere", "agents/me", FOREIGN, false),
        ("another service account", "agents/you", ME, false),
        ("namespace", "agents", ME, true),
        ("namespace by alias", "agents", ALIAS, true),
        ("namespace elsewhere", "agents", FOREIGN, false),
        ("another namespace", "agents", OTHER, false),
    ];
    for (case, caller, who, matches) in rows {
        let expected = if matches { BY_R } else { NO_MODEL };
        let one = allow(from(models(&["m"]), &[caller]));
        assert_eq!(check(Strict, &one, who, m), expected, "{case}");
        // Beyond the bound on combinations the list is filed as a whole.
        let mut many = vec!["ns1", "ns2", "ns3/a", "ns4", "spiffe://x/*", "ns5", caller];
        let long = allow(from(models(&["m"]), &many));
        assert_eq!(check(Strict, &long, who, m), expected, "{case}, among many");
        many.truncate(6);
        let without = allow(from(models(&["m"]), &many));
        assert_eq!(
            check(Strict, &without, who, m),
            NO_MODEL,
            "{case}, left out"
        );
    }
    let mut both = from(models(&["m"]), &["agents"]);
    both.from.as_mut().unwrap()[0].spiffe = Some("spiffe://old.local/*".parse().unwrap());
    check_all(vec![
        (
            "fields of a caller AND",
            Strict,
            allow(both.clone()),
            ME,
            m,
            NO_MODEL,
        ),
        (
            "fields of a caller hold",
            Strict,
            allow(both),
            ALIAS,
            m,
            BY_R,
        ),
        (
            "nobody",
            Strict,
            allow(from(models(&["m"]), &[])),
            ME,
            m,
            NO_MODEL,
        ),
        (
            "anonymous is not anyone",
            Graduated,
            allow(http(hosts(&["*"]))),
            "",
            get("h", "/"),
            "deny forbidden by Default no rule allows this",
        ),
    ]);
}

#[test]
fn decides_llm() {
    let block = |providers: &[u32], operations: Option<&[Operation]>, bound| {
        llm(LlmBlock {
            providers: Some(providers.iter().map(|&p| ProviderId(p)).collect()),
            models: None,
            operations: operations.map(<[_]>::to_vec),
            max_output_tokens: bound,
        })
    };
    let asks = |operation, max_output_tokens| Action::Llm {
        provider: ProviderId(0),
        requested: "m",
        upstream: "m",
        operation,
        max_output_tokens,
    };
    let any = Action::LlmAny {
        provider: ProviderId(0),
    };
    let chat_only: Option<&[Operation]> = Some(&[Operation::Chat]);
    let no_any = "deny forbidden by Default no rule allows this";
    let deny_any = "deny forbidden by AgentPolicy infra/d rule r";
    check_all(vec![
        (
            "allow reads the upstream name",
            Strict,
            allow(models(&["gpt-4o"])),
            ME,
            chat("smart", "gpt-4o"),
            BY_R,
        ),
        (
            "allow ignores the requested name",
            Strict,
            allow(models(&["smart"])),
            ME,
            chat("smart", "gpt-4o"),
            NO_MODEL,
        ),
        (
            "deny reads the upstream name",
            Graduated,
            deny(models(&["gpt-4o"])),
            ME,
            chat("smart", "gpt-4o"),
            DENY_MODEL,
        ),
        (
            "deny reads the requested name",
            Graduated,
            deny(models(&["smart"])),
            ME,
            chat("smart", "gpt-4o"),
            DENY_MODEL,
        ),
        (
            "glob",
            Strict,
            allow(models(&["gpt-4o*"])),
            ME,
            chat("m", "gpt-4o-mini"),
            BY_R,
        ),
        (
            "glob in the middle",
            Strict,
            allow(models(&["gpt-*-mini"])),
            ME,
            chat("m", "gpt-4o-mini"),
            BY_R,
        ),
        (
            "glob at the front",
            Strict,
            allow(models(&["*-mini"])),
            ME,
            chat("m", "gpt-4o-mini"),
            BY_R,
        ),
        (
            "glob around",
            Strict,
            allow(models(&["*4o*"])),
            ME,
            chat("m", "gpt-4o-mini"),
            BY_R,
        ),
        (
            "case differs",
            Strict,
            allow(models(&["GPT-4o"])),
            ME,
            chat("m", "gpt-4o"),
            NO_MODEL,
        ),
        (
            "no models",
            Strict,
            allow(models(&[])),
            ME,
            chat("m", "m"),
            NO_MODEL,
        ),
        (
            "provider",
            Strict,
            allow(block(&[1, 0], None, None)),
            ME,
            chat("m", "m"),
            BY_R,
        ),
        (
            "another provider",
            Strict,
            allow(block(&[1], None, None)),
            ME,
            chat("m", "m"),
            NO_MODEL,
        ),
        (
            "operation",
            Strict,
            allow(block(&[0], chat_only, None)),
            ME,
            asks(Some(Operation::Chat), None),
            BY_R,
        ),
        (
            "another operation",
            Strict,
            allow(block(&[0], chat_only, None)),
            ME,
            asks(Some(Operation::Responses), None),
            NO_MODEL,
        ),
        (
            "list entry: any operation allows",
            Strict,
            allow(block(&[0], chat_only, Some(1))),
            ME,
            asks(None, None),
            BY_R,
        ),
        (
            "list entry: a deny of one operation does not hide",
            Graduated,
            deny(block(&[0], chat_only, None)),
            ME,
            asks(None, None),
            GRADUATED,
        ),
        (
            "list entry: a deny of all operations hides",
            Graduated,
            deny(block(&[0], Some(Operation::ALL), None)),
            ME,
            asks(None, None),
            DENY_MODEL,
        ),
        (
            "list entry: a conditional deny does not hide",
            Graduated,
            deny(block(&[0], None, Some(10))),
            ME,
            asks(None, None),
            GRADUATED,
        ),
        (
            "bound held",
            Strict,
            allow(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Chat), Some(100)),
            BY_R,
        ),
        (
            "bound passed",
            Strict,
            allow(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Chat), Some(101)),
            NO_MODEL,
        ),
        (
            "no bound is no small bound",
            Strict,
            allow(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Chat), None),
            NO_MODEL,
        ),
        (
            "embeddings write nothing",
            Strict,
            allow(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Embeddings), None),
            BY_R,
        ),
        (
            "deny above a bound",
            Graduated,
            deny(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Chat), Some(101)),
            DENY_MODEL,
        ),
        (
            "deny above a bound spares the rest",
            Graduated,
            deny(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Chat), Some(100)),
            GRADUATED,
        ),
        (
            "deny above a bound takes the unbounded",
            Graduated,
            deny(block(&[0], None, Some(100))),
            ME,
            asks(Some(Operation::Chat), None),
            DENY_MODEL,
        ),
        (
            "anything on a provider",
            Strict,
            allow(models(&["x"])),
            ME,
            any,
            "allow by AgentPolicy infra/a rule r",
        ),
        (
            "nothing on a provider",
            Strict,
            allow(block(&[1], None, None)),
            ME,
            any,
            no_any,
        ),
        (
            "a deny of one model leaves the provider",
            Graduated,
            deny(models(&["x*"])),
            ME,
            any,
            GRADUATED,
        ),
        (
            "a deny of all models takes the provider",
            Graduated,
            deny(models(&["x", "*"])),
            ME,
            any,
            deny_any,
        ),
    ]);
}

#[test]
fn decides_mcp() {
    let search = call("tools/call", "search_code");
    let read = |uri| call("resources/read", uri);
    let repo = || allow(tools("resources/read", &["repo://*", "repo://a/../b"]));
    let no_session = "deny forbidden by Default no rule allows this";
    check_all(vec![
        (
            "tool",
            Strict,
            allow(tools("tools/call", &["search_*"])),
            ME,
            search,
            BY_R,
        ),
        (
            "another tool",
            Strict,
            allow(tools("tools/call", &["get_*"])),
            ME,
            search,
            NO_TOOL,
        ),
        (
            "another method",
            Strict,
            allow(tools("prompts/get", &["search_*"])),
            ME,
            search,
            NO_TOOL,
        ),
        (
            "method glob",
            Strict,
            allow(tools("tools/*", &["search_code"])),
            ME,
            search,
            BY_R,
        ),
        ("whole server", Strict, allow(all_mcp()), ME, search, BY_R),
        (
            "the session follows from a tool",
            Strict,
            allow(tools("tools/call", &["x"])),
            ME,
            SESSION,
            "allow by AgentPolicy infra/a rule r",
        ),
        (
            "no tool, no session",
            Strict,
            allow(tools("tools/call", &[])),
            ME,
            SESSION,
            no_session,
        ),
        (
            "deny a tool",
            Graduated,
            deny(tools("tools/call", &["search_*"])),
            ME,
            search,
            DENY_TOOL,
        ),
        (
            "a denied tool leaves the session",
            Graduated,
            deny(tools("tools/call", &["search_*"])),
            ME,
            SESSION,
            GRADUATED,
        ),
        (
            "a denied method leaves the session",
            Graduated,
            deny(tools("tools/call", &["*"])),
            ME,
            SESSION,
            GRADUATED,
        ),
        (
            "deny everything takes the session",
            Graduated,
            deny(tools("*", &["*"])),
            ME,
            SESSION,
            "deny forbidden by AgentPolicy infra/d rule r",
        ),
        (
            "deny the server takes the session",
            Graduated,
            deny(all_mcp()),
            ME,
            SESSION,
            "deny forbidden by AgentPolicy infra/d rule r",
        ),
        ("resource", Strict, repo(), ME, read("repo://a/b"), BY_R),
        (
            "a glob never climbs",
            Strict,
            repo(),
            ME,
            read("repo://x/../../etc"),
            NO_TOOL,
        ),
        (
            "an exact name may",
            Strict,
            repo(),
            ME,
            read("repo://a/../b"),
            BY_R,
        ),
        (
            "encoded slash",
            Strict,
            repo(),
            ME,
            read("repo://a%2Fb"),
            NO_TOOL,
        ),
        (
            "encoded dot",
            Strict,
            repo(),
            ME,
            read("repo://a/%2e%2E/b"),
            NO_TOOL,
        ),
        (
            "encoded backslash",
            Strict,
            repo(),
            ME,
            read("repo://a%5cb"),
            NO_TOOL,
        ),
        (
            "backslash",
            Strict,
            repo(),
            ME,
            read("repo://a\\b"),
            NO_TOOL,
        ),
        (
            "control character",
            Strict,
            repo(),
            ME,
            read("repo://a\u{7f}b"),
            NO_TOOL,
        ),
        (
            "control character beyond ASCII",
            Strict,
            repo(),
            ME,
            read("repo://a\u{85}b"),
            NO_TOOL,
        ),
        (
            "a lone percent is a name",
            Strict,
            repo(),
            ME,
            read("repo://a%2"),
            BY_R,
        ),
        (
            "subscriptions likewise",
            Strict,
            allow(tools("resources/*", &["repo://*"])),
            ME,
            call("resources/subscribe", "repo://.."),
            NO_TOOL,
        ),
        (
            "tools may have dots",
            Strict,
            allow(tools("tools/call", &["a*"])),
            ME,
            call("tools/call", "a..b"),
            BY_R,
        ),
        (
            "a deny matches the raw text",
            Graduated,
            deny(tools("resources/read", &["repo://*"])),
            ME,
            read("repo://x/../y"),
            DENY_TOOL,
        ),
    ]);
    let mut other = tools("tools/call", &["*"]);
    other.mcp[0].servers = Some(vec![ServerId(1)]);
    check_all(vec![
        (
            "another server",
            Strict,
            allow(other.clone()),
            ME,
            search,
            NO_TOOL,
        ),
        (
            "another server's session",
            Strict,
            allow(other),
            ME,
            SESSION,
            no_session,
        ),
    ]);
}

#[test]
fn decides_http() {
    let no = "deny forbidden by Default no rule allows this";
    let full = || {
        allow(http(HttpBlock {
            methods: Some(vec!["GET".into()]),
            hosts: patterns(&["Semgrep.dev", "*.semgrep.dev"]),
            paths: patterns(&["/api/*"]),
            ports: Some(vec![443]),
        }))
    };
    let ask = |method, host, path, port| Action::Http {
        method,
        host,
        path,
        port,
        external: true,
    };
    let deny_post = || {
        deny(http(HttpBlock {
            methods: Some(vec!["POST".into()]),
            ..HttpBlock::default()
        }))
    };
    check_all(vec![
        (
            "all fields",
            Strict,
            full(),
            ME,
            ask("GET", "semgrep.dev", "/api/x", 443),
            BY_R,
        ),
        (
            "host in another case",
            Strict,
            full(),
            ME,
            ask("GET", "SEMGREP.dev", "/api/x", 443),
            BY_R,
        ),
        (
            "host with the root's dot",
            Strict,
            full(),
            ME,
            ask("GET", "semgrep.dev.", "/api/x", 443),
            BY_R,
        ),
        (
            "below the host",
            Strict,
            full(),
            ME,
            ask("GET", "a.semgrep.dev", "/api/x", 443),
            BY_R,
        ),
        (
            "another host",
            Strict,
            full(),
            ME,
            ask("GET", "notsemgrep.dev", "/api/x", 443),
            no,
        ),
        (
            "another path",
            Strict,
            full(),
            ME,
            ask("GET", "semgrep.dev", "/apix", 443),
            no,
        ),
        (
            "another port",
            Strict,
            full(),
            ME,
            ask("GET", "semgrep.dev", "/api/x", 80),
            no,
        ),
        (
            "another method",
            Strict,
            full(),
            ME,
            ask("POST", "semgrep.dev", "/api/x", 443),
            no,
        ),
        (
            "allow minds the case of a method",
            Strict,
            full(),
            ME,
            ask("get", "semgrep.dev", "/api/x", 443),
            no,
        ),
        (
            "deny does not",
            Observe,
            deny_post(),
            ME,
            ask("post", "h", "/", 443),
            "deny forbidden by AgentPolicy infra/d rule r",
        ),
        (
            "a denied host has no second spelling",
            Observe,
            deny(http(hosts(&["evil.example"]))),
            ME,
            get("Evil.Example.", "/"),
            "deny forbidden by AgentPolicy infra/d rule r",
        ),
        (
            "any method",
            Strict,
            allow(http(HttpBlock {
                methods: Some(vec!["*".into()]),
                ..hosts(&["h"])
            })),
            ME,
            get("h", "/"),
            BY_R,
        ),
    ]);
}

#[test]
fn policies_apply_where_they_are_attached() {
    let mut attached = policy("a", Allow, vec![models(&["m"]), all_mcp()]);
    attached.targets = vec![proxy()];
    let set = PolicySet::compile(vec![attached], settings(Strict));
    let section = ObjectRef {
        section: Some("route".into()),
        ..proxy()
    };
    assert_eq!(set.target(&gateway()), None);
    assert_eq!(set.target(&section), None);
    let target = set.target(&proxy()).unwrap();
    let principal = Principal::Workload(ME.parse().unwrap());
    for (targets, expected) in [(&[target][..], true), (&[], false), (&[TargetId(7)], false)] {
        let query = Query {
            principal: &principal,
            targets,
            action: SESSION,
        };
        assert_eq!(set.decide(&query).is_allowed(), expected, "{targets:?}");
        assert_eq!(
            set.explain(&query).trace.is_empty(),
            !expected,
            "{targets:?}"
        );
    }
}

#[test]
fn only_an_allow_makes_a_permit() {
    let set = PolicySet::compile(deny(all_mcp()), settings(Graduated));
    let principal = Principal::Workload(ME.parse().unwrap());
    let targets = [set.target(&gateway()).unwrap()];
    let query = |action| Query {
        principal: &principal,
        targets: &targets,
        action,
    };
    let permit = set.decide(&query(chat("m", "m"))).permit().unwrap();
    assert!(permit.decision().is_allowed());
    let refusal = set.decide(&query(SESSION)).permit().unwrap_err();
    assert_eq!(refusal.code, Code::Forbidden);
    assert!(!refusal.to_string().contains("infra"), "{refusal}");
    let by = refusal.by.unwrap();
    assert_eq!(by.to_string(), "AgentPolicy infra/d rule r");
    let Outcome::Matched = set.explain(&query(SESSION)).trace[0].outcome else {
        panic!("the rule matched");
    };
    assert!(Arc::ptr_eq(
        &match by {
            By::Rule(rule) => rule,
            other => panic!("{other}"),
        },
        &set.rules[0].name
    ));
}

#[test]
fn would_deny_is_bounded() {
    let many = |effect, model: &str| -> Vec<AgentPolicy> {
        let one = |i| policy(&format!("p{i:03}"), effect, vec![models(&[model])]);
        dry((0..100).map(one).collect())
    };
    for policies in [many(Deny, "m"), many(Allow, "x")] {
        let set = PolicySet::compile(policies, settings(Graduated));
        let targets = [set.target(&gateway()).unwrap()];
        let decision = set.decide(&Query {
            principal: &Principal::Workload(ME.parse().unwrap()),
            targets: &targets,
            action: chat("m", "m"),
        });
        let names = decision.would_deny();
        assert_eq!(names.len(), WOULD_DENY_MAX);
        assert_eq!(&*names[7].policy.name, "p007");
    }
}

//! The fields of each family's block.

use super::*;
use crate::{Argument, Constraint, Scalar};

#[rustfmt::skip]
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
        ("allow reads the upstream name", Strict, allow(models(&["gpt-4o"])), ME, chat("smart", "gpt-4o"), BY_R),
        ("allow ignores the requested name", Strict, allow(models(&["smart"])), ME, chat("smart", "gpt-4o"), NO_MODEL),
        ("deny reads the upstream name", Graduated, deny(models(&["gpt-4o"])), ME, chat("smart", "gpt-4o"), DENY_MODEL),
        ("deny reads the requested name", Graduated, deny(models(&["smart"])), ME, chat("smart", "gpt-4o"), DENY_MODEL),
        ("glob", Strict, allow(models(&["gpt-4o*"])), ME, chat("m", "gpt-4o-mini"), BY_R),
        ("glob in the middle", Strict, allow(models(&["gpt-*-mini"])), ME, chat("m", "gpt-4o-mini"), BY_R),
        ("glob at the front", Strict, allow(models(&["*-mini"])), ME, chat("m", "gpt-4o-mini"), BY_R),
        ("glob around", Strict, allow(models(&["*4o*"])), ME, chat("m", "gpt-4o-mini"), BY_R),
        ("case differs", Strict, allow(models(&["GPT-4o"])), ME, chat("m", "gpt-4o"), NO_MODEL),
        ("no models", Strict, allow(models(&[])), ME, chat("m", "m"), NO_MODEL),
        ("provider", Strict, allow(block(&[1, 0], None, None)), ME, chat("m", "m"), BY_R),
        ("another provider", Strict, allow(block(&[1], None, None)), ME, chat("m", "m"), NO_MODEL),
        ("operation", Strict, allow(block(&[0], chat_only, None)), ME, asks(Some(Operation::Chat), None), BY_R),
        ("another operation", Strict, allow(block(&[0], chat_only, None)), ME, asks(Some(Operation::Responses), None), NO_MODEL),
        ("list entry: any operation allows", Strict, allow(block(&[0], chat_only, Some(1))), ME, asks(None, None), BY_R),
        ("list entry: a deny of one operation does not hide", Graduated, deny(block(&[0], chat_only, None)), ME, asks(None, None), GRADUATED),
        ("list entry: a deny of all operations hides", Graduated, deny(block(&[0], Some(Operation::ALL), None)), ME, asks(None, None), DENY_MODEL),
        ("list entry: a conditional deny does not hide", Graduated, deny(block(&[0], None, Some(10))), ME, asks(None, None), GRADUATED),
        ("bound held", Strict, allow(block(&[0], None, Some(100))), ME, asks(Some(Operation::Chat), Some(100)), BY_R),
        ("bound passed", Strict, allow(block(&[0], None, Some(100))), ME, asks(Some(Operation::Chat), Some(101)), NO_MODEL),
        ("no bound is no small bound", Strict, allow(block(&[0], None, Some(100))), ME, asks(Some(Operation::Chat), None), NO_MODEL),
        ("embeddings write nothing", Strict, allow(block(&[0], None, Some(100))), ME, asks(Some(Operation::Embeddings), None), BY_R),
        ("deny above a bound", Graduated, deny(block(&[0], None, Some(100))), ME, asks(Some(Operation::Chat), Some(101)), DENY_MODEL),
        ("deny above a bound spares the rest", Graduated, deny(block(&[0], None, Some(100))), ME, asks(Some(Operation::Chat), Some(100)), GRADUATED),
        ("deny above a bound takes the unbounded", Graduated, deny(block(&[0], None, Some(100))), ME, asks(Some(Operation::Chat), None), DENY_MODEL),
        ("anything on a provider", Strict, allow(models(&["x"])), ME, any, "allow by AgentPolicy infra/a rule r"),
        ("nothing on a provider", Strict, allow(block(&[1], None, None)), ME, any, no_any),
        ("a deny of one model leaves the provider", Graduated, deny(models(&["x*"])), ME, any, GRADUATED),
        ("a deny of all models takes the provider", Graduated, deny(models(&["x", "*"])), ME, any, deny_any),
    ]);
}

#[rustfmt::skip]
#[test]
fn decides_mcp() {
    let search = call("tools/call", "search_code");
    let read = |uri| call("resources/read", uri);
    let repo = || allow(tools("resources/read", &["repo://*", "repo://a/../b"]));
    let no_session = "deny forbidden by Default no rule allows this";
    check_all(vec![
        ("tool", Strict, allow(tools("tools/call", &["search_*"])), ME, search, BY_R),
        ("another tool", Strict, allow(tools("tools/call", &["get_*"])), ME, search, NO_TOOL),
        ("another method", Strict, allow(tools("prompts/get", &["search_*"])), ME, search, NO_TOOL),
        ("method glob", Strict, allow(tools("tools/*", &["search_code"])), ME, search, BY_R),
        ("whole server", Strict, allow(all_mcp()), ME, search, BY_R),
        ("the session follows from a tool", Strict, allow(tools("tools/call", &["x"])), ME, SESSION, "allow by AgentPolicy infra/a rule r"),
        ("no tool, no session", Strict, allow(tools("tools/call", &[])), ME, SESSION, no_session),
        ("deny a tool", Graduated, deny(tools("tools/call", &["search_*"])), ME, search, DENY_TOOL),
        ("a denied tool leaves the session", Graduated, deny(tools("tools/call", &["search_*"])), ME, SESSION, GRADUATED),
        ("a denied method leaves the session", Graduated, deny(tools("tools/call", &["*"])), ME, SESSION, GRADUATED),
        ("deny everything takes the session", Graduated, deny(tools("*", &["*"])), ME, SESSION, "deny forbidden by AgentPolicy infra/d rule r"),
        ("deny the server takes the session", Graduated, deny(all_mcp()), ME, SESSION, "deny forbidden by AgentPolicy infra/d rule r"),
        ("resource", Strict, repo(), ME, read("repo://a/b"), BY_R),
        ("a glob never climbs", Strict, repo(), ME, read("repo://x/../../etc"), NO_TOOL),
        ("an exact name may", Strict, repo(), ME, read("repo://a/../b"), BY_R),
        ("encoded slash", Strict, repo(), ME, read("repo://a%2Fb"), NO_TOOL),
        ("encoded dot", Strict, repo(), ME, read("repo://a/%2e%2E/b"), NO_TOOL),
        ("encoded backslash", Strict, repo(), ME, read("repo://a%5cb"), NO_TOOL),
        ("backslash", Strict, repo(), ME, read("repo://a\\b"), NO_TOOL),
        ("control character", Strict, repo(), ME, read("repo://a\u{7f}b"), NO_TOOL),
        ("control character beyond ASCII", Strict, repo(), ME, read("repo://a\u{85}b"), NO_TOOL),
        ("one dot is a name", Strict, repo(), ME, read("repo://a.b/c."), BY_R),
        ("also in front", Strict, allow(tools("resources/read", &["*"])), ME, read(".a"), BY_R),
        ("letters beyond ASCII", Strict, repo(), ME, read("repo://é"), BY_R),
        ("a lone percent is a name", Strict, repo(), ME, read("repo://a%2"), BY_R),
        ("subscriptions likewise", Strict, allow(tools("resources/*", &["repo://*"])), ME, call("resources/subscribe", "repo://.."), NO_TOOL),
        ("tools may have dots", Strict, allow(tools("tools/call", &["a*"])), ME, call("tools/call", "a..b"), BY_R),
        ("a deny matches the raw text", Graduated, deny(tools("resources/read", &["repo://*"])), ME, read("repo://x/../y"), DENY_TOOL),
    ]);
    let mut other = tools("tools/call", &["*"]);
    other.mcp[0].servers = Some(vec![ServerId(1)]);
    check_all(vec![
        ("another server", Strict, allow(other.clone()), ME, search, NO_TOOL),
        ("another server's session", Strict, allow(other), ME, SESSION, no_session),
    ]);
}

#[rustfmt::skip]
#[test]
fn decides_arguments() {
    let with = |json: &'static str| Action::Mcp {
        server: ServerId(0),
        method: "tools/call",
        name: "search",
        arguments: match json {
            "best" => Arguments::Best,
            "worst" => Arguments::Worst,
            "" => Arguments::Absent,
            json => Arguments::Json(json.as_bytes()),
        },
    };
    let acme = |mut rule: Rule| {
        let one_of = Some(vec![Scalar::String("acme".into())]);
        rule.mcp[0].arguments = vec![Argument {
            pointer: "/owner".parse().unwrap(),
            constraint: Constraint { one_of, ..Constraint::default() },
        }];
        rule
    };
    let tool = || acme(tools("tools/call", &["search", "s*"]));
    let mut both = allow(tool());
    both[0].rules.push(Rule { name: "all".into(), ..tools("tools/call", &["*"]) });
    let also = |mut policies: Vec<AgentPolicy>, more: Vec<AgentPolicy>| { policies.extend(more); policies };
    let (ok, no, list) = (r#"{"owner":"acme"}"#, r#"{"owner":5}"#, "best");
    check_all(vec![
        ("allow", Strict, allow(tool()), ME, with(ok), BY_R),
        ("allow another value", Strict, allow(tool()), ME, with(no), NO_TOOL),
        ("allow no arguments", Strict, allow(tool()), ME, with(""), NO_TOOL),
        ("a conditional allow lists", Strict, allow(tool()), ME, with(list), BY_R),
        ("and does not hold at worst", Strict, allow(tool()), ME, with("worst"), NO_TOOL),
        ("and opens the session", Strict, allow(tool()), ME, SESSION, "allow by AgentPolicy infra/a rule r"),
        ("another rule allows", Strict, both.clone(), ME, with(no), "allow by AgentPolicy infra/a rule all"),
        ("whatever the arguments", Strict, both, ME, with("worst"), "allow by AgentPolicy infra/a rule all"),
        ("an allow of every method", Strict, allow(acme(all_mcp())), ME, with(ok), BY_R),
        ("is about tools alone", Strict, allow(acme(all_mcp())), ME, call("prompts/get", "p"), NO_TOOL),
        ("deny", Graduated, deny(tool()), ME, with(ok), DENY_TOOL),
        ("deny what cannot be told", Graduated, deny(tool()), ME, with(no), DENY_TOOL),
        ("deny no arguments", Graduated, deny(tool()), ME, with(""), GRADUATED),
        ("a conditional deny does not hide", Graduated, deny(tool()), ME, with(list), GRADUATED),
        ("but may hold at worst", Graduated, deny(tool()), ME, with("worst"), DENY_TOOL),
        ("nor takes it the session", Graduated, deny(acme(all_mcp())), ME, SESSION, GRADUATED),
        ("nor prompts", Graduated, deny(acme(all_mcp())), ME, call("prompts/get", "p"), GRADUATED),
        ("deny beats allow", Strict, also(allow(tool()), deny(tool())), ME, with(ok), DENY_TOOL),
        ("a dry deny is told of", Graduated, dry(deny(tool())), ME, with(ok), "allow by Posture Graduated; would deny: AgentPolicy infra/d rule r"),
    ]);
}

#[rustfmt::skip]
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
    let deny_method = |method: &str| {
        deny(http(HttpBlock {
            methods: Some(vec![method.into()]),
            ..HttpBlock::default()
        }))
    };
    let denied = "deny forbidden by AgentPolicy infra/d rule r";
    check_all(vec![
        ("all fields", Strict, full(), ME, ask("GET", "semgrep.dev", "/api/x", 443), BY_R),
        ("host in another case", Strict, full(), ME, ask("GET", "SEMGREP.dev", "/api/x", 443), BY_R),
        ("host with the root's dot", Strict, full(), ME, ask("GET", "semgrep.dev.", "/api/x", 443), BY_R),
        ("the root itself", Strict, allow(http(hosts(&["."]))), ME, get(".", "/"), BY_R),
        ("below the host", Strict, full(), ME, ask("GET", "a.semgrep.dev", "/api/x", 443), BY_R),
        ("another host", Strict, full(), ME, ask("GET", "notsemgrep.dev", "/api/x", 443), no),
        ("another path", Strict, full(), ME, ask("GET", "semgrep.dev", "/apix", 443), no),
        ("another port", Strict, full(), ME, ask("GET", "semgrep.dev", "/api/x", 80), no),
        ("another method", Strict, full(), ME, ask("POST", "semgrep.dev", "/api/x", 443), no),
        ("allow minds the case of a method", Strict, full(), ME, ask("get", "semgrep.dev", "/api/x", 443), no),
        ("deny does not", Observe, deny_method("POST"), ME, ask("post", "h", "/", 443), denied),
        ("a denied method spares others", Observe, deny_method("POST"), ME, get("h", "/"), "allow by Posture Observe; would deny: Posture Graduated"),
        ("every method is denied", Observe, deny_method("*"), ME, get("h", "/"), denied),
        ("a denied host has no second spelling", Observe, deny(http(hosts(&["evil.example"]))), ME, get("Evil.Example.", "/"), denied),
        ("any method", Strict, allow(http(HttpBlock { methods: Some(vec!["*".into()]), ..hosts(&["h"]) })), ME, get("h", "/"), BY_R),
    ]);
}

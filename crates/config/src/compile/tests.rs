mod dead_values;
mod limits;
mod places;
mod prices;
mod stores;

use std::fs;
use std::path::Path;

use waypoint_policy::{
    Action, Arguments, Facts, Kind, ObjectName, ObjectRef, Operation, Principal, Query, SpiffeId,
};

use super::{check, compile};
use crate::{Address, Credential, Diagnostic, File, Options, Outcome, Route, RouteQuery, Snapshot};

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn render(outcome: &Outcome) -> String {
    let lines = outcome.diagnostics.iter().map(ToString::to_string);
    lines
        .chain(outcome.skipped.iter().map(ToString::to_string))
        .collect::<Vec<_>>()
        .join("\n")
}

/// All files of a directory of this repository, as they would be named from its root.
fn directory(path: &str) -> Vec<File> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    let mut files: Vec<File> = fs::read_dir(full)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            file(
                &format!("{path}/{name}"),
                &fs::read_to_string(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

const BASE: &str = include_str!("tests/base.yaml");

fn snapshot_of(text: &str) -> Snapshot {
    let outcome = compile(
        &[file("base.yaml", BASE), file("it.yaml", text)],
        &Options::default(),
    );
    let errors: Vec<_> = outcome
        .diagnostics
        .iter()
        .filter(|d| d.is_error())
        .collect();
    assert!(errors.is_empty(), "{}", render(&outcome));
    outcome.snapshot.unwrap()
}

fn find<'s>(snapshot: &'s Snapshot, method: &str, host: &str, path: &str) -> Option<&'s Route> {
    snapshot.route(&RouteQuery {
        listener: 0,
        host,
        path,
        method,
        header: &|_| None,
    })
}

/// Every file of `bad/` beside `base.yaml`; the findings are the snapshot.
#[test]
fn finds_what_is_wrong() {
    for bad in directory("crates/config/src/compile/tests/bad") {
        let name = bad
            .path
            .rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(".yaml")
            .to_owned();
        let bad = File {
            path: format!("{name}.yaml"),
            ..bad
        };
        let base = if bad.text.starts_with("# without base") {
            ""
        } else {
            BASE
        };
        let outcome = compile(&[file("base.yaml", base), bad], &Options::default());
        if !name.starts_with("warns-") {
            assert!(outcome.snapshot.is_none(), "{name} compiles");
            assert!(
                outcome.diagnostics.iter().any(Diagnostic::is_error),
                "{name} has no error"
            );
        }
        insta::assert_snapshot!(name, render(&outcome));
    }
}

#[test]
fn examples_compile() {
    for name in [
        "quickstart",
        "limits",
        "code-review",
        "zero-trust",
        "zero-trust-strict",
    ] {
        let outcome = check(
            &directory(&format!("config/examples/{name}")),
            &Options::default(),
        );
        assert!(
            !outcome.diagnostics.iter().any(Diagnostic::is_error),
            "{}",
            render(&outcome)
        );
        insta::assert_snapshot!(format!("example-{name}"), render(&outcome));
    }
}

#[test]
fn several_gateways_need_a_choice() {
    let files = directory("config/examples/zero-trust");
    let outcome = compile(&files, &Options::default());
    assert_eq!(
        outcome
            .diagnostics
            .iter()
            .filter(|d| d.is_error())
            .map(|d| d.code)
            .collect::<Vec<_>>(),
        ["several-gateways"]
    );
    for (namespace, name) in [
        ("app-travelexample", "app-travelexample-waypoint"),
        ("mcp-teamalpha", "mcp-teamalpha-waypoint"),
    ] {
        let gateway = Some((namespace.to_owned(), name.to_owned()));
        let outcome = compile(
            &files,
            &Options {
                gateway,
                ..Options::default()
            },
        );
        let snapshot = outcome.snapshot.unwrap();
        assert_eq!(snapshot.gateway.to_string(), format!("{namespace}/{name}"));
    }
}

/// A typo in the settings is one finding, not one for each thing that the settings would say.
#[test]
fn settings_that_cannot_be_read_are_no_reason_for_more() {
    let mut files = directory("config/examples/quickstart");
    for file in &mut files {
        file.text = file.text.replace("posture:", "postrue:");
    }
    let outcome = compile(&files, &Options::default());
    assert!(outcome.snapshot.is_none());
    let codes: Vec<_> = outcome.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["unknown-field"], "{:#?}", outcome.diagnostics);
}

#[test]
fn one_waypoints_settings_are_no_reason_for_errors_in_anothers_objects() {
    let mut files = directory("config/examples/quickstart");
    files.extend(directory("config/examples/code-review"));
    let outcome = check(&files, &Options::default());
    let errors: Vec<_> = outcome
        .diagnostics
        .iter()
        .filter(|d| d.is_error())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // What is attached to a waypoint is still held to its settings.
    for file in &mut files {
        file.text = file
            .text
            .replace("allowPrivateEndpoints: [127.0.0.0/8]", "");
    }
    let outcome = check(&files, &Options::default());
    let errors = outcome.diagnostics.iter().filter(|d| d.is_error());
    assert_eq!(
        errors.map(|d| d.code).collect::<Vec<_>>(),
        ["private-endpoint"]
    );
}

#[test]
fn imports_llm_egress() {
    let gateway = Some((
        "app-travelexample".to_owned(),
        "app-travelexample-waypoint".to_owned(),
    ));
    let files = directory("config/examples/zero-trust");
    let snapshot = compile(
        &files,
        &Options {
            gateway,
            ..Options::default()
        },
    )
    .snapshot
    .unwrap();
    let ports: Vec<u16> = snapshot.listeners.iter().map(|one| one.port).collect();
    assert_eq!(ports, [8443, 8080]);
    for (host, provider) in [("api.openai.com", 1), ("API.anthropic.com:80", 0)] {
        let Some(Route::Llm(route)) = find(&snapshot, "POST", host, "/v1/messages") else {
            panic!("{host} has no LLM route");
        };
        assert_eq!(route.prefix, "/");
        assert!(route.host_form);
        let rule = &route.rules[0];
        assert_eq!(rule.retry.attempts, 3);
        assert!(rule.retry.on.server_error && rule.retry.on.reset && !rule.retry.on.timeout);
        assert_eq!(rule.timeouts.request.as_secs(), 30);
        let backend = snapshot.provider(rule.backends[0].provider).unwrap();
        assert!(
            matches!(backend.credential, Credential::Passthrough),
            "{provider}"
        );
        assert!(backend.endpoint.tls.is_some());
    }
    assert!(find(&snapshot, "POST", "api.openai.com", "/admin").is_none());
    let Some(Route::Mcp(route)) = find(&snapshot, "POST", "any", "/mcp/teamalpha") else {
        panic!("no MCP route");
    };
    let server = snapshot.server(route.server).unwrap();
    assert_eq!(server.path, "/mcp");
    assert_eq!(
        server.endpoint.address,
        Address::Dns("mcp-server.mcp-teamalpha.svc.cluster.local".into())
    );
}

#[test]
fn code_review_says_who_may_do_what() {
    let outcome = compile(
        &directory("config/examples/code-review"),
        &Options::default(),
    );
    let snapshot = outcome.snapshot.unwrap_or_else(|| panic!("compiles"));
    let name = |name: &str| ObjectName::new("agensys-demo-1", name);
    let agent = |account: &str| {
        let id = format!("spiffe://cluster.local/ns/agensys-demo-1/sa/{account}");
        Principal::Workload(id.parse::<SpiffeId>().unwrap())
    };
    let model = |account: &str, provider: &str, model: &str| {
        let Some(Route::Llm(route)) = find(&snapshot, "POST", "x", "/ai-gateway/v1/messages")
        else {
            panic!("no LLM route");
        };
        let provider = snapshot.provider_by_name(&name(provider)).unwrap();
        let mut targets = route.targets.clone();
        targets.extend(provider.target);
        let operation = if provider.llm.operations.contains(&Operation::Chat) {
            Operation::Chat
        } else {
            Operation::Messages
        };
        let action = Action::Llm {
            provider: provider.llm.id,
            requested: model,
            upstream: model,
            operation: Some(operation),
            max_output_tokens: None,
        };
        let principal = agent(account);
        let query = Query {
            principal: &principal,
            targets: &targets,
            action,
            facts: Facts::default(),
        };
        snapshot.policy.decide(&query).is_allowed()
    };
    let tool = |account: &str, route: &str, tool: &str| {
        let route = snapshot.mcp_route(&name("tools"), route).unwrap();
        let action = Action::Mcp {
            server: route.server,
            method: "tools/call",
            name: tool,
            arguments: Arguments::Best,
        };
        let principal = agent(account);
        let query = Query {
            principal: &principal,
            targets: &route.targets,
            action,
            facts: Facts::default(),
        };
        snapshot.policy.decide(&query).is_allowed()
    };
    for (account, provider, name, expected) in [
        ("pr-agent", "openai", "gpt-4o", true),
        ("pr-agent", "anthropic", "claude-sonnet-4-5", false),
        ("summary-agent", "anthropic", "claude-sonnet-4-5", true),
        ("summary-agent", "openai", "gpt-4o", false),
        ("orchestrator-agent", "openai", "gpt-4o", false),
        ("pr-agent", "openai", "o1-pro", false),
    ] {
        assert_eq!(
            model(account, provider, name),
            expected,
            "{account} {provider} {name}"
        );
    }
    for (account, route, name, expected) in [
        ("orchestrator-agent", "github", "add_issue_comment", true),
        ("orchestrator-agent", "github", "merge_pull_request", false),
        ("orchestrator-agent", "code-scanning", "semgrep_scan", true),
        (
            "orchestrator-agent",
            "code-scanning",
            "add_issue_comment",
            false,
        ),
        ("pr-agent", "github", "get_file", false),
        ("mcp-scanning", "github", "get_file", false),
    ] {
        assert_eq!(
            tool(account, route, name),
            expected,
            "{account} {route} {name}"
        );
    }
}

#[test]
fn finds_services() {
    let snapshot = snapshot_of(include_str!("tests/services.yaml"));
    let at = |name: &str| {
        let route = snapshot
            .mcp_route(&ObjectName::new("apps", "services"), name)
            .unwrap();
        let server = snapshot.server(route.server).unwrap();
        (
            server.endpoint.address.clone(),
            server.endpoint.port,
            server.endpoint.http2,
        )
    };
    let fixed = |list: &[&str]| Address::Fixed(list.iter().map(|a| a.parse().unwrap()).collect());
    let dns = |name: &str| Address::Dns(name.to_owned());
    for (name, expected) in [
        (
            "ready",
            (fixed(&["10.0.0.1:8000", "10.0.0.3:8000"]), 80, true),
        ),
        ("not-ready", (fixed(&["10.96.0.2:80"]), 80, false)),
        (
            "headless",
            (dns("headless.apps.svc.cluster.local"), 3000, false),
        ),
        (
            "unknown",
            (dns("nowhere.other.svc.cluster.local"), 80, false),
        ),
        ("external-name", (dns("mcp.example.com"), 80, false)),
        ("public", (dns("mcp.example.org"), 443, false)),
        (
            "by-name",
            (fixed(&["10.0.0.1:8000", "10.0.0.3:8000"]), 80, true),
        ),
    ] {
        assert_eq!(at(name), expected, "{name}");
    }
    let server = |name: &str| {
        snapshot
            .mcp_route(&ObjectName::new("apps", "services"), name)
            .unwrap()
            .server
    };
    assert_eq!(
        server("ready"),
        server("by-name"),
        "one destination, two names"
    );
    let private = |name: &str| snapshot.server(server(name)).unwrap().endpoint.private;
    assert!(
        private("ready") && private("unknown") && !private("external-name") && !private("public")
    );
}

#[test]
fn a_deny_follows_the_destination() {
    let snapshot = snapshot_of(include_str!("tests/deny.yaml"));
    let proxy = |name: &str| ObjectName::new("apps", name);
    let principal = Principal::Workload("spiffe://cluster.local/ns/apps/sa/a".parse().unwrap());
    for (name, section, expected) in [
        ("one", "tools", false),
        ("two", "same", false),
        ("two", "other", true),
    ] {
        let route = snapshot.mcp_route(&proxy(name), section).unwrap();
        let action = Action::Mcp {
            server: route.server,
            method: "tools/call",
            name: "delete_all",
            arguments: Arguments::Best,
        };
        let query = Query {
            principal: &principal,
            targets: &route.targets,
            action,
            facts: Facts::default(),
        };
        assert_eq!(
            snapshot.policy.decide(&query).is_allowed(),
            expected,
            "{name}/{section}"
        );
    }
}

#[test]
fn plain_routes_keep_gateway_api_order() {
    let snapshot = snapshot_of(include_str!("tests/plain.yaml"));
    let rule = |method: &str, host: &str, path: &str, canary: bool| {
        let value = |name: &str| (canary && name == "x-canary").then_some("yes");
        let query = RouteQuery {
            listener: 0,
            host,
            path,
            method,
            header: &value,
        };
        match snapshot.route(&query) {
            Some(Route::Plain(route)) => Some(route.rule),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    };
    for (case, method, host, path, canary, expected) in [
        (
            "exact path",
            "GET",
            "shop.example.com",
            "/cart",
            false,
            Some(0),
        ),
        (
            "below it",
            "GET",
            "shop.example.com",
            "/cart/1",
            false,
            Some(1),
        ),
        (
            "segments",
            "GET",
            "shop.example.com",
            "/cartoon",
            false,
            None,
        ),
        (
            "method",
            "DELETE",
            "shop.example.com",
            "/cart/1",
            false,
            Some(2),
        ),
        (
            "header",
            "GET",
            "shop.example.com",
            "/cart/1",
            true,
            Some(3),
        ),
        (
            "method beats header",
            "DELETE",
            "shop.example.com",
            "/cart/1",
            true,
            Some(2),
        ),
        (
            "another host",
            "GET",
            "www.example.com",
            "/cart",
            false,
            None,
        ),
        (
            "port and case",
            "GET",
            "SHOP.example.com:8080",
            "/cart",
            false,
            Some(0),
        ),
    ] {
        assert_eq!(rule(method, host, path, canary), expected, "{case}");
    }
    let Some(Route::Plain(route)) = find(&snapshot, "GET", "shop.example.com", "/cart/1") else {
        panic!("no route");
    };
    assert_eq!(route.backends.len(), 2, "weight 0 is left out");
    assert!(route.backends[1].external && !route.backends[0].external);
    assert_eq!(route.filters.len(), 2);
}

#[test]
fn dumps_no_secrets() {
    let snapshot = snapshot_of(include_str!("tests/plain.yaml"));
    let text = serde_json::to_string_pretty(&snapshot.redacted_json()).unwrap();
    assert!(
        !text.contains("sk-base") && text.contains("\"secret\""),
        "{text}"
    );
    assert!(!format!("{snapshot:?}").contains("sk-base"));
    insta::assert_snapshot!("dump", text);
}

#[test]
fn policies_find_their_targets() {
    let snapshot = snapshot_of(include_str!("tests/deny.yaml"));
    let target = ObjectRef::whole(Kind::McpProxy, ObjectName::new("apps", "one"));
    let id = snapshot.policy.target(&ObjectRef {
        section: Some("tools".into()),
        ..target
    });
    let route = snapshot
        .mcp_route(&ObjectName::new("apps", "one"), "tools")
        .unwrap();
    assert_eq!(route.targets, Vec::from_iter(id));
    assert_eq!(snapshot.gateway_target, None);
}

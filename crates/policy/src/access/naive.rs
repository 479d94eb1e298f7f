//! The SIG's semantics once more, as its API tells them: loops over everything, nothing shared
//! with the evaluator but the types.

use super::{AccessPolicy, AccessRule, HeaderValue, HostAccess, PathAccess, Source};
use crate::{Action, Facts, ObjectRef, Principal};

/// What the policies on `targets` say: nothing if there are none, else the names of those that do
/// not allow.
pub(super) fn judge(
    policies: &[AccessPolicy],
    domains: &[&str],
    principal: &Principal,
    targets: &[ObjectRef],
    action: &Action<'_>,
    facts: &Facts<'_>,
) -> Option<Vec<String>> {
    let mut about = vec![];
    for policy in policies {
        if policy.targets.iter().any(|target| targets.contains(target)) {
            about.push(policy);
        }
    }
    if about.is_empty() {
        return None;
    }
    about.sort_by_key(|policy| policy.name.to_string());
    let mut refused = vec![];
    for policy in about {
        let allowed = match &policy.rules {
            None => true,
            Some(rules) => rules.iter().any(|rule| {
                source(rule, domains, principal) && http(rule, facts) && mcp(rule, action)
            }),
        };
        if !allowed {
            refused.push(format!("XAccessPolicy {}", policy.name));
        }
    }
    Some(refused)
}

fn source(rule: &AccessRule, domains: &[&str], principal: &Principal) -> bool {
    let id = principal.to_string();
    match &rule.source {
        None => true,
        Some(Source::Spiffe(spiffe)) => spiffe.to_string() == id,
        Some(Source::ServiceAccount { namespace, name }) => domains
            .iter()
            .any(|domain| id == format!("spiffe://{domain}/ns/{namespace}/sa/{name}")),
    }
}

fn http(rule: &AccessRule, facts: &Facts<'_>) -> bool {
    let http = &rule.http;
    let method = http.methods.is_empty() || http.methods.iter().any(|m| **m == *facts.method);
    let mut path = http.paths.is_empty();
    for known in &http.paths {
        path |= match known {
            PathAccess::Exact(exact) => facts.path == &**exact,
            PathAccess::Prefix(prefix) => {
                format!("{}/", facts.path).starts_with(&format!("{prefix}/"))
            }
            PathAccess::Regex(pattern) => regex::Regex::new(&pattern.to_string())
                .unwrap()
                .find_iter(facts.path)
                .any(|found| found.as_str() == facts.path),
        };
    }
    let mut headers = true;
    for header in &http.headers {
        let mut values: Vec<Vec<u8>> = vec![];
        facts.headers.any(&header.name, &mut |value| {
            values.push(value.to_vec());
            false
        });
        headers &= !values.is_empty();
        for value in values {
            headers &= match &header.value {
                HeaderValue::Exact(exact) => value == exact.as_bytes(),
                HeaderValue::Regex(_) => unreachable!("not drawn"),
            };
        }
    }
    let mut host = http.hosts.is_empty();
    let given = facts.host.to_lowercase();
    let given = given.trim_end_matches('.');
    for known in &http.hosts {
        host |= match known {
            HostAccess::Exact(exact) => given == &**exact,
            HostAccess::Below(below) => given.len() > below.len() && given.ends_with(&**below),
        };
    }
    let port = http.ports.is_empty() || http.ports.contains(&facts.port);
    method && path && headers && host && port
}

fn mcp(rule: &AccessRule, action: &Action<'_>) -> bool {
    let Some(mcp) = &rule.mcp else {
        return true;
    };
    let (method, name) = match action {
        Action::Mcp { method, name, .. } => (*method, Some(*name)),
        Action::McpSession { method, .. } => match method {
            Some(method) => (*method, None),
            None => return mcp.base_protocol || !mcp.methods.is_empty(),
        },
        _ => return false,
    };
    let base = [
        "initialize",
        "tools/list",
        "completion/complete",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "ping",
        "GET",
        "DELETE",
        // What the modern revision has in their place, and an answer of the client.
        "server/discover",
        "",
    ];
    let listens = method == "subscriptions/listen" && name.is_none();
    if mcp.base_protocol && (base.contains(&method) || listens) {
        return true;
    }
    for known in &mcp.methods {
        let wanted = known.name.as_str();
        let same = match wanted {
            "tools" => method == "tools/list" || method == "tools/call",
            "prompts" => method == "prompts/list" || method == "prompts/get",
            "resources" => {
                method.starts_with("resources/")
                    || (method == "subscriptions/listen" && name.is_some())
            }
            "resources/subscribe" => {
                method == wanted || (method == "subscriptions/listen" && name.is_some())
            }
            wanted => method == wanted,
        };
        let named = known.params.is_empty()
            || name.is_some_and(|name| known.params.iter().any(|param| **param == *name));
        if same && named {
            return true;
        }
    }
    false
}

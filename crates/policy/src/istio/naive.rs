//! Istio's semantics once more, as its documentation tells them: values are still text, every
//! policy is asked, nothing is filed. What the evaluator must agree with.

use super::{CustomVerdict, IstioAction, Protocol, Request};
use crate::{Mode, Principal};

/// A policy as it is written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) target: u32,
    pub(super) action: IstioAction,
    pub(super) provider: Option<&'static str>,
    pub(super) mode: Mode,
    pub(super) rules: Vec<WrittenRule>,
}

/// `from`, `to` and `when`, each field by its name in Istio's API.
#[derive(Debug, Clone, Default)]
pub(super) struct WrittenRule {
    pub(super) from: Option<Vec<Fields>>,
    pub(super) to: Option<Vec<Fields>>,
    pub(super) when: Fields,
}

/// Name, values, values of the `not` form.
pub(super) type Fields = Vec<(&'static str, Vec<String>, Vec<String>)>;

/// What the policies say: whether the request is denied, whether an ALLOW rule matched, whether a
/// policy on trial would deny it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) denied: bool,
    pub(super) allowed: bool,
    pub(super) would_deny: bool,
}

pub(super) fn judge(policies: &[Written], request: &Request<'_>, targets: &[u32]) -> Answer {
    let attached = || policies.iter().filter(|p| targets.contains(&p.target));
    let of = |action, mode| attached().filter(move |p| p.action == action && p.mode == mode);
    let matches = |p: &Written| {
        p.rules
            .iter()
            .any(|rule| rule_matches(rule, p.action, request))
    };
    let allowed = of(IstioAction::Allow, Mode::Enforce).any(matches);
    let has_allow = of(IstioAction::Allow, Mode::Enforce).next().is_some();
    let providers = of(IstioAction::Custom, Mode::Enforce).map(|p| p.provider);
    let providers: std::collections::BTreeSet<_> = providers.collect();
    let refuses = |p: &Written| {
        let says = |verdict: &CustomVerdict| Some(&*verdict.provider) == p.provider;
        let allowed = request.custom.iter().any(|v| says(v) && v.allows);
        matches(p) && (providers.len() > 1 || !allowed)
    };
    let denied = of(IstioAction::Custom, Mode::Enforce).any(refuses)
        || of(IstioAction::Deny, Mode::Enforce).any(matches)
        || (has_allow && !allowed);
    let on_trial = of(IstioAction::Allow, Mode::DryRun).next().is_some();
    let dry_allowed = of(IstioAction::Allow, Mode::DryRun).any(matches);
    let would_deny =
        of(IstioAction::Deny, Mode::DryRun).any(matches) || (on_trial && !allowed && !dry_allowed);
    Answer {
        denied,
        allowed,
        would_deny,
    }
}

fn rule_matches(rule: &WrittenRule, action: IstioAction, request: &Request<'_>) -> bool {
    let all = |fields: &Fields| {
        fields
            .iter()
            .map(|field| holds(field, action, request))
            .collect::<Option<Vec<bool>>>()
            .map(|held| held.into_iter().all(|held| held))
    };
    let side = |side: &Option<Vec<Fields>>| match side {
        None => Some(true),
        Some(list) => list
            .iter()
            .map(all)
            .collect::<Option<Vec<bool>>>()
            .map(|held| held.into_iter().any(|held| held)),
    };
    // `None` is a value that cannot be used in an ALLOW rule, which drops the rule.
    let parts = (side(&rule.from), side(&rule.to), all(&rule.when));
    matches!(parts, (Some(true), Some(true), Some(true)))
}

/// Whether one field holds; `None` when it drops an ALLOW rule.
fn holds(
    (name, values, not_values): &(&'static str, Vec<String>, Vec<String>),
    action: IstioAction,
    request: &Request<'_>,
) -> Option<bool> {
    let drops = action == IstioAction::Allow;
    let http = ["hosts", "methods", "paths"].contains(name) || name.starts_with("request.");
    if http && request.protocol == Protocol::Tcp {
        return (!drops).then_some(true);
    }
    let ask = |values: &Vec<String>| -> Option<Vec<bool>> {
        let mut held = Vec::new();
        for value in values {
            match value_matches(name, value, request) {
                Some(matched) => held.push(matched),
                None if drops => return None,
                None => {}
            }
        }
        Some(held)
    };
    let (yes, no) = (ask(values)?, ask(not_values)?);
    let positive = yes.is_empty() || yes.contains(&true);
    Some(positive && !no.contains(&true))
}

/// Whether one value matches; `None` when it cannot be used.
fn value_matches(name: &str, value: &str, request: &Request<'_>) -> Option<bool> {
    let id = match request.principal {
        Principal::Workload(id) => id.as_str().strip_prefix("spiffe://"),
        Principal::Anonymous => None,
    };
    let parts: Vec<&str> = id.unwrap_or_default().split('/').collect();
    let workload = match parts.as_slice() {
        [_, "ns", namespace, "sa", account] => Some((*namespace, *account)),
        _ => None,
    };
    Some(match name {
        "principals" => id.is_some_and(|id| text(value, id)),
        "namespaces" => parts.windows(3).any(|w| w[0] == "ns" && glob(value, w[1])),
        "serviceAccounts" => workload.is_some_and(|(n, a)| value == format!("{n}/{a}")),
        "trustDomains" => id.is_some() && text(value, parts[0]),
        "ipBlocks" => {
            let net: ipnet::IpNet = match value.parse::<std::net::IpAddr>() {
                Ok(ip) => ip.into(),
                Err(_) => value.parse().ok()?,
            };
            request.source_ip.is_some_and(|ip| net.contains(&ip))
        }
        "hosts" => text(&value.to_lowercase(), &request.host.to_lowercase()),
        "methods" => text(value, request.method),
        "ports" => request.port == value.parse::<u16>().ok()?,
        "paths" => text(value, request.path),
        "request.headers[x-a]" => {
            let mut found =
                |header: &[u8]| value == "*" || text(value, std::str::from_utf8(header).unwrap());
            request.headers.any("x-a", &mut found) == Some(true)
        }
        "connection.sni" => text(value, request.sni),
        _ => panic!("{name}"),
    })
}

fn text(value: &str, actual: &str) -> bool {
    match value {
        "*" => !actual.is_empty(),
        value if value.starts_with('*') => actual.ends_with(&value[1..]),
        value if value.ends_with('*') => actual.starts_with(&value[..value.len() - 1]),
        value => value == actual,
    }
}

fn glob(value: &str, actual: &str) -> bool {
    match value.split_once('*') {
        None => value == actual,
        Some((head, rest)) => actual.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|at| tail.is_char_boundary(*at))
                .any(|at| glob(rest, &tail[at..]))
        }),
    }
}

//! Warnings about rules and values that no decision depends on.

use std::collections::BTreeSet;

use waypoint_policy::istio::{
    AuthorizationPolicy, Why, dead_rules, expand_principal, expand_trust_domain,
};
use waypoint_policy::{SpiffeId, is_identity_header};

use super::super::draft::Drafts;
use super::super::gateway::Chosen;
use super::super::set::Set;
use super::Mesh;
use crate::object::{At, Diagnostics};
use crate::raw::authorization as raw;
use crate::route::host_matches;
use crate::suggest;

pub(in crate::compile) fn warn(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &Drafts<'_>,
    mesh: &Mesh<'_>,
    policies: &[AuthorizationPolicy],
    out: &mut Diagnostics,
) {
    for dead in dead_rules(policies) {
        let Some(policy) = set.authorization.get(&dead.policy) else {
            continue;
        };
        let at = policy.object.spec().key("rules").index(dead.index);
        let (code, message) = match dead.why {
            Why::Never { field } => (
                "never-matches",
                format!(
                    "no request satisfies `{field}`{}, so this rule never matches",
                    removed(&field)
                ),
            ),
            Why::NeverOfHttp { field } => (
                "never-matches",
                format!(
                    "no HTTP request satisfies `{field}`{}; this rule matches nothing but \
                     connections of other protocols",
                    removed(&field)
                ),
            ),
            Why::Repeats { policy, rule } => (
                "repeated-rule",
                format!(
                    "{rule} of {policy} says the same and is in force wherever this one is; remove \
                     one of them"
                ),
            ),
            Why::Denied { policy, rule } => (
                "shadowed-rule",
                format!("whatever this rule allows, {rule} of {policy} denies"),
            ),
        };
        out.warning(at, code, message);
    }
    // Where another waypoint serves as well, or something is missing for errors that were
    // reported, more may be known than is seen here.
    if chosen.beside_others || !chosen.parameters_known || out.errors_since(0) {
        return;
    }
    let known = Known::of(chosen, drafts, mesh);
    for policy in policies {
        let Some(policy) = set.authorization.get(&policy.name) else {
            continue;
        };
        let at = policy.object.spec().key("rules");
        for (index, rule) in policy.raw.spec.rules.iter().enumerate() {
            known.rule(rule, at.index(index), out);
        }
    }
}

/// Why a header cannot be asked for, if it is one of those.
fn removed(field: &str) -> &'static str {
    let name = field.split_once("request.headers[");
    let name = name.and_then(|(_, rest)| rest.strip_suffix(']'));
    match name.is_some_and(|name| is_identity_header(&name.to_ascii_lowercase())) {
        true => " (a claim of identity, which is removed from what callers send)",
        false => "",
    }
}

/// What requests to this waypoint can be: by whom, and to which hosts.
struct Known<'c> {
    mesh: &'c Mesh<'c>,
    trust_domains: BTreeSet<&'c str>,
    /// `None` where a route takes any host.
    hosts: Option<BTreeSet<&'c str>>,
}

impl<'c> Known<'c> {
    fn of(chosen: &'c Chosen<'_>, drafts: &'c Drafts<'_>, mesh: &'c Mesh<'c>) -> Self {
        let developers = chosen.listeners.iter();
        let developers = developers.filter_map(|listener| listener.developer.as_ref());
        let own = mesh.trust_domains.iter().map(|domain| &**domain);
        let routes = &drafts.routes;
        let hosts = routes
            .iter()
            .flat_map(|route| route.hosts.iter().map(String::as_str));
        Self {
            mesh,
            trust_domains: own.chain(developers.map(SpiffeId::trust_domain)).collect(),
            hosts: routes
                .iter()
                .all(|route| !route.hosts.is_empty())
                .then(|| hosts.collect()),
        }
    }

    fn rule(&self, rule: &raw::Rule, at: At<'_>, out: &mut Diagnostics) {
        for (index, from) in rule.from.iter().flatten().enumerate() {
            let Some(source) = &from.source else {
                continue;
            };
            let at = at.key("from").index(index).key("source");
            for (index, value) in source.principals.iter().enumerate() {
                let values = expand_principal(value, self.mesh.trust_domains);
                self.domains(&values, at.key("principals").index(index), out);
            }
            for (index, value) in source.trust_domains.iter().enumerate() {
                let values = expand_trust_domain(value, self.mesh.trust_domains);
                let values: Vec<String> =
                    values.iter().map(|domain| format!("{domain}/")).collect();
                self.domains(&values, at.key("trustDomains").index(index), out);
            }
        }
        for (index, to) in rule.to.iter().flatten().enumerate() {
            let at = at.key("to").index(index).key("operation").key("hosts");
            let hosts = to.operation.iter().flat_map(|operation| &operation.hosts);
            for (index, host) in hosts.enumerate() {
                self.host(host, at.index(index), out);
            }
        }
    }

    /// The trust domain of a principal, when no listener accepts it.
    fn unknown<'v>(&self, principal: &'v str) -> Option<&'v str> {
        let (domain, _) = principal.split_once('/')?;
        (!domain.contains('*') && !self.trust_domains.contains(domain)).then_some(domain)
    }

    /// Warns where no value is about anybody whose certificate a listener accepts.
    fn domains(&self, values: &[String], at: At<'_>, out: &mut Diagnostics) {
        let unknown: Option<Vec<&str>> = values.iter().map(|value| self.unknown(value)).collect();
        let Some(domain) = unknown.and_then(|unknown| unknown.first().copied()) else {
            return;
        };
        let known: Vec<&str> = self.trust_domains.iter().copied().collect();
        let hint = suggest::hint(domain, &known);
        let message = format!(
            "nobody of trust domain `{domain}` is accepted here, so this never matches{hint}"
        );
        out.warning(at, "never-matches", message);
    }

    /// Warns where no route has the host: who asks for it is told that there is none.
    fn host(&self, value: &str, at: At<'_>, out: &mut Diagnostics) {
        let Some(hosts) = &self.hosts else {
            return;
        };
        // `name`, `name:80` or `name:*`; anything else may stand for several.
        let (name, port) = value.split_once(':').unwrap_or((value, "*"));
        let is_one = port == "*" || port.bytes().all(|byte| byte.is_ascii_digit());
        if !is_one || name.is_empty() || name.contains(['*', '[']) {
            return;
        }
        let lower = name.to_ascii_lowercase();
        let bare = lower.strip_suffix('.').unwrap_or(&lower);
        if !hosts.iter().any(|host| host_matches(host, bare)) {
            let known: Vec<&str> = hosts.iter().copied().collect();
            let hint = match suggest::nearest(bare, &known) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            };
            let message = format!("no route has host `{name}`, so this never matches{hint}");
            out.warning(at, "never-matches", message);
        }
    }
}

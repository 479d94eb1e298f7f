//! What every attached `AuthorizationPolicy` thought of a request.

use super::{Attribute, IstioAction, IstioRule, IstioSet, Request, Test, Value, matching::Failed};
use crate::{Does, Kind, Outcome, TargetId, TraceEntry};

/// What stands where a rule asks for what is not known any longer.
pub const NOT_KEPT: &str = "something that is not kept";

impl IstioSet {
    /// Every rule of every policy that is attached to one of these targets, by policy and rule.
    /// Where the head is not `kept`, nobody knows what the request's headers and token were.
    pub(crate) fn trace(
        &self,
        request: &Request<'_>,
        targets: &[TargetId],
        kept: bool,
    ) -> Vec<TraceEntry> {
        let mut trace = Vec::new();
        for (policy, attached) in self.policies.iter().zip(&self.attached_to) {
            if !attached.iter().any(|target| targets.contains(target)) {
                continue;
            }
            let entry = |rule: &str, outcome| TraceEntry {
                kind: Kind::AuthorizationPolicy,
                policy: policy.name.clone(),
                rule: rule.into(),
                effect: match policy.action {
                    IstioAction::Allow => Does::Allow,
                    IstioAction::Deny => Does::Deny,
                    IstioAction::Custom => Does::Custom,
                    IstioAction::Audit => Does::Audit,
                },
                mode: policy.mode,
                outcome,
            };
            if policy.rules.is_empty() {
                trace.push(entry(
                    "",
                    Outcome::NotMatched {
                        field: "rules".into(),
                        expected: "nothing (there are no rules)".into(),
                        actual: "a request".into(),
                    },
                ));
            }
            for rule in &policy.rules {
                let outcome = match kept {
                    true => outcome(rule, policy.action, request),
                    false => outcome_without_head(rule, policy.action, request),
                };
                let outcome = match (outcome, policy.action, &policy.provider) {
                    // It asked, and did not deny.
                    (Outcome::Matched, IstioAction::Custom, Some(provider))
                        if self.is_satisfied(Some(provider), request, targets) =>
                    {
                        Outcome::NotMatched {
                            field: "provider".into(),
                            expected: format!("a denial by {provider}"),
                            actual: "it allowed".into(),
                        }
                    }
                    (outcome, _, _) => outcome,
                };
                trace.push(entry(&rule.name, outcome));
            }
        }
        trace
    }
}

fn outcome(rule: &IstioRule, action: IstioAction, request: &Request<'_>) -> Outcome {
    let (test, unusable) = match rule.failed(action, request) {
        None => return Outcome::Matched,
        Some(Failed::Test(test)) => (test, false),
        Some(Failed::Unusable(test)) => (test, true),
    };
    Outcome::NotMatched {
        field: test.field.to_string(),
        expected: match unusable {
            true => "something that can be evaluated (the rule is dropped)".into(),
            false => expected(test),
        },
        actual: actual(&test.attribute, request),
    }
}

/// What can be said of a rule when headers and token are not known: that it does not match whatever
/// they were, or that it asks about none of them.
fn outcome_without_head(rule: &IstioRule, action: IstioAction, request: &Request<'_>) -> Outcome {
    let is_unknown = |test: &Test| test.attribute.is_of_head();
    let at_best = |test: &Test| is_unknown(test) || test.holds(request);
    let unknown = rule.tests().find(|test| is_unknown(test));
    match (rule.failed_by(action, request.protocol, at_best), unknown) {
        (None, Some(test)) => Outcome::NotMatched {
            field: test.field.to_string(),
            expected: expected(test),
            actual: NOT_KEPT.into(),
        },
        (None, None) => Outcome::Matched,
        (Some(Failed::Test(test)), _) => Outcome::NotMatched {
            field: test.field.to_string(),
            expected: expected(test),
            actual: actual(&test.attribute, request),
        },
        (Some(Failed::Unusable(_)), _) => outcome(rule, action, request),
    }
}

impl Attribute {
    /// Whether it is a header or about a token.
    fn is_of_head(&self) -> bool {
        matches!(self, Self::Header(_)) || self.is_of_token()
    }
}

fn expected(test: &Test) -> String {
    let list = |values: &[Value]| {
        let shown: Vec<String> = values.iter().map(ToString::to_string).collect();
        shown.join(" or ")
    };
    match (&test.values, test.not_values.is_empty()) {
        (Some(values), true) => list(values),
        (None, _) => format!("not {}", list(&test.not_values)),
        (Some(values), false) => format!("{}, not {}", list(values), list(&test.not_values)),
    }
}

/// What the request has where the test looks; of headers and claims only whether they are there,
/// for they may be secrets.
fn actual(attribute: &Attribute, request: &Request<'_>) -> String {
    let quoted = |text: &str| format!("{text:?}");
    let address = |address: Option<std::net::IpAddr>| {
        address.map_or("no address".to_owned(), |address| address.to_string())
    };
    let id = request.principal.spiffe();
    let none = || "no identity".to_owned();
    match attribute {
        // As it is compared: without the scheme.
        Attribute::Principal => id.map_or_else(none, |id| {
            let bare = id.as_str().strip_prefix("spiffe://");
            bare.unwrap_or(id.as_str()).to_owned()
        }),
        Attribute::TrustDomain => id.map_or_else(none, |id| id.trust_domain().to_owned()),
        Attribute::Namespace | Attribute::ServiceAccount => {
            let workload = id.map(|id| (id, id.workload()));
            match workload {
                None => none(),
                Some((id, None)) => format!("{} (no workload)", id.as_str()),
                Some((_, Some(workload))) => {
                    format!("{}/{}", workload.namespace, workload.service_account)
                }
            }
        }
        Attribute::SourceIp => address(request.source_ip),
        Attribute::RemoteIp => address(request.remote_ip),
        Attribute::DestinationIp => address(request.destination_ip),
        Attribute::DestinationPort => request.port.to_string(),
        Attribute::Sni => quoted(request.sni),
        Attribute::Host => quoted(request.host),
        Attribute::Method => quoted(request.method),
        Attribute::Path => quoted(request.path),
        Attribute::Header(name) => match request.headers.any(name, &mut |_| false) {
            None => "no such header".into(),
            Some(_) => "another value".into(),
        },
        Attribute::RequestPrincipal
        | Attribute::Audiences
        | Attribute::Presenter
        | Attribute::Claim(_) => match request.claims {
            None => "no token".into(),
            Some(_) => "a token that says otherwise".into(),
        },
        Attribute::Unknown(key) => format!("nobody knows {key:?}"),
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Namespace(pattern) => pattern.fmt(f),
            Self::ServiceAccount { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::RequestPrincipal { issuer, subject } => write!(f, "{issuer}/{subject}"),
            Self::Network(net) => match net.prefix_len() == net.max_prefix_len() {
                true => net.addr().fmt(f),
                false => net.fmt(f),
            },
            Self::Port(port) => port.fmt(f),
            Self::Template(template) => template.fmt(f),
            Self::Unusable(text) => write!(f, "{text:?} (cannot be used)"),
        }
    }
}

//! Whether a request satisfies a rule, and the first field that says no.

use super::{
    Attribute, IstioAction, IstioRule, Protocol, Request, Test, TextMatch, Value, canonical,
};
use crate::SpiffeId;

/// The field of a rule that a request fails first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed<'r> {
    /// This test; of several alternatives the one that got furthest.
    Test(&'r Test),
    /// The rule cannot be used: this test holds a value, or is about something, that nobody can
    /// evaluate.
    Unusable(&'r Test),
}

impl IstioRule {
    /// The first field that fails, or nothing if the rule matches.
    ///
    /// What cannot be evaluated fails closed: an ALLOW rule with such a value does not match, any
    /// other rule is read as if the value were not there, so that it matches more.
    pub(super) fn failed(&self, action: IstioAction, request: &Request<'_>) -> Option<Failed<'_>> {
        self.failed_by(action, request.protocol, |test| test.holds(request))
    }

    /// The same, by what `holds` says of each test.
    pub(super) fn failed_by(
        &self,
        action: IstioAction,
        protocol: Protocol,
        holds: impl Fn(&Test) -> bool,
    ) -> Option<Failed<'_>> {
        if action == IstioAction::Allow
            && let Some(test) = self.tests().find(|test| test.is_unusable(protocol))
        {
            return Some(Failed::Unusable(test));
        }
        let sides = [&self.from, &self.to];
        let failed = sides
            .into_iter()
            .filter_map(Option::as_deref)
            .find_map(|alternatives| any_of(alternatives, &holds));
        let failed = failed.or_else(|| self.when.iter().find(|test| !holds(test)));
        failed.map(Failed::Test)
    }

    pub(super) fn tests(&self) -> impl Iterator<Item = &Test> {
        let from = self.from.iter().flatten().flatten();
        let to = self.to.iter().flatten().flatten();
        from.chain(to).chain(&self.when)
    }
}

/// Nothing if one alternative holds whole, else the test that failed in the one that got furthest.
fn any_of(alternatives: &[Vec<Test>], holds: impl Fn(&Test) -> bool) -> Option<&Test> {
    let mut furthest: Option<(usize, &Test)> = None;
    for tests in alternatives {
        let failed = tests.iter().position(|test| !holds(test));
        let at = failed?;
        if furthest.is_none_or(|(best, _)| at > best) {
            furthest = tests.get(at).map(|test| (at, test));
        }
    }
    furthest.map(|(_, test)| test)
}

impl Test {
    /// Whether an ALLOW rule cannot be used because of this test.
    fn is_unusable(&self, protocol: Protocol) -> bool {
        let values = self.values.iter().flatten().chain(&self.not_values);
        matches!(self.attribute, Attribute::Unknown(_))
            || (protocol == Protocol::Tcp && self.attribute.is_http())
            || values
                .into_iter()
                .any(|value| matches!(value, Value::Unusable(_)))
    }

    /// Whether the test holds, of a rule that is not dropped because of it.
    pub(super) fn holds(&self, request: &Request<'_>) -> bool {
        if matches!(self.attribute, Attribute::Unknown(_))
            || (request.protocol == Protocol::Tcp && self.attribute.is_http())
        {
            return true;
        }
        let mut usable = self
            .values
            .iter()
            .flatten()
            .filter(|value| value.is_usable());
        let positive = match &self.values {
            None => true,
            // Only unusable ones: as if the list were not there.
            Some(values) if !values.is_empty() && !values.iter().any(Value::is_usable) => true,
            Some(_) => usable.any(|value| self.attribute.matches(value, request)),
        };
        let mut not = self.not_values.iter().filter(|value| value.is_usable());
        positive && !not.any(|value| self.attribute.matches(value, request))
    }
}

impl Value {
    fn is_usable(&self) -> bool {
        !matches!(self, Self::Unusable(_))
    }

    fn text(&self, text: &[u8]) -> bool {
        match self {
            Self::Text(matcher) => matcher.matches(text),
            _ => false,
        }
    }
}

impl Attribute {
    fn matches(&self, value: &Value, request: &Request<'_>) -> bool {
        let id = request.principal.spiffe();
        match (self, value) {
            (Self::Principal, Value::Text(text)) => id.is_some_and(|id| {
                let bare = id.as_str().strip_prefix("spiffe://").unwrap_or_default();
                text.matches(bare.as_bytes())
            }),
            (Self::TrustDomain, Value::Text(text)) => {
                id.is_some_and(|id| text.matches(id.trust_domain().as_bytes()))
            }
            (Self::Namespace, Value::Namespace(pattern)) => {
                id.is_some_and(|id| namespaces(id).any(|namespace| pattern.matches(namespace)))
            }
            (Self::ServiceAccount, Value::ServiceAccount { namespace, name }) => {
                id.and_then(|id| id.workload()).is_some_and(|workload| {
                    *workload.namespace == **namespace && *workload.service_account == **name
                })
            }
            (Self::SourceIp, Value::Network(net)) => within(net, request.source_ip),
            (Self::RemoteIp, Value::Network(net)) => within(net, request.remote_ip),
            (Self::DestinationIp, Value::Network(net)) => within(net, request.destination_ip),
            (Self::DestinationPort, Value::Port(port)) => request.port == *port,
            (Self::Sni, Value::Text(text)) => text.matches(request.sni.as_bytes()),
            (Self::Method, Value::Text(text)) => text.matches(request.method.as_bytes()),
            (Self::Host, Value::Text(text)) => text.matches_any_case(request.host.as_bytes()),
            (Self::Path, Value::Text(text)) => text.matches(request.path.as_bytes()),
            (Self::Path, Value::Template(template)) => template.matches(request.path.as_bytes()),
            (Self::Header(name), Value::Text(text)) => {
                // Envoy: present is present, also when it is empty.
                let mut found =
                    |value: &[u8]| matches!(text, TextMatch::Present) || text.matches(value);
                request.headers.any(name, &mut found).unwrap_or(false)
            }
            (Self::RequestPrincipal, Value::RequestPrincipal { issuer, subject }) => {
                request.claims.is_some_and(|claims| {
                    issuer.matches(claims.text("iss").as_bytes())
                        && subject.matches(claims.text("sub").as_bytes())
                })
            }
            (Self::Audiences, value) => claim(request, &["aud".into()], value),
            (Self::Presenter, value) => claim(request, &["azp".into()], value),
            (Self::Claim(path), value) => claim(request, path, value),
            _ => false,
        }
    }
}

/// The namespaces that an identity is of: as Istio's `.*/ns/NS/.*` finds them, also where the path
/// is not exactly that of a workload.
pub(super) fn namespaces(id: &SpiffeId) -> impl Iterator<Item = &str> {
    let segments = id.path().split('/');
    let next = segments.clone().skip(1);
    let after = segments.clone().skip(2);
    let triples = segments.zip(next).zip(after);
    triples.filter_map(|((name, namespace), _)| (name == "ns").then_some(namespace))
}

fn claim(request: &Request<'_>, path: &[Box<str>], value: &Value) -> bool {
    let mut found = |text: &[u8]| value.text(text);
    request
        .claims
        .is_some_and(|claims| claims.any(path, &mut found))
}

fn within(net: &ipnet::IpNet, address: Option<std::net::IpAddr>) -> bool {
    address.is_some_and(|address| net.contains(&canonical(address)))
}

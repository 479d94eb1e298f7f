//! Whether a rule asks for what cannot be.

use super::super::{Attribute, IstioAction, IstioRule, Request, Test, TextMatch, Value};
use crate::{Principal, SpiffeId, is_identity_header};

/// Values of a field that are tried one by one, at most.
const TRIED_MAX: usize = 1024;

/// How a rule never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Never<'r> {
    /// Nothing at all, because of this test.
    AtAll(&'r Test),
    /// No HTTP request.
    OfHttp(&'r Test),
}

impl IstioRule {
    /// Whether the rule matches nothing, of requests as the gateway asks about them: without headers
    /// by which a caller could claim an identity.
    pub(super) fn never(&self, action: IstioAction) -> Option<Never<'_>> {
        let of_http = [&self.from, &self.to].into_iter().find_map(|side| {
            let alternatives = self.alternatives(side);
            let mut never = alternatives
                .iter()
                .map(|tests| contradiction(tests, |_| true));
            let first = never.next()??;
            never.all(|never| never.is_some()).then_some(first)
        })?;
        // On other connections an ALLOW rule with a field of HTTP is dropped, and another one is
        // read without it.
        if action == IstioAction::Allow && self.tests().any(|test| test.attribute.is_http()) {
            return Some(Never::AtAll(of_http));
        }
        let elsewhere = |test: &Test| !test.attribute.is_http();
        let at_all = [&self.from, &self.to].into_iter().find_map(|side| {
            let alternatives = self.alternatives(side);
            let mut never = alternatives
                .iter()
                .map(|tests| contradiction(tests, elsewhere));
            let first = never.next()??;
            never.all(|never| never.is_some()).then_some(first)
        });
        Some(at_all.map_or(Never::OfHttp(of_http), Never::AtAll))
    }
}

/// The test because of which these cannot hold together, looking at those that `counts`.
fn contradiction<'r>(tests: &[&'r Test], counts: impl Fn(&Test) -> bool) -> Option<&'r Test> {
    let tests: Vec<&Test> = tests.iter().copied().filter(|test| counts(test)).collect();
    let mut alone = tests.iter().copied();
    alone
        .find(|test| test.is_never())
        .or_else(|| tests.iter().copied().find(|test| is_refuted(test, &tests)))
}

impl Test {
    fn is_never(&self) -> bool {
        let claims_identity = match &self.attribute {
            Attribute::Header(name) => is_identity_header(name),
            _ => false,
        };
        (claims_identity && self.values.is_some()) || self.excludes_itself()
    }
}

/// Whether none of the values of a test, each of which is one thing, goes with the other tests
/// about the same.
fn is_refuted(test: &Test, tests: &[&Test]) -> bool {
    let Some(values) = &test.values else {
        return false;
    };
    let Some(subject) = Subject::of(&test.attribute) else {
        return false;
    };
    let about: Vec<&Test> = tests
        .iter()
        .copied()
        .filter(|test| Subject::of(&test.attribute) == Some(subject))
        .collect();
    values.len() <= TRIED_MAX
        && values.iter().all(|value| {
            // What is more than one thing is not tried.
            subject.shown(test, value).is_some_and(|example| {
                let request = example.request();
                !request.is_some_and(|request| about.iter().all(|test| test.holds(&request)))
            })
        })
}

/// What of a request several tests may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Identity,
    Method,
    Path,
    Port,
}

impl Subject {
    fn of(attribute: &Attribute) -> Option<Self> {
        Some(match attribute {
            Attribute::Principal
            | Attribute::Namespace
            | Attribute::ServiceAccount
            | Attribute::TrustDomain => Self::Identity,
            Attribute::Method => Self::Method,
            Attribute::Path => Self::Path,
            Attribute::DestinationPort => Self::Port,
            _ => return None,
        })
    }

    /// The only thing that a value stands for.
    fn shown(self, test: &Test, value: &Value) -> Option<Shown> {
        let mut shown = Shown::default();
        match (self, &test.attribute, value) {
            (Self::Identity, Attribute::Principal, Value::Text(TextMatch::Exact(id))) => {
                shown.principal = match format!("spiffe://{id}").parse::<SpiffeId>() {
                    Ok(id) => Some(Principal::Workload(id)),
                    // Nobody has what is no identity.
                    Err(_) => None,
                };
            }
            (Self::Method, _, Value::Text(TextMatch::Exact(method))) => {
                shown.method = method.to_string();
            }
            (Self::Path, _, Value::Text(TextMatch::Exact(path))) => shown.path = path.to_string(),
            (Self::Port, _, Value::Port(port)) => shown.port = *port,
            _ => return None,
        }
        Some(shown)
    }
}

/// A request that shows one thing.
struct Shown {
    /// `None` for nobody who could be.
    principal: Option<Principal>,
    method: String,
    path: String,
    port: u16,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            principal: Some(Principal::Anonymous),
            method: String::new(),
            path: String::new(),
            port: 0,
        }
    }
}

impl Shown {
    fn request(&self) -> Option<Request<'_>> {
        Some(Request {
            port: self.port,
            method: &self.method,
            path: &self.path,
            ..Request::of(self.principal.as_ref()?)
        })
    }
}

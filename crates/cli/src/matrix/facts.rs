//! What a request could show beside who asks for what: headers, addresses, a token. Istio's rules
//! may depend on it, so a cell is asked about with none of it and with what each rule names.

use std::net::IpAddr;
use std::sync::Arc;

use waypoint_config::Snapshot;
use waypoint_policy::access::HeaderValue;
use waypoint_policy::istio::{
    Attribute, Claims, CustomVerdict, IstioAction, IstioRule, Test, TextMatch, Value,
};
use waypoint_policy::{Effect, Mode, TargetId, Token, is_identity_header};

use super::targets::access_rules;

/// What stands for any text that a pattern leaves open.
pub(super) const ANY: &str = "_any_";

/// One way a request could be.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Facts {
    /// Where the route takes any.
    pub(super) host: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) source_ip: Option<IpAddr>,
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) destination_ip: Option<IpAddr>,
    pub(super) claims: Option<Claims>,
    /// What external authorizers say.
    pub(super) custom: Vec<CustomVerdict>,
    /// The same in words, such as `x-workflow-type: operational`.
    pub(super) words: Vec<String>,
}

impl Facts {
    pub(super) fn in_words(&self) -> String {
        self.words.join(", ")
    }

    /// Adds what makes `values` hold; nothing where the test is about who or what.
    fn show(&mut self, attribute: &Attribute, values: &[Value]) {
        let Some(first) = values.iter().find(|v| !matches!(v, Value::Unusable(_))) else {
            return;
        };
        let text = || match first {
            Value::Text(text) => example(text),
            other => other.to_string(),
        };
        let address = || match first {
            Value::Network(net) => Some(net.addr()),
            _ => None,
        };
        match attribute {
            // What a caller sends there is removed.
            Attribute::Header(name) if is_identity_header(name) => return,
            Attribute::Header(name) => self.headers.push((name.to_string(), text())),
            Attribute::Host => self.host = Some(text()),
            Attribute::SourceIp => self.source_ip = address(),
            Attribute::RemoteIp => self.remote_ip = address(),
            Attribute::DestinationIp => self.destination_ip = address(),
            Attribute::RequestPrincipal => {
                if let Value::RequestPrincipal { issuer, subject } = first {
                    self.claim(&["iss".into()], example(issuer));
                    self.claim(&["sub".into()], example(subject));
                }
            }
            Attribute::Audiences => self.claim(&["aud".into()], text()),
            Attribute::Presenter => self.claim(&["azp".into()], text()),
            Attribute::Claim(path) => self.claim(path, text()),
            _ => return,
        }
        let shown: Vec<String> = values.iter().map(ToString::to_string).collect();
        let word = format!("{}: {}", title(attribute), shown.join(" or "));
        if !self.words.contains(&word) {
            self.words.push(word);
        }
    }

    /// Sets a claim; several values of one claim are a list, of which each counts.
    fn claim(&mut self, path: &[Box<str>], value: String) {
        let claims = self.claims.get_or_insert_default();
        let Some((last, names)) = path.split_last() else {
            return;
        };
        let mut map = &mut claims.0;
        for name in names {
            let entry = map.entry(name.to_string());
            match entry.or_insert_with(|| serde_json::json!({})) {
                serde_json::Value::Object(inner) => map = inner,
                _ => return,
            }
        }
        let list = map
            .entry(last.to_string())
            .or_insert_with(|| match &**last {
                "iss" | "sub" => serde_json::Value::Null,
                _ => serde_json::json!([]),
            });
        match list {
            serde_json::Value::Array(list) => list.push(value.into()),
            other => *other = value.into(),
        }
    }

    pub(super) fn and(mut self, other: &Self) -> Self {
        for header in &other.headers {
            if !self.headers.contains(header) {
                self.headers.push(header.clone());
            }
        }
        if self.host.is_none() {
            self.host.clone_from(&other.host);
        }
        self.source_ip = self.source_ip.or(other.source_ip);
        self.remote_ip = self.remote_ip.or(other.remote_ip);
        self.destination_ip = self.destination_ip.or(other.destination_ip);
        match (&mut self.claims, &other.claims) {
            (Some(own), Some(other)) => join(own, other),
            (own @ None, other) => own.clone_from(other),
            (Some(_), None) => {}
        }
        for verdict in &other.custom {
            if !self.custom.contains(verdict) {
                self.custom.push(verdict.clone());
            }
        }
        for word in &other.words {
            if !self.words.contains(word) {
                self.words.push(word.clone());
            }
        }
        self
    }
}

/// Claims that say what both say; where they cannot, as of two issuers, what the first says.
fn join(own: &mut Claims, other: &Claims) {
    for (name, value) in &other.0 {
        let known = own.0.entry(name.clone());
        let known = known.or_insert_with(|| value.clone());
        if name == "iss" || name == "sub" || known == value {
            continue;
        }
        let mut list: Vec<serde_json::Value> = match known.take() {
            serde_json::Value::Array(list) => list,
            one => vec![one],
        };
        match value {
            serde_json::Value::Array(more) => list.extend(more.iter().cloned()),
            one => list.push(one.clone()),
        }
        *known = serde_json::Value::Array(list);
    }
}

/// Claims that will do. A value with `*` stands for every value of that form.
fn claims(token: &Token) -> Claims {
    let mut claims = serde_json::Map::new();
    for rule in &token.claims {
        let (Some(value), Some((last, outer))) = (rule.values.first(), rule.path.split_last())
        else {
            continue;
        };
        let mut at = Some(&mut claims);
        for name in outer {
            let inner = at.map(|at| at.entry(&**name).or_insert_with(|| serde_json::json!({})));
            at = inner.and_then(serde_json::Value::as_object_mut);
        }
        if let Some(at) = at {
            at.insert(last.to_string(), value.as_str().into());
        }
    }
    claims.insert("iss".to_owned(), (&*token.issuer).into());
    Claims(claims)
}

/// What the rules of the agents' own kinds tell apart: tokens, and header fields of
/// `XAccessPolicy`. Those of Deny rules apart, which take away what others give.
pub(super) fn of_agents(snapshot: &Snapshot, attached: &[TargetId]) -> (Vec<Facts>, Vec<Facts>) {
    let (mut granting, mut denying): (Vec<Facts>, Vec<Facts>) = Default::default();
    for policy in snapshot.policy.policies() {
        let mut objects = policy.targets.iter();
        let is_attached = objects.any(|object| {
            let target = snapshot.policy.target(object);
            target.is_some_and(|target| attached.contains(&target))
        });
        if !is_attached || policy.mode != Mode::Enforce {
            continue;
        }
        let into = match policy.effect {
            Effect::Allow => &mut granting,
            Effect::Deny => &mut denying,
        };
        let callers = policy.rules.iter().filter_map(|rule| rule.from.as_ref());
        for token in callers.flatten().filter_map(|caller| caller.jwt.as_ref()) {
            let facts = Facts {
                claims: Some(claims(token)),
                words: vec![token.to_string()],
                ..Facts::default()
            };
            if !into.contains(&facts) {
                into.push(facts);
            }
        }
    }
    for rule in access_rules(snapshot, attached) {
        let mut facts = Facts::default();
        for header in &rule.http.headers {
            if let HeaderValue::Exact(value) = &header.value {
                facts
                    .headers
                    .push((header.name.to_string(), value.to_string()));
                // The value may be a secret.
                facts
                    .words
                    .push(format!("{} as rule {} has it", header.name, rule.name));
            }
        }
        if !facts.words.is_empty() && !granting.contains(&facts) {
            granting.push(facts);
        }
    }
    (granting, denying)
}

/// A text that a pattern matches.
fn example(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(text) => text.to_string(),
        TextMatch::Prefix(text) => format!("{text}{ANY}"),
        TextMatch::Suffix(text) => format!("{ANY}{text}"),
        TextMatch::Present => ANY.to_owned(),
    }
}

fn title(attribute: &Attribute) -> String {
    match attribute {
        Attribute::Header(name) => name.to_string(),
        Attribute::Host => "host".into(),
        Attribute::SourceIp => "source.ip".into(),
        Attribute::RemoteIp => "remote.ip".into(),
        Attribute::DestinationIp => "destination.ip".into(),
        Attribute::RequestPrincipal => "token of".into(),
        Attribute::Audiences => "aud".into(),
        Attribute::Presenter => "azp".into(),
        Attribute::Claim(path) => path.join("."),
        _ => String::new(),
    }
}

/// The ways a request could be that Istio's rules on these targets tell apart, without the one
/// that shows nothing. A search and no proof: what is found is asked about like any request.
pub(super) fn facts(snapshot: &Snapshot, targets: &[TargetId], any_host: bool) -> Vec<Facts> {
    let has_tokens = !snapshot.authentication.is_empty();
    let can_be_shown = |test: &&Test| match test.attribute {
        Attribute::Host => any_host,
        // Without anybody to verify it, no token says anything.
        _ => has_tokens || !test.attribute.is_of_token(),
    };
    let mut shown: Vec<Facts> = Vec::new();
    // What keeps DENY rules from matching, all of it at once.
    let mut lifted = Facts::default();
    let policies = snapshot.policy.istio_policies().iter();
    let in_force = policies.filter(|policy| {
        let mut attached = policy.targets.iter();
        let is_attached = |object| {
            let target = snapshot.policy.target(object);
            target.is_some_and(|target| targets.contains(&target))
        };
        policy.mode == Mode::Enforce
            && policy.action != IstioAction::Audit
            && attached.any(is_attached)
    });
    let mut add = |facts: Facts| {
        if !facts.words.is_empty() && !shown.contains(&facts) {
            shown.push(facts);
        }
    };
    for policy in in_force {
        if policy.action == IstioAction::Custom
            && let Some(provider) = &policy.provider
        {
            let asked = Facts {
                custom: vec![CustomVerdict {
                    provider: Arc::clone(provider),
                    allows: true,
                }],
                words: vec![format!("{provider} allows")],
                ..Facts::default()
            };
            lifted = lifted.and(&asked);
            add(asked);
        }
        for rule in &policy.rules {
            for tests in ways(rule) {
                let mut positive = Facts::default();
                for test in tests.into_iter().filter(can_be_shown) {
                    if let Some(values) = &test.values {
                        positive.show(&test.attribute, values);
                    }
                    let mut negative = Facts::default();
                    negative.show(&test.attribute, &test.not_values);
                    if policy.action == IstioAction::Deny {
                        lifted = lifted.and(&negative);
                    }
                    add(negative);
                }
                add(positive);
            }
        }
    }
    if !lifted.words.is_empty() {
        let both: Vec<Facts> = shown
            .iter()
            .map(|facts| facts.clone().and(&lifted))
            .collect();
        let new = both.into_iter().filter(|facts| !shown.contains(facts));
        let new: Vec<Facts> = new.collect();
        shown.extend(new);
    }
    shown
}

/// The tests of a rule, once for each source with each operation.
fn ways(rule: &IstioRule) -> Vec<Vec<&Test>> {
    let mut ways = Vec::new();
    for source in alternatives(rule.from.as_deref()) {
        for operation in alternatives(rule.to.as_deref()) {
            let tests = source.iter().chain(operation).chain(&rule.when);
            ways.push(tests.collect());
        }
    }
    ways
}

/// Without alternatives one, about nothing.
fn alternatives(side: Option<&[Vec<Test>]>) -> Vec<&[Test]> {
    match side {
        None | Some([]) => vec![&[]],
        Some(side) => side.iter().map(Vec::as_slice).collect(),
    }
}

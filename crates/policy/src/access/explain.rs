//! What every attached `XAccessPolicy` thought of a question.

use super::{
    AccessRule, AccessSet, HostAccess, McpAccess, McpMethod, PathAccess, Source, rule::Part,
};
use crate::{
    Action, Does, Kind, Mode, Outcome, Query, TraceEntry,
    explain::{list, quoted},
    matching::Who,
};

impl AccessSet {
    /// Every rule of every policy that is attached to one of the question's targets.
    pub(crate) fn trace(&self, who: Option<&Who<'_>>, query: &Query<'_>) -> Vec<TraceEntry> {
        let mut trace = Vec::new();
        for policy in self.attached(query.targets) {
            let entry = |rule: &str, outcome| TraceEntry {
                kind: Kind::XAccessPolicy,
                policy: policy.name.clone(),
                rule: rule.into(),
                effect: Does::Allow,
                mode: Mode::Enforce,
                outcome,
            };
            match policy.rules.as_deref() {
                None => trace.push(entry("", Outcome::Matched)),
                Some([]) => trace.push(entry(
                    "",
                    Outcome::NotMatched {
                        field: "rules".into(),
                        expected: "nothing (no rule can be used)".into(),
                        actual: "a request".into(),
                    },
                )),
                Some(rules) => {
                    trace.extend(rules.iter().map(|rule| {
                        let outcome = outcome(rule, who, query);
                        entry(&rule.name, outcome)
                    }));
                }
            }
        }
        trace
    }
}

fn outcome(rule: &AccessRule, who: Option<&Who<'_>>, query: &Query<'_>) -> Outcome {
    let Some(part) = rule.failed(who, query) else {
        return Outcome::Matched;
    };
    let (facts, http) = (&query.facts, &rule.http);
    let (field, expected, actual) = match part {
        Part::Source => (
            // As where AgentPolicy says who calls: who did stands above.
            "from".to_owned(),
            list(&rule.source),
            who.map_or("anonymous", |who| who.id.as_str()).to_owned(),
        ),
        Part::Methods => (
            "authorization.methods".to_owned(),
            list(&http.methods),
            quoted(facts.method),
        ),
        Part::Paths => (
            "authorization.paths".to_owned(),
            list(&http.paths),
            quoted(facts.path),
        ),
        Part::Headers(at) => {
            let name = http.headers.get(at).map_or("", |header| &header.name);
            let is_there = facts.headers.any(name, &mut |_| false).is_some();
            let actual = if is_there {
                "another value"
            } else {
                "no such header"
            };
            (
                format!("authorization.headers[{at}]"),
                format!("{name} with the value of the rule"),
                actual.to_owned(),
            )
        }
        Part::Hosts => (
            "authorization.hosts".to_owned(),
            list(&http.hosts),
            quoted(facts.host),
        ),
        Part::Ports => (
            "authorization.ports".to_owned(),
            list(&http.ports),
            facts.port.to_string(),
        ),
        Part::Mcp => (
            "authorization.mcp".to_owned(),
            rule.mcp.as_ref().map_or_else(String::new, asked_for),
            asked(&query.action),
        ),
    };
    Outcome::NotMatched {
        field,
        expected,
        actual,
    }
}

fn asked_for(mcp: &McpAccess) -> String {
    let mut parts: Vec<String> = mcp.methods.iter().map(ToString::to_string).collect();
    parts.extend(mcp.base_protocol.then(|| "the base protocol".to_owned()));
    list(parts)
}

fn asked(action: &Action<'_>) -> String {
    match *action {
        Action::Mcp { method, name, .. } => format!("{} of {}", quoted(method), quoted(name)),
        Action::McpSession { method: None, .. } => "the session as a whole".to_owned(),
        Action::McpSession {
            method: Some(""), ..
        } => "an answer of the client".to_owned(),
        Action::McpSession {
            method: Some(method),
            ..
        } => quoted(method),
        Action::Llm { .. } | Action::LlmAny { .. } => "an LLM call".to_owned(),
        Action::Http { .. } => "a plain request".to_owned(),
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spiffe(id) => id.fmt(f),
            Self::ServiceAccount { namespace, name } => {
                write!(f, "service account {namespace}/{name}")
            }
        }
    }
}

impl std::fmt::Display for PathAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/…"),
            Self::Regex(pattern) => write!(f, "what {pattern} matches"),
        }
    }
}

impl std::fmt::Display for HostAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl std::fmt::Display for McpMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.params.is_empty() {
            true => self.name.fmt(f),
            false => write!(f, "{} of {}", self.name, list(&self.params)),
        }
    }
}

//! Whether a request matches a rule, and the first part of the rule that says no.

use super::{AccessRule, HeaderAccess, HeaderValue, HostAccess, HttpAccess, PathAccess, Source};
use crate::{Action, Facts, Query, matching::Who};

/// A part of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Source,
    Methods,
    Paths,
    /// This entry of `headers`.
    Headers(usize),
    Hosts,
    Ports,
    Mcp,
}

impl AccessRule {
    /// The first part that fails, or nothing if the rule matches.
    pub(super) fn failed(&self, who: Option<&Who<'_>>, query: &Query<'_>) -> Option<Part> {
        let by = |source: &Source| who.is_some_and(|who| source.is(who));
        if !self.source.as_ref().is_none_or(by) {
            return Some(Part::Source);
        }
        if let Some(part) = self.http.failed(&query.facts) {
            return Some(part);
        }
        let asks = |action: &Action<'_>| self.mcp.as_ref().is_none_or(|mcp| mcp.matches(action));
        (!asks(&query.action)).then_some(Part::Mcp)
    }
}

impl Source {
    fn is(&self, who: &Who<'_>) -> bool {
        match self {
            Self::Spiffe(id) => id == who.id,
            Self::ServiceAccount { namespace, name } => who
                .own
                .is_some_and(|own| *own.namespace == **namespace && *own.service_account == **name),
        }
    }
}

impl HttpAccess {
    fn failed(&self, facts: &Facts<'_>) -> Option<Part> {
        if !any(&self.methods, |known| **known == *facts.method) {
            return Some(Part::Methods);
        }
        if !any(&self.paths, |path| path.matches(facts.path)) {
            return Some(Part::Paths);
        }
        let mut headers = self.headers.iter();
        if let Some(at) = headers.position(|header| !header.matches(facts)) {
            return Some(Part::Headers(at));
        }
        if !any(&self.hosts, |host| host.matches(facts.host)) {
            return Some(Part::Hosts);
        }
        (!any(&self.ports, |port| *port == facts.port)).then_some(Part::Ports)
    }
}

/// An empty list is any.
fn any<T>(list: &[T], matches: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

impl PathAccess {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(pattern) => pattern.matches(path),
        }
    }
}

impl HeaderAccess {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let mut differs = |value: &[u8]| !self.value.is(value);
        facts.headers.any(&self.name, &mut differs) == Some(false)
    }
}

impl HeaderValue {
    fn is(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == exact.as_bytes(),
            Self::Regex(pattern) => {
                std::str::from_utf8(value).is_ok_and(|text| pattern.matches(text))
            }
        }
    }
}

impl HostAccess {
    /// Upper and lower case are the same, as is the dot that ends a rooted name.
    fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
        match self {
            Self::Exact(exact) => host.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Below(suffix) => {
                let start = host.len().checked_sub(suffix.len());
                start.filter(|start| *start > 0).is_some_and(|start| {
                    let end = host.get(start..).unwrap_or_default();
                    end.eq_ignore_ascii_case(suffix.as_bytes())
                })
            }
        }
    }
}

//! Which route a request takes: host first, then the longest prefix, then the closest match.

use std::borrow::Cow;
use std::fmt;

use hashbrown::HashMap;

use crate::path::PathNormalization;
use crate::snapshot::{PathMatch, PlainMatch, PlainRoute, Route, Snapshot};

/// Host names longer than this are matched by no named host (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// What a request is routed by.
#[derive(Clone, Copy)]
pub struct RouteQuery<'a> {
    /// Index of the listener in [`Snapshot::listeners`].
    pub listener: usize,
    /// `Host` or `:authority`; case, a port and a trailing dot do not matter.
    pub host: &'a str,
    /// The path in the form of [`crate::Parameters::path_normalization`].
    pub path: &'a str,
    /// The method as sent.
    pub method: &'a str,
    /// The value of a header by lower-case name; `None` when absent or not text.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
}

impl fmt::Debug for RouteQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteQuery")
            .field("listener", &self.listener)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The route a request takes, if any.
    ///
    /// Named hosts come before wildcards (the longest first), and these before routes without a
    /// host; within a host a whole path comes before prefixes, the longest first; at equal paths
    /// the match with a method, then the one with most headers (Gateway API, `HTTPRouteMatch`).
    #[must_use]
    pub fn route(&self, query: &RouteQuery<'_>) -> Option<&Route> {
        let host = canonical_host(query.host);
        let listener = self.listeners.get(query.listener)?;
        if let Some(own) = &listener.hostname
            && !host_matches(own, &host)
        {
            return None;
        }
        let table = self.routes.listeners.get(query.listener)?;
        let found = table.find(&host, query)?;
        self.routes.routes.get(found)
    }
}

impl PlainRoute {
    /// Whether a path that led here stays below the route's prefix when its dot segments are
    /// followed, as its receiver will. They are left in it by [`PathNormalization::None`] only.
    #[must_use]
    pub fn holds(&self, path: &str) -> bool {
        let PathMatch::Prefix(prefix) = &self.matched.path else {
            return true;
        };
        let Ok(normal) = PathNormalization::Base.normalize(path) else {
            return false;
        };
        let below = normal.strip_prefix(prefix.as_str());
        prefix == "/" || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// All routes of a waypoint, found in time that does not grow with their number.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    /// The hosts of each route; none is any.
    hosts: Vec<Box<[String]>>,
    listeners: Vec<Hosts>,
}

impl RouteTable {
    /// A table for so many listeners.
    pub(crate) fn new(listeners: usize) -> Self {
        Self {
            routes: Vec::new(),
            hosts: Vec::new(),
            listeners: (0..listeners).map(|_| Hosts::default()).collect(),
        }
    }

    /// All routes, in the order they were compiled.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// All routes with the hosts that lead to them; none is any.
    pub fn iter_with_hosts(&self) -> impl Iterator<Item = (&Route, &[String])> {
        let hosts = self.hosts.iter().map(|hosts| &**hosts);
        self.routes.iter().zip(hosts)
    }

    /// Adds a route for requests that look like `matched`. Empty `hosts` means any.
    pub(crate) fn insert(
        &mut self,
        route: Route,
        listeners: &[usize],
        hosts: &[String],
        matched: &PlainMatch,
    ) {
        let index = self.routes.len();
        self.routes.push(route);
        self.hosts.push(hosts.into());
        for &listener in listeners {
            let Some(table) = self.listeners.get_mut(listener) else {
                continue;
            };
            if hosts.is_empty() {
                table.any.insert(matched, index);
            }
            for host in hosts {
                let paths = match host.strip_prefix("*.") {
                    Some(suffix) => table.wildcard.entry(suffix.into()).or_default(),
                    None => table.exact.entry(host.as_str().into()).or_default(),
                };
                paths.insert(matched, index);
            }
        }
    }
}

/// The routes of one listener, by host.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<str>, Paths>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Paths>,
    any: Paths,
}

impl Hosts {
    fn find(&self, host: &str, query: &RouteQuery<'_>) -> Option<usize> {
        if !host.is_empty() && host.len() <= MAX_HOST_BYTES {
            if let Some(found) = self.exact.get(host).and_then(|paths| paths.find(query)) {
                return Some(found);
            }
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.').filter(|_| !self.wildcard.is_empty())
            {
                if let Some(found) = self
                    .wildcard
                    .get(parent)
                    .and_then(|paths| paths.find(query))
                {
                    return Some(found);
                }
                rest = parent;
            }
        }
        self.any.find(query)
    }
}

/// The routes of one host, by path: a trie whose edges are segments.
#[derive(Debug)]
struct Paths {
    exact: HashMap<Box<str>, Candidates>,
    nodes: Vec<Node>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            nodes: vec![Node::default()],
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    here: Candidates,
}

impl Paths {
    fn insert(&mut self, matched: &PlainMatch, route: usize) {
        let candidates = match &matched.path {
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            PathMatch::Prefix(prefix) => {
                let mut at = 0;
                for segment in prefix.split('/').filter(|s| !s.is_empty()) {
                    let fresh = self.nodes.len();
                    let next = *self.nodes[at]
                        .children
                        .entry(segment.into())
                        .or_insert(fresh);
                    if next == fresh {
                        self.nodes.push(Node::default());
                    }
                    at = next;
                }
                &mut self.nodes[at].here
            }
        };
        candidates.insert(matched, route);
    }

    fn find(&self, query: &RouteQuery<'_>) -> Option<usize> {
        if let Some(found) = self.exact.get(query.path).and_then(|c| c.find(query)) {
            return Some(found);
        }
        let mut at = self.nodes.first()?;
        let mut found = at.here.find(query);
        // An empty segment between two slashes is one that no prefix has.
        for segment in query.path.split('/').skip(1) {
            let Some(&next) = at.children.get(segment) else {
                break;
            };
            at = self.nodes.get(next)?;
            found = at.here.find(query).or(found);
        }
        found
    }
}

/// Routes with the same path, the closest match first.
#[derive(Debug, Default)]
struct Candidates(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    method: Option<Box<str>>,
    headers: Box<[(String, String)]>,
    route: usize,
}

impl Candidates {
    fn insert(&mut self, matched: &PlainMatch, route: usize) {
        let candidate = Candidate {
            method: matched.method.as_deref().map(Into::into),
            headers: matched.headers.clone().into(),
            route,
        };
        let rank = |c: &Candidate| (c.method.is_none(), std::cmp::Reverse(c.headers.len()));
        let at = self.0.partition_point(|c| rank(c) <= rank(&candidate));
        self.0.insert(at, candidate);
    }

    fn find(&self, query: &RouteQuery<'_>) -> Option<usize> {
        let matches = |c: &&Candidate| {
            c.method
                .as_deref()
                .is_none_or(|method| method == query.method)
                && c.headers
                    .iter()
                    .all(|(name, value)| (query.header)(name) == Some(value.as_str()))
        };
        self.0.iter().find(matches).map(|c| c.route)
    }
}

/// A host as routes know it: lower case, without port and trailing dot.
fn canonical_host(host: &str) -> Cow<'_, str> {
    let bare = match host.rsplit_once(':') {
        // `[::1]:80` ends in a port, `[::1]` does not.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if bare.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
    }
}

/// Whether a host is the pattern's, or below it when the pattern begins with `*.`.
pub(crate) fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests;

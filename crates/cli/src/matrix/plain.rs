//! The columns of plain routes: methods and paths that policies of either kind name.

use std::collections::BTreeSet;
use std::sync::Arc;

use waypoint_config::{PathMatch, PlainBackend, PlainRoute, Route, RouteQuery, Snapshot};
use waypoint_policy::access::PathAccess;
use waypoint_policy::istio::{Attribute, Test, TextMatch, Value};
use waypoint_policy::{Pattern, TargetId};

use super::facts::ANY;
use super::targets::{Asked, Target, access_rules, in_order, rules};

/// What stands for every method that no policy names.
const OTHER: &str = "*";

/// The columns of a route that is reached by these hosts, or by any.
pub(super) fn plain<'s>(
    snapshot: &'s Snapshot,
    route: &'s PlainRoute,
    hosts: &[String],
    behind: &[Arc<str>],
    found: &mut Vec<Target<'s>>,
) {
    for backend in route.backends.iter() {
        let own = match backend.external {
            true => backend.name.name.to_string(),
            false => backend.endpoint.host.to_string(),
        };
        match hosts {
            [] => of_host(snapshot, route, (&own, &own), true, backend, behind, found),
            hosts => hosts.iter().for_each(|host| {
                of_host(snapshot, route, (host, &own), false, backend, behind, found);
            }),
        }
    }
}

fn of_host<'s>(
    snapshot: &'s Snapshot,
    route: &'s PlainRoute,
    (host, own): (&str, &str),
    any_host: bool,
    backend: &PlainBackend,
    behind: &[Arc<str>],
    found: &mut Vec<Target<'s>>,
) {
    let (PathMatch::Prefix(start) | PathMatch::Exact(start)) = &route.matched.path;
    let port = backend.endpoint.port;
    let group = match host == own {
        true => format!("Host {host}:{port}"),
        false => format!("Host {host} → {own}:{port}"),
    };
    let mut named = Named::default();
    named.paths.insert(start.clone());
    named.agent(snapshot, route, host);
    named.istio(snapshot, behind, start);
    named.access(snapshot, route);
    let methods = match &route.matched.method {
        Some(only) => vec![only.clone()],
        None => named.methods(),
    };
    let paths = named.paths.iter().map(String::as_str).collect();
    for shown in in_order(paths) {
        let path = one_of(shown);
        for method in &methods {
            let is_new = |target: &Target<'_>| {
                let item = format!("{method} {shown}");
                target.group != group || target.item != item
            };
            if !leads_here(snapshot, route, host, method, &path) || !found.iter().all(is_new) {
                continue;
            }
            found.push(Target {
                kind: "http",
                name: host.to_owned(),
                route: format!("HTTPRoute/{}", route.name),
                group: group.clone(),
                item: format!("{method} {shown}"),
                attached: route.targets.clone(),
                any_host,
                behind: behind.to_vec(),
                asked: Asked::Http {
                    method: method.clone(),
                    host: host.to_owned(),
                    shown: shown.to_owned(),
                    path: path.clone(),
                    port,
                    external: backend.external,
                },
            });
        }
    }
}

/// Whether such a request takes this route and not a closer one; so where nothing is served yet.
fn leads_here(
    snapshot: &Snapshot,
    route: &PlainRoute,
    host: &str,
    method: &str,
    path: &str,
) -> bool {
    let headers = &route.matched.headers;
    let header = |name: &str| {
        let mut headers = headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let mut taken = (0..snapshot.listeners.len()).filter_map(|listener| {
        snapshot.route(&RouteQuery {
            listener,
            host,
            path,
            method,
            header: &header,
        })
    });
    let is_here = |taken: &Route| match taken {
        Route::Plain(taken) => std::ptr::eq(taken, route),
        _ => false,
    };
    snapshot.listeners.is_empty() || taken.any(is_here)
}

/// What policies name.
#[derive(Default)]
struct Named {
    methods: BTreeSet<String>,
    paths: BTreeSet<String>,
}

impl Named {
    /// The methods, and what stands for all others when some are told apart.
    fn methods(&self) -> Vec<String> {
        let mut methods: Vec<String> = self.methods.iter().cloned().collect();
        match methods.is_empty() {
            true => methods.push("GET".to_owned()),
            false => methods.push(OTHER.to_owned()),
        }
        methods
    }

    fn agent(&mut self, snapshot: &Snapshot, route: &PlainRoute, host: &str) {
        let (PathMatch::Prefix(start) | PathMatch::Exact(start)) = &route.matched.path;
        let blocks = rules(snapshot, &route.targets).flat_map(|rule| &rule.http);
        let here = blocks.filter(|block| {
            let mut hosts = block.hosts.iter().flatten();
            block.hosts.is_none() || hosts.any(|pattern| pattern.matches(host))
        });
        for block in here {
            let methods = block.methods.iter().flatten();
            let named = methods.filter(|method| *method != OTHER);
            self.methods.extend(named.cloned());
            let below = block.paths.iter().flatten().map(Pattern::as_str);
            let below = below.filter(|path| path.starts_with(start.as_str()));
            self.paths.extend(below.map(str::to_owned));
        }
    }

    fn access(&mut self, snapshot: &Snapshot, route: &PlainRoute) {
        let (PathMatch::Prefix(start) | PathMatch::Exact(start)) = &route.matched.path;
        for rule in access_rules(snapshot, &route.targets) {
            let methods = rule.http.methods.iter();
            self.methods.extend(methods.map(ToString::to_string));
            let paths = rule.http.paths.iter().flat_map(|path| match path {
                PathAccess::Exact(path) => vec![path.to_string()],
                PathAccess::Prefix(path) => vec![path.to_string(), format!("{path}/*")],
                // No one path stands for an expression.
                PathAccess::Regex(_) => Vec::new(),
            });
            let below = paths.filter(|path| path.starts_with(start.as_str()));
            self.paths.extend(below);
        }
    }

    fn istio(&mut self, snapshot: &Snapshot, behind: &[Arc<str>], start: &str) {
        let mut targets: Vec<TargetId> = snapshot.istio.of("").to_vec();
        targets.extend(behind.iter().flat_map(|host| snapshot.istio.of(host)));
        let policies = snapshot.policy.istio_policies().iter();
        let attached = policies.filter(|policy| {
            let mut objects = policy.targets.iter();
            objects.any(|object| {
                let target = snapshot.policy.target(object);
                target.is_some_and(|target| targets.contains(&target))
            })
        });
        for rule in attached.flat_map(|policy| &policy.rules) {
            let operations = rule.to.iter().flatten().flatten();
            for test in operations.chain(&rule.when) {
                self.test(test, start);
            }
        }
    }

    fn test(&mut self, test: &Test, start: &str) {
        let values = test.values.iter().flatten().chain(&test.not_values);
        for value in values {
            match (&test.attribute, value) {
                (Attribute::Method, Value::Text(TextMatch::Exact(method))) => {
                    self.methods.insert(method.to_string());
                }
                (Attribute::Path, Value::Text(TextMatch::Suffix(_))) => {
                    let base = start.trim_end_matches('/');
                    self.paths.insert(format!("{base}/{value}"));
                }
                (Attribute::Path, Value::Text(_) | Value::Template(_)) => {
                    let path = value.to_string();
                    if path.starts_with(start) {
                        self.paths.insert(path);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A path of this form.
fn one_of(shown: &str) -> String {
    let path = shown.replace("{**}", ANY).replace("{*}", ANY);
    path.replace('*', ANY)
}

//! `HTTPRoute`: plain routes.

mod parts;

use std::sync::Arc;

use waypoint_policy::{Kind, ObjectRef};

pub(super) use parts::token as header_name;
use parts::{one_filter, one_match};

use super::draft::{Drafts, RouteDraft};
use super::endpoint;
use super::entry;
use super::gateway::Chosen;
use super::set::{Decoded, Set};
use super::{attach, missing, refs};
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics};
use crate::raw::http as raw;
use crate::raw::istio;
use crate::snapshot::{Filter, Parameters, PathMatch, PlainBackend, PlainMatch, PlainRoute, Route};

const ISTIO: &str = "networking.istio.io";
const MAX_WEIGHT: u32 = 1_000_000;

pub(super) fn compile<'a>(
    set: &'a Set<'a>,
    chosen: &Chosen<'_>,
    drafts: &mut Drafts<'a>,
    out: &mut Diagnostics,
) {
    for route in set.http_routes.values() {
        let (object, spec) = (route.object, &route.raw);
        let parents = Some(spec.parent_refs.as_slice());
        let Some(listeners) = attach::listeners(set, chosen, object, parents, out) else {
            continue;
        };
        let at = object.spec();
        let hosts = endpoint::host_names(&spec.hostnames, at.key("hostnames"), out);
        for (index, rule) in spec.rules.iter().enumerate() {
            let at = at.key("rules").index(index);
            let context = Rule {
                set,
                parameters: &chosen.parameters,
                route,
                at,
            };
            for (matched, place) in context.matches(rule, out) {
                let (filters, backends) = match drafts.routes.last() {
                    // The matches of one rule share the rest of it.
                    Some(RouteDraft {
                        route: Route::Plain(last),
                        ..
                    }) if last.name == object.name && last.rule == index => {
                        (last.filters.clone(), last.backends.clone())
                    }
                    _ => {
                        let filters = context.filters(rule, out);
                        let backends = context.backends(rule, &filters, out);
                        (filters, backends)
                    }
                };
                drafts.routes.push(RouteDraft {
                    route: Route::Plain(PlainRoute {
                        name: object.name.clone(),
                        label: format!("HTTPRoute/{}", object.name).into(),
                        rule: index,
                        targets: Vec::new(),
                        matched: matched.clone(),
                        filters,
                        backends,
                        // GEP-1742: zero switches the timeout off.
                        request_timeout: rule
                            .timeouts
                            .request
                            .map(|t| t.0)
                            .filter(|t| !t.is_zero()),
                    }),
                    targets: vec![ObjectRef::whole(Kind::HttpRoute, object.name.clone())],
                    listeners: listeners.clone(),
                    hosts: hosts.clone(),
                    matched,
                    title: super::title(object),
                    at: place,
                });
            }
            if rule.timeouts.backend_request.is_some() {
                let message = "`backendRequest` is not applied yet; `request` is";
                out.warning(
                    at.key("timeouts").key("backendRequest"),
                    "not-served",
                    message,
                );
            }
        }
    }
}

struct Rule<'a, 'p> {
    set: &'a Set<'a>,
    parameters: &'p Parameters,
    route: &'a Decoded<'a, raw::HttpRoute>,
    at: At<'a>,
}

impl<'a> Rule<'a, '_> {
    fn matches(&self, rule: &raw::HttpRule, out: &mut Diagnostics) -> Vec<(PlainMatch, At<'a>)> {
        if rule.matches.is_empty() {
            let path = PathMatch::Prefix("/".to_owned());
            return vec![(
                PlainMatch {
                    path,
                    method: None,
                    headers: Vec::new(),
                },
                self.at,
            )];
        }
        let at = self.at.key("matches");
        let all = rule.matches.iter().enumerate();
        all.filter_map(|(index, matched)| one_match(matched, at.index(index), out))
            .collect()
    }

    fn filters(&self, rule: &raw::HttpRule, out: &mut Diagnostics) -> Arc<[Filter]> {
        let at = self.at.key("filters");
        let all = rule.filters.iter().enumerate();
        let filters: Vec<Filter> = all
            .filter_map(|(index, filter)| one_filter(filter, at.index(index), out))
            .collect();
        let is_redirect = |filter: &Filter| matches!(filter, Filter::Redirect(_));
        let is_rewrite = |filter: &Filter| matches!(filter, Filter::Rewrite(_));
        if filters.iter().any(is_redirect) && filters.iter().any(is_rewrite) {
            out.error(at, "bad-filter", "a rule either redirects or rewrites");
        }
        for (what, count) in [
            (
                "RequestRedirect",
                filters.iter().filter(|f| is_redirect(f)).count(),
            ),
            (
                "URLRewrite",
                filters.iter().filter(|f| is_rewrite(f)).count(),
            ),
        ] {
            if count > 1 {
                out.error(at, "bad-filter", format!("a rule has at most one {what}"));
            }
        }
        filters.into()
    }

    fn backends(
        &self,
        rule: &raw::HttpRule,
        filters: &[Filter],
        out: &mut Diagnostics,
    ) -> Arc<[PlainBackend]> {
        let at = self.at.key("backendRefs");
        let redirects = filters
            .iter()
            .any(|filter| matches!(filter, Filter::Redirect(_)));
        let unread = rule.filters.len() != filters.len();
        match rule.backend_refs.is_empty() {
            true if !redirects && !unread => {
                out.error(
                    at,
                    "empty-list",
                    "a rule without a redirect needs `backendRefs`",
                );
            }
            false if redirects => {
                out.error(
                    at,
                    "bad-filter",
                    "a rule that redirects has no `backendRefs`",
                );
            }
            _ => {}
        }
        let mut backends = Vec::new();
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            let at = at.index(index);
            if !backend.filters.is_empty() {
                let message = "filters of a backend are not supported yet; use the rule's";
                out.error(at.key("filters"), "not-enforced", message);
            }
            let weight = backend.weight.unwrap_or(1);
            if weight > MAX_WEIGHT {
                let message = format!("`weight` must be at most {MAX_WEIGHT}");
                out.error(at.key("weight"), "bad-value", message);
            }
            let found = self.backend(backend, at, out);
            backends.extend(
                found
                    .filter(|_| weight > 0)
                    .map(|found| PlainBackend { weight, ..found }),
            );
        }
        backends.into()
    }

    fn backend(
        &self,
        backend: &raw::HttpBackendRef,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Option<PlainBackend> {
        let Some(port) = backend.port.filter(|port| *port > 0) else {
            out.error(at, "missing-field", "`port` is missing");
            return None;
        };
        let object = self.route.object;
        let name = refs::named(backend.namespace.as_deref(), &backend.name, object);
        let from = refs::From::object(object);
        let (group, kind) = (
            backend.group.as_deref().unwrap_or(""),
            backend.kind.as_deref().unwrap_or("Service"),
        );
        let at = at.key("name");
        match (group, kind) {
            ("", "Service") => {
                if !self.set.services.contains_key(&name) {
                    missing(self.set, ObjectKind::Service, &name, at, out);
                    return None;
                }
                if !refs::granted(self.set, from, ObjectKind::Service, &name, at, out) {
                    return None;
                }
                let endpoint =
                    endpoint::of_service(self.set, &name, port, None, self.parameters, at, out)?;
                let external = !endpoint.private;
                Some(PlainBackend {
                    name,
                    endpoint,
                    weight: 1,
                    external,
                })
            }
            (ISTIO, "ServiceEntry") => {
                let Some(entry) = self.set.entries.get(&name) else {
                    missing(self.set, ObjectKind::ServiceEntry, &name, at, out);
                    return None;
                };
                if !refs::granted(self.set, from, ObjectKind::ServiceEntry, &name, at, out) {
                    return None;
                }
                let [host] = entry.raw.hosts.as_slice() else {
                    let message = format!(
                        "ServiceEntry {name} has several hosts; name one with kind `Hostname`"
                    );
                    out.error(at, "bad-backend", message);
                    return None;
                };
                self.external(entry, host, port, at, out)
            }
            (ISTIO, "Hostname") => {
                let host = backend.name.to_ascii_lowercase();
                let entry = self.set.entries.values().find(|entry| {
                    entry.object.name.namespace == object.name.namespace
                        && entry
                            .raw
                            .hosts
                            .iter()
                            .any(|own| own.eq_ignore_ascii_case(&host))
                });
                let Some(entry) = entry else {
                    if !self.set.any_broken(ObjectKind::ServiceEntry) {
                        let message = format!(
                            "no ServiceEntry of namespace `{}` has host `{host}`",
                            object.name.namespace
                        );
                        out.error(at, "missing-reference", message);
                    }
                    return None;
                };
                self.external(entry, &host, port, at, out)
            }
            _ => {
                let message = format!(
                    "backend `{group}/{kind}` is not one of `Service`, `{ISTIO}/ServiceEntry`, \
                     `{ISTIO}/Hostname`"
                );
                out.error(at, "unknown-value", message);
                None
            }
        }
    }

    fn external(
        &self,
        entry: &Decoded<'_, istio::ServiceEntry>,
        host: &str,
        port: u16,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Option<PlainBackend> {
        let (endpoint, external) = entry::of_host(entry, host, port, self.parameters, at, out)?;
        Some(PlainBackend {
            name: endpoint::external_name(&entry.object.name.namespace, &endpoint.host),
            endpoint,
            weight: 1,
            external,
        })
    }
}

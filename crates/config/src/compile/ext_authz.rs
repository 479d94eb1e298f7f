//! External authorizers of the mesh configuration, as far as `CUSTOM` policies ask for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use waypoint_policy::ObjectName;
use waypoint_policy::istio::TextMatch;

use super::gateway::Chosen;
use super::set::Set;
use super::{endpoint, entry, http};
use crate::ext_authz::{CheckedBody, ExtAuthz, ExtAuthzProtocol, HttpAuthz};
use crate::object::{At, Diagnostics};
use crate::raw::{Text, ext_authz as raw};
use crate::snapshot::Endpoint;
use crate::yaml::{self, Node, Value};

/// Istio's default.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Envoy's default, `403 Forbidden`.
const STATUS_ON_ERROR: u16 = 403;

/// The authorizers that policies ask for, by name; `None` for one with errors.
pub(super) type Providers = BTreeMap<Arc<str>, Option<ExtAuthz>>;

/// Reads those that are asked for. One that is not there is left out, with a warning at each policy
/// by its compiler; one that cannot be read is an error.
pub(super) fn compile(set: &Set<'_>, chosen: &Chosen<'_>, out: &mut Diagnostics) -> Providers {
    let mut providers = Providers::new();
    let policies = set.authorization.values();
    let asked: Vec<&str> = policies
        .filter_map(|policy| policy.raw.spec.provider.as_ref()?.name.as_deref())
        .collect();
    let map = ObjectName::new("istio-system", "istio");
    let Some(map) = set.config_maps.get(&map).filter(|_| !asked.is_empty()) else {
        return providers;
    };
    let Some(text) = map.raw.data.get("mesh") else {
        return providers;
    };
    // What is not YAML has been reported with the mesh's own settings.
    let (documents, _) = yaml::read(text);
    let at = map.object.at().key("data").key("mesh");
    let listed = documents
        .first()
        .and_then(|mesh| mesh.get("extensionProviders"));
    let Some(Value::List(listed)) = listed.map(|list| &list.value) else {
        return providers;
    };
    for node in listed {
        let Some(name) = node.get("name").and_then(Node::as_str) else {
            continue;
        };
        if !asked.contains(&name) {
            continue;
        }
        let line = node.at.line;
        let one = One {
            set,
            chosen,
            name,
            line,
            at,
        };
        if providers.contains_key(name) {
            one.error("duplicate-object", "is there twice", out);
            continue;
        }
        providers.insert(name.into(), one.compile(node, out));
    }
    providers
}

/// One entry of `extensionProviders`.
struct One<'c> {
    set: &'c Set<'c>,
    chosen: &'c Chosen<'c>,
    name: &'c str,
    /// Within the text of the mesh configuration.
    line: usize,
    at: At<'c>,
}

/// What both kinds have.
struct Common<'r> {
    endpoint: Option<Endpoint>,
    timeout: Option<Text<raw::Seconds>>,
    fail_open: bool,
    status_on_error: Option<&'r str>,
    body: Option<raw::Body>,
}

impl One<'_> {
    fn error(&self, code: &'static str, what: &str, out: &mut Diagnostics) {
        let (name, line) = (self.name, self.line);
        let message = format!("in line {line} of `mesh`: extension provider `{name}` {what}");
        out.error(self.at, code, message);
    }

    fn read<T: DeserializeOwned>(&self, node: &Node, out: &mut Diagnostics) -> Option<T> {
        let read = serde_path_to_error::deserialize(node.to_json());
        let reported = |error: serde_path_to_error::Error<_>| {
            let what = format!("cannot be read: {}: {}", error.path(), error.inner());
            self.error("bad-value", &what, out);
        };
        read.map_err(reported).ok()
    }

    fn compile(&self, node: &Node, out: &mut Diagnostics) -> Option<ExtAuthz> {
        if let Some(node) = node.get("envoyExtAuthzHttp") {
            let raw: raw::Http = self.read(node, out)?;
            let protocol = ExtAuthzProtocol::Http(self.http(&raw, out));
            let common = Common {
                endpoint: self.endpoint(&raw.service, raw.port, out),
                timeout: raw.timeout,
                fail_open: raw.fail_open,
                status_on_error: raw.status_on_error.as_deref(),
                body: raw.include_request_body_in_check,
            };
            return self.finish(common, protocol, out);
        }
        if let Some(node) = node.get("envoyExtAuthzGrpc") {
            let raw: raw::Grpc = self.read(node, out)?;
            let endpoint = self.endpoint(&raw.service, raw.port, out);
            let common = Common {
                // gRPC is HTTP/2, whatever the port is said to speak.
                endpoint: endpoint.map(|endpoint| Endpoint {
                    http2: true,
                    ..endpoint
                }),
                timeout: raw.timeout,
                fail_open: raw.fail_open,
                status_on_error: raw.status_on_error.as_deref(),
                body: raw.include_request_body_in_check,
            };
            return self.finish(common, ExtAuthzProtocol::Grpc, out);
        }
        let what =
            "is not an authorizer: it has neither `envoyExtAuthzHttp` nor `envoyExtAuthzGrpc`";
        self.error("bad-value", what, out);
        None
    }

    fn finish(
        &self,
        common: Common<'_>,
        protocol: ExtAuthzProtocol,
        out: &mut Diagnostics,
    ) -> Option<ExtAuthz> {
        let mark = out.len();
        let (timeout, status_on_error, body) = (
            self.timeout(common.timeout, out),
            self.status(common.status_on_error, out),
            self.body(common.body, out),
        );
        let found = ExtAuthz {
            name: self.name.into(),
            endpoint: common.endpoint?,
            timeout,
            fail_open: common.fail_open,
            status_on_error,
            body,
            protocol,
        };
        (!out.errors_since(mark)).then_some(found)
    }

    /// `[namespace/]host`, where the host is a Service's, a ServiceEntry's, or any other.
    fn endpoint(&self, service: &str, port: u16, out: &mut Diagnostics) -> Option<Endpoint> {
        let parameters = &self.chosen.parameters;
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, service),
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() || port == 0 {
            self.error(
                "bad-endpoint",
                "needs `service` and a `port` of 1 to 65535",
                out,
            );
            return None;
        }
        if let Some((of, name)) = endpoint::service_of(&host, &parameters.dns_suffix) {
            if namespace.is_some_and(|namespace| namespace != of) {
                let what =
                    format!("names Service `{name}` of namespace `{of}` in another: `{service}`");
                self.error("bad-endpoint", &what, out);
                return None;
            }
            let name = ObjectName::new(of, name);
            return endpoint::of_service(self.set, &name, port, None, parameters, self.at, out);
        }
        let entry = self.set.entries.values().find(|entry| {
            let place = &entry.object.name.namespace;
            namespace.is_none_or(|namespace| namespace == &**place)
                && entry
                    .raw
                    .hosts
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(&host))
        });
        match entry {
            Some(entry) => {
                let found = entry::of_host(entry, &host, port, parameters, self.at, out)?;
                Some(found.0)
            }
            None => endpoint::of_host(&host, port, None, parameters, self.at, out),
        }
    }

    fn timeout(&self, written: Option<Text<raw::Seconds>>, out: &mut Diagnostics) -> Duration {
        let timeout = written.map_or(TIMEOUT, |written| written.0.0);
        if timeout < Duration::from_millis(1) {
            self.error("bad-value", "needs a `timeout` of at least 1 ms", out);
        }
        timeout
    }

    fn status(&self, written: Option<&str>, out: &mut Diagnostics) -> u16 {
        let Some(written) = written.filter(|written| !written.is_empty()) else {
            return STATUS_ON_ERROR;
        };
        match written.parse::<u16>() {
            Ok(status @ 400..=599) => status,
            _ => {
                let what = format!("has `statusOnError: {written}`, which is not 400 to 599");
                self.error("bad-value", &what, out);
                STATUS_ON_ERROR
            }
        }
    }

    fn body(&self, raw: Option<raw::Body>, out: &mut Diagnostics) -> Option<CheckedBody> {
        let raw = raw?;
        if raw.max_request_bytes == 0 {
            self.error("bad-value", "needs `maxRequestBytes` above 0", out);
        }
        Some(CheckedBody {
            max_bytes: usize::try_from(raw.max_request_bytes).unwrap_or(usize::MAX),
            allow_partial: raw.allow_partial_message,
            as_bytes: raw.pack_as_bytes,
        })
    }

    fn http(&self, raw: &raw::Http, out: &mut Diagnostics) -> HttpAuthz {
        let prefix = &raw.path_prefix;
        if !prefix.is_empty() && crate::normalize_path(prefix).as_deref() != Ok(prefix) {
            let what = format!("has `pathPrefix: {prefix}`, which is not a path in normal form");
            self.error("bad-path", &what, out);
        }
        let names = |list: &[String]| list.iter().map(|name| TextMatch::lower(name)).collect();
        let mut request_headers: Vec<TextMatch> = names(&raw.include_request_headers_in_check);
        request_headers.extend(names(&raw.include_headers_in_check));
        let additional = raw.include_additional_headers_in_check.iter();
        let additional = additional.filter_map(|(name, value)| {
            let name = http::header_name(name, self.at, out)?;
            Some((name, value.clone()))
        });
        HttpAuthz {
            path_prefix: prefix.trim_end_matches('/').to_owned(),
            request_headers,
            additional_headers: additional.collect(),
            to_upstream_on_allow: names(&raw.headers_to_upstream_on_allow),
            to_downstream_on_allow: names(&raw.headers_to_downstream_on_allow),
            to_downstream_on_deny: names(&raw.headers_to_downstream_on_deny),
        }
    }
}

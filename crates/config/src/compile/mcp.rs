//! `MCPProxy`: routes to MCP servers.

use waypoint_policy::{Kind, ObjectName, ObjectRef, ServerId};

use super::draft::{Drafts, McpSection, RouteDraft};
use super::endpoint::{self, TlsChoice};
use super::gateway::Chosen;
use super::llm::{positive, tls_hostname};
use super::set::{Decoded, Set};
use super::{attach, refs};
use crate::object::{At, Diagnostics};
use crate::raw::mcp as raw;
use crate::snapshot::{
    Denial, Endpoint, McpRoute, McpTimeouts, Parameters, PathMatch, PlainMatch, Route,
};

const DEFAULT_PATH: &str = "/mcp";

pub(super) fn compile<'a>(
    set: &'a Set<'a>,
    chosen: &Chosen<'_>,
    drafts: &mut Drafts<'a>,
    out: &mut Diagnostics,
) {
    for proxy in set.mcp.values() {
        let object = proxy.object;
        let parents = proxy.raw.parent_refs.as_deref();
        let mut listeners = attach::listeners(set, chosen, object, parents, out);
        if listeners.is_some() && !chosen.mcp {
            let message = format!(
                "Gateway {} has `kgateway.io/mcp-proxy-enabled: \"false\"`, so nothing here is served",
                chosen.name
            );
            out.warning(object.name_at(), "not-served", message);
            listeners = None;
        }
        if proxy.raw.routes.is_empty() {
            out.error(
                object.spec().key("routes"),
                "empty-list",
                "`routes` is empty",
            );
        }
        let mut names: Vec<&str> = Vec::new();
        for (index, route) in proxy.raw.routes.iter().enumerate() {
            let at = object.spec().key("routes").index(index);
            if names.contains(&route.name.as_str()) {
                let message = format!("there is another route `{}`", route.name);
                out.error(at.key("name"), "duplicate-name", message);
                continue;
            }
            names.push(&route.name);
            one_route(
                set,
                chosen,
                proxy,
                route,
                listeners.as_deref(),
                at,
                drafts,
                out,
            );
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call; a struct would only rename them"
)]
fn one_route<'a>(
    set: &'a Set<'a>,
    chosen: &Chosen<'_>,
    proxy: &Decoded<'a, raw::McpProxy>,
    route: &raw::McpRoute,
    listeners: Option<&[usize]>,
    at: At<'a>,
    drafts: &mut Drafts<'a>,
    out: &mut Diagnostics,
) {
    let object = proxy.object;
    if !crate::object::is_name(&route.name) {
        let message = format!("`name` must be a lower-case DNS name, not `{}`", route.name);
        out.error(at.key("name"), "bad-name", message);
    }
    if route.targets.is_some() {
        let message = "`targets` is not supported yet; use `destination`";
        out.error(at.key("targets"), "not-enforced", message);
    }
    let parameters = chosen.parameters_of(listeners.is_some());
    let server = server(set, &parameters, proxy, route, at, drafts, out);
    let name = object.name.clone();
    drafts.sections.push(McpSection {
        proxy: name.clone(),
        section: route.name.clone(),
        server,
    });
    let prefix_at = at.key("match").key("prefix");
    let prefix = endpoint::prefix(&route.matched.prefix, prefix_at, out);
    let credential_at = at.key("credential");
    let credential = refs::credential(set, object, route.credential.as_ref(), credential_at, out);
    if route
        .credential
        .as_ref()
        .is_some_and(|c| c.passthrough == Some(true))
    {
        let message = "the caller's credential never passes to an MCP server; use `secretRef`";
        out.error(credential_at.key("passthrough"), "bad-credential", message);
    }
    let timeouts = timeouts(&route.timeouts, at.key("timeouts"), out);
    let (Some(listeners), Some(server), Some(prefix), Some(credential)) =
        (listeners, server, prefix, credential)
    else {
        return;
    };
    let whole = ObjectRef::whole(Kind::McpProxy, name.clone());
    let section: std::sync::Arc<str> = route.name.as_str().into();
    drafts.routes.push(RouteDraft {
        targets: vec![
            ObjectRef {
                section: Some(section.clone()),
                ..whole.clone()
            },
            whole,
        ],
        listeners: listeners.to_vec(),
        hosts: Vec::new(),
        matched: PlainMatch {
            path: PathMatch::Prefix(prefix.clone()),
            method: None,
            headers: Vec::new(),
        },
        title: format!("{} route `{}`", super::title(object), route.name),
        at: prefix_at,
        route: Route::Mcp(McpRoute {
            label: format!("MCPProxy/{name}/{section}").into(),
            name,
            section,
            targets: Vec::new(),
            prefix,
            server,
            credential,
            timeouts,
            denial: match route.denial {
                Some(raw::Denial::Explicit) => Denial::Explicit,
                Some(raw::Denial::Hide) | None => Denial::Hide,
            },
        }),
    });
}

fn server(
    set: &Set<'_>,
    parameters: &Parameters,
    proxy: &Decoded<'_, raw::McpProxy>,
    route: &raw::McpRoute,
    at: At<'_>,
    drafts: &mut Drafts<'_>,
    out: &mut Diagnostics,
) -> Option<ServerId> {
    let Some(destination) = &route.destination else {
        if route.targets.is_none() {
            out.error(at, "missing-field", "`destination` is missing");
        }
        return None;
    };
    let at = at.key("destination");
    let path = destination.path.as_deref().unwrap_or(DEFAULT_PATH);
    let path_ok = crate::normalize_path(path).is_ok_and(|normal| normal == path);
    if !path_ok {
        out.error(
            at.key("path"),
            "bad-path",
            format!("`{path}` is not a path in normal form"),
        );
    }
    let endpoint = destination_endpoint(set, parameters, proxy, destination, at, out)?;
    let label = format!("{}/{}", proxy.object.name, route.name);
    path_ok.then(|| drafts.server(endpoint, path.to_owned(), label))
}

fn destination_endpoint(
    set: &Set<'_>,
    parameters: &Parameters,
    proxy: &Decoded<'_, raw::McpProxy>,
    destination: &raw::Destination,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Endpoint> {
    let tls = match &destination.tls {
        None => None,
        Some(tls) => {
            let at = at.key("tls");
            let references = &tls.ca_certificate_refs;
            let roots = refs::roots(
                set,
                proxy.object,
                references,
                at.key("caCertificateRefs"),
                out,
            )?;
            Some(TlsChoice {
                hostname: tls_hostname(tls.hostname.as_deref(), at, out),
                roots_pem: Some(roots).filter(|_| !references.is_empty()),
            })
        }
    };
    if destination.port == Some(0) {
        out.error(at.key("port"), "bad-value", "`port` must be 1 to 65535");
        return None;
    }
    let namespace = destination.namespace.as_deref();
    match (&destination.service, &destination.hostname) {
        (Some(service), None) => {
            let Some(port) = destination.port else {
                out.error(at, "missing-field", "`port` is missing");
                return None;
            };
            let name = refs::named(namespace, service, proxy.object);
            for (field, part) in [("service", &name.name), ("namespace", &name.namespace)] {
                if !crate::object::is_label(part) {
                    let message = format!("`{part}` is not a lower-case DNS label");
                    out.error(at.key(field), "bad-name", message);
                    return None;
                }
            }
            endpoint::of_service(set, &name, port, tls, parameters, at.key("port"), out)
        }
        (None, Some(hostname)) => {
            if namespace.is_some() {
                out.error(
                    at.key("namespace"),
                    "bad-destination",
                    "`namespace` needs `service`",
                );
            }
            let host = hostname.to_ascii_lowercase();
            if host.parse::<std::net::IpAddr>().is_err()
                && let Err(why) = endpoint::host_name(&host, false)
            {
                out.error(at.key("hostname"), "bad-hostname", why);
                return None;
            }
            let default = if destination.tls.is_some() { 443 } else { 80 };
            let secure = destination.tls.is_none() && matches!(destination.port, None | Some(443));
            let port = destination
                .port
                .unwrap_or(if secure { 443 } else { default });
            let tls = tls.or_else(|| secure.then(TlsChoice::default));
            // The same Service under its DNS name is the same destination, for policies too.
            if let Some((namespace, service)) = endpoint::service_of(&host, &parameters.dns_suffix)
            {
                let name = ObjectName::new(namespace, service);
                return endpoint::of_service(
                    set,
                    &name,
                    port,
                    tls,
                    parameters,
                    at.key("port"),
                    out,
                );
            }
            endpoint::of_host(&host, port, tls, parameters, at.key("hostname"), out)
        }
        _ => {
            let message =
                "a destination is either `namespace`, `service`, `port` or `hostname`, `port`";
            out.error(at, "bad-destination", message);
            None
        }
    }
}

fn timeouts(raw: &raw::McpTimeouts, at: At<'_>, out: &mut Diagnostics) -> McpTimeouts {
    let default = McpTimeouts::default();
    let mut time = |field: &str, value: Option<crate::raw::Duration>, default| {
        positive(value.map(|value| value.0), at, field, out).unwrap_or(default)
    };
    McpTimeouts {
        request: time("request", raw.request, default.request),
        connect: time("connect", raw.connect, default.connect),
        stream_idle: time("streamIdle", raw.stream_idle, default.stream_idle),
    }
}

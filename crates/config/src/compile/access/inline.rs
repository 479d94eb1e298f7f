//! What an inline authorization says: fields of the HTTP request, and of the MCP message.

use waypoint_policy::access::{
    HeaderAccess, HeaderValue, HostAccess, HttpAccess, McpAccess, McpMethod, MethodName, PathAccess,
};

use super::bounded;
use crate::object::{At, Diagnostics, is_name};
use crate::path::normalize_path;
use crate::raw::access as raw;
use crate::suggest;

/// The API's bounds on lists and texts.
const LIST_MAX: usize = 10;
const METHODS_MAX: usize = 9;
const PATH_MAX: usize = 1024;
const HEADER_MAX: usize = 4096;
const PARAM_MAX: usize = 20;

pub(super) fn http(raw: &raw::Authorization, at: At<'_>, out: &mut Diagnostics) -> HttpAccess {
    for (field, length, max) in [
        ("methods", raw.methods.len(), METHODS_MAX),
        ("paths", raw.paths.len(), LIST_MAX),
        ("headers", raw.headers.len(), LIST_MAX),
        ("hosts", raw.hosts.len(), LIST_MAX),
        ("ports", raw.ports.len(), LIST_MAX),
    ] {
        bounded(field, length, max, at.key(field), out);
    }
    unique("methods", &raw.methods, at.key("methods"), out);
    unique("hosts", &raw.hosts, at.key("hosts"), out);
    unique("ports", &raw.ports, at.key("ports"), out);
    let each = |field| move |index| at.key(field).index(index);
    let paths = (raw.paths.iter().enumerate())
        .filter_map(|(index, path)| said(path_access(path), each("paths")(index), out));
    let paths = paths.collect();
    let headers = (raw.headers.iter().enumerate())
        .filter_map(|(index, header)| header_access(header, each("headers")(index), out));
    let headers = headers.collect();
    let hosts = (raw.hosts.iter().enumerate())
        .filter_map(|(index, host)| said(host_access(host), each("hosts")(index), out));
    let hosts = hosts.collect();
    if raw.ports.contains(&0) {
        out.error(at.key("ports"), "bad-value", "a port is 1 to 65535");
    }
    HttpAccess {
        methods: raw
            .methods
            .iter()
            .map(|method| name(*method).into())
            .collect(),
        paths,
        headers,
        hosts,
        ports: raw.ports.clone(),
    }
}

/// What was read, or nothing after it was said why not.
fn said<T>(read: Result<T, String>, at: At<'_>, out: &mut Diagnostics) -> Option<T> {
    read.map_err(|why| out.error(at, "bad-value", why)).ok()
}

/// The API's lists of these are sets.
fn unique<T: PartialEq>(field: &str, list: &[T], at: At<'_>, out: &mut Diagnostics) {
    for (index, item) in list.iter().enumerate() {
        if list.iter().take(index).any(|before| before == item) {
            let message = format!("`{field}` has the same entry twice");
            out.error(at.index(index), "duplicate-name", message);
        }
    }
}

fn name(method: raw::HttpMethod) -> &'static str {
    match method {
        raw::HttpMethod::Get => "GET",
        raw::HttpMethod::Head => "HEAD",
        raw::HttpMethod::Post => "POST",
        raw::HttpMethod::Put => "PUT",
        raw::HttpMethod::Delete => "DELETE",
        raw::HttpMethod::Connect => "CONNECT",
        raw::HttpMethod::Options => "OPTIONS",
        raw::HttpMethod::Trace => "TRACE",
        raw::HttpMethod::Patch => "PATCH",
    }
}

/// Paths of requests are matched in their normal form, so those of rules are brought to it.
fn path_access(raw: &raw::PathMatch) -> Result<PathAccess, String> {
    let value = raw.value.as_str();
    if value.chars().count() > PATH_MAX {
        return Err(format!("a path has at most {PATH_MAX} characters"));
    }
    let segments = |path: &str| {
        path.split('/')
            .filter(|segment| !segment.is_empty())
            .count()
    };
    let normal = |path| match normalize_path(path) {
        // `/a/..` is no way to write `/`, which is everything.
        Ok(normal) if segments(&normal) != segments(path) => Err(format!(
            "`{path}` has `.` or `..`; write `{normal}` if that is meant"
        )),
        Ok(normal) => Ok(normal),
        Err(error) => Err(format!("`{path}` matches no path: {error}")),
    };
    Ok(match raw.kind.unwrap_or(raw::PathType::PathPrefix) {
        raw::PathType::RegularExpression => {
            let pattern = value.parse();
            PathAccess::Regex(pattern.map_err(|error| format!("`{value}`: {error}"))?)
        }
        raw::PathType::Exact => PathAccess::Exact(normal(value)?.into()),
        raw::PathType::PathPrefix if value.is_empty() => PathAccess::Prefix("".into()),
        raw::PathType::PathPrefix => {
            let normal = normal(value)?;
            PathAccess::Prefix(normal.strip_suffix('/').unwrap_or(&normal).into())
        }
    })
}

fn header_access(
    raw: &raw::HeaderMatch,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<HeaderAccess> {
    let name = super::super::http::header_name(&raw.name, at.key("name"), out)?;
    let value = raw.value.as_str();
    let length = value.chars().count();
    if !(1..=HEADER_MAX).contains(&length) {
        let message = format!("a header's value has 1 to {HEADER_MAX} characters");
        out.error(at.key("value"), "bad-value", message);
        return None;
    }
    let value = match raw.kind {
        None | Some(raw::HeaderType::Exact) => HeaderValue::Exact(value.into()),
        Some(raw::HeaderType::RegularExpression) => {
            let pattern = value.parse().map_err(|error| format!("{error}"));
            HeaderValue::Regex(said(pattern, at.key("value"), out)?)
        }
    };
    Some(HeaderAccess {
        name: name.into(),
        value,
    })
}

fn host_access(text: &str) -> Result<HostAccess, String> {
    let (name, is_below) = match text.strip_prefix("*.") {
        Some(below) => (below, true),
        None => (text, false),
    };
    if !is_name(name) {
        return Err(format!(
            "`{text}` is not a lower-case host name without port, with or without `*.` in front"
        ));
    }
    Ok(match is_below {
        true => HostAccess::Below(format!(".{name}").into()),
        false => HostAccess::Exact(name.into()),
    })
}

/// Nothing for an authorization that does not look at MCP.
///
/// The base protocol alone, without methods, is the base protocol and no more: so do the tests of
/// the API have it, where its text leaves room for all methods.
pub(super) fn mcp(raw: &raw::Mcp, at: At<'_>, out: &mut Diagnostics) -> Option<McpAccess> {
    let base_protocol = raw.base == Some(raw::BaseProtocol::Match);
    if raw.methods.is_empty() && !base_protocol {
        return None;
    }
    let at = at.key("methods");
    bounded("methods", raw.methods.len(), LIST_MAX, at, out);
    let names: Vec<&str> = raw.methods.iter().map(|method| &*method.name).collect();
    unique("methods", &names, at, out);
    let methods = raw.methods.iter().enumerate();
    let methods = methods.filter_map(|(index, method)| mcp_method(method, at.index(index), out));
    Some(McpAccess {
        methods: methods.collect(),
        base_protocol,
    })
}

fn mcp_method(raw: &raw::McpMethod, at: At<'_>, out: &mut Diagnostics) -> Option<McpMethod> {
    let name: MethodName = match raw.name.parse() {
        Ok(name) => name,
        Err(known) => {
            let message = format!("`{}` is not {known}", raw.name);
            let hint = suggest::hint(&raw.name, &["tools/call", "prompts/get", "resources/read"]);
            let hint = if hint.starts_with("; did") {
                &*hint
            } else {
                ""
            };
            out.error(at.key("name"), "unknown-value", format!("{message}{hint}"));
            return None;
        }
    };
    let at = at.key("params");
    if !raw.params.is_empty() && !name.names_items() {
        let message = format!("messages of `{name}` name nothing, so it takes no `params`");
        out.error(at, "bad-value", message);
    }
    bounded("params", raw.params.len(), LIST_MAX, at, out);
    unique("params", &raw.params, at, out);
    for (index, param) in raw.params.iter().enumerate() {
        let at = at.index(index);
        if param.contains('*') {
            let message = format!("`{param}` is compared to the letter: `*` is no wildcard here");
            out.warning(at, "no-wildcard", message);
        }
        if param.chars().count() > PARAM_MAX {
            let message = format!(
                "`{param}` has more than {PARAM_MAX} characters: enforced here, and refused by the \
                 API's own admission"
            );
            out.warning(at, "too-long", message);
        }
    }
    Some(McpMethod {
        name,
        params: raw
            .params
            .iter()
            .map(|param| param.as_str().into())
            .collect(),
    })
}

//! What an `HTTPRoute` rule matches, and what it changes.

use crate::compile::{endpoint, llm};
use crate::object::{At, Diagnostics};
use crate::raw::http as raw;
use crate::snapshot::{
    Filter, HeaderChanges, PathMatch, PathRewrite, PlainMatch, Redirect, Rewrite,
};

pub(super) fn one_match<'a>(
    raw: &raw::HttpMatch,
    at: At<'a>,
    out: &mut Diagnostics,
) -> Option<(PlainMatch, At<'a>)> {
    let path_at = at.key("path").key("value");
    let value = raw
        .path
        .as_ref()
        .and_then(|path| path.value.as_deref())
        .unwrap_or("/");
    let kind = raw
        .path
        .as_ref()
        .and_then(|path| path.kind)
        .unwrap_or(raw::HttpPathKind::PathPrefix);
    let path = match kind {
        raw::HttpPathKind::PathPrefix => {
            endpoint::prefix(value, path_at, out).map(PathMatch::Prefix)
        }
        raw::HttpPathKind::Exact if crate::normalize_path(value).is_ok_and(|n| n == value) => {
            Some(PathMatch::Exact(value.to_owned()))
        }
        raw::HttpPathKind::Exact => {
            out.error(
                path_at,
                "bad-path",
                format!("`{value}` is not a path in normal form"),
            );
            None
        }
        raw::HttpPathKind::RegularExpression => {
            let message = "`RegularExpression` is not supported; use `Exact` or `PathPrefix`";
            out.error(at.key("path").key("type"), "not-enforced", message);
            None
        }
    };
    if raw
        .query_params
        .as_ref()
        .is_some_and(|params| !params.is_empty())
    {
        let message = "`queryParams` is not supported; without it the match would be wider";
        out.error(at.key("queryParams"), "not-enforced", message);
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (index, header) in raw.headers.iter().enumerate() {
        let at = at.key("headers").index(index);
        if header.kind == Some(raw::HttpHeaderKind::RegularExpression) {
            let message = "`RegularExpression` is not supported; use `Exact`";
            out.error(at.key("type"), "not-enforced", message);
        }
        let Some(name) = token(&header.name, at.key("name"), out) else {
            continue;
        };
        // Gateway API: the first of equal names holds.
        if !headers.iter().any(|(other, _)| *other == name) {
            headers.push((name, header.value.clone()));
        }
    }
    let method = match raw.method.as_deref() {
        None => None,
        Some(method) if METHODS.contains(&method) => Some(method.to_owned()),
        Some(method) => {
            let known: Vec<String> = METHODS.iter().map(|m| format!("`{m}`")).collect();
            let message = format!("`{method}` is not one of {}", known.join(", "));
            out.error(at.key("method"), "unknown-value", message);
            None
        }
    };
    let place = if raw.path.is_some() { path_at } else { at };
    Some((
        PlainMatch {
            path: path?,
            method,
            headers,
        },
        place,
    ))
}

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// A header name in lower case (RFC 9110 §5.6.2).
pub(in crate::compile) fn token(name: &str, at: At<'_>, out: &mut Diagnostics) -> Option<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.is_empty() && name.bytes().all(known) {
        return Some(name.to_ascii_lowercase());
    }
    out.error(at, "bad-value", format!("`{name}` is not a header name"));
    None
}

pub(super) fn one_filter(
    raw: &raw::HttpFilter,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Filter> {
    use raw::HttpFilterKind as Kind;
    let mut absent = |field: &str| {
        out.error(at, "missing-field", format!("`{field}` is missing"));
        None
    };
    match raw.kind {
        Kind::RequestHeaderModifier => match &raw.request_header_modifier {
            Some(raw) => Some(Filter::RequestHeaders(changes(
                raw,
                at.key("requestHeaderModifier"),
                out,
            ))),
            None => absent("requestHeaderModifier"),
        },
        Kind::ResponseHeaderModifier => match &raw.response_header_modifier {
            Some(raw) => Some(Filter::ResponseHeaders(changes(
                raw,
                at.key("responseHeaderModifier"),
                out,
            ))),
            None => absent("responseHeaderModifier"),
        },
        Kind::RequestRedirect => match &raw.request_redirect {
            Some(raw) => redirect(raw, at.key("requestRedirect"), out).map(Filter::Redirect),
            None => absent("requestRedirect"),
        },
        Kind::UrlRewrite => match &raw.url_rewrite {
            Some(raw) => {
                let at = at.key("urlRewrite");
                let hostname = host(raw.hostname.as_deref(), at, out);
                let path = raw
                    .path
                    .as_ref()
                    .and_then(|path| rewrite(path, at.key("path"), out));
                Some(Filter::Rewrite(Rewrite { hostname, path }))
            }
            None => absent("urlRewrite"),
        },
        Kind::RequestMirror | Kind::Cors | Kind::ExternalAuth | Kind::ExtensionRef => {
            let message = "this filter is not supported; use `RequestHeaderModifier`, \
                           `ResponseHeaderModifier`, `RequestRedirect` or `URLRewrite`";
            out.error(at.key("type"), "not-enforced", message);
            None
        }
    }
}

fn changes(raw: &raw::HeaderModifier, at: At<'_>, out: &mut Diagnostics) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    for (field, from, to) in [
        ("set", &raw.set, &mut changes.set),
        ("add", &raw.add, &mut changes.add),
    ] {
        for (index, header) in from.iter().enumerate() {
            let at = at.key(field).index(index);
            // RFC 9110 §5.5.
            let fits = |c: char| c == '\t' || (' '..='~').contains(&c);
            if !header.value.chars().all(fits) || header.value.trim() != header.value {
                let message = "a header value is visible ASCII without spaces at its ends";
                out.error(at.key("value"), "bad-value", message);
            }
            let name = token(&header.name, at.key("name"), out);
            to.extend(name.map(|name| (name, header.value.clone())));
        }
    }
    for (index, name) in raw.remove.iter().enumerate() {
        changes
            .remove
            .extend(token(name, at.key("remove").index(index), out));
    }
    changes
}

fn redirect(raw: &raw::RequestRedirect, at: At<'_>, out: &mut Diagnostics) -> Option<Redirect> {
    if let Some(other) = raw
        .scheme
        .as_deref()
        .filter(|s| !matches!(*s, "http" | "https"))
    {
        let message = format!("`{other}` is not one of `http`, `https`");
        out.error(at.key("scheme"), "unknown-value", message);
    }
    let status = raw.status_code.unwrap_or(302);
    if !matches!(status, 301 | 302) {
        let message = format!("`{status}` is not one of `301`, `302`");
        out.error(at.key("statusCode"), "unknown-value", message);
    }
    Some(Redirect {
        scheme: raw.scheme.clone(),
        hostname: host(raw.hostname.as_deref(), at, out),
        port: raw.port,
        path: raw
            .path
            .as_ref()
            .and_then(|path| rewrite(path, at.key("path"), out)),
        status,
    })
}

fn host(name: Option<&str>, at: At<'_>, out: &mut Diagnostics) -> Option<String> {
    llm::tls_hostname(name, at, out)
}

fn rewrite(raw: &raw::PathModifier, at: At<'_>, out: &mut Diagnostics) -> Option<PathRewrite> {
    let (field, value) = match raw.kind {
        raw::PathModifierKind::ReplaceFullPath => ("replaceFullPath", &raw.replace_full_path),
        raw::PathModifierKind::ReplacePrefixMatch => {
            ("replacePrefixMatch", &raw.replace_prefix_match)
        }
    };
    let Some(value) = value else {
        out.error(at, "missing-field", format!("`{field}` is missing"));
        return None;
    };
    // An empty replacement takes the prefix away.
    let value = if value.is_empty() { "/" } else { value };
    if !crate::normalize_path(value).is_ok_and(|normal| normal == value) {
        out.error(
            at.key(field),
            "bad-path",
            format!("`{value}` is not a path in normal form"),
        );
        return None;
    }
    Some(match raw.kind {
        raw::PathModifierKind::ReplaceFullPath => PathRewrite::Full(value.to_owned()),
        raw::PathModifierKind::ReplacePrefixMatch => PathRewrite::Prefix(value.to_owned()),
    })
}

//! Which headers pass between the two sides, and which never do.

use http::HeaderName;
use http::header::{self, HeaderMap};
use pingora_http::{RequestHeader, ResponseHeader};

/// Headers by which something other than us could claim to know who calls. Whatever a caller
/// sends here is removed before anything looks at it.
const IDENTITY: [&str; 10] = [
    "x-forwarded-client-cert",
    "x-spiffe-id",
    "x-waypoint-principal",
    "x-mcp-proxy",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-remote-user",
    "x-client-cert",
    "x-request-source-principal",
];

/// Connection-specific fields (RFC 9110 §7.6.1) and those that are made anew for the next hop.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
            | "http2-settings"
    )
}

/// What identifies the caller to its own services, or bills somebody: never sent on.
fn is_callers_secret(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "cookie"
            | "openai-organization"
            | "openai-project"
    )
}

/// What describes our side of the network.
fn is_of_our_side(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "host"
        || name == "expect"
        || name == "accept-encoding"
        || name == "forwarded"
        || name == "via"
        || name == "x-real-ip"
        || name == "x-request-id"
        || name == "baggage"
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
        || name.starts_with("x-b3-")
}

/// Removes what a caller might use to claim an identity.
pub(crate) fn strip_identity(head: &mut RequestHeader) {
    for name in IDENTITY {
        head.remove_header(name);
    }
}

/// Names listed in `Connection`, which are hop-by-hop too.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

/// Copies the request headers that may go upstream. `secrets` lets the caller's own credentials
/// pass; `tracing` lets W3C trace context pass.
pub(crate) fn copy_request(
    from: &RequestHeader,
    to: &mut RequestHeader,
    secrets: bool,
    tracing: bool,
) -> pingora_error::Result<()> {
    let named = named_by_connection(&from.headers);
    for (name, value) in &from.headers {
        let drop = is_hop_by_hop(name)
            || is_of_our_side(name)
            || (!secrets && is_callers_secret(name))
            || (!tracing && matches!(name.as_str(), "traceparent" | "tracestate"))
            || named.contains(name);
        if !drop {
            to.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

/// Copies the answer's headers that may reach the caller.
///
/// Rate-limit headers of a provider describe the key that all callers share: they are kept only
/// when the key is the caller's own.
pub(crate) fn copy_response(
    from: &HeaderMap,
    to: &mut ResponseHeader,
    own_key: bool,
) -> pingora_error::Result<()> {
    let named = named_by_connection(from);
    for (name, value) in from {
        let text = name.as_str();
        let shared = text.starts_with("x-ratelimit-")
            || text.starts_with("anthropic-ratelimit-")
            || matches!(
                text,
                "openai-organization" | "openai-project" | "anthropic-organization-id"
            );
        let drop = is_hop_by_hop(name)
            || (shared && !own_key)
            || matches!(
                text,
                "set-cookie"
                    | "alt-svc"
                    | "content-encoding"
                    | "x-request-id"
                    | "request-id"
                    | "strict-transport-security"
                    | "retry-after"
                    | "retry-after-ms"
                    | "x-should-retry"
            )
            || named.contains(name);
        if !drop {
            to.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn what_passes_upstream() {
        let from = request(&[
            ("anthropic-version", "2026-10-21"),
            ("x-stainless-lang", "python"),
            ("authorization", "Bearer callers-own"),
            ("X-API-Key", "callers-own"),
            ("cookie", "a=b"),
            ("connection", "x-private, keep-alive"),
            ("x-private", "1"),
            ("accept-encoding", "gzip"),
            ("x-forwarded-for", "10.0.0.1"),
            ("traceparent", "00-1-2-01"),
            ("openai-organization", "theirs"),
        ]);
        for (case, secrets, tracing, expected) in [
            (
                "our credential",
                false,
                false,
                &["anthropic-version", "x-stainless-lang"][..],
            ),
            (
                "tracing",
                false,
                true,
                &["anthropic-version", "x-stainless-lang", "traceparent"],
            ),
            (
                "passthrough",
                true,
                false,
                &[
                    "anthropic-version",
                    "x-stainless-lang",
                    "authorization",
                    "x-api-key",
                    "cookie",
                    "openai-organization",
                ],
            ),
        ] {
            let mut to = request(&[]);
            copy_request(&from, &mut to, secrets, tracing).unwrap();
            let mut names: Vec<_> = to.headers.keys().map(|name| name.as_str()).collect();
            let mut expected = expected.to_vec();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected, "{case}");
        }
    }

    #[test]
    fn claims_of_identity_are_removed_in_any_case_and_number() {
        let mut head = request(&[
            ("X-Spiffe-Id", "spiffe://a/b"),
            ("x-spiffe-id", "spiffe://c/d"),
            ("x-forwarded-client-cert", "URI=spiffe://a/b"),
            ("x-waypoint-principal", "spiffe://a/b"),
            ("accept", "*/*"),
        ]);
        strip_identity(&mut head);
        assert_eq!(
            head.headers
                .keys()
                .map(|name| name.as_str())
                .collect::<Vec<_>>(),
            ["accept"]
        );
    }
}

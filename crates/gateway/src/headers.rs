//! Which headers pass between the two sides, and which never do.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use http::HeaderName;
use http::header::{self, HeaderMap};
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;
use waypoint_policy::is_identity_header;

use crate::exchange::{ExchangeError, RequestHead};
use crate::respond::LIMIT_WARNING;

/// Connection-specific fields (RFC 9110 §7.6.1) and those that are made anew for the next hop.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
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

/// Parts of names under which credentials travel.
const SECRET_PARTS: [&str; 12] = [
    "auth",
    "token",
    "secret",
    "credential",
    "password",
    "cookie",
    "signature",
    "apikey",
    "api-key",
    "access-key",
    "subscription-key",
    "private-key",
];

/// One pass over a name for all of them; every header of every request is asked.
/// `None`, which takes every name for a secret, if it could not be built.
static SECRET: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let kind = Some(AhoCorasickKind::DFA);
    AhoCorasick::builder().kind(kind).build(SECRET_PARTS).ok()
});

/// What identifies the caller to its own services, or bills somebody: never sent on. A name that
/// looks like a credential's is taken for one.
fn is_callers_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    if matches!(name, "openai-organization" | "openai-project") {
        return true;
    }
    // The protocol's own, which servers ask their clients for; and what SDKs say of themselves.
    let is_known = name.starts_with("mcp-") || name.starts_with("x-stainless-");
    !is_known && SECRET.as_ref().is_none_or(|secret| secret.is_match(name))
}

/// What would have a server run another request than the one that was decided.
fn is_override(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-original-uri"
            | "x-rewrite-url"
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
    // Most requests claim none: one look over the names instead of a search for each claim.
    let is_claim = |name: &&HeaderName| is_identity_header(name.as_str());
    while let Some(name) = head.headers.keys().find(is_claim).cloned() {
        head.remove_header(&name);
    }
}

/// Removes what `Connection` names, which no proxy sends on: what is decided by a field must be what
/// its receiver sees.
pub(crate) fn strip_named(head: &mut RequestHeader) {
    if !head.headers.contains_key(header::CONNECTION) {
        return;
    }
    let named = named_by_connection(&head.headers);
    let (kept, gone): (Vec<HeaderName>, Vec<HeaderName>) = named
        .into_iter()
        .partition(|name| is_hop_by_hop(name) || name == "close");
    if gone.is_empty() {
        return;
    }
    for name in &gone {
        head.remove_header(name);
    }
    // Else what is put there later, by an authorizer or from a token, would go as well.
    head.remove_header(&header::CONNECTION);
    for name in kept {
        let _ = head.append_header(header::CONNECTION, name.as_str());
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

/// Which of the caller's headers go upstream beyond those that always do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing {
    /// The caller's own credentials.
    pub(crate) secrets: bool,
    /// W3C trace context.
    pub(crate) tracing: bool,
    /// Names that do not pass, in lower case: they are made anew.
    pub(crate) without: &'static [&'static str],
}

/// Copies the request headers that may go upstream.
///
/// # Errors
/// [`ExchangeError::Malformed`] for a value that may stand in no request.
pub(crate) fn copy_request(
    from: &HeaderMap,
    to: &mut RequestHead,
    passing: Passing,
) -> Result<(), ExchangeError> {
    let named = named_by_connection(from);
    for (name, value) in from {
        let drop = is_hop_by_hop(name)
            || is_of_our_side(name)
            || is_override(name)
            || (!passing.secrets && is_callers_secret(name))
            || (!passing.tracing && matches!(name.as_str(), "traceparent" | "tracestate"))
            || passing.without.contains(&name.as_str())
            || named.contains(name);
        if !drop {
            to.push(name, value.as_bytes())?;
        }
    }
    Ok(())
}

/// Whether a header of an answer stays with us. `own_key` says that the key is the caller's.
fn is_kept_back(name: &HeaderName, own_key: bool) -> bool {
    let text = name.as_str();
    // Rate-limit headers of a provider describe the key that all callers share.
    let shared = text.starts_with("x-ratelimit-")
        || text.starts_with("anthropic-ratelimit-")
        || matches!(
            text,
            "openai-organization" | "openai-project" | "anthropic-organization-id"
        );
    is_hop_by_hop(name)
        || text.starts_with("x-envoy-")
        || name == LIMIT_WARNING
        || (shared && !own_key)
        || matches!(
            text,
            "set-cookie"
                | "authorization"
                | "x-api-key"
                | "api-key"
                | "location"
                | "via"
                | "alt-svc"
                | "content-encoding"
                | "x-request-id"
                | "request-id"
                | "strict-transport-security"
                | "retry-after"
                | "retry-after-ms"
                | "x-should-retry"
        )
}

/// The head of a forwarded answer: what of the upstream's headers may reach the caller.
///
/// # Errors
/// Pingora's error for a status that is none.
pub(crate) fn response(
    status: u16,
    mut headers: HeaderMap,
    own_key: bool,
) -> pingora_error::Result<Box<ResponseHeader>> {
    let named = named_by_connection(&headers);
    let dropped: SmallVec<[HeaderName; 8]> = headers
        .keys()
        .filter(|name| is_kept_back(name, own_key) || named.contains(name))
        .cloned()
        .collect();
    for name in &dropped {
        headers.remove(name);
    }
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.headers = headers;
    let mut head = ResponseHeader::from(parts);
    head.set_status(status)?;
    Ok(Box::new(head))
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
            ("Mcp-Name", "made anew"),
            ("accept-encoding", "gzip"),
            ("x-forwarded-for", "10.0.0.1"),
            ("traceparent", "00-1-2-01"),
            ("openai-organization", "theirs"),
            ("x-auth-token", "theirs"),
            ("ocp-apim-subscription-key", "theirs"),
            ("x-http-method-override", "DELETE"),
            ("idempotency-key", "one"),
            ("mcp-param-token", "x"),
        ]);
        for (case, secrets, tracing, expected) in [
            (
                "our credential",
                false,
                false,
                &[
                    "anthropic-version",
                    "x-stainless-lang",
                    "idempotency-key",
                    "mcp-param-token",
                ][..],
            ),
            (
                "tracing",
                false,
                true,
                &[
                    "anthropic-version",
                    "x-stainless-lang",
                    "traceparent",
                    "idempotency-key",
                    "mcp-param-token",
                ],
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
                    "x-auth-token",
                    "ocp-apim-subscription-key",
                    "idempotency-key",
                    "mcp-param-token",
                ],
            ),
        ] {
            let mut to = RequestHead::new(http::Method::POST, "/").unwrap();
            let passing = Passing {
                secrets,
                tracing,
                without: &["mcp-name"],
            };
            copy_request(&from.headers, &mut to, passing).unwrap();
            let to = to.to_http2().unwrap();
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
            ("x_spiffe_id", "spiffe://a/b"),
            ("X-Forwarded_Client-Cert", "URI=spiffe://a/b"),
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

    #[test]
    fn what_passes_downstream() {
        let answer = || -> HeaderMap {
            [
                ("content-type", "application/json"),
                ("content-length", "5"),
                ("transfer-encoding", "chunked"),
                ("connection", "x-private"),
                ("x-private", "1"),
                ("x-ratelimit-remaining-tokens", "5"),
                ("openai-organization", "ours"),
                ("set-cookie", "a=b"),
                ("set-cookie", "c=d"),
                ("x-request-id", "theirs"),
                ("retry-after", "5"),
                ("openai-version", "2020-10-01"),
            ]
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
        };
        for (own_key, expected) in [
            (false, &["content-type", "openai-version"][..]),
            (
                true,
                &[
                    "content-type",
                    "openai-organization",
                    "openai-version",
                    "x-ratelimit-remaining-tokens",
                ],
            ),
        ] {
            let head = response(203, answer(), own_key).unwrap();
            assert_eq!(head.status, 203);
            let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, expected, "own key: {own_key}");
        }
    }
}

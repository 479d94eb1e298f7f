//! Headers by which something other than us could claim to know who calls.

use std::borrow::Cow;

/// Whether a header (name in lower case) claims an identity. What a caller sends there is removed
/// before anything looks at it, so no policy ever sees it.
#[must_use]
pub fn is_identity_header(name: &str) -> bool {
    if !name.starts_with('x') {
        return false;
    }
    // Servers that hand headers on as variables take `_` and `-` for the same.
    let plain: Cow<'_, str> = match name.contains('_') {
        true => name.replace('_', "-").into(),
        false => name.into(),
    };
    matches!(
        &*plain,
        "x-forwarded-client-cert"
            | "x-spiffe-id"
            | "x-waypoint-principal"
            | "x-mcp-proxy"
            | "x-forwarded-user"
            | "x-forwarded-email"
            | "x-forwarded-groups"
            | "x-remote-user"
            | "x-client-cert"
            | "x-request-source-principal"
    )
}

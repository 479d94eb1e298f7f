//! Istio: `RequestAuthentication`.

use serde::Deserialize;

use super::authorization::{Selector, TargetRef};
use super::text::Duration;

/// The object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Object {
    pub(crate) spec: RequestAuthentication,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct RequestAuthentication {
    pub(crate) selector: Option<Selector>,
    pub(crate) target_ref: Option<TargetRef>,
    pub(crate) target_refs: Vec<TargetRef>,
    pub(crate) jwt_rules: Vec<JwtRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct JwtRule {
    pub(crate) issuer: Option<String>,
    #[serde(default)]
    pub(crate) audiences: Vec<String>,
    pub(crate) jwks_uri: Option<String>,
    pub(crate) jwks: Option<String>,
    #[serde(default)]
    pub(crate) from_headers: Vec<JwtHeader>,
    #[serde(default)]
    pub(crate) from_params: Vec<String>,
    #[serde(default)]
    pub(crate) from_cookies: Vec<String>,
    pub(crate) output_payload_to_header: Option<String>,
    #[serde(default)]
    pub(crate) output_claim_to_headers: Vec<ClaimToHeader>,
    #[serde(default)]
    pub(crate) forward_original_token: bool,
    pub(crate) timeout: Option<Duration>,
    #[serde(default)]
    pub(crate) space_delimited_claims: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct JwtHeader {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) prefix: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClaimToHeader {
    pub(crate) header: String,
    pub(crate) claim: String,
}

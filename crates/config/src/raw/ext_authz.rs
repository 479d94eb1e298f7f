//! Istio's mesh configuration: external authorizers among its `extensionProviders`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Text;

/// `envoyExtAuthzHttp`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Http {
    pub(crate) service: String,
    pub(crate) port: u16,
    pub(crate) timeout: Option<Text<Seconds>>,
    #[serde(default)]
    pub(crate) path_prefix: String,
    #[serde(default)]
    pub(crate) fail_open: bool,
    /// We choose the route before we ask, and never again.
    #[serde(default, rename = "clearRouteCache")]
    pub(crate) _clear_route_cache: bool,
    pub(crate) status_on_error: Option<String>,
    /// The name of `includeRequestHeadersInCheck` before Istio 1.10.
    #[serde(default)]
    pub(crate) include_headers_in_check: Vec<String>,
    #[serde(default)]
    pub(crate) include_request_headers_in_check: Vec<String>,
    #[serde(default)]
    pub(crate) include_additional_headers_in_check: BTreeMap<String, String>,
    pub(crate) include_request_body_in_check: Option<Body>,
    #[serde(default)]
    pub(crate) headers_to_upstream_on_allow: Vec<String>,
    #[serde(default)]
    pub(crate) headers_to_downstream_on_deny: Vec<String>,
    #[serde(default)]
    pub(crate) headers_to_downstream_on_allow: Vec<String>,
}

/// `envoyExtAuthzGrpc`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Grpc {
    pub(crate) service: String,
    pub(crate) port: u16,
    pub(crate) timeout: Option<Text<Seconds>>,
    #[serde(default)]
    pub(crate) fail_open: bool,
    #[serde(default, rename = "clearRouteCache")]
    pub(crate) _clear_route_cache: bool,
    pub(crate) status_on_error: Option<String>,
    pub(crate) include_request_body_in_check: Option<Body>,
}

/// How much of a request's body the authorizer sees.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Body {
    pub(crate) max_request_bytes: u32,
    #[serde(default)]
    pub(crate) allow_partial_message: bool,
    #[serde(default)]
    pub(crate) pack_as_bytes: bool,
}

/// A duration in protobuf's JSON form: `10s`, `0.25s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) std::time::Duration);

/// Not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration such as 10s or 0.25s")]
pub(crate) struct NoSeconds;

impl std::str::FromStr for Seconds {
    type Err = NoSeconds;

    fn from_str(text: &str) -> Result<Self, NoSeconds> {
        let number = text.strip_suffix('s').ok_or(NoSeconds)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(NoSeconds);
        }
        let seconds: u64 = whole.parse().map_err(|_| NoSeconds)?;
        let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| NoSeconds)?;
        Ok(Self(std::time::Duration::new(seconds, nanos)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_as_protobuf_has_them() {
        for (text, expected) in [
            ("10s", Some(Duration::from_secs(10))),
            ("0.25s", Some(Duration::from_millis(250))),
            ("0.000000001s", Some(Duration::from_nanos(1))),
            ("1m", None),
            ("250ms", None),
            ("-1s", None),
            (".5s", None),
            ("1.s", None),
            ("s", None),
            ("99999999999s", None),
        ] {
            assert_eq!(
                text.parse::<Seconds>().ok().map(|s| s.0),
                expected,
                "{text}"
            );
        }
    }
}

//! In what words we refuse: one closed set of codes.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::{By, limit::Rates};

#[cfg(test)]
mod tests;

/// Why a request is refused or a stream cut. Stable: it is the metric label, the audit field and
/// the `code` in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The action needs a workload identity and the caller has none.
    IdentityRequired,
    /// The caller's identity could not be verified.
    IdentityInvalid,
    /// Policy denies it.
    Forbidden,
    /// An external authorizer has to allow it, and could not be asked.
    AuthorizerUnavailable,
    /// Policy denies this model, provider or operation.
    ModelNotAllowed,
    /// No provider serves this model here.
    ModelNotFound,
    /// Policy denies this tool, prompt or resource.
    ToolDenied,
    /// No route for this host and path.
    RouteNotFound,
    /// The `Host` or `Origin` is not one this listener serves.
    HostNotAllowed,
    /// The HTTP method is not served on this path.
    MethodNotAllowed,
    /// No provider of the route serves this operation or dialect.
    OperationNotAllowed,
    /// The request is not well formed.
    BadRequest,
    /// The body is not the JSON it must be.
    BadJson,
    /// The body is larger than the bound.
    BodyTooLarge,
    /// The head is larger than the bound.
    HeadersTooLarge,
    /// The media type or content coding is not accepted.
    MediaType,
    /// The body has no length where one is needed.
    LengthRequired,
    /// The caller was too slow.
    RequestTimeout,
    /// The upstream could not be reached.
    UpstreamConnect,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream closed before its answer.
    UpstreamReset,
    /// The upstream's answer could not be used.
    UpstreamBadAnswer,
    /// The upstream refused our credential.
    UpstreamAuth,
    /// No upstream can take the call.
    UpstreamUnavailable,
    /// The upstream's stream ended without its terminator.
    StreamTruncated,
    /// The upstream's stream fell silent.
    StreamIdle,
    /// Policy changed while the stream ran, and no longer permits it.
    PolicyRevoked,
    /// A limit is used up, for a short time.
    RateLimited,
    /// A limit is used up, for a long time or by its number.
    QuotaExhausted,
    /// The call is larger than a limit ever has room for.
    RequestExceedsLimit,
    /// A limit of money is in the way of a call whose price nobody knows.
    PriceUnknown,
    /// A limit has to be counted, and cannot be.
    LimitUnavailable,
    /// The gateway is going down.
    ShuttingDown,
    /// The gateway serves as many connections as it may.
    TooManyConnections,
    /// Our credential for the upstream could not be read.
    CredentialUnavailable,
    /// The MCP session does not exist, ended, or is another caller's.
    SessionUnknown,
    /// An MCP header and the body disagree.
    HeaderMismatch,
    /// The MCP protocol version is not supported.
    VersionUnsupported,
    /// The MCP method is not known.
    MethodUnknown,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: &[Self] = &[
        Self::IdentityRequired,
        Self::IdentityInvalid,
        Self::Forbidden,
        Self::AuthorizerUnavailable,
        Self::ModelNotAllowed,
        Self::ModelNotFound,
        Self::ToolDenied,
        Self::RouteNotFound,
        Self::HostNotAllowed,
        Self::MethodNotAllowed,
        Self::OperationNotAllowed,
        Self::BadRequest,
        Self::BadJson,
        Self::BodyTooLarge,
        Self::HeadersTooLarge,
        Self::MediaType,
        Self::LengthRequired,
        Self::RequestTimeout,
        Self::UpstreamConnect,
        Self::UpstreamTimeout,
        Self::UpstreamReset,
        Self::UpstreamBadAnswer,
        Self::UpstreamAuth,
        Self::UpstreamUnavailable,
        Self::StreamTruncated,
        Self::StreamIdle,
        Self::PolicyRevoked,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::RequestExceedsLimit,
        Self::PriceUnknown,
        Self::LimitUnavailable,
        Self::ShuttingDown,
        Self::TooManyConnections,
        Self::CredentialUnavailable,
        Self::SessionUnknown,
        Self::HeaderMismatch,
        Self::VersionUnsupported,
        Self::MethodUnknown,
        Self::Internal,
    ];

    /// The stable name, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityRequired => "identity_required",
            Self::IdentityInvalid => "identity_invalid",
            Self::Forbidden => "forbidden",
            Self::AuthorizerUnavailable => "authorizer_unavailable",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::ModelNotFound => "model_not_found",
            Self::ToolDenied => "tool_denied",
            Self::RouteNotFound => "route_not_found",
            Self::HostNotAllowed => "host_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::OperationNotAllowed => "operation_not_allowed",
            Self::BadRequest => "bad_request",
            Self::BadJson => "bad_json",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::MediaType => "media_type",
            Self::LengthRequired => "length_required",
            Self::RequestTimeout => "request_timeout",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamBadAnswer => "upstream_bad_answer",
            Self::UpstreamAuth => "upstream_auth",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::StreamTruncated => "stream_truncated",
            Self::StreamIdle => "stream_idle",
            Self::PolicyRevoked => "policy_revoked",
            Self::RateLimited => "rate_limit_exceeded",
            Self::QuotaExhausted => "insufficient_quota",
            Self::RequestExceedsLimit => "request_exceeds_limit",
            Self::PriceUnknown => "price_unknown",
            Self::LimitUnavailable => "limit_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::TooManyConnections => "too_many_connections",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::SessionUnknown => "session_unknown",
            Self::HeaderMismatch => "header_mismatch",
            Self::VersionUnsupported => "version_unsupported",
            Self::MethodUnknown => "method_unknown",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status of a refusal before the first byte (RFC 9110 §15).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadJson | Self::HeaderMismatch | Self::VersionUnsupported => {
                400
            }
            Self::IdentityRequired | Self::IdentityInvalid => 401,
            Self::Forbidden
            | Self::AuthorizerUnavailable
            | Self::ModelNotAllowed
            | Self::ToolDenied
            | Self::HostNotAllowed
            | Self::OperationNotAllowed
            | Self::PriceUnknown
            | Self::PolicyRevoked => 403,
            Self::RouteNotFound
            | Self::ModelNotFound
            | Self::SessionUnknown
            | Self::MethodUnknown => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::LengthRequired => 411,
            Self::BodyTooLarge | Self::RequestExceedsLimit => 413,
            Self::MediaType => 415,
            Self::RateLimited | Self::QuotaExhausted => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::UpstreamConnect
            | Self::UpstreamReset
            | Self::UpstreamBadAnswer
            | Self::UpstreamAuth
            | Self::StreamTruncated
            | Self::CredentialUnavailable => 502,
            Self::UpstreamUnavailable
            | Self::LimitUnavailable
            | Self::ShuttingDown
            | Self::TooManyConnections => 503,
            Self::UpstreamTimeout | Self::StreamIdle => 504,
        }
    }

    /// Whether the same request may succeed if it is sent again soon.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::AuthorizerUnavailable
                | Self::UpstreamConnect
                | Self::UpstreamTimeout
                | Self::UpstreamReset
                | Self::UpstreamUnavailable
                | Self::StreamTruncated
                | Self::StreamIdle
                | Self::RateLimited
                | Self::LimitUnavailable
                | Self::ShuttingDown
                | Self::TooManyConnections
        )
    }

    /// Whether policy or the lack of an identity refused, rather than a fault or a bad request.
    #[must_use]
    pub fn is_denial(self) -> bool {
        matches!(
            self,
            Self::IdentityRequired
                | Self::IdentityInvalid
                | Self::Forbidden
                | Self::ModelNotAllowed
                | Self::ToolDenied
                | Self::HostNotAllowed
                | Self::PolicyRevoked
        )
    }

    /// Flags of the audit event: `RBAC_ACCESS_DENIED` for denials, and Envoy's `UAEX` where an
    /// external authorizer failed and `RL` where a limit was exceeded.
    #[must_use]
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::AuthorizerUnavailable => &["UAEX"],
            Self::RateLimited
            | Self::QuotaExhausted
            | Self::RequestExceedsLimit
            | Self::PriceUnknown => &["RL"],
            _ if self.is_denial() => &["RBAC_ACCESS_DENIED"],
            _ => &[],
        }
    }

    /// What the caller is told unless there is something better to say. Names no rule.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::IdentityRequired => "this needs a workload identity",
            Self::IdentityInvalid => "the workload identity could not be verified",
            Self::Forbidden => "RBAC: access denied",
            Self::AuthorizerUnavailable => "nobody could be asked whether this is allowed",
            Self::ModelNotAllowed => "this model is not allowed for this workload",
            Self::ModelNotFound => "the model does not exist or is not served here",
            Self::ToolDenied => "this tool, prompt or resource is not allowed for this workload",
            Self::RouteNotFound => "there is no route for this host and path",
            Self::HostNotAllowed => "this host is not served here",
            Self::MethodNotAllowed => "this method is not served here",
            Self::OperationNotAllowed => "this operation is not served here",
            Self::BadRequest => "the request is not well formed",
            Self::BadJson => "the body is not valid JSON",
            Self::BodyTooLarge => "the body is too large",
            Self::HeadersTooLarge => "the head of the request is too large",
            Self::MediaType => "the media type or content coding is not accepted",
            Self::LengthRequired => "the request needs a content length",
            Self::RequestTimeout => "the request did not arrive in time",
            Self::UpstreamConnect => "the upstream could not be reached",
            Self::UpstreamTimeout => "the upstream did not answer in time",
            Self::UpstreamReset => "the upstream closed the connection before its answer",
            Self::UpstreamBadAnswer => "the upstream's answer could not be used",
            Self::UpstreamAuth => "the upstream did not accept the gateway's credential",
            Self::UpstreamUnavailable => "no upstream can take the request now",
            Self::StreamTruncated => "the upstream's stream ended before it was complete",
            Self::StreamIdle => "the upstream's stream fell silent",
            Self::PolicyRevoked => "this is no longer allowed",
            Self::RateLimited => "a rate limit is exceeded",
            Self::QuotaExhausted => "a quota is exhausted",
            Self::RequestExceedsLimit => "the request is larger than a limit ever allows",
            Self::PriceUnknown => "the price of this model is not known, and a budget applies",
            Self::LimitUnavailable => "a limit could not be counted",
            Self::ShuttingDown => "the gateway is shutting down",
            Self::TooManyConnections => "the gateway serves too many connections",
            Self::CredentialUnavailable => "the gateway has no credential for the upstream",
            Self::SessionUnknown => "the session does not exist",
            Self::HeaderMismatch => "a header and the body disagree",
            Self::VersionUnsupported => "the protocol version is not supported",
            Self::MethodUnknown => "the method is not known",
            Self::Internal => "the gateway failed",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a caller is told when we say no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// What the caller may know: nothing about rules, upstream addresses or other callers.
    pub message: Cow<'static, str>,
    /// When to try again. Headers carry it only up to 60 s.
    pub retry_after: Option<Duration>,
    /// What decided, for the audit alone.
    pub by: Option<By>,
    /// What is left of the limit that refused.
    pub rates: Option<Box<Rates>>,
    /// The HTTP status, where it is not the code's own.
    status: Option<u16>,
}

impl Refusal {
    /// A refusal in the usual words of `code`.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            message: Cow::Borrowed(code.message()),
            retry_after: None,
            by: None,
            rates: None,
            status: None,
        }
    }

    /// The same refusal with a better message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// The same refusal with a time to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The same refusal, naming what decided.
    #[must_use]
    pub fn decided_by(mut self, by: By) -> Self {
        self.by = Some(by);
        self
    }

    /// The same refusal, telling what is left.
    #[must_use]
    pub fn with_rates(mut self, rates: Rates) -> Self {
        self.rates = (!rates.is_empty()).then(|| Box::new(rates));
        self
    }

    /// The same refusal with an HTTP status of its own.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Its HTTP status: that of its code, unless it has one of its own.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.code.status())
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

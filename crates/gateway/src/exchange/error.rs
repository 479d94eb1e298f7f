//! How an upstream call can fail.

use waypoint_policy::{Code, Refusal};

/// Why an exchange gave no answer, or no whole one. Carries no text of the upstream's.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeError {
    /// The name has no address.
    #[error("upstream name does not resolve")]
    NoAddress,
    /// The name resolves to addresses that are not allowed.
    #[error("upstream address is private and not allowed")]
    PrivateAddress,
    /// Nobody accepted the connection.
    #[error("upstream does not accept connections")]
    Connect,
    /// The TLS handshake failed.
    #[error("upstream TLS handshake failed")]
    Tls,
    /// The connection took too long.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// The head of the answer, or a plain answer's end, took too long.
    #[error("upstream took too long")]
    Timeout,
    /// The stream was silent for too long.
    #[error("upstream stream was silent for too long")]
    Idle,
    /// The connection ended early; `answered` when a part of the answer had arrived.
    #[error("upstream closed the connection early")]
    Reset {
        /// Whether bytes of an answer had arrived.
        answered: bool,
    },
    /// A kept connection was closed while it was idle: the request did not get through.
    #[error("the kept connection had been closed")]
    Stale,
    /// The answer is not HTTP, or not what was promised.
    #[error("upstream answer is malformed")]
    Malformed,
    /// The answer is larger than what may be held.
    #[error("upstream answer is too large")]
    TooLarge,
}

impl ExchangeError {
    /// Whether no connection came about, so that nothing can have been done upstream.
    pub(crate) fn is_connect_failure(self) -> bool {
        matches!(
            self,
            Self::NoAddress
                | Self::Connect
                | Self::Tls
                | Self::ConnectTimeout
                | Self::PrivateAddress
        )
    }

    /// What the caller is told.
    pub(crate) fn refusal(self) -> Refusal {
        let (code, message) = match self {
            Self::NoAddress | Self::Connect | Self::Tls | Self::ConnectTimeout => {
                (Code::UpstreamConnect, "the upstream could not be reached")
            }
            Self::PrivateAddress => (
                Code::UpstreamConnect,
                "the upstream's address is not allowed",
            ),
            Self::Timeout => (
                Code::UpstreamTimeout,
                "the upstream took too long to answer",
            ),
            Self::Idle => (Code::StreamIdle, "the upstream's stream went silent"),
            Self::Stale | Self::Reset { .. } => (
                Code::UpstreamReset,
                "the upstream closed the connection early",
            ),
            Self::Malformed => (
                Code::UpstreamBadAnswer,
                "the upstream's answer is malformed",
            ),
            Self::TooLarge => (
                Code::UpstreamBadAnswer,
                "the upstream's answer is too large",
            ),
        };
        Refusal::new(code).with_message(message)
    }
}

/// Reads a Pingora error by its type alone: its text may hold foreign bytes.
pub(crate) fn from_pingora(error: &pingora_error::Error, answered: bool) -> ExchangeError {
    use pingora_error::ErrorType as T;
    match error.etype() {
        T::InvalidHTTPHeader | T::H1Error | T::HTTPStatus(_) => ExchangeError::Malformed,
        T::ReadTimedout | T::WriteTimedout => ExchangeError::Timeout,
        _ => ExchangeError::Reset { answered },
    }
}

//! Reads the caller's SPIFFE ID out of a verified certificate.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use waypoint_policy::SpiffeId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// How the principal of a connection was established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySource {
    /// The URI SAN of a verified client certificate.
    Certificate,
    /// The developer identity of a loopback listener.
    Developer,
    /// A token that was verified with the request.
    Token,
    /// Nobody proved anything.
    None,
}

impl IdentitySource {
    /// Stable name for audit events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Developer => "developer",
            Self::Token => "token",
            Self::None => "none",
        }
    }
}

/// Why a verified certificate names no workload we accept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// The DER could not be read.
    #[error("certificate is not valid X.509")]
    Malformed,
    /// The X.509-SVID specification wants exactly one URI SAN.
    #[error("certificate has {0} URI names, expected exactly one")]
    UriNames(usize),
    /// The URI SAN is not a SPIFFE ID.
    #[error("certificate names no SPIFFE ID")]
    NotSpiffe,
    /// The trust domain is not one of ours.
    #[error("certificate is of a foreign trust domain")]
    ForeignTrustDomain,
    /// A CA certificate must not identify a workload (X509-SVID §4.1).
    #[error("certificate is a signing certificate")]
    SigningCertificate,
}

/// The one SPIFFE ID of a leaf certificate, of one of these trust domains.
///
/// # Errors
/// As [`workload`], and [`IdentityError::ForeignTrustDomain`].
pub fn spiffe_id(
    certificate_der: &[u8],
    trust_domains: &[String],
) -> Result<SpiffeId, IdentityError> {
    let id = workload(certificate_der)?;
    let mut domains = trust_domains.iter();
    match domains.any(|domain| domain == id.trust_domain()) {
        true => Ok(id),
        false => Err(IdentityError::ForeignTrustDomain),
    }
}

/// The one SPIFFE ID of a leaf certificate, of whatever trust domain.
///
/// Source: X509-SVID §2 (exactly one URI SAN, other SAN types are allowed) and §4.1
/// and §4.3 (a leaf is no CA, and signs neither certificates nor revocation lists).
///
/// # Errors
/// [`IdentityError`] says which of these rules the certificate breaks.
pub fn workload(certificate_der: &[u8]) -> Result<SpiffeId, IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate_der).map_err(|_| IdentityError::Malformed)?;
    let usage = certificate
        .key_usage()
        .map_err(|_| IdentityError::Malformed)?;
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if certificate.is_ca() || signs {
        return Err(IdentityError::SigningCertificate);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Malformed)?;
    let mut uris = names
        .iter()
        .flat_map(|extension| extension.value.general_names.iter())
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let (first, rest) = (uris.next(), uris.count());
    let uri = match (first, rest) {
        (Some(uri), 0) => uri,
        (None, _) => return Err(IdentityError::UriNames(0)),
        (Some(_), more) => return Err(IdentityError::UriNames(more + 1)),
    };
    SpiffeId::from_str(uri).map_err(|_| IdentityError::NotSpiffe)
}

/// Whether a certificate is valid at a time; `false` if it cannot be read.
#[must_use]
pub fn is_valid_at(certificate_der: &[u8], time: SystemTime) -> bool {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok());
    let time = seconds.and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    let certificate = X509Certificate::from_der(certificate_der);
    matches!((certificate, time), (Ok((_, certificate)), Some(time))
        if certificate.validity().is_valid_at(time))
}

/// When a certificate ends to be valid; `None` if it cannot be read or lies beyond all clocks.
#[must_use]
pub fn not_after(certificate_der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;

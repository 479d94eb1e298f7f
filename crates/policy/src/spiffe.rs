//! SPIFFE IDs and the patterns that select them.
//!
//! Source: the SPIFFE ID specification, §2 (SPIFFE Identity).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

#[cfg(test)]
mod tests;

const SCHEME: &str = "spiffe://";
/// Longest SPIFFE ID, in bytes (SPIFFE ID specification §2.3).
const ID_MAX_BYTES: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE ID specification §2.1).
const TRUST_DOMAIN_MAX_BYTES: usize = 255;

/// Why a text is not a SPIFFE ID or a pattern of SPIFFE IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// The text does not begin with `spiffe://` in lower case.
    #[error("a SPIFFE ID begins with spiffe:// in lower case")]
    Scheme,
    /// The text is longer than 2048 bytes.
    #[error("a SPIFFE ID has at most {ID_MAX_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes that were given.
        bytes: usize,
    },
    /// There is nothing between `spiffe://` and the first `/`.
    #[error("the trust domain is empty")]
    NoTrustDomain,
    /// The trust domain is longer than 255 bytes.
    #[error("a trust domain has at most {TRUST_DOMAIN_MAX_BYTES} bytes, this one has {bytes}")]
    TrustDomainTooLong {
        /// Bytes that were given.
        bytes: usize,
    },
    /// The trust domain has something other than `a-z 0-9 . - _`.
    #[error("a trust domain has only a-z, 0-9, '.', '-' and '_', not {found:?}")]
    TrustDomainCharacter {
        /// The first character that may not stand there.
        found: char,
    },
    /// A path segment has something other than `a-z A-Z 0-9 . - _`.
    #[error("a path segment has only letters, digits, '.', '-' and '_', not {found:?}")]
    PathCharacter {
        /// The first character that may not stand there.
        found: char,
    },
    /// A path segment is empty; a trailing `/` makes one.
    #[error("a path has no empty segment and no trailing '/'")]
    EmptySegment,
    /// A path segment is `.` or `..`.
    #[error("a path has no segment '.' or '..'")]
    DotSegment,
    /// A pattern has `*` anywhere but in a trailing `/*`.
    #[error("a pattern of SPIFFE IDs is exact or ends in '/*'; '*' stands nowhere else")]
    Wildcard,
}

/// The identity of a workload, such as `spiffe://cluster.local/ns/agents/sa/pr-agent`.
///
/// At most 2048 bytes of ASCII, valid by the SPIFFE ID specification §2. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Offset of the path in `text`; the text's length when there is none.
    path: usize,
}

/// A Kubernetes workload as Istio writes it into a path: `/ns/<namespace>/sa/<service account>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Workload<'a> {
    /// The namespace of the pod.
    pub namespace: &'a str,
    /// The service account of the pod.
    pub service_account: &'a str,
}

impl SpiffeId {
    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain, such as `cluster.local`.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path).unwrap_or_default()
    }

    /// The path with its leading `/`, or nothing for a trust domain's own ID.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }

    /// Namespace and service account, if the path is exactly `/ns/<ns>/sa/<sa>`.
    #[must_use]
    pub fn workload(&self) -> Option<Workload<'_>> {
        let (namespace, rest) = self.path().strip_prefix("/ns/")?.split_once('/')?;
        let service_account = rest.strip_prefix("sa/")?;
        (!service_account.contains('/')).then_some(Workload {
            namespace,
            service_account,
        })
    }

    /// The ID Istio gives to a service account.
    ///
    /// # Errors
    /// Any [`SpiffeError`] if a part has characters that cannot stand in an ID.
    pub fn of_workload(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeError> {
        let id: Self =
            format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()?;
        match id.workload() {
            Some(_) => Ok(id),
            None => Err(SpiffeError::PathCharacter { found: '/' }),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > ID_MAX_BYTES {
            return Err(SpiffeError::TooLong { bytes: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (trust_domain, path) = match rest.split_once('/') {
            Some((trust_domain, path)) => (trust_domain, Some(path)),
            None => (rest, None),
        };
        check_trust_domain(trust_domain)?;
        if let Some(path) = path {
            check_path(path)?;
        }
        Ok(Self {
            text: text.into(),
            path: SCHEME.len() + trust_domain.len(),
        })
    }
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeError> {
    if name.is_empty() {
        return Err(SpiffeError::NoTrustDomain);
    }
    if name.len() > TRUST_DOMAIN_MAX_BYTES {
        return Err(SpiffeError::TrustDomainTooLong { bytes: name.len() });
    }
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    match name.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(SpiffeError::TrustDomainCharacter { found }),
        None => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), SpiffeError> {
    let allowed = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_');
    for segment in path.split('/') {
        match segment {
            "" => return Err(SpiffeError::EmptySegment),
            "." | ".." => return Err(SpiffeError::DotSegment),
            _ => {}
        }
        if let Some(found) = segment.chars().find(|&c| !allowed(c)) {
            return Err(SpiffeError::PathCharacter { found });
        }
    }
    Ok(())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Which SPIFFE IDs: one, or all below a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SpiffePattern {
    /// This ID alone.
    Exact(SpiffeId),
    /// Every ID that goes on after this text, which ends in `/`: `spiffe://cluster.local/ns/x/`
    /// for the pattern `spiffe://cluster.local/ns/x/*`.
    Prefix(String),
}

impl SpiffePattern {
    /// Whether the pattern selects `id`.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Prefix(prefix) => id
                .as_str()
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| prefix.ends_with('/') && !rest.is_empty()),
        }
    }
}

impl FromStr for SpiffePattern {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(parent) = text.strip_suffix("/*") else {
            return match text.contains('*') {
                true => Err(SpiffeError::Wildcard),
                false => text.parse().map(Self::Exact),
            };
        };
        if parent.contains('*') {
            return Err(SpiffeError::Wildcard);
        }
        let parent: SpiffeId = parent.parse()?;
        Ok(Self::Prefix(format!("{parent}/")))
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Serialize for SpiffePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

//! Istio's `AuthorizationPolicy` as an Istio waypoint enforces it.
//!
//! Source: istio/api `security/v1beta1/authorization_policy.proto` and what istiod makes of it for
//! Envoy's RBAC filter. A request is judged once, before anything of the agent's own kinds: a
//! matching CUSTOM rule denies unless its external authorizer allowed; a matching DENY rule denies;
//! if no ALLOW policy is attached it may go on, else an ALLOW rule has to match. AUDIT never
//! decides, and neither does a policy with `istio.io/dry-run`.

mod custom;
mod explain;
mod index;
mod liveness;
mod matching;
#[cfg(test)]
mod naive;
mod path_template;
mod request;
mod set;
#[cfg(test)]
mod tests;
mod text;
mod trust_domain;

use std::{net::IpAddr, sync::Arc};

pub use custom::{CustomCall, CustomVerdict};
pub use explain::NOT_KEPT;
pub use liveness::{DeadRule, Why, dead_rules};
pub use path_template::{PathTemplate, TemplateError};
pub use request::{Claims, Headers, NoHeaders, Protocol, Request, last_forwarded};
pub(crate) use set::IstioSet;
pub use set::Verdict;
pub use text::TextMatch;
pub use trust_domain::{expand_principal, expand_trust_domain};

use crate::{Mode, ObjectName, ObjectRef};

/// A policy, ready to be indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Its name.
    pub name: ObjectName,
    /// The objects it is attached to.
    pub targets: Vec<ObjectRef>,
    /// What a matching rule does.
    pub action: IstioAction,
    /// Who is asked about a request that a CUSTOM rule matches; `None` when nobody knows such a
    /// provider, so that the request is denied. Other actions have none.
    pub provider: Option<Arc<str>>,
    /// [`Mode::DryRun`] with the annotation `istio.io/dry-run: "true"`.
    pub mode: Mode,
    /// In order; a policy without rules matches nothing.
    pub rules: Vec<IstioRule>,
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IstioAction {
    /// Denies, whatever else matches.
    Deny,
    /// Allows, and denies what no ALLOW rule matches.
    Allow,
    /// Only marks the request.
    Audit,
    /// Denies unless an external authorizer allows.
    Custom,
}

/// One rule: `from` and `to` and every `when`. What is absent is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioRule {
    /// `rule[0]`; Istio's rules have no names.
    pub name: Arc<str>,
    /// Any of these sources, each with all of its fields.
    pub from: Option<Vec<Vec<Test>>>,
    /// Any of these operations, each with all of its fields.
    pub to: Option<Vec<Vec<Test>>>,
    /// All of these conditions.
    pub when: Vec<Test>,
}

/// One field of a source or an operation, or one condition, with its `not` form.
///
/// Holds when one of `values` matches, or there are none, and none of `not_values` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// What is looked at.
    pub attribute: Attribute,
    /// The field as it is written, such as `from[0].source.principals`.
    pub field: Box<str>,
    /// Any of these. `None` is no such list; an empty one matches nothing.
    pub values: Option<Vec<Value>>,
    /// None of these.
    pub not_values: Vec<Value>,
}

/// What of a request a [`Test`] looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// The peer's identity without `spiffe://`.
    Principal,
    /// The namespace of the peer's identity, in whatever trust domain.
    Namespace,
    /// Namespace and service account of the peer's identity.
    ServiceAccount,
    /// The trust domain of the peer's identity.
    TrustDomain,
    /// The address of the peer.
    SourceIp,
    /// The address of the client, behind trusted proxies.
    RemoteIp,
    /// `iss/sub` of the token.
    RequestPrincipal,
    /// `aud` of the token.
    Audiences,
    /// `azp` of the token.
    Presenter,
    /// A claim of the token, by the names that lead to it.
    Claim(Vec<Box<str>>),
    /// A header, by its name in lower case.
    Header(Box<str>),
    /// The authority as sent, with its port.
    Host,
    /// The method as sent.
    Method,
    /// The normalized path without the query.
    Path,
    /// The port of the Service that was addressed.
    DestinationPort,
    /// The address that was addressed.
    DestinationIp,
    /// The name in the inner TLS handshake.
    Sni,
    /// A condition nobody knows: never true for ALLOW, always for DENY.
    Unknown(Box<str>),
}

impl Attribute {
    /// Whether only an HTTP request has it.
    pub(crate) fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal
                | Self::Audiences
                | Self::Presenter
                | Self::Claim(_)
                | Self::Header(_)
                | Self::Host
                | Self::Method
                | Self::Path
        )
    }

    /// Whether it says who calls, by certificate or token.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        self.is_of_token()
            || matches!(
                self,
                Self::Principal | Self::Namespace | Self::ServiceAccount | Self::TrustDomain
            )
    }

    /// Whether it comes from a token.
    #[must_use]
    pub fn is_of_token(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal | Self::Audiences | Self::Presenter | Self::Claim(_)
        )
    }
}

/// One value of a [`Test`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, with a star in front, behind, or alone.
    Text(TextMatch),
    /// A namespace; a star anywhere stands for any run of characters.
    Namespace(crate::Pattern),
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
    },
    /// Issuer and subject; `None` for both is "has a token with both".
    RequestPrincipal {
        /// Of `iss`.
        issuer: TextMatch,
        /// Of `sub`.
        subject: TextMatch,
    },
    /// A range of addresses.
    Network(ipnet::IpNet),
    /// A port.
    Port(u16),
    /// A path with `{*}` or `{**}`.
    Template(PathTemplate),
    /// What cannot be used: its ALLOW rule is dropped, elsewhere it is as if it were not there.
    Unusable(Box<str>),
}

/// An IPv4 address that was mapped into IPv6 is the IPv4 address.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

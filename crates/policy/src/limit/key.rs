//! Which bucket of a limit a call belongs to.

use smallvec::SmallVec;

use super::{Dimension, Period, UsageLimit};
use crate::{ObjectName, Principal, istio::Claims};

/// What buckets are told apart by. What a call does not have is a value of its own: a missing key
/// never lifts a limit.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// The route's object and section.
    pub route: Option<&'a str>,
    /// The LLM provider.
    pub provider: Option<&'a ObjectName>,
    /// The model, by its name at the provider.
    pub model: Option<&'a str>,
    /// The MCP server, by its route's name.
    pub server: Option<&'a str>,
    /// What an MCP call names.
    pub tool: Option<&'a str>,
    /// What the caller's token says.
    pub claims: Option<&'a Claims>,
}

impl<'a> Subject<'a> {
    /// A subject of which only the caller is known.
    #[must_use]
    pub fn of(principal: &'a Principal) -> Self {
        Self {
            principal,
            route: None,
            provider: None,
            model: None,
            server: None,
            tool: None,
            claims: None,
        }
    }
}

/// A key, ready to be looked up.
pub type Key = SmallVec<[u8; 192]>;

/// The name of a bucket: that of its limit, its periods, and the values of its dimensions, each
/// with its length, so that no two calls have the same name by the choice of their texts.
///
/// A limit whose number changes keeps its buckets; one whose period changes begins anew.
#[must_use]
pub fn bucket_key(limit: &UsageLimit, subject: &Subject<'_>) -> Key {
    let mut key = Key::new();
    value(&mut key, Some(limit.name.namespace.as_bytes()));
    value(&mut key, Some(limit.name.name.as_bytes()));
    for period in limit.periods() {
        let number = match period {
            None => 0,
            Some(Period::Window(window)) => u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            Some(Period::Calendar(calendar)) => 1 + calendar as u64,
        };
        key.extend_from_slice(&number.to_be_bytes());
    }
    let spiffe = subject.principal.spiffe();
    for dimension in &limit.per {
        let text = match dimension {
            Dimension::Principal => spiffe.map(|id| id.as_str()),
            Dimension::Namespace => spiffe
                .and_then(|id| id.workload())
                .map(|workload| workload.namespace),
            Dimension::Route => subject.route,
            Dimension::Provider => {
                let provider = subject.provider;
                value(&mut key, provider.map(|name| name.namespace.as_bytes()));
                provider.map(|name| &*name.name)
            }
            Dimension::Model => subject.model,
            Dimension::Server => subject.server,
            Dimension::Tool => subject.tool,
            Dimension::Claim(name) => {
                let claim = subject.claims.and_then(|claims| claims.0.get(&**name));
                let text = claim.map(ToString::to_string);
                value(&mut key, text.as_deref().map(str::as_bytes));
                continue;
            }
        };
        value(&mut key, text.map(str::as_bytes));
    }
    key
}

fn value(key: &mut Key, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        key.extend_from_slice(&u32::MAX.to_be_bytes());
        return;
    };
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX - 1);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(bytes);
}

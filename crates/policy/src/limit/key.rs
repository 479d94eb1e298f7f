//! Which bucket of a limit a call belongs to.

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

/// A key, ready to be looked up. Nearly all fit into its place on the stack.
#[derive(Debug, Clone)]
pub struct Key {
    short: [u8; SHORT],
    len: usize,
    /// All of it, where it is longer.
    long: Vec<u8>,
}

const SHORT: usize = 192;

impl Key {
    const fn new() -> Self {
        Self {
            short: [0; SHORT],
            len: 0,
            long: Vec::new(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self.long.is_empty() {
            true => self.short.get(..self.len).unwrap_or_default(),
            false => &self.long,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.short.get_mut(self.len..end)
            && self.long.is_empty()
        {
            room.copy_from_slice(bytes);
            self.len = end;
            return;
        }
        if self.long.is_empty() {
            let short = self.short.get(..self.len).unwrap_or_default();
            self.long.extend_from_slice(short);
        }
        self.long.extend_from_slice(bytes);
    }

    /// A value with its length, or the mark of one that is not there.
    fn value(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else {
            self.push(&u32::MAX.to_be_bytes());
            return;
        };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX - 1);
        let length = length.to_be_bytes();
        let end = self.len + length.len() + bytes.len();
        if let Some(room) = self.short.get_mut(self.len..end)
            && let Some((first, rest)) = room.split_first_chunk_mut()
            && self.long.is_empty()
        {
            *first = length;
            rest.copy_from_slice(bytes);
            self.len = end;
            return;
        }
        self.push(&length);
        self.push(bytes);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

/// What the keys of a limit begin with, when it has been made ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(Box<[u8]>);

impl Prefix {
    pub(super) fn of(limit: &UsageLimit) -> Self {
        Self(own(limit).as_bytes().into())
    }
}

/// The limit's part of its keys.
fn own(limit: &UsageLimit) -> Key {
    let mut key = Key::new();
    key.value(Some(limit.name.namespace.as_bytes()));
    key.value(Some(limit.name.name.as_bytes()));
    for period in limit.periods() {
        let number = match period {
            None => 0,
            Some(Period::Window(window)) => u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            Some(Period::Calendar(calendar)) => 1 + calendar as u64,
        };
        key.push(&number.to_be_bytes());
    }
    // Another kind of tokens, or of callers, is another bucket.
    let count = limit.tokens.map_or(0, |tokens| 1 + tokens.count as u8);
    key.push(&[count]);
    for dimension in &limit.per {
        key.value(Some(dimension.to_string().as_bytes()));
    }
    key
}

/// The name of a bucket: that of its limit, its periods, and the values of its dimensions, each
/// with its length, so that no two calls have the same name by the choice of their texts.
///
/// A limit whose numbers change keeps its buckets; one that counts something else begins anew.
#[must_use]
pub fn bucket_key(limit: &UsageLimit, subject: &Subject<'_>) -> Key {
    let mut key = match &*limit.prefix.0 {
        [] => own(limit),
        ready => {
            let mut key = Key::new();
            key.push(ready);
            key
        }
    };
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
                key.value(provider.map(|name| name.namespace.as_bytes()));
                provider.map(|name| &*name.name)
            }
            Dimension::Model => subject.model,
            Dimension::Server => subject.server,
            Dimension::Tool => subject.tool,
            Dimension::Claim(name) => {
                let claim = subject.claims.and_then(|claims| claims.0.get(&**name));
                let text = claim.map(ToString::to_string);
                key.value(text.as_deref().map(str::as_bytes));
                continue;
            }
        };
        key.value(text.map(str::as_bytes));
    }
    key
}

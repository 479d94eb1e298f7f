//! How much callers may use: what configuration compiles a `UsageLimit` into, the arithmetic of
//! its meters, and the buckets that remember.
//!
//! A call is weighed before it is made ([`Meter::take`]), and what it really used is settled
//! afterwards ([`Meter::settle`]); both work on one atomic word and need no lock. Time is an
//! argument.

mod bucket;
mod key;
mod meter;
#[cfg(all(test, loom))]
mod model;
mod rates;
mod set;
mod shard;
mod show;
mod store;
mod sync;
mod table;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

pub use bucket::{Bucket, Digest, Entry, Kinds};
pub use key::{Key, Prefix, Subject, bucket_key};
pub use meter::{Exceeded, Meter, Now, Taken};
pub use rates::{Left, Rates};
pub(crate) use set::LimitSet;
pub use store::{Store, StoreFailure};
pub use table::{Looked, NotEntered, Slot, Table};

use crate::{Effect, Kind, Mode, ObjectName, ObjectRef, Rule, RuleName};

/// One limit object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageLimit {
    /// Its name, which callers are told when it is exceeded, and under which its buckets are kept
    /// from one configuration to the next.
    pub name: ObjectName,
    /// What it is attached to; a limit without targets never applies.
    pub targets: Vec<ObjectRef>,
    /// Whether it is in force. One on trial is only counted.
    pub mode: Mode,
    /// Whom it is about and which of their calls, read as a Deny rule is: what is uncertain is
    /// limited.
    pub rule: Rule,
    /// A bucket for each combination of these; none is one bucket for all.
    pub per: Vec<Dimension>,
    /// Tokens of LLM calls.
    pub tokens: Option<Tokens>,
    /// LLM and MCP calls.
    pub requests: Option<Requests>,
    /// Money for LLM calls.
    pub cost: Option<Cost>,
    /// LLM and MCP calls at the same time.
    pub concurrency: Option<u32>,
    /// What happens to a stream that is running when the tokens or the money are used up.
    pub on_exceeded: OnExceeded,
    /// How a stream is cut.
    pub cut: Cut,
    /// Percentages of any number above at which callers and operators are warned; ascending.
    pub warn_at: Vec<u8>,
    /// The HTTP status of a call that is refused for longer than a short while.
    pub exhausted_status: ExhaustedStatus,
    /// For [`bucket_key`]; see [`ready`](Self::ready).
    #[serde(skip)]
    pub prefix: Prefix,
    /// Where its amounts are kept.
    pub store: Store,
}

/// A number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// How many; 0 stops everything.
    pub limit: u64,
    /// In which time.
    pub period: Period,
    /// Which of them.
    pub count: Count,
}

/// A number of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// How many; 0 stops everything.
    pub limit: u64,
    /// In which time.
    pub period: Period,
    /// How many at once, where the period is a window; `None` is all of them.
    pub burst: Option<NonZeroU64>,
}

/// An amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// In micro-USD; 0 stops everything.
    pub limit: u64,
    /// In which time.
    pub period: Period,
    /// What becomes of calls whose price nobody knows.
    pub unknown_model: UnknownModel,
}

/// What becomes of a call whose price nobody knows, where money is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum UnknownModel {
    /// It is refused.
    #[default]
    Reject,
    /// It is made, costs nothing, and warns.
    Alert,
}

/// How a stream is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Cut {
    /// By an error that SDKs raise.
    #[default]
    Error,
    /// As if the model had reached its maximum of output, so that callers keep what they have.
    Finish,
}

/// The HTTP status of a refusal by a limit that is used up for long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ExhaustedStatus {
    /// 402
    PaymentRequired,
    /// 403
    Forbidden,
    /// 429
    #[default]
    TooManyRequests,
}

/// The time a number is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Period {
    /// What was used comes back evenly over this time (GCRA): a bucket of `limit` that refills at
    /// `limit` per window.
    Window(Duration),
    /// The number is for each of these, in UTC; what is left of it is lost at its end.
    Calendar(Calendar),
}

/// A stretch of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Calendar {
    /// From minute 0.
    Hour,
    /// From midnight.
    Day,
    /// From Monday (ISO 8601).
    Week,
    /// From the first.
    Month,
}

/// Which tokens count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Count {
    /// Input and output.
    #[default]
    Total,
    /// Input, cached or not.
    Input,
    /// Output, reasoning included.
    Output,
}

/// What happens to a stream that is running when the tokens are used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum OnExceeded {
    /// It goes on, into debt that later calls wait for; new calls are refused.
    #[default]
    Reject,
    /// It is cut.
    Cut,
}

/// What tells buckets of one limit apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// The caller's SPIFFE ID.
    Principal,
    /// The caller's namespace.
    Namespace,
    /// The route.
    Route,
    /// The LLM provider.
    Provider,
    /// The model, by its name at the provider.
    Model,
    /// The MCP server.
    Server,
    /// The tool, prompt or resource.
    Tool,
    /// A claim of the caller's token.
    Claim(Box<str>),
}

/// A text that is no [`Dimension`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`per` lists Principal, Namespace, Route, Provider, Model, Server, Tool or Claim:<name>")]
pub struct UnknownDimension;

impl FromStr for Dimension {
    type Err = UnknownDimension;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "Principal" => Self::Principal,
            "Namespace" => Self::Namespace,
            "Route" => Self::Route,
            "Provider" => Self::Provider,
            "Model" => Self::Model,
            "Server" => Self::Server,
            "Tool" => Self::Tool,
            _ => match text.strip_prefix("Claim:") {
                Some(name) if !name.is_empty() => Self::Claim(name.into()),
                _ => return Err(UnknownDimension),
            },
        })
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal => f.write_str("Principal"),
            Self::Namespace => f.write_str("Namespace"),
            Self::Route => f.write_str("Route"),
            Self::Provider => f.write_str("Provider"),
            Self::Model => f.write_str("Model"),
            Self::Server => f.write_str("Server"),
            Self::Tool => f.write_str("Tool"),
            Self::Claim(name) => write!(f, "Claim:{name}"),
        }
    }
}

impl Serialize for Dimension {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A word that is no [`Calendar`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a calendar is one of Hour, Day, Week, Month")]
pub struct UnknownCalendar;

impl Calendar {
    /// The word in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "Hour",
            Self::Day => "Day",
            Self::Week => "Week",
            Self::Month => "Month",
        }
    }
}

impl FromStr for Calendar {
    type Err = UnknownCalendar;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Hour, Self::Day, Self::Week, Self::Month];
        let mut all = all.into_iter();
        all.find(|calendar| calendar.as_str() == text)
            .ok_or(UnknownCalendar)
    }
}

impl Serialize for Calendar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Count {
    /// How many tokens of a call count.
    #[must_use]
    pub fn of(self, input: u64, output: u64) -> u64 {
        match self {
            Self::Total => input.saturating_add(output),
            Self::Input => input,
            Self::Output => output,
        }
    }
}

impl UsageLimit {
    /// The same limit with the part of its keys worked out that is the same for all calls. Its name
    /// and periods stay as they are from here on.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.prefix = Prefix::of(&self);
        self
    }

    /// Whether it is in force.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }

    /// Whether it stops everything it is about, at once.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        self.is_enforced()
            && (self.tokens.is_some_and(|tokens| tokens.limit == 0)
                || self.requests.is_some_and(|requests| requests.limit == 0)
                || self.cost.is_some_and(|cost| cost.limit == 0)
                || self.concurrency == Some(0))
    }

    /// What is told when it decides.
    #[must_use]
    pub fn rule_name(&self) -> RuleName {
        RuleName {
            kind: Kind::UsageLimit.as_str(),
            policy: self.name.clone(),
            rule: Arc::from(""),
            effect: Effect::Deny,
            mode: self.mode,
        }
    }

    /// The periods of tokens, requests and cost.
    #[must_use]
    pub fn periods(&self) -> [Option<Period>; 3] {
        [
            self.tokens.map(|tokens| tokens.period),
            self.requests.map(|requests| requests.period),
            self.cost.map(|cost| cost.period),
        ]
    }
}

impl UsageLimit {
    /// The arithmetic of tokens, requests and cost.
    #[must_use]
    pub fn meters(&self) -> [Option<Meter>; 3] {
        [
            self.tokens.as_ref().map(Tokens::meter),
            self.requests.as_ref().map(Requests::meter),
            self.cost.as_ref().map(Cost::meter),
        ]
    }
}

impl Cost {
    /// The arithmetic of it.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::new(self.limit, self.period, None)
    }
}

impl ExhaustedStatus {
    /// The number (RFC 9110 §15.5).
    #[must_use]
    pub fn as_u16(self) -> u16 {
        match self {
            Self::PaymentRequired => 402,
            Self::Forbidden => 403,
            Self::TooManyRequests => 429,
        }
    }
}

impl Tokens {
    /// The arithmetic of it.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::new(self.limit, self.period, None)
    }
}

impl Requests {
    /// The arithmetic of it.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::new(self.limit, self.period, self.burst)
    }
}

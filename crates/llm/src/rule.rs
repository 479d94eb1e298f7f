//! What the configuration says about LLM routes and providers.

use std::collections::HashMap;
use std::time::Duration;

use waypoint_policy::{ObjectName, Operation, Pattern, ProviderId};

use crate::{Allowances, Dialect, Failure, Price, list_price};

/// One rule of an LLM route: which models, which backends, how patiently.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Requested models this rule is for; empty means all.
    pub models: Vec<Pattern>,
    /// Where matching calls may go.
    pub backends: Vec<Backend>,
    /// How long each part may take.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retry: Retry,
}

impl Rule {
    /// Whether this rule is for calls that ask for `model`.
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| pattern.matches(model))
    }
}

/// A provider as one rule uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The provider.
    pub provider: ProviderId,
    /// Share among backends of the same priority; 0 is never chosen.
    pub weight: u32,
    /// Lower is tried first; higher ones are failover.
    pub priority: u32,
    /// Ask for this model instead of the requested one.
    pub model: Option<Box<str>>,
}

/// How long each part of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To the head of a streamed answer, to the end of a plain one, over all attempts.
    pub request: Duration,
    /// To a connection, TLS included.
    pub connect: Duration,
    /// Between two pieces of a streamed answer.
    pub stream_idle: Duration,
    /// Like `request`, for each attempt.
    pub per_try: Option<Duration>,
}

impl Default for Timeouts {
    /// The patience of the official SDKs: 600 s for an answer, 5 s to connect. Reasoning models
    /// stay silent for minutes within a stream, hence 300 s of idle time.
    fn default() -> Self {
        Self {
            request: Duration::from_secs(600),
            connect: Duration::from_secs(5),
            stream_idle: Duration::from_secs(300),
            per_try: None,
        }
    }
}

/// What is tried again, how often and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first one.
    pub attempts: u32,
    /// The failures that are worth another attempt.
    pub on: RetryOn,
    /// Pause before the first repeat at the same provider; doubles with each further one.
    pub base: Duration,
    /// Longest pause, also when the upstream asks for more: then it is not asked again.
    pub max: Duration,
}

impl Default for Retry {
    /// One further attempt. The SDKs themselves try three times, and the numbers multiply.
    fn default() -> Self {
        Self {
            attempts: 1,
            on: RetryOn::default(),
            base: Duration::from_millis(100),
            max: Duration::from_secs(5),
        }
    }
}

/// The failures that are worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOn {
    /// 5xx answers, and the transient 408 and 409.
    pub server_error: bool,
    /// 429 answers, unless they speak of money.
    pub rate_limited: bool,
    /// No connection, so nothing was sent.
    pub connect_failure: bool,
    /// The connection broke before the answer began.
    pub reset: bool,
    /// No answer in time. The provider may have billed the call: off unless asked for.
    pub timeout: bool,
}

impl Default for RetryOn {
    /// Everything but timeouts.
    fn default() -> Self {
        Self {
            server_error: true,
            rate_limited: true,
            connect_failure: true,
            reset: true,
            timeout: false,
        }
    }
}

impl RetryOn {
    /// Retries nothing.
    pub const NONE: Self = Self {
        server_error: false,
        rate_limited: false,
        connect_failure: false,
        reset: false,
        timeout: false,
    };

    /// Whether this failure is to be tried again. An answer must also be
    /// [`Retryable`](crate::Retryable).
    #[must_use]
    pub fn covers(&self, failure: Failure) -> bool {
        match failure {
            Failure::Status(429) => self.rate_limited,
            Failure::Status(_) => self.server_error,
            Failure::Connect => self.connect_failure,
            Failure::Reset => self.reset,
            Failure::Timeout => self.timeout,
        }
    }
}

/// A provider, without its address and credential.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its index in the snapshot.
    pub id: ProviderId,
    /// Its object.
    pub name: ObjectName,
    /// The API it speaks.
    pub dialect: Dialect,
    /// The operations it serves.
    pub operations: Vec<Operation>,
    /// The models it serves; `None` accepts every name.
    pub models: Option<Models>,
    /// What its callers may ask for beyond plain inference.
    pub allowances: Allowances,
}

impl Provider {
    /// The provider's own name for a requested model: an alias gives its model, a listed name
    /// itself. `None` when there is a list and the name is not in it.
    #[must_use]
    pub fn upstream_model<'a>(&'a self, requested: &'a str) -> Option<&'a str> {
        match &self.models {
            None => Some(requested),
            Some(models) => models.resolve(requested),
        }
    }

    /// What the tokens of a model cost, by the provider's own name of it: what the configuration
    /// says, else the list price. `None` when nobody knows.
    #[must_use]
    pub fn price(&self, upstream_model: &str) -> Option<Price> {
        let model = self.models.as_ref().and_then(|it| it.get(upstream_model));
        model
            .and_then(|model| model.price)
            .or_else(|| list_price(self.dialect, upstream_model))
    }
}

/// One model of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The provider's name for it.
    pub name: Box<str>,
    /// Other names agents may use.
    pub aliases: Vec<Box<str>>,
    /// What its tokens cost, where it is not the list price.
    pub price: Option<Price>,
}

/// The models of a provider, by name and alias.
#[derive(Debug, Clone, Default)]
pub struct Models {
    list: Vec<Model>,
    by_name: HashMap<Box<str>, usize>,
}

impl Models {
    /// The model's own name for a name or alias.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<&str> {
        self.get(name).map(|model| &*model.name)
    }

    fn get(&self, name: &str) -> Option<&Model> {
        self.list.get(*self.by_name.get(name)?)
    }

    /// The models, in the order they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Model> {
        self.list.iter()
    }
}

impl FromIterator<Model> for Models {
    /// A name beats an alias; among aliases the first one written holds.
    fn from_iter<I: IntoIterator<Item = Model>>(models: I) -> Self {
        let list: Vec<Model> = models.into_iter().collect();
        let mut by_name = HashMap::new();
        for (index, model) in list.iter().enumerate() {
            by_name.entry(model.name.clone()).or_insert(index);
        }
        for (index, model) in list.iter().enumerate() {
            for alias in &model.aliases {
                by_name.entry(alias.clone()).or_insert(index);
            }
        }
        Self { list, by_name }
    }
}

#[cfg(test)]
mod tests;

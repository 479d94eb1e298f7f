//! `UsageLimit`.

use schemars::JsonSchema;
use serde::Deserialize;
use waypoint_llm::MicroUsd;
use waypoint_policy::Pattern;
use waypoint_policy::limit::Dimension;

use super::agent::{Caller, Method, Mode, TargetRef};
use super::{Duration, Text};

/// How much callers may use.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct UsageLimit {
    /// What the limit is attached to, in its own namespace.
    pub(crate) target_refs: Vec<TargetRef>,
    /// Any of them; default anyone with an identity.
    pub(crate) from: Option<Vec<Caller>>,
    /// LLM calls; any of them. Without `llm` and `mcp` the limit is about all calls.
    pub(crate) llm: Option<Vec<Llm>>,
    /// MCP calls; any of them.
    pub(crate) mcp: Option<Vec<Mcp>>,
    /// What each has an amount of its own: `Principal`, `Namespace`, `Route`, `Provider`, `Model`,
    /// `Server`, `Tool` or `Claim:` and the name of a claim; each combination of them counts by
    /// itself. Default one amount for all.
    #[serde(default)]
    pub(crate) per: Vec<Text<Dimension>>,
    /// Tokens of LLM calls.
    pub(crate) tokens: Option<Tokens>,
    /// LLM and MCP calls.
    pub(crate) requests: Option<Requests>,
    /// Money for LLM calls.
    pub(crate) cost: Option<Cost>,
    /// LLM and MCP calls at the same time; 0 stops everything.
    pub(crate) concurrency: Option<u64>,
    /// What happens to running streams when the tokens or the money are used up; default Reject.
    pub(crate) on_exceeded: Option<OnExceeded>,
    /// How streams are cut; default Error.
    pub(crate) cut_with: Option<CutWith>,
    /// Percentages of any of the numbers, from 1 to 100, ascending: a call that reaches one warns
    /// its caller and the operator.
    #[serde(default)]
    pub(crate) warn_at: Vec<u64>,
    /// The HTTP status of calls that are refused for more than a minute: 402, 403 or 429; default
    /// 429.
    pub(crate) exhausted_status: Option<u64>,
    /// Default Enforce.
    pub(crate) mode: Option<Mode>,
    /// Where the amounts are kept; default Local.
    pub(crate) store: Option<Store>,
    /// What holds while a shared store cannot be asked; default Closed.
    pub(crate) store_failure: Option<StoreFailure>,
}

/// LLM calls; all fields that are given must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Llm {
    /// Names of LLMProviders, `namespace/name` when in another namespace.
    pub(crate) providers: Option<Vec<String>>,
    /// By the name at the provider or the one that the caller uses; `*` matches any run of
    /// characters.
    pub(crate) models: Option<Vec<Text<Pattern>>>,
    /// `chat`, `responses`, `embeddings`, `models`, `messages`, `count_tokens`.
    pub(crate) operations: Option<Vec<String>>,
}

/// MCP calls; all fields that are given must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mcp {
    /// Names of routes, `[namespace/]proxy/route` when ambiguous: the servers behind them, through
    /// whichever route.
    pub(crate) servers: Option<Vec<String>>,
    pub(crate) methods: Option<Vec<Method>>,
}

/// A number of tokens. Exactly one of `window` and `calendar`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Tokens {
    /// 0 stops everything; at most 10000000000000.
    pub(crate) limit: u64,
    /// What was used comes back evenly over this time, from `1s` to `744h` (31 days).
    pub(crate) window: Option<Duration>,
    /// The number is for each of these.
    pub(crate) calendar: Option<Calendar>,
    /// Default Total.
    pub(crate) count: Option<Count>,
}

/// A number of calls. Exactly one of `window` and `calendar`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Requests {
    /// 0 stops everything; at most 10000000000000.
    pub(crate) limit: u64,
    /// What was used comes back evenly over this time, from `1s` to `744h` (31 days).
    pub(crate) window: Option<Duration>,
    /// The number is for each of these.
    pub(crate) calendar: Option<Calendar>,
    /// How many at once, with `window` alone; default all of `limit`.
    pub(crate) burst: Option<u64>,
}

/// An amount of money. Exactly one of `window` and `calendar`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Cost {
    /// USD, as a decimal string with at most six decimals; "0" stops everything; at most 10000000.
    pub(crate) limit: Text<MicroUsd>,
    /// What was used comes back evenly over this time, from `1s` to `744h` (31 days).
    pub(crate) window: Option<Duration>,
    /// The amount is for each of these.
    pub(crate) calendar: Option<Calendar>,
    /// What becomes of calls to models whose price is not known; default Reject.
    pub(crate) unknown_model: Option<UnknownModel>,
}

/// What becomes of calls to models whose price is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum UnknownModel {
    /// They are refused.
    Reject,
    /// They are made and cost nothing, which is told to the operator.
    Alert,
}

/// How streams are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum CutWith {
    /// By an error that SDKs raise.
    Error,
    /// As if the model had reached its maximum of output: callers keep what they have.
    Finish,
}

/// A stretch of the calendar, in UTC; weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Calendar {
    Hour,
    Day,
    Week,
    Month,
}

/// Which tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Count {
    /// Input and output.
    Total,
    /// Input, cached or not.
    Input,
    /// Output, reasoning included.
    Output,
}

/// What happens to running streams when the tokens are used up; new calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum OnExceeded {
    /// They go on, and later calls wait for what they used.
    Reject,
    /// They are cut.
    Cut,
}

/// Where the amounts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Store {
    /// In each waypoint for itself.
    Local,
    /// In the `limitStore` of the WaypointParameters, which several waypoints share.
    Shared,
}

/// What holds while the shared store cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum StoreFailure {
    /// Calls are refused.
    Closed,
    /// Calls go on; what they use is counted when the store is back.
    Open,
    /// Each waypoint admits its share of what was left.
    LocalShare,
}

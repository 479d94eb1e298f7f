//! LLM calls: parse, plan, meter.
//!
//! A call is classified by its path ([`classify`]), read once ([`Call::parse`]), matched to the
//! backends that could run it ([`candidates`]), and, with a permit for each, planned ([`plan`]).
//! What comes back passes through a [`Stream`] or is read by [`read_answer`]. Bytes that
//! need no change are never changed: a call is edited by splicing, an answer is cut between events.
//!
//! Nothing here does I/O, reads a clock or logs; time and randomness are arguments.

mod call;
mod candidates;
mod classify;
mod closing;
mod dialect;
mod edit;
mod models;
mod plan;
mod price;
mod rates;
mod refusal;
mod retry;
mod rule;
mod size;
mod stream;
mod usage;

pub use call::{Allowances, Call, CallError};
pub use candidates::{Candidate, candidates};
pub use classify::{classify, path_of};
pub use closing::Closing;
pub use dialect::{Dialect, DialectError};
pub use models::{FilterError, filter_models};
pub use plan::{Attempt, Plan, plan};
pub use price::{MicroUsd, PerMillion, Price, PriceError, cost, list_price};
pub use rates::rate_headers;
pub use refusal::{error_frame, is_error_in_dialect, refusal_body, refusal_headers};
pub use retry::{Failure, Retryable, retry_verdict};
pub use rule::{Backend, Model, Models, Provider, Retry, RetryOn, Rule, Timeouts};
pub use size::input_size;
pub use stream::{DEFAULT_EVENT_LIMIT_BYTES, Stream, StreamError, Truncated};
pub use usage::{Source, Usage, read_answer};

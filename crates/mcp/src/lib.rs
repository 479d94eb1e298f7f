//! MCP calls: classify, plan, name, filter.
//!
//! Two eras of the protocol share one endpoint. The legacy era (revisions up
//! to 2025-11-25) opens with `initialize` and may have sessions; the modern
//! era (2026-07-28) is stateless and says its version in every request. The
//! message alone tells them apart ([`Era`]).
//!
//! [`read`] turns a body and its headers into a [`Call`] that says what has to
//! be decided ([`Ask`]), or into the [`McpRefusal`] to answer. The body is
//! then forwarded as it is. On the way back [`filter_result`] and
//! [`StreamFilter`] take out of lists what the caller may not use.
//!
//! The crate is pure: no clock, no files, no logging.

mod annotations;
mod call;
mod era;
mod head;
mod list;
mod listen;
mod method;
mod mirror;
mod refusal;
pub mod session;
mod splice;
mod stream;
mod task;

#[cfg(test)]
mod tests;

pub use call::{Ask, Call, CallKind, Item, read};
pub use era::{Era, LEGACY_VERSIONS, MODERN_VERSIONS};
pub use head::{Head, Header, check_media};
pub use list::{FilterError, Filtered, ListKind, filter_result};
pub use listen::cut_listen;
pub use mirror::{decode_name, encode_name};
pub use refusal::{Denial, McpRefusal, refusal_message};
pub use stream::{Expected, StreamFilter, UnknownIds};
pub use task::read_answer;

//! Server-sent events: cutting a byte stream into events, reading and writing one.
//!
//! Source: WHATWG HTML, "Server-sent events", sections "Parsing an event
//! stream" and "Interpreting an event stream".

mod event;
mod splitter;

#[cfg(test)]
mod tests;

pub use event::{Event, parse, replace_data, write_event};
pub use splitter::Splitter;

/// Why a stream can not be cut into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event, or what was pushed without being taken, grew past the limit.
    #[error("event longer than {limit} bytes")]
    TooLong {
        /// Bytes.
        limit: usize,
    },
}

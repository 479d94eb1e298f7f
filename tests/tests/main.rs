//! Integration tests, in one binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod accept;
mod foreign;
mod house;
mod llm;
mod llm_failures;
mod llm_streams;
mod mcp;

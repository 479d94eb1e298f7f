//! Integration tests, in one binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod foreign;
mod house;

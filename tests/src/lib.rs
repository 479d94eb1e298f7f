//! Harness and integration tests against the built gateway.

pub mod clients;

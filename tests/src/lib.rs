//! Harness and integration tests against the built gateway.
//!
//! [`Setup`](waypoint::Setup) writes a configuration and starts the binary; [`upstream`] and
//! [`mcp_server`] stand behind it and keep what they received; [`client`] calls it byte by byte,
//! [`clients`] through other people's SDKs. Every wait is for a condition and has a deadline.

pub mod certificates;
pub mod client;
pub mod clients;
pub mod llm;
pub mod mcp_server;
pub mod ports;
pub mod store;
pub mod upstream;
pub mod wait;
pub mod waypoint;
pub mod ztunnel;

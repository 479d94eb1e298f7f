//! Integration tests, in one binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod accept;
mod access_policy;
mod agent_claims;
mod audit_rotation;
mod authorization;
mod authz;
mod config;
mod demo;
mod egress;
mod examples;
mod ext_authz;
mod foreign;
mod hostile;
mod house;
mod http2_upstreams;
mod http_filters;
mod http_routes;
mod import;
mod lifecycle;
mod live_explain;
mod llm;
mod llm_failures;
mod llm_streams;
mod mcp;
mod mcp_arguments;
mod mcp_items;
mod path_modes;
mod plain;
mod plain_timeouts;
mod regressions;
mod through;
mod tls_upstreams;
mod token_keys;
mod token_principals;
mod tokens;

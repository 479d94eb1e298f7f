//! The two pipelines on Pingora: accepted connections become requests, requests become
//! decisions, decisions become upstream exchanges, and everything becomes a record.

mod admin;
mod authorize;
mod body;
mod caller;
mod coding;
mod context;
mod credential;
mod edge;
mod ends;
mod exchange;
mod explain;
mod ext_authz;
mod facts;
mod hbone;
mod headers;
mod jwt;
pub mod limits;
mod listeners;
mod mcp_session;
mod mcp_tasks;
mod pipeline;
mod proxy;
mod record;
mod respond;
mod serve;
mod state;
mod tunnel;
mod wire;

pub use serve::{AdminAddresses, Gateway, GatewayError, Options};

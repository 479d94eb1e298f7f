//! What is done with a request once it is routed.

pub(crate) mod llm;
mod llm_answer;
mod llm_limits;
mod llm_stream;
pub(crate) mod mcp;
mod mcp_answer;
mod mcp_refuse;
mod mcp_scope;
pub(crate) mod plain;
mod stream;

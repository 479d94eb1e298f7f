//! Byte formats strangers send: SSE, JSON-RPC, strict JSON.

pub mod json;
pub mod jsonrpc;
pub mod sse;

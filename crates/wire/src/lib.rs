//! Byte formats strangers send: SSE, JSON-RPC, strict JSON.

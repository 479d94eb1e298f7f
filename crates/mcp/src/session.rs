//! Header names of MCP, and which session ids and names fit into a header.

/// `Mcp-Session-Id`, legacy era only.
pub const SESSION_ID: &str = "mcp-session-id";
/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// `Mcp-Method`, the JSON-RPC method.
pub const METHOD: &str = "mcp-method";
/// `Mcp-Name`, what a named call is about.
pub const NAME: &str = "mcp-name";
/// Prefix of mirrored arguments; unknown ones are forwarded.
pub const PARAM_PREFIX: &str = "mcp-param-";
/// `Last-Event-ID`, for resumed streams of the legacy era.
pub const LAST_EVENT_ID: &str = "last-event-id";

/// Longest session id we accept from an upstream or a caller, in bytes.
pub const MAX_ID_BYTES: usize = 2048;

/// Whether bytes may be a session id: visible ASCII, neither empty nor over [`MAX_ID_BYTES`].
///
/// Source: MCP 2025-11-25, Transports, "Session Management".
#[must_use]
pub fn is_valid_id(id: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

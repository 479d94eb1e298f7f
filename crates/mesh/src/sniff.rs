//! Tells HTTP/1 from HTTP/2 on a connection that did not negotiate it.

use std::io;

use crate::io::Io;

/// The HTTP version a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, negotiated by ALPN or opened with prior knowledge.
    Http2,
}

/// The client connection preface (RFC 9113 §3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the first bytes can only be one of the two versions; keeps what was read.
///
/// Stops at the first byte that differs from the preface, so that a short HTTP/1.0 request is
/// never waited upon. The caller sets the deadline.
///
/// # Errors
/// The connection's own error, or `UnexpectedEof` when it ends before it said anything.
pub async fn http_version(io: &mut Io) -> io::Result<HttpVersion> {
    loop {
        let seen = io.fill_prefix().await?;
        let length = seen.len().min(H2_PREFACE.len());
        if seen[..length] != H2_PREFACE[..length] {
            return Ok(HttpVersion::Http1);
        }
        if length == H2_PREFACE.len() {
            return Ok(HttpVersion::Http2);
        }
    }
}

//! Headers that repeat the body: reading them, and checking that they agree.
//!
//! Source: MCP 2026-07-28, Streamable HTTP, "Request Metadata".

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    era::Era,
    head::{Head, Header},
    refusal::{McpRefusal, mismatch},
};

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// The text of a header value without surrounding whitespace.
///
/// Fails if it came more than once or holds anything but visible ASCII, space and tab.
pub(crate) fn text(header: Header<'_>) -> Result<Option<&str>, ()> {
    let value = match header {
        Header::Absent => return Ok(None),
        Header::One(value) => value.trim_ascii(),
        Header::Many => return Err(()),
    };
    if !value
        .iter()
        .all(|&byte| matches!(byte, b'\t' | b' '..=b'~'))
    {
        return Err(());
    }
    std::str::from_utf8(value).map(Some).map_err(|_| ())
}

/// What an `Mcp-Name` or `Mcp-Param-*` value stands for.
///
/// `=?base64?…?=`, in exactly this case, holds the standard Base64 of UTF-8
/// text; every other value is itself. `None` if the Base64 or the text in it
/// is invalid.
#[must_use]
pub fn decode_name(value: &str) -> Option<Cow<'_, str>> {
    let encoded = value
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    let Some(encoded) = encoded else {
        return Some(Cow::Borrowed(value));
    };
    let bytes = BASE64_STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The header value that stands for `name`: itself where that is safe, else its Base64 form.
#[must_use]
pub fn encode_name(name: &str) -> Cow<'_, str> {
    let bytes = name.as_bytes();
    let visible = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let padded = name.starts_with(' ') || name.ends_with(' ');
    let marked = name.starts_with(PREFIX) && name.ends_with(SUFFIX);
    if visible && !padded && !marked {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("{PREFIX}{}{SUFFIX}", BASE64_STANDARD.encode(name)))
}

/// Checks `Mcp-Method` against the method of the body.
///
/// A modern request must have it. Elsewhere it is optional, but one that says
/// something else is refused: nothing behind the gateway may route by a name
/// that was not decided on.
pub(crate) fn check_method(
    head: &Head<'_>,
    method: Option<&str>,
    required: bool,
) -> Result<(), McpRefusal> {
    let header = text(head.method).map_err(|()| mismatch("Mcp-Method"))?;
    match header {
        None if required => Err(mismatch("Mcp-Method")),
        None => Ok(()),
        Some(_) if header == method => Ok(()),
        Some(_) => Err(mismatch("Mcp-Method")),
    }
}

/// Checks `Mcp-Name` against what the body names.
pub(crate) fn check_name(head: &Head<'_>, era: Era, name: Option<&str>) -> Result<(), McpRefusal> {
    let header = text(head.name).map_err(|()| mismatch("Mcp-Name"))?;
    match (header, name) {
        (None, None) => Ok(()),
        (None, Some(_)) if era == Era::Legacy => Ok(()),
        (Some(value), Some(name)) if decode_name(value).as_deref() == Some(name) => Ok(()),
        _ => Err(mismatch("Mcp-Name")),
    }
}

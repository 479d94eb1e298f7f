//! The request headers that matter to MCP, as they came.

use waypoint_policy::{Code, Refusal};

/// One header field of a request: how often it came, and what it said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Header<'a> {
    /// Not there.
    #[default]
    Absent,
    /// There once.
    One(&'a [u8]),
    /// There more than once; recipients differ on which one counts.
    Many,
}

impl<'a> Header<'a> {
    /// Collects all values of one field name.
    pub fn of(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Many,
        }
    }
}

/// The headers that repeat what the body says, and the session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Header<'a>,
    /// `Mcp-Method`.
    pub method: Header<'a>,
    /// `Mcp-Name`.
    pub name: Header<'a>,
    /// `Mcp-Session-Id`.
    pub session: Header<'a>,
}

/// Accepts exactly one `application/json`, at most with `charset=utf-8`, and no content coding.
///
/// Some servers decode a body by its `charset` (UTF-7 hides a second tool name
/// in plain ASCII) or its coding, so anything else could be read differently
/// behind the gateway. Forward plain `application/json`.
///
/// # Errors
/// [`Code::MediaType`], status 415.
pub fn check_media(content_type: Header<'_>, content_encoding: Header<'_>) -> Result<(), Refusal> {
    let identity = match content_encoding {
        Header::Absent => true,
        Header::One(coding) => coding.trim_ascii().eq_ignore_ascii_case(b"identity"),
        Header::Many => false,
    };
    let json = matches!(content_type, Header::One(value) if is_json(value));
    if identity && json {
        Ok(())
    } else {
        Err(Refusal::new(Code::MediaType))
    }
}

fn is_json(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b';');
    let essence = parts.next().unwrap_or_default().trim_ascii();
    if !essence.eq_ignore_ascii_case(b"application/json") {
        return false;
    }
    let mut charsets = 0;
    for parameter in parts.map(<[u8]>::trim_ascii) {
        if parameter.is_empty() {
            continue;
        }
        charsets += 1;
        let utf8 = parameter.eq_ignore_ascii_case(b"charset=utf-8")
            || parameter.eq_ignore_ascii_case(b"charset=\"utf-8\"");
        if !utf8 || charsets > 1 {
            return false;
        }
    }
    true
}

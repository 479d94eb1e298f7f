//! The form of a path that routes and policies look at.

use std::borrow::Cow;

/// Why a path is not one we route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("path does not begin with /")]
    NotAbsolute,
    /// `%` without two hex digits.
    #[error("percent sign without two hex digits")]
    BadEscape,
    /// Something that servers read in different ways: a control character, space, `#`, `?` or `\`,
    /// an escaped `/`, `\` or control character, or a dot segment with parameters (`/..;/`).
    #[error("path holds something that servers read in different ways")]
    Ambiguous,
    /// `..` above the root.
    #[error("path climbs above the root")]
    AboveRoot,
}

/// The normal form of a request path (without query): RFC 3986 §6.2.2, and slashes merged.
///
/// Escapes of unreserved characters are decoded, other escapes get upper-case digits, bytes
/// outside ASCII are escaped, `.` and `..` segments are removed. Two paths that a server could take for the same resource should
/// come out equal, or not at all; hence bytes that servers disagree on are refused.
///
/// # Errors
/// [`PathError`] says what is refused and why.
pub fn normalize_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(path)? {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            _ if has_parameters(segment) => return Err(PathError::Ambiguous),
            ".." => match out.rfind('/') {
                Some(at) => out.truncate(at),
                None => return Err(PathError::AboveRoot),
            },
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
        if last && matches!(segment, "" | "." | "..") {
            out.push('/');
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(Cow::Owned(out))
}

/// Whether a decoded segment is `.` or `..` with parameters, whose `;` may be escaped.
fn has_parameters(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or(segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

/// Whether nothing needs to change; the common case, without allocation.
fn is_normal(path: &str) -> Result<bool, PathError> {
    let bytes = path.as_bytes();
    let mut normal = true;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => normal = false,
            b'\\' | b'#' | b'?' | 0..=0x20 | 0x7f => return Err(PathError::Ambiguous),
            0x80.. => normal = false,
            b'/' => match bytes.get(at + 1) {
                Some(b'/') => normal = false,
                Some(b'.') => {
                    let rest = bytes.get(at + 2..).unwrap_or_default();
                    let rest = rest.strip_prefix(b".").unwrap_or(rest);
                    if rest.starts_with(b";") {
                        return Err(PathError::Ambiguous);
                    }
                    normal &= !(rest.is_empty() || rest.starts_with(b"/"));
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(normal)
}

fn decode(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or(PathError::BadEscape)?;
                let low = bytes.next().and_then(hex).ok_or(PathError::BadEscape)?;
                let byte = high << 4 | low;
                match byte {
                    0..=0x1f | 0x7f | b'/' | b'\\' => return Err(PathError::Ambiguous),
                    b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                    _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
                    _ => escape(&mut out, byte),
                }
            }
            0x80.. => escape(&mut out, byte),
            _ => out.push(char::from(byte)),
        }
    }
    Ok(out)
}

fn escape(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 0xf] {
        out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! The form of a path that routes and policies look at, and that is forwarded.

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
    /// A control character, also an escaped one, a space, `#`, `?`, or, where nothing may be
    /// changed, a byte outside ASCII.
    #[error("path holds a character that no path may hold")]
    Forbidden,
    /// Something that servers read in different ways: a `\`, an escaped `/` or `\`, or a dot
    /// segment with parameters (`/..;/`).
    #[error("path holds something that servers read in different ways")]
    Ambiguous,
}

/// What is made of a request's path before it is matched and forwarded (Istio, `MeshConfig`,
/// `pathNormalization`).
///
/// Control characters, fragments and broken escapes are refused in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathNormalization {
    /// Nothing: what is not refused stays as it is.
    None,
    /// RFC 3986 §6.2.2: escapes of unreserved characters are decoded, other escapes get upper-case
    /// digits, dot segments go. `\` becomes `/`, bytes outside ASCII are escaped.
    #[default]
    Base,
    /// `Base`, and slashes that follow each other are one.
    MergeSlashes,
    /// Escaped `/` and `\` become `/`, then `MergeSlashes`.
    DecodeAndMergeSlashes,
}

impl PathNormalization {
    /// Its name in the mesh configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Base => "BASE",
            Self::MergeSlashes => "MERGE_SLASHES",
            Self::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        }
    }

    /// The form of a path (without query); borrowed when it is in that form already.
    ///
    /// # Errors
    /// [`PathError`] says what is refused and why.
    pub fn normalize(self, path: &str) -> Result<Cow<'_, str>, PathError> {
        if !path.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if self.is_normal(path)? {
            return Ok(Cow::Borrowed(path));
        }
        let mut path = remove_dots(&self.decode(path));
        if self.merges() {
            let mut after_slash = false;
            path.retain(|c| {
                let again = after_slash && c == '/';
                after_slash = c == '/';
                !again
            });
        }
        Ok(Cow::Owned(path))
    }

    fn merges(self) -> bool {
        matches!(self, Self::MergeSlashes | Self::DecodeAndMergeSlashes)
    }

    /// Whether nothing needs to change; the common case, without allocation. Every refusal is here.
    fn is_normal(self, path: &str) -> Result<bool, PathError> {
        let mut normal = true;
        let mut rest = path.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                0..=0x20 | 0x7f | b'#' | b'?' => return Err(PathError::Forbidden),
                0x80.. if self == Self::None => return Err(PathError::Forbidden),
                b'\\' | 0x80.. => normal = false,
                b'%' => {
                    let digits = after.split_at_checked(2).ok_or(PathError::BadEscape)?;
                    let (&[high, low], after) = digits else {
                        return Err(PathError::BadEscape);
                    };
                    let byte = unescaped(high, low).ok_or(PathError::BadEscape)?;
                    if byte.is_ascii_control() {
                        return Err(PathError::Forbidden);
                    }
                    let is_kept = self.unescapes(byte).is_none()
                        && !high.is_ascii_lowercase()
                        && !low.is_ascii_lowercase();
                    normal &= is_kept;
                    rest = after;
                }
                b'/' if after.starts_with(b"/") => normal &= !self.merges(),
                b'/' => {
                    let dots = after.strip_prefix(b".");
                    let dots = dots.map(|rest| rest.strip_prefix(b".").unwrap_or(rest));
                    normal &= dots.is_none_or(|rest| !rest.is_empty() && !rest.starts_with(b"/"));
                }
                _ => {}
            }
        }
        Ok(normal || self == Self::None)
    }

    /// What the escape of a byte is replaced with, if it does not stay one.
    fn unescapes(self, byte: u8) -> Option<char> {
        match byte {
            b'/' | b'\\' => (self == Self::DecodeAndMergeSlashes).then_some('/'),
            b'-' | b'.' | b'_' | b'~' => Some(char::from(byte)),
            _ => byte.is_ascii_alphanumeric().then(|| char::from(byte)),
        }
    }

    /// All but dot segments and slashes; the path has been looked through by [`Self::is_normal`].
    fn decode(self, path: &str) -> String {
        let mut out = String::with_capacity(path.len());
        let mut bytes = path.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'%' => {
                    let digits = bytes.next().zip(bytes.next());
                    if let Some(byte) = digits.and_then(|(high, low)| unescaped(high, low)) {
                        match self.unescapes(byte) {
                            Some(plain) => out.push(plain),
                            None => escape(&mut out, byte),
                        }
                    }
                }
                b'\\' => out.push('/'),
                0x80.. => escape(&mut out, byte),
                _ => out.push(char::from(byte)),
            }
        }
        out
    }
}

/// RFC 3986 §5.2.4.
fn remove_dots(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            out.truncate(out.rfind('/').unwrap_or(0));
        }
        match segment {
            "." | ".." if segments.peek().is_some() => {}
            "." | ".." => out.push('/'),
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
    }
    out
}

/// The form that paths in our own configuration have, and those of requests to models and tools,
/// in every [`PathNormalization`]: `MergeSlashes`, without what servers read in different ways.
///
/// # Errors
/// [`PathError`] says what is refused and why.
pub fn normalize_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    let normal = PathNormalization::MergeSlashes.normalize(path)?;
    // Without one of these nothing below can be; few paths have any.
    let may_be_ambiguous = |byte| matches!(byte, b'%' | b';' | b'\\');
    if !path.bytes().any(may_be_ambiguous) {
        return Ok(normal);
    }
    let has_parameters = |segment: &str| {
        let rest = segment.strip_prefix('.');
        let rest = rest.map(|rest| rest.strip_prefix('.').unwrap_or(rest));
        rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
    };
    let is_ambiguous = path.contains('\\')
        || normal.contains("%2F")
        || normal.contains("%5C")
        || normal.split('/').any(has_parameters);
    match is_ambiguous {
        true => Err(PathError::Ambiguous),
        false => Ok(normal),
    }
}

fn escape(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 0xf] {
        out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
    }
}

fn unescaped(high: u8, low: u8) -> Option<u8> {
    Some(hex(high)? << 4 | hex(low)?)
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

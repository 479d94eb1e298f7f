//! Paths with `{*}` and `{**}` (Envoy's URI template matching).

use std::fmt;

/// Why a path is not a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{**}` is followed by another operator.
    #[error("{{**}} must be the last operator")]
    AfterGlob,
    /// A segment holds an operator and something else.
    #[error("{{*}} and {{**}} must be a whole segment")]
    PartOfSegment,
    /// `*`, `{` or `}` stands for itself, which a template cannot say.
    #[error("'*', '{{' and '}}' stand only in {{*}} and {{**}}")]
    Literal,
    /// It does not begin with a slash.
    #[error("a path template begins with '/'")]
    NotAPath,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// `{*}`: one segment.
    One,
    /// `{**}`: any number of them, also none.
    Rest,
}

/// A path in which `{*}` is one segment and `{**}` any number of them.
///
/// `{*}` is one or more of `[A-Za-z0-9-._~%!$&'()+,;:@=]`, `{**}` zero or more of these and `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    text: Box<str>,
    segments: Vec<Segment>,
}

fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

impl PathTemplate {
    /// Whether a path is written as a template rather than as text.
    #[must_use]
    pub fn is_one(path: &str) -> bool {
        path.contains("{*}") || path.contains("{**}")
    }

    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] says what Istio's admission would refuse.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let rest = text.strip_prefix('/').ok_or(TemplateError::NotAPath)?;
        let mut segments = Vec::new();
        for part in rest.split('/') {
            let segment = match part {
                "{*}" => Segment::One,
                "{**}" => Segment::Rest,
                part if part.contains("{*}") || part.contains("{**}") => {
                    return Err(TemplateError::PartOfSegment);
                }
                part if part.contains(['*', '{', '}']) => return Err(TemplateError::Literal),
                part => Segment::Literal(part.into()),
            };
            let is_operator = matches!(segment, Segment::One | Segment::Rest);
            if is_operator && segments.contains(&Segment::Rest) {
                return Err(TemplateError::AfterGlob);
            }
            segments.push(segment);
        }
        Ok(Self {
            text: text.into(),
            segments,
        })
    }

    /// The text before the first operator.
    pub(super) fn literal_prefix(&self) -> &str {
        self.text
            .find('{')
            .and_then(|at| self.text.get(..at))
            .unwrap_or(&self.text)
    }

    /// Whether the whole of a path matches. Linear in its length.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some((b'/', rest)) = path.split_first().map(|(first, rest)| (*first, rest)) else {
            return false;
        };
        let glob = self.segments.iter().position(|s| *s == Segment::Rest);
        let Some(glob) = glob else {
            let mut parts = rest.split(|byte| *byte == b'/');
            return self.segments.iter().all(|s| s.matches(parts.next())) && parts.next().is_none();
        };
        // Before the glob segment by segment; behind it only literals, which must be the end.
        let (before, behind) = self.segments.split_at(glob);
        let mut rest = rest;
        for segment in before {
            let end = rest.iter().position(|byte| *byte == b'/');
            let Some(end) = end else { return false };
            if !segment.matches(rest.get(..end)) {
                return false;
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        for segment in behind.iter().skip(1).rev() {
            let Segment::Literal(literal) = segment else {
                return false;
            };
            let shorter = rest.strip_suffix(literal.as_bytes());
            let Some(shorter) = shorter.and_then(|rest| rest.strip_suffix(b"/")) else {
                return false;
            };
            rest = shorter;
        }
        rest.iter()
            .all(|byte| is_segment_byte(*byte) || *byte == b'/')
    }
}

impl Segment {
    fn matches(&self, part: Option<&[u8]>) -> bool {
        match (self, part) {
            (Self::Literal(literal), Some(part)) => literal.as_bytes() == part,
            (Self::One, Some(part)) => {
                !part.is_empty() && part.iter().all(|byte| is_segment_byte(*byte))
            }
            _ => false,
        }
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching() {
        for (template, path, expected) in [
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/", false),
            ("/a/{*}", "/a", false),
            ("/a/{*}", "/a/b/c", false),
            ("/a/{*}/c", "/a/b/c", true),
            ("/a/{*}/c", "/a//c", false),
            ("/{*}", "/", false),
            ("/{**}", "/", true),
            ("/{**}", "/a/b/", true),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a", false),
            ("/a/{**}", "/ab", false),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/foo/{**}/", "/foo/", false),
            ("/foo/{**}/x.js", "/foo/a/b/x.js", true),
            ("/foo/{**}/x.js", "/foo/x.js", false),
            ("/{*}/{**}", "/a/b", true),
            ("/{*}/{**}", "/a", false),
            ("/a/{*}", "/a/b c", false),
            ("/a/{*}", "/a/b\"", false),
            ("/a/{*}", "/a/%20~:@=", true),
            ("/A/{*}", "/a/b", false),
        ] {
            let compiled = PathTemplate::new(template).unwrap();
            assert_eq!(
                compiled.matches(path.as_bytes()),
                expected,
                "{template} {path}"
            );
            assert_eq!(compiled.to_string(), template);
        }
    }

    #[test]
    fn what_admission_refuses() {
        for (template, error) in [
            ("/{**}/{*}", TemplateError::AfterGlob),
            ("/{**}/a/{**}", TemplateError::AfterGlob),
            ("/a{*}", TemplateError::PartOfSegment),
            ("/{*}.js", TemplateError::PartOfSegment),
            ("/{**}a/b", TemplateError::PartOfSegment),
            ("/{*}/*", TemplateError::Literal),
            ("/{*}/{id}", TemplateError::Literal),
            ("{*}", TemplateError::NotAPath),
        ] {
            assert_eq!(PathTemplate::new(template), Err(error), "{template}");
        }
        assert!(PathTemplate::is_one("/a/{*}"));
        assert!(!PathTemplate::is_one("/a/{id}/*"));
    }
}

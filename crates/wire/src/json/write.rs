//! Objects written member by member, into bytes that are there already.

use super::text;

/// Writes one object; dropped before [`end`](Self::end), it leaves the object open.
///
/// ```
/// use waypoint_wire::json::ObjectWriter;
///
/// let mut line = Vec::new();
/// let mut object = ObjectWriter::begin(&mut line);
/// object.text("model", "gpt-4o \"mini\"");
/// object.object("tokens", |tokens| tokens.number("input", 7));
/// object.end();
/// assert_eq!(line, br#"{"model":"gpt-4o \"mini\"","tokens":{"input":7}}"#);
/// ```
#[derive(Debug)]
pub struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    has_members: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Opens an object at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            has_members: false,
        }
    }

    /// Writes the key of a member whose value is written to what this gives.
    ///
    /// Keys are the program's own, and need no escapes.
    #[inline(always)]
    pub fn member(&mut self, key: &'static str) -> &mut Vec<u8> {
        let before: &[u8] = if self.has_members { b",\"" } else { b"\"" };
        self.has_members = true;
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A member that is a string.
    #[inline(always)]
    pub fn text(&mut self, key: &'static str, value: &str) {
        push_string(self.member(key), value);
    }

    /// A member that is a whole number.
    #[inline(always)]
    pub fn number(&mut self, key: &'static str, value: u64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        self.member(key).extend_from_slice(digits);
    }

    /// A member that is `null`.
    #[inline(always)]
    pub fn null(&mut self, key: &'static str) {
        self.member(key).extend_from_slice(b"null");
    }

    /// A member that is a string, or `null`.
    #[inline(always)]
    pub fn text_or_null(&mut self, key: &'static str, value: Option<&str>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.null(key),
        }
    }

    /// A member that is a whole number, or `null`.
    #[inline(always)]
    pub fn number_or_null(&mut self, key: &'static str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.null(key),
        }
    }

    /// A member that is an object.
    #[inline(always)]
    pub fn object(&mut self, key: &'static str, write: impl FnOnce(&mut ObjectWriter<'_>)) {
        let mut inner = ObjectWriter::begin(self.member(key));
        write(&mut inner);
        inner.end();
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes text as a JSON string: quotes, backslashes and control characters escaped (RFC 8259 §7).
pub fn push_string(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut written = 0;
    while let Some(special) = text::special_from(bytes, written) {
        out.extend_from_slice(bytes.get(written..special).unwrap_or_default());
        written = special + 1;
        match bytes.get(special) {
            Some(b'"') => out.extend_from_slice(br#"\""#),
            Some(b'\\') => out.extend_from_slice(br"\\"),
            Some(b'\n') => out.extend_from_slice(br"\n"),
            Some(b'\r') => out.extend_from_slice(br"\r"),
            Some(b'\t') => out.extend_from_slice(br"\t"),
            Some(8) => out.extend_from_slice(br"\b"),
            Some(12) => out.extend_from_slice(br"\f"),
            Some(&control) => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digit = |number: u8| HEX[usize::from(number & 15)];
                let digits = [digit(control >> 4), digit(control)];
                out.extend_from_slice(br"\u00");
                out.extend_from_slice(&digits);
            }
            None => break,
        }
    }
    out.extend_from_slice(bytes.get(written..).unwrap_or_default());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_are_those_of_serde_json(text in r#"([ -~]{0,20}("|\\\\|\n|\t|\x00|\x1f|\x7f|é|😀){0,3}){0,4}"#) {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn members_of_all_kinds() {
        let mut out = b"x".to_vec();
        let mut object = ObjectWriter::begin(&mut out);
        object.object("empty", |_| {});
        object.number_or_null("most", Some(u64::MAX));
        object.number_or_null("none", None);
        object.text_or_null("text", Some("a\"b"));
        object.text_or_null("nothing", None);
        object.member("raw").extend_from_slice(b"[1]");
        object.end();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"x{"empty":{},"most":18446744073709551615,"none":null,"text":"a\"b","nothing":null,"raw":[1]}"#
        );
    }
}

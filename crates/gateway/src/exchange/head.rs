//! The head of an upstream request: written once, as HTTP/1.1 has it.

use std::ops::Range;

use http::{HeaderName, Method};
use pingora_http::RequestHeader;

use super::ExchangeError;

/// Room for the head of an SDK's request, so that it rarely has to grow. Unit: bytes.
const USUAL_BYTES: usize = 768;

/// A request line and fields that hold no line break but their own.
///
/// It owns its bytes, because it is sent while the caller's request is also read from; what is
/// pushed is not looked up, so a name that is pushed twice is sent twice.
#[derive(Debug)]
pub(crate) struct RequestHead {
    method: Method,
    target: Range<usize>,
    /// Everything but the empty line at the end.
    bytes: Vec<u8>,
}

/// Whether all bytes are as they should be; without a way out in between, many are looked at at
/// once.
fn all(bytes: &[u8], legal: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & legal(*byte))
}

impl RequestHead {
    /// A request line (RFC 9112 §3) without fields.
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for a target with bytes that no target has.
    pub(crate) fn new(method: Method, target: &str) -> Result<Self, ExchangeError> {
        if target.is_empty() || !all(target.as_bytes(), |byte| byte.is_ascii_graphic()) {
            return Err(ExchangeError::Malformed);
        }
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.extend_from_slice(method.as_str().as_bytes());
        bytes.push(b' ');
        let start = bytes.len();
        bytes.extend_from_slice(target.as_bytes());
        let target = start..bytes.len();
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(Self {
            method,
            target,
            bytes,
        })
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Adds a field.
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for bytes that no field value has (RFC 9110 §5.5).
    pub(crate) fn push(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), ExchangeError> {
        self.push_parts(name, &[value])
    }

    /// Adds a field whose value is these parts, one behind the other.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(crate) fn push_parts(
        &mut self,
        name: &HeaderName,
        parts: &[&[u8]],
    ) -> Result<(), ExchangeError> {
        let legal = |byte: u8| (byte == b'\t') | ((byte >= b' ') & (byte != 0x7f));
        if !parts.iter().all(|part| all(part, legal)) {
            return Err(ExchangeError::Malformed);
        }
        self.bytes.extend_from_slice(name.as_str().as_bytes());
        self.bytes.extend_from_slice(b": ");
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The head as HTTP/1.1 sends it, without the empty line that ends it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The head as HTTP/2 is given it.
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for a head with more fields than a map can hold.
    pub(crate) fn to_http2(&self) -> Result<RequestHeader, ExchangeError> {
        let malformed = |_| ExchangeError::Malformed;
        let target = self.bytes.get(self.target.clone()).unwrap_or_default();
        let mut head = RequestHeader::build_no_case(self.method.clone(), target, Some(16))
            .map_err(malformed)?;
        for (name, value) in self.fields() {
            let name = HeaderName::from_bytes(name).map_err(|_| ExchangeError::Malformed)?;
            head.append_header(name, value).map_err(malformed)?;
        }
        Ok(head)
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.bytes.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line.get(colon + 2..)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn head() -> RequestHead {
        let mut head = RequestHead::new(Method::POST, "/v1/messages?beta=true").unwrap();
        head.push(&header::HOST, b"api.example:8443").unwrap();
        head.push_parts(&header::AUTHORIZATION, &[b"Bearer ", b"k: e\ty"])
            .unwrap();
        head.push(&header::ACCEPT, b"").unwrap();
        head.push(&header::ACCEPT, b"\xffb").unwrap();
        head
    }

    #[test]
    fn as_http1() {
        assert_eq!(
            head().as_bytes(),
            b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: api.example:8443\r\n\
              authorization: Bearer k: e\ty\r\naccept: \r\naccept: \xffb\r\n"
        );
    }

    #[test]
    fn as_http2() {
        let head = head().to_http2().unwrap();
        assert_eq!(head.method, Method::POST);
        assert_eq!(head.raw_path(), b"/v1/messages?beta=true");
        assert_eq!(head.headers.len(), 4);
        assert_eq!(head.headers["host"], "api.example:8443");
        assert_eq!(head.headers["authorization"], "Bearer k: e\ty");
        let accept: Vec<_> = head.headers.get_all("accept").iter().collect();
        assert_eq!(accept, [&b""[..], b"\xffb"]);
    }

    #[test]
    fn nothing_can_break_out_of_its_line() {
        for target in ["", "/a b", "/a\r\nx: y", "/a\0", "/\u{e9}", "/a\u{7f}"] {
            assert!(RequestHead::new(Method::GET, target).is_err(), "{target:?}");
        }
        for value in [&b"a\r\nb: c"[..], b"a\nb", b"a\rb", b"\0", b"\x7f"] {
            let mut head = head();
            let before = head.as_bytes().to_vec();
            assert!(head.push(&header::ACCEPT, value).is_err(), "{value:?}");
            let split = head.push_parts(&header::ACCEPT, &[b"fine", value]);
            assert!(split.is_err(), "{value:?}");
            assert_eq!(head.as_bytes(), before);
        }
    }
}

//! What every request must satisfy before it is routed.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header;
use pingora_core::protocols::http::ServerSession;
use waypoint_config::{PathNormalization, normalize_path};
use waypoint_policy::{Code, Refusal};

/// The parts of a request head that routing and policy look at.
#[derive(Debug)]
pub(crate) struct Head {
    /// The method as sent.
    pub(crate) method: Box<str>,
    /// `Host` or `:authority` as sent; empty when there is none (HTTP/1.0).
    pub(crate) authority: Box<str>,
    /// The normalized path, which is also what is forwarded.
    pub(crate) path: Box<str>,
    /// Without `?`; empty when there is none.
    pub(crate) query: Box<str>,
}

fn bad(message: &'static str) -> Refusal {
    Refusal::new(Code::BadRequest).with_message(message)
}

/// A path that has no form, or none that all read alike.
pub(crate) fn unclear() -> Refusal {
    bad("path cannot be normalized")
}

impl Head {
    /// Reads and checks a request head.
    ///
    /// # Errors
    /// A head that two parsers could read differently is refused: both `Content-Length` and
    /// `Transfer-Encoding` (RFC 9112 §6.1), several `Host` fields or none (RFC 9112 §3.2), a
    /// target that names another host than `Host`, a fragment, a path that does not normalize.
    pub(crate) fn read(
        session: &ServerSession,
        limit_bytes: usize,
        form: PathNormalization,
    ) -> Result<Self, Refusal> {
        let request = session.req_header();
        if let Some(http1) = session.as_http1() {
            let raw = http1.get_headers_raw_bytes();
            if raw.len() > limit_bytes {
                return Err(Refusal::new(Code::HeadersTooLarge));
            }
            // The parser has dropped the fragment, and what it left is not what was asked for.
            if has_fragment(&raw) {
                return Err(bad("request target has a fragment"));
            }
            // The parser has dropped Content-Length by now, so only the raw head tells.
            if request.headers.contains_key(header::TRANSFER_ENCODING)
                && has_field(&raw, b"content-length")
            {
                return Err(bad("both content-length and transfer-encoding"));
            }
            // Other codings are ignored by the parser, and by others are not (RFC 9112 §6.1).
            let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
            match (codings.next(), codings.next()) {
                (None, _) => {}
                (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
                _ => return Err(bad("transfer-encoding is not chunked alone")),
            }
        }
        if session.is_http2() {
            let size: usize = request
                .headers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            if size + request.raw_path().len() > limit_bytes {
                return Err(Refusal::new(Code::HeadersTooLarge));
            }
        }
        if names_what_we_read(&request.headers) {
            return Err(bad(
                "the connection field names a field that may not be dropped",
            ));
        }
        if request
            .headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .count()
            > 1
        {
            return Err(bad("several content-length fields"));
        }
        let mut hosts = request.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Err(bad("several host fields")),
            (Some(host), None) => Some(host.to_str().map_err(|_| bad("host is not text"))?),
            (None, None) => None,
        };
        let target = request.uri.authority().map(http::uri::Authority::as_str);
        let authority = match (host, target) {
            (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target) => {
                return Err(bad("host and request target differ"));
            }
            (Some(host), _) => host,
            (None, Some(target)) => target,
            (None, None) if request.version == http::Version::HTTP_10 => "",
            (None, None) => return Err(bad("no host field")),
        };
        if !is_authority(authority) {
            return Err(bad("host is malformed"));
        }
        let raw_path = request.raw_path();
        let raw_path = std::str::from_utf8(raw_path).map_err(|_| bad("path is not text"))?;
        // Origin form, absolute form, or `*`.
        let rest = match raw_path.starts_with('/') {
            true => None,
            false => raw_path.split_once("://").map(|(_, rest)| rest),
        };
        let raw_path = match rest {
            Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => raw_path,
        };
        let (path, query) = raw_path.split_once('?').unwrap_or((raw_path, ""));
        if !path.starts_with('/') {
            return Err(bad("request target is not a path"));
        }
        let path: Cow<'_, str> = form.normalize(path).map_err(|_| unclear())?;
        Ok(Self {
            method: request.method.as_str().into(),
            authority: authority.into(),
            path: path.into(),
            query: query.into(),
        })
    }

    /// Refuses a path that a model or tool provider could read as another, whatever the mesh
    /// makes of plain ones: it is the route that decides where these go, and the path is made anew.
    ///
    /// # Errors
    /// [`Code::BadRequest`].
    pub(crate) fn check_path(&self) -> Result<(), Refusal> {
        match normalize_path(&self.path) {
            Ok(normal) if *normal == *self.path => Ok(()),
            _ => Err(unclear()),
        }
    }

    /// The host without its port, as sent.
    pub(crate) fn host(&self) -> &str {
        host_of(&self.authority)
    }
}

/// Whether the target in a raw HTTP/1 head has a fragment (RFC 9112 §3.2 has none).
fn has_fragment(raw: &[u8]) -> bool {
    let mut lines = raw.split(|byte| *byte == b'\n');
    let line = lines.find(|line| !line.trim_ascii().is_empty());
    let mut parts = line.unwrap_or_default().split(|byte| *byte == b' ');
    parts.nth(1).is_some_and(|target| target.contains(&b'#'))
}

/// Whether a raw HTTP/1 head has a field of this (lower-case) name.
fn has_field(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n').any(|line| {
        line.split(|byte| *byte == b':')
            .next()
            .is_some_and(|field| {
                field.trim_ascii().eq_ignore_ascii_case(name) && line.contains(&b':')
            })
    })
}

/// Whether `Connection` names a field that we decide by: it would be gone for the upstream, which
/// then reads another request than we did.
fn names_what_we_read(headers: &header::HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.any(|name| {
        let name = name.trim_ascii().to_ascii_lowercase();
        name.starts_with(b"mcp-")
            || name.starts_with(b"anthropic-")
            || matches!(
                &name[..],
                b"host"
                    | b"content-type"
                    | b"content-length"
                    | b"content-encoding"
                    | b"accept"
                    | b"authorization"
                    | b"last-event-id"
            )
    })
}

/// Whether this is `host`, `host:port`, `[v6]` or `[v6]:port` and nothing else; empty is fine.
pub(crate) fn is_authority(authority: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return false;
        };
        let after_ok = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return after_ok && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    is_port(port)
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// The host of an authority, without port and brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether a host name means this machine to a browser.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The host of an `Origin`, when it is an http(s) origin.
fn origin_host(origin: &str) -> Option<&str> {
    let rest = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))?;
    (!rest.is_empty() && !rest.contains('/')).then(|| host_of(rest))
}

/// Defends against pages that a browser was tricked into sending here (DNS rebinding, MCP
/// "Security Warning" of the streamable HTTP transport).
///
/// `accepts` says whether a host is one of ours. A request without `Origin` is not from a page.
///
/// # Errors
/// [`Code::HostNotAllowed`] for a foreign `Host`, and for an `Origin` that is `null`, repeated,
/// or of another host than one of ours.
pub(crate) fn check_origin(
    session: &ServerSession,
    head: &Head,
    accepts: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let refused = || Refusal::new(Code::HostNotAllowed);
    if !accepts(head.host()) {
        return Err(refused());
    }
    let mut origins = session.req_header().headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) => {
            let host = origin
                .to_str()
                .ok()
                .and_then(origin_host)
                .ok_or_else(refused)?;
            if accepts(host) {
                Ok(())
            } else {
                Err(refused())
            }
        }
        (Some(_), Some(_)) => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (authority, host, loopback) in [
            ("localhost:8080", "localhost", true),
            ("LOCALHOST", "LOCALHOST", true),
            ("app.localhost", "app.localhost", true),
            ("127.0.0.1:8080", "127.0.0.1", true),
            ("127.9.9.9", "127.9.9.9", true),
            ("[::1]:8080", "::1", true),
            ("evil.example:80", "evil.example", false),
            ("localhost.evil.example", "localhost.evil.example", false),
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example", false),
            ("", "", false),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
            assert_eq!(
                is_loopback_host(host_of(authority)),
                loopback,
                "{authority}"
            );
        }
    }

    #[test]
    fn authorities() {
        for (authority, expected) in [
            ("", true),
            ("gateway:8080", true),
            ("a-b.example.", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("[::1]evil.example", false),
            ("[evil.example]", false),
            ("[::1", false),
            ("user@host", false),
            ("a:80:90", false),
            ("a:b", false),
            ("a b", false),
            ("a/b", false),
        ] {
            assert_eq!(is_authority(authority), expected, "{authority}");
        }
    }

    #[test]
    fn origins() {
        for (origin, host) in [
            ("http://localhost:6274", Some("localhost")),
            ("https://evil.example", Some("evil.example")),
            ("http://[::1]:80", Some("::1")),
            ("null", None),
            ("file://", None),
            ("http://", None),
            ("http://localhost/path", None),
        ] {
            assert_eq!(origin_host(origin), host, "{origin}");
        }
    }

    #[test]
    fn fields_are_found_in_raw_heads() {
        let raw = b"POST / HTTP/1.1\r\nhost: a\r\nContent-Length : 3\r\n\r\n";
        assert!(has_field(raw, b"content-length"));
        assert!(!has_field(raw, b"transfer-encoding"));
        assert!(!has_fragment(raw));
        assert!(has_fragment(b"\r\nGET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert!(!has_fragment(b"A# / HTTP/1.1\r\nhost: a#b\r\n\r\n"));
        assert!(!has_field(
            b"POST /content-length HTTP/1.1\r\n\r\n",
            b"content-length"
        ));
    }
}

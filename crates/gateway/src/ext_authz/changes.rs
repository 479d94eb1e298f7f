//! What an authorizer has changed in the heads of a request and of its answer.

use http::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use waypoint_policy::{Code, Refusal};

use crate::headers::is_hop_by_hop;

/// How a header is put where one of its name may be already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// In place of those that are there.
    Set,
    /// Beside them.
    Append,
    /// Only where there is none.
    IfAbsent,
    /// Only in place of those that are there.
    IfPresent,
}

/// Headers that are put, then removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Changes {
    remove: Vec<HeaderName>,
    put: Vec<(HeaderName, HeaderValue, How)>,
}

/// A head whose headers can be changed.
trait Fields {
    fn has(&self, name: &HeaderName) -> bool;
    fn take(&mut self, name: &HeaderName);
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) -> pingora_error::Result<()>;
}

impl Fields for RequestHeader {
    fn has(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }
    fn take(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) -> pingora_error::Result<()> {
        self.append_header(name, value).map(drop)
    }
}

impl Fields for ResponseHeader {
    fn has(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }
    fn take(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) -> pingora_error::Result<()> {
        self.append_header(name, value).map(drop)
    }
}

impl Changes {
    /// Notes a header; those by which a message is framed or routed stay as they are.
    pub(super) fn put(&mut self, name: HeaderName, value: HeaderValue, how: How) {
        if is_changeable(&name) {
            self.put.push((name, value, how));
        }
    }

    /// Notes a header that goes.
    pub(super) fn remove(&mut self, name: HeaderName) {
        if is_changeable(&name) {
            self.remove.push(name);
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.remove.extend(other.remove);
        self.put.extend(other.put);
    }

    /// Changes the head of a request.
    ///
    /// # Errors
    /// [`Code::Internal`] when it has more headers than one can have.
    pub(super) fn apply(&self, head: &mut RequestHeader) -> Result<(), Refusal> {
        self.change(head).map_err(|_| Refusal::new(Code::Internal))
    }

    /// Changes the head of an answer.
    ///
    /// # Errors
    /// Pingora's, when it has more headers than one can have.
    pub(crate) fn apply_answer(&self, head: &mut ResponseHeader) -> pingora_error::Result<()> {
        self.change(head)
    }

    fn change(&self, head: &mut impl Fields) -> pingora_error::Result<()> {
        for (name, value, how) in &self.put {
            match (how, head.has(name)) {
                (How::IfAbsent, true) | (How::IfPresent, false) => continue,
                (How::Set | How::IfPresent, true) => head.take(name),
                _ => {}
            }
            head.add(name, value)?;
        }
        // Last, as Envoy does it: what is both put and removed is not there.
        for name in &self.remove {
            head.take(name);
        }
        Ok(())
    }
}

fn is_changeable(name: &HeaderName) -> bool {
    !is_hop_by_hop(name) && name != http::header::HOST && name != "x-request-id"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_put_then_removed() {
        let mut changes = Changes::default();
        let name = |text: &'static str| HeaderName::from_static(text);
        let value = |text: &'static str| HeaderValue::from_static(text);
        for (key, text, how) in [
            ("a", "new", How::Set),
            ("b", "more", How::Append),
            ("c", "first", How::IfAbsent),
            ("d", "not", How::IfAbsent),
            ("e", "not", How::IfPresent),
            ("f", "new", How::IfPresent),
            ("gone", "again", How::Set),
            ("host", "evil", How::Set),
            ("content-length", "0", How::Set),
            ("transfer-encoding", "chunked", How::Set),
        ] {
            changes.put(name(key), value(text), how);
        }
        changes.remove(name("gone"));
        changes.remove(name("host"));
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        for (key, text) in [
            ("host", "h"),
            ("a", "1"),
            ("a", "2"),
            ("b", "1"),
            ("d", "1"),
            ("f", "1"),
            ("gone", "1"),
            ("content-length", "5"),
        ] {
            head.append_header(key, text).unwrap();
        }
        changes.apply(&mut head).unwrap();
        let mut found: Vec<_> = head
            .headers
            .iter()
            .map(|(k, v)| format!("{k}={}", v.to_str().unwrap()))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "a=new",
                "b=1",
                "b=more",
                "c=first",
                "content-length=5",
                "d=1",
                "f=new",
                "host=h"
            ]
        );
    }
}

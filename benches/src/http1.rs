//! Just enough HTTP/1.1 for both ends of the harness: finds where a message ends.

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

/// Room made for each read.
const READ: usize = 32 * 1024;

#[derive(Debug, Clone, Copy)]
enum Framing {
    /// The head is not whole yet.
    Head,
    Length(usize),
    /// With the place of the next chunk's size line.
    Chunked(usize),
}

/// Collects one message after another from a connection, none of them sent before its turn.
#[derive(Debug)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Length of the head with its blank line.
    head: usize,
    framing: Framing,
    /// Up to where events were counted.
    counted: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(READ),
            head: 0,
            framing: Framing::Head,
            counted: 0,
        }
    }
}

impl Reader {
    /// Where to read to.
    pub fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.reserve(READ);
        &mut self.bytes
    }

    /// Whether a whole message is there.
    ///
    /// # Errors
    /// What no peer of the harness would send, and bytes behind the end.
    pub fn is_whole(&mut self) -> Result<bool> {
        if matches!(self.framing, Framing::Head) {
            let Some(end) = memmem::find(&self.bytes, b"\r\n\r\n") else {
                return Ok(false);
            };
            self.head = end + 4;
            self.counted = self.head;
            self.framing = if let Some(length) = self.header("content-length") {
                Framing::Length(length.parse().context("content-length")?)
            } else if self.header("transfer-encoding").is_some() {
                Framing::Chunked(self.head)
            } else {
                Framing::Length(0)
            };
        }
        let end = match self.framing {
            Framing::Head => return Ok(false),
            Framing::Length(length) => self.head + length,
            Framing::Chunked(mut next) => loop {
                let Some(line) = self
                    .bytes
                    .get(next..)
                    .and_then(|rest| memmem::find(rest, b"\r\n"))
                else {
                    self.framing = Framing::Chunked(next);
                    return Ok(false);
                };
                let size = std::str::from_utf8(&self.bytes[next..next + line])?;
                let size = usize::from_str_radix(size, 16).context("chunk size")?;
                let after = next + line + 2 + size + 2;
                if size == 0 {
                    break after;
                }
                if self.bytes.len() < after {
                    self.framing = Framing::Chunked(next);
                    return Ok(false);
                }
                next = after;
            },
        };
        ensure!(self.bytes.len() <= end, "bytes behind the end of a message");
        Ok(self.bytes.len() == end)
    }

    /// Events of an event stream that arrived since the last call.
    pub fn new_events(&mut self) -> usize {
        if matches!(self.framing, Framing::Head) {
            return 0;
        }
        let mut found = 0;
        while let Some(at) = memmem::find(&self.bytes[self.counted..], b"\n\n") {
            found += 1;
            self.counted += at + 2;
        }
        found
    }

    /// Makes room for the next message.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.head = 0;
        self.framing = Framing::Head;
        self.counted = 0;
    }

    /// A field of the head; names without regard to case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(self.bytes.get(..self.head)?).ok()?;
        head.split("\r\n").skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The request line or status line, from the second word on.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        let line = self.bytes.split(|byte| *byte == b'\r').next();
        line.and_then(|line| line.splitn(2, |byte| *byte == b' ').nth(1))
            .unwrap_or_default()
    }

    /// Everything behind the head, with the marks of chunks.
    #[must_use]
    pub fn raw_body(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// Fails unless the message is an answer of status 200.
    ///
    /// # Errors
    /// With the whole answer.
    pub fn check(&self) -> Result<()> {
        if !self.target().starts_with(b"200") {
            let text = String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(2000)]);
            bail!("refused: {text}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        for (case, message, body) in [
            (
                "length",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                "abc",
            ),
            ("none", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", ""),
            (
                "chunks",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "3\r\nabc\r\n0\r\n\r\n",
            ),
        ] {
            let mut reader = Reader::default();
            for (place, byte) in message.bytes().enumerate() {
                assert!(!reader.is_whole().unwrap(), "{case} at {place}");
                reader.space().push(byte);
            }
            assert!(reader.is_whole().unwrap(), "{case}");
            assert_eq!(reader.raw_body(), body.as_bytes(), "{case}");
            reader.space().push(b'x');
            assert!(reader.is_whole().is_err(), "{case}");
        }
    }

    #[test]
    fn events() {
        let mut reader = Reader::default();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        reader.space().extend_from_slice(head.as_bytes());
        assert!(!reader.is_whole().unwrap());
        reader.space().extend_from_slice(b"9\r\ndata: 1\n\n\r\n");
        assert!(!reader.is_whole().unwrap());
        assert_eq!(reader.new_events(), 1);
        assert_eq!(reader.new_events(), 0);
    }
}

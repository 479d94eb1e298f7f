//! Where the body of an HTTP/1.1 answer ends (RFC 9112 §6.3), whatever pieces it arrives in.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::ExchangeError;

/// Longest chunk-size line with extensions, and longest trailer section, in bytes.
const LINE_MAX_BYTES: usize = 8 * 1024;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Chunks; so many bytes of the current one are left.
    Chunk(u64),
    /// The line break after a chunk's data.
    ChunkEnd,
    /// A chunk-size line.
    ChunkSize,
    /// The trailer section, which is read and dropped; so many bytes of it so far.
    Trailers(usize),
    /// Everything until the connection closes.
    UntilClose,
    /// Nothing is left.
    Done,
}

/// What decoding gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Bytes of the body.
    Data(Bytes),
    /// More bytes are needed.
    Hungry,
    /// The body is complete.
    End,
}

impl Framing {
    /// The framing that an answer's head announces, to a request that was not HEAD.
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for what two readers could understand differently: both
    /// `Transfer-Encoding` and `Content-Length`, codings other than `chunked`, lengths that differ.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Result<Self, ExchangeError> {
        if matches!(status.as_u16(), 204 | 304) {
            return Ok(Self::Done);
        }
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        match (codings.next(), codings.next(), lengths.next()) {
            (None, _, None) => Ok(Self::UntilClose),
            (Some(coding), None, None)
                if coding
                    .as_bytes()
                    .trim_ascii()
                    .eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Self::ChunkSize)
            }
            (None, _, Some(first)) => {
                if lengths.any(|other| other != first) {
                    return Err(ExchangeError::Malformed);
                }
                let digits = first.as_bytes();
                let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
                let length = first
                    .to_str()
                    .ok()
                    .filter(|_| plain)
                    .and_then(|text| text.parse().ok());
                match length {
                    Some(0) => Ok(Self::Done),
                    Some(length) => Ok(Self::Length(length)),
                    None => Err(ExchangeError::Malformed),
                }
            }
            _ => Err(ExchangeError::Malformed),
        }
    }

    /// Takes what it can from the front of `input`.
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for chunks that are none.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Decoded, ExchangeError> {
        loop {
            match self {
                Self::Done => return Ok(Decoded::End),
                _ if input.is_empty() => return Ok(Decoded::Hungry),
                Self::UntilClose => return Ok(Decoded::Data(std::mem::take(input))),
                Self::Length(left) | Self::Chunk(left) => {
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(input.len());
                    *left -= take as u64;
                    let is_over = *left == 0;
                    let data = input.split_to(take);
                    if is_over {
                        *self = match self {
                            Self::Length(_) => Self::Done,
                            _ => Self::ChunkEnd,
                        };
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::ChunkEnd => {
                    // A lone line feed is what some servers send; anything else is not a chunk.
                    let length = match &input[..] {
                        [b'\n', ..] => 1,
                        [b'\r', b'\n', ..] => 2,
                        [b'\r'] => return Ok(Decoded::Hungry),
                        _ => return Err(ExchangeError::Malformed),
                    };
                    let _ = input.split_to(length);
                    *self = Self::ChunkSize;
                }
                // A size needs at least one digit (RFC 9112 §7.1), which httparse does not ask for.
                Self::ChunkSize if !input[0].is_ascii_hexdigit() => {
                    return Err(ExchangeError::Malformed);
                }
                Self::ChunkSize => match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((line, size))) => {
                        let _ = input.split_to(line);
                        *self = if size == 0 {
                            Self::Trailers(0)
                        } else {
                            Self::Chunk(size)
                        };
                    }
                    Ok(httparse::Status::Partial) if input.len() <= LINE_MAX_BYTES => {
                        return Ok(Decoded::Hungry);
                    }
                    _ => return Err(ExchangeError::Malformed),
                },
                Self::Trailers(seen) => {
                    let Some(end) = memchr::memchr(b'\n', input) else {
                        return match input.len() <= LINE_MAX_BYTES {
                            true => Ok(Decoded::Hungry),
                            false => Err(ExchangeError::Malformed),
                        };
                    };
                    let line = input.split_to(end + 1);
                    *seen += line.len();
                    if *seen > LINE_MAX_BYTES {
                        return Err(ExchangeError::Malformed);
                    }
                    if matches!(&line[..], b"\r\n" | b"\n") {
                        *self = Self::Done;
                    }
                }
            }
        }
    }

    /// Whether the connection may close here without the body being cut.
    pub(super) fn may_close(self) -> bool {
        matches!(self, Self::UntilClose | Self::Done)
    }
}

#[cfg(test)]
mod tests;

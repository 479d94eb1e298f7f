//! As much of a request's body as external authorizers may see, and how all of it goes on.
//!
//! An LLM or MCP body is read whole, for its pipeline. Of a plain one the beginning is: Pingora
//! forwards what it kept (64 KiB) and what is still to be read; what stands between is put there by
//! [`forward_body`].

use bytes::{Bytes, BytesMut};
use http::header;
use pingora_core::protocols::http::ServerSession;
use waypoint_config::{CheckedBody, Snapshot};
use waypoint_policy::Refusal;

use crate::body;
use crate::context::Context;

/// What Pingora keeps of a body to send it again.
const KEPT_MAX_BYTES: usize = 64 << 10;
/// The largest piece of an HTTP/2 body (RFC 9113 §6.5.2, `SETTINGS_MAX_FRAME_SIZE`).
const PIECE_MAX_BYTES: usize = 16 << 10;

/// What has been read of a body.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) bytes: Bytes,
    /// Whether this is all of it.
    is_whole: bool,
    /// How the bytes of a plain request go on.
    on: Onward,
}

/// How bytes that were read go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Onward {
    /// Somebody else sees to it.
    Kept,
    /// In place of the piece that Pingora kept, which is the end of them.
    Replacing,
    /// Before the next piece.
    Before,
}

impl Shown {
    /// Reads what the authorizer may see.
    ///
    /// # Errors
    /// As [`body::read`].
    pub(super) async fn read(
        session: &mut ServerSession,
        snapshot: &Snapshot,
        wanted: CheckedBody,
        is_plain: bool,
    ) -> Result<Self, Refusal> {
        let limits = &snapshot.parameters.limits;
        let bound = limits.llm_body_bytes.max(limits.mcp_body_bytes);
        let timeout = limits.body_timeout;
        if !is_plain {
            return Ok(Self {
                bytes: body::read(session, bound, timeout).await?,
                is_whole: true,
                on: Onward::Kept,
            });
        }
        let headers = &session.req_header().headers;
        let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
        let declared = body::declared(session).filter(|_| !is_chunked);
        let limit = wanted
            .max_bytes
            .min(match (declared, wanted.allow_partial) {
                (Some(_), _) => bound,
                // Who knows where it ends has read the end, which only what Pingora kept can follow.
                (None, true) => KEPT_MAX_BYTES - PIECE_MAX_BYTES,
                (None, false) => KEPT_MAX_BYTES,
            });
        if !wanted.allow_partial && declared.is_some_and(|length| length > limit) {
            return Err(body::too_large(limit));
        }
        // Pingora forwards no body of which it kept nothing: of one that is read to its end the last
        // pieces have to be among what it keeps.
        let keep = |session: &mut ServerSession, read: usize| {
            if declared.is_none_or(|length| length.saturating_sub(read) <= KEPT_MAX_BYTES) {
                session.enable_retry_buffering();
            }
        };
        let bytes = body::read_until(session, limit, timeout, keep).await?;
        let kept = session.get_retry_buffer().map_or(0, |kept| kept.len());
        let is_whole = bytes.len() <= limit || session.is_body_done();
        let on = match kept {
            kept if kept == bytes.len() => Onward::Kept,
            0 if is_whole => return Err(body::too_large(KEPT_MAX_BYTES)),
            0 => Onward::Before,
            _ => Onward::Replacing,
        };
        Ok(Self {
            bytes,
            is_whole,
            on,
        })
    }

    /// Whether Pingora can send the body a second time.
    pub(super) fn is_kept(&self) -> bool {
        self.on == Onward::Kept
    }

    /// What one authorizer sees of it, and whether there is more.
    ///
    /// # Errors
    /// [`waypoint_policy::Code::BodyTooLarge`], if there is and it has to see all.
    pub(super) fn part(&self, wanted: CheckedBody) -> Result<(Bytes, bool), Refusal> {
        let is_partial = !self.is_whole || self.bytes.len() > wanted.max_bytes;
        if is_partial && !wanted.allow_partial {
            return Err(body::too_large(wanted.max_bytes.min(self.bytes.len())));
        }
        let length = self.bytes.len().min(wanted.max_bytes);
        Ok((self.bytes.slice(..length), is_partial))
    }
}

/// Puts what authorizers were shown of a plain request's body where it belongs: called with each
/// piece that Pingora forwards.
pub(crate) fn forward_body(context: &mut Context, piece: &mut Option<Bytes>) {
    let Some(checked) = &mut context.checked else {
        return;
    };
    let Some(shown) = checked.shown.take() else {
        return;
    };
    match (shown.on, &*piece) {
        (Onward::Kept, _) => {}
        (Onward::Before, Some(next)) => {
            let mut all = BytesMut::with_capacity(shown.bytes.len() + next.len());
            all.extend_from_slice(&shown.bytes);
            all.extend_from_slice(next);
            *piece = Some(all.freeze());
        }
        (Onward::Replacing, _) | (Onward::Before, None) => *piece = Some(shown.bytes),
    }
}

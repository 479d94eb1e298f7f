//! MCP refusals and answers without a body, written to the caller.

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use waypoint_mcp::{Call, CallKind, Denial, McpRefusal};
use waypoint_policy::{By, Code, Refusal};

use crate::context::Context;
use crate::respond;

/// Denies what a call names.
pub(super) async fn deny(
    session: &mut ServerSession,
    context: &mut Context,
    call: &Call,
    denial: Denial,
    by: Option<By>,
) -> Result<(), Refusal> {
    context.record.allowed = Some(false);
    if by.is_some() {
        context.record.by = by;
    } else {
        context.record.by = Some(By::Transport("unknown task"));
    }
    if call.kind != CallKind::Request {
        // A notification has no answer that could say no.
        context.record.code = Some(Code::ToolDenied);
        return accepted(session, context).await;
    }
    refuse(session, context, McpRefusal::denied(call, denial)).await
}

/// Writes a JSON-RPC refusal.
pub(super) async fn refuse(
    session: &mut ServerSession,
    context: &mut Context,
    refusal: McpRefusal,
) -> Result<(), Refusal> {
    context.record.code = Some(refusal.code);
    context.record.status = refusal.status;
    let internal = |_| Refusal::new(Code::Internal);
    let mut head = respond::head(refusal.status, &context.record.id).map_err(internal)?;
    head.insert_header("content-type", "application/json")
        .map_err(internal)?;
    if let Some(wait) = refusal.retry_after {
        // Whole seconds, rounded up: a client that is too early is refused again.
        let seconds = wait.as_nanos().div_ceil(1_000_000_000);
        head.insert_header("retry-after", seconds.to_string())
            .map_err(internal)?;
    }
    write(session, context, head, refusal.body().into()).await;
    Ok(())
}

/// Answers 202 without a body.
pub(super) async fn accepted(
    session: &mut ServerSession,
    context: &mut Context,
) -> Result<(), Refusal> {
    context.record.status = 202;
    let head = respond::head(202, &context.record.id).map_err(|_| Refusal::new(Code::Internal))?;
    write(session, context, head, Bytes::new()).await;
    Ok(())
}

/// Answers 405.
pub(super) async fn method_not_allowed(
    session: &mut ServerSession,
    context: &mut Context,
    allow: &'static str,
) -> Result<(), Refusal> {
    let refusal = McpRefusal::from(Refusal::new(Code::MethodNotAllowed));
    context.record.code = Some(refusal.code);
    context.record.status = refusal.status;
    let internal = |_| Refusal::new(Code::Internal);
    let mut head = respond::head(refusal.status, &context.record.id).map_err(internal)?;
    head.insert_header("content-type", "application/json")
        .map_err(internal)?;
    head.insert_header("allow", allow).map_err(internal)?;
    write(session, context, head, refusal.body().into()).await;
    Ok(())
}

/// Writes an answer. Boxed, for the futures that may come to refuse seldom do.
async fn write(
    session: &mut ServerSession,
    context: &mut Context,
    head: Box<ResponseHeader>,
    body: Bytes,
) {
    let written = Box::pin(respond::whole(session, head, body)).await;
    context.record.downstream_gone |= written.is_err();
}

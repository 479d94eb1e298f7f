//! MCP answers: passed on as they are, with lists filtered, in JSON and in event streams.

use std::sync::Arc;

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use waypoint_config::McpRoute;
use waypoint_mcp::{
    Call, CallKind, Era, Expected, FilterError, Filtered, McpRefusal, StreamFilter, UnknownIds,
    filter_result, read_answer, refusal_message, session,
};
use waypoint_policy::{Code, Refusal};
use waypoint_wire::jsonrpc::{self, Message};
use waypoint_wire::sse;

use super::llm_answer;
use super::mcp::{Answered, Forward};
use super::mcp_refuse::refuse;
use super::mcp_scope::{Deed, Resolved, Scope};
use super::stream::{Next, Waiter, write};
use crate::coding::Decoder;
use crate::context::Context;
use crate::ends::Ends;
use crate::exchange::{Answer, ExchangeError};
use crate::mcp_tasks::Made;
use crate::proxy::{WRITE_TIMEOUT, Waypoint, interrupted};
use crate::respond;

/// Gives an upstream's answer to the caller.
///
/// # Errors
/// A refusal only before anything has been written.
pub(super) async fn deliver(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &McpRoute,
    forward: Box<Forward>,
    resolved: Resolved,
    answered: Answered,
) -> Result<(), Refusal> {
    let id = forward.call.as_ref().and_then(|call| call.id.clone());
    let is_stream = answered.answer.header("content-type").is_some_and(|media| {
        media
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("text/event-stream")
    });
    let delivered = match is_stream {
        true => {
            Box::pin(stream(
                waypoint, session, context, route, forward, resolved, answered,
            ))
            .await
        }
        false => {
            Box::pin(plain(
                waypoint, session, context, forward, resolved, answered,
            ))
            .await
        }
    };
    let Err(refusal) = delivered else {
        return Ok(());
    };
    let refusal = McpRefusal::from(refusal);
    let refusal = match id {
        Some(id) => refusal.with_id(&id),
        None => refusal,
    };
    refuse(session, context, refusal).await
}

/// The head of the caller's answer; a session id in it is sealed for this caller.
fn downstream_head(
    waypoint: &Waypoint,
    context: &Context,
    scope: &Scope,
    answer: &mut Answer,
) -> Result<Box<ResponseHeader>, Refusal> {
    let mut head = respond::forwarded(answer, false, context)?;
    head.remove_header("www-authenticate");
    let mut ids = head.headers.get_all(session::SESSION_ID).iter();
    let sealed = match (ids.next(), ids.next()) {
        (None, _) => return Ok(head),
        (Some(id), None) => {
            waypoint
                .sealer
                .seal(id.as_bytes(), &scope.caller.principal, &scope.label)?
        }
        (Some(_), Some(_)) => return Err(Refusal::new(Code::UpstreamBadAnswer)),
    };
    head.insert_header(session::SESSION_ID, sealed)
        .map_err(|_| Refusal::new(Code::Internal))?;
    Ok(head)
}

async fn plain(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    mut forward: Box<Forward>,
    resolved: Resolved,
    answered: Answered,
) -> Result<(), Refusal> {
    let Answered {
        mut answer,
        deadline,
    } = answered;
    let status = answer.status();
    if status == 401 {
        // The server does not accept us. A caller that saw this would begin to log in.
        return Err(Refusal::new(Code::UpstreamAuth));
    }
    let limit = context.state.snapshot.parameters.limits.answer_bytes;
    let read = tokio::time::timeout_at(deadline, llm_answer::decoded(&mut answer, limit));
    let body = tokio::select! {
        biased;
        read = read => read.map_err(|_| ExchangeError::Timeout.refusal())?
            .map_err(ExchangeError::refusal)?,
        interruption = interrupted(waypoint, session) => {
            interruption.result::<()>()?;
            context.record.downstream_gone = true;
            return Ok(());
        }
    };
    // The answer may have taken a while: what it lists is judged by the rules in force now.
    let scope = &forward.scope;
    let state = waypoint.state.load_full();
    let now = match Arc::ptr_eq(&state, &resolved.state) {
        true => resolved,
        false => scope
            .resolve(state, session, context)
            .filter(|now| scope.permits(now, &forward.deeds))
            .ok_or(Refusal::new(Code::PolicyRevoked))?,
    };
    let body = match (&forward.call, status) {
        _ if body.is_empty() => body,
        (Some(call), 200..=299) => {
            checked(waypoint, scope, &now, call, &forward.deeds.items, body)?
        }
        // Only an event stream answers a GET, and nothing a DELETE.
        (None, 200..=299) => Bytes::new(),
        (_, _) if holds_result(&body) => return Err(Refusal::new(Code::UpstreamBadAnswer)),
        (_, _) => body,
    };
    let head = downstream_head(waypoint, context, &forward.scope, &mut answer)?;
    drop(answer);
    context.record.status = status;
    forward.reserved.clear();
    if respond::whole(session, head, body).await.is_err() {
        context.record.downstream_gone = true;
    }
    Ok(())
}

/// Whether an error answer is a JSON-RPC result all the same, which could be a list.
fn holds_result(body: &[u8]) -> bool {
    match jsonrpc::parse_answer(body) {
        Ok(Message::Response { result, .. }) => result.is_some(),
        Ok(_) => true,
        // Text, or another kind of JSON: clients show it as the error it is.
        Err(_) => false,
    }
}

/// A JSON answer with its list filtered, and with a task it made bound to its maker.
fn checked(
    waypoint: &Waypoint,
    scope: &Scope,
    resolved: &Resolved,
    call: &Call,
    deeds: &[Deed],
    body: Bytes,
) -> Result<Bytes, Refusal> {
    let bad = |_: FilterError| Refusal::new(Code::UpstreamBadAnswer);
    if let (Some(list), Some(id)) = (call.list, &call.id) {
        let shows = |name: &str| scope.shows(resolved, &waypoint.tasks, list, name);
        return match filter_result(list, call.era, &body, id, shows).map_err(bad)? {
            Filtered::Unchanged => Ok(body),
            Filtered::Changed(changed) => Ok(Bytes::from(changed)),
        };
    }
    if call.kind != CallKind::Request {
        // Nothing was asked, so nothing is answered: a body here could only be a list in disguise.
        return Ok(Bytes::new());
    }
    let task = read_answer(&body, call.id.as_deref()).map_err(bad)?;
    if may_make_task(call)
        && let Some(task) = task
    {
        bind(waypoint, scope, call, deeds, &task);
    }
    Ok(body)
}

/// In the modern era the server decides whether a call becomes a task.
fn may_make_task(call: &Call) -> bool {
    call.wants_task || (call.era == Era::Modern && !call.ask.items().is_empty())
}

fn bind(waypoint: &Waypoint, scope: &Scope, call: &Call, deeds: &[Deed], task: &str) {
    // A request about a task makes none.
    if let Some(deed) = deeds.first().filter(|_| call.task_id().is_none()) {
        let made = Made {
            principal: scope.caller.principal.clone(),
            method: deed.method,
            name: deed.name.clone(),
            // A slice would hold the rest of the body too.
            arguments: deed
                .arguments
                .as_ref()
                .map(|arguments| Bytes::copy_from_slice(arguments.expose()).into()),
        };
        waypoint.tasks.bind(&scope.label, task, made);
    }
}

/// How a stream ended.
enum End {
    Whole,
    Gone,
    Cut(Refusal),
}

async fn stream(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &McpRoute,
    forward: Box<Forward>,
    mut resolved: Resolved,
    answered: Answered,
) -> Result<(), Refusal> {
    let Answered { mut answer, .. } = answered;
    let Forward {
        scope,
        call,
        deeds,
        mut reserved,
        ..
    } = *forward;
    let limit = context.state.snapshot.parameters.limits.sse_event_bytes;
    let mut decoder =
        Decoder::of(answer.header("content-encoding")).map_err(ExchangeError::refusal)?;
    let internal = |_| Refusal::new(Code::Internal);
    let mut head = downstream_head(waypoint, context, &scope, &mut answer)?;
    head.insert_header("x-accel-buffering", "no")
        .map_err(internal)?;
    head.insert_header("transfer-encoding", "chunked")
        .map_err(internal)?;
    context.record.status = answer.status();
    context.record.streamed = true;
    let mut filter = filter(call.as_ref(), limit);
    session.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut waiter = Waiter::new(
        waypoint,
        context.state.snapshot.generation,
        route.timeouts.stream_idle,
        Ends::of(context),
    );
    if session.write_response_header(head).await.is_err() {
        context.record.downstream_gone = true;
        return Ok(());
    }
    let running = waypoint.recorder.metrics.stream("mcp");
    let mut out: Vec<Bytes> = Vec::new();
    let end = loop {
        let next = waiter.next(session, &mut answer).await;
        // Before anything more is filtered by rules that have changed.
        if matches!(next, Next::Again) || waiter.take_generation() {
            let state = waypoint.state.load_full();
            let ask = |context: &Context| {
                let now = scope.resolve(Arc::clone(&state), session, context);
                now.filter(|now| scope.permits(now, &deeds))
            };
            match ask(context) {
                Some(now) if context.outlives_token(|context| ask(context).is_some()) => {
                    resolved = now;
                }
                _ => break End::Cut(Refusal::new(Code::PolicyRevoked)),
            }
        }
        let mut keep = |kind, name: &str| scope.shows(&resolved, &waypoint.tasks, kind, name);
        let pushed = match next {
            Next::Chunk(chunk) => decoder
                .push(chunk, limit)
                .map_err(ExchangeError::refusal)
                .and_then(|bytes| {
                    filter
                        .push(bytes, &mut keep, &mut out)
                        .map_err(|_| unreadable())
                }),
            Next::End => {
                let rest = decoder.finish().map_err(ExchangeError::refusal);
                let rest = rest.and_then(|bytes| {
                    filter
                        .push(bytes, &mut keep, &mut out)
                        .map_err(|_| unreadable())?;
                    filter.finish(&mut keep, &mut out).map_err(|_| unreadable())
                });
                if !write(session, &mut out).await {
                    break End::Gone;
                }
                break match rest {
                    Ok(()) => End::Whole,
                    Err(refusal) => End::Cut(refusal),
                };
            }
            Next::Failed(error) => Err(error.refusal()),
            Next::Gone => break End::Gone,
            Next::ShuttingDown => break End::Cut(Refusal::new(Code::ShuttingDown)),
            Next::Again => continue,
        };
        if let (Some(call), Some(task)) = (&call, filter.take_task()) {
            bind(waypoint, &scope, call, &deeds.items, &task);
        }
        if filter.answered() > 0 {
            reserved.clear();
        }
        if !write(session, &mut out).await {
            break End::Gone;
        }
        if let Err(refusal) = pushed {
            break End::Cut(refusal);
        }
    };
    drop(answer);
    let how = match end {
        End::Whole => {
            let _ = session.finish_body().await;
            "whole"
        }
        End::Gone => {
            context.record.downstream_gone = true;
            "downstream_gone"
        }
        End::Cut(refusal) => {
            context.record.refused(&refusal);
            let code = refusal.code.as_str();
            let frame = last_words(call.as_ref(), filter.answered() > 0, refusal);
            if session.write_response_body(frame, true).await.is_err() {
                context.record.downstream_gone = true;
            }
            let _ = session.finish_body().await;
            code
        }
    };
    drop(running);
    waypoint.recorder.metrics.stream_ended("mcp", how);
    Ok(())
}

fn filter(call: Option<&Call>, limit: usize) -> StreamFilter {
    let era = call.map_or(Era::Legacy, |call| call.era);
    let expected = call.and_then(|call| Expected::new(call.id.as_deref()?, call.list));
    // A GET stream carries no answers of its own, but a resumed one repeats earlier ones.
    let unknown = match call {
        Some(_) => UnknownIds::Refuse,
        None => UnknownIds::ByShape,
    };
    StreamFilter::new(era, expected.into_iter().collect(), unknown, limit)
}

fn unreadable() -> Refusal {
    Refusal::new(Code::UpstreamBadAnswer)
}

/// What ends a stream before its answer: an error for the request it belongs to, or, where there
/// is none that waits, an event of a type that clients pass over.
fn last_words(call: Option<&Call>, answered: bool, refusal: Refusal) -> Bytes {
    let id = call
        .filter(|_| !answered)
        .and_then(|call| call.id.as_deref());
    let message = refusal_message(id, &McpRefusal::from(refusal));
    let mut frame = Vec::new();
    sse::write_event(
        &mut frame,
        if id.is_some() { None } else { Some("error") },
        &message,
    );
    Bytes::from(frame)
}

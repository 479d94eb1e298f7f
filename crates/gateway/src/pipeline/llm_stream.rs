//! A streamed LLM answer: passed on event by event, measured, asked again at every generation
//! and when a token ends.

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use waypoint_config::{LlmRoute, Route};
use waypoint_llm::{Call, Candidate, Stream, candidates};
use waypoint_policy::{Action, Code, ObjectName, Query, Refusal};

use super::llm::{Answered, price, targets};
use super::llm_limits::{self, Metered};
use super::stream::{Next, Waiter, write};
use crate::caller::Caller;
use crate::coding::Decoder;
use crate::context::Context;
use crate::ends::Ends;
use crate::exchange::ExchangeError;
use crate::limits::stopped;
use crate::proxy::{WRITE_TIMEOUT, Waypoint};
use crate::respond;

/// What a running stream was permitted to do, in names that outlive a snapshot.
struct Question {
    caller: Caller,
    route: ObjectName,
    provider: ObjectName,
    call: Call,
    model: Box<str>,
}

impl Question {
    /// Asks the configuration in force whether it still permits it. A provider or route that is
    /// gone permits nothing.
    ///
    /// # Errors
    /// What the caller is told; of policies nothing, but which limit stops it.
    fn ask(
        &self,
        waypoint: &Waypoint,
        session: &ServerSession,
        context: &Context,
    ) -> Result<(), Refusal> {
        let revoked = || Refusal::new(Code::PolicyRevoked);
        let state = waypoint.state.load();
        let snapshot = &state.snapshot;
        let verdict = context.judge(session, snapshot);
        if verdict.permit().is_err() {
            return Err(revoked());
        }
        let route = snapshot.routes.iter().find_map(|route| match route {
            Route::Llm(route) if route.name == self.route => Some(route),
            _ => None,
        });
        let (Some(route), Some(provider)) = (route, snapshot.provider_by_name(&self.provider))
        else {
            return Err(revoked());
        };
        // What would not be routed there any more is not permitted there either.
        let known = |id| snapshot.provider(id).map(|provider| &provider.llm);
        let routed = candidates(&route.rules, known, &self.call, 0).is_ok_and(|(_, found)| {
            found
                .iter()
                .any(|found| found.provider == provider.llm.id && found.model == self.model)
        });
        if !routed || !self.caller.is_known(snapshot) {
            return Err(revoked());
        }
        let targets = targets(route, provider);
        let facts = context.facts(session, snapshot);
        let query = Query {
            principal: &self.caller.principal,
            targets: &targets,
            action: Action::Llm {
                provider: provider.llm.id,
                requested: &self.call.model,
                upstream: &self.model,
                operation: Some(self.call.operation),
                max_output_tokens: self.call.max_output_tokens,
            },
            facts: facts.view(),
        };
        let decision = snapshot.policy.decide_after(&verdict, &query);
        if !decision.is_allowed() {
            return Err(revoked());
        }
        let limits = snapshot.policy.limits(&query);
        match limits.into_iter().find(|limit| limit.is_stop()) {
            Some(limit) => Err(stopped(limit)),
            None => Ok(()),
        }
    }
}

/// How a stream ended.
enum End {
    /// By its own terminator.
    Whole,
    /// The caller left.
    Gone,
    /// We, or the upstream, cut it; the caller is told in a last event.
    Cut(Refusal),
}

/// Passes a streamed answer to the caller.
///
/// # Errors
/// A refusal only before the head has been written.
pub(super) async fn relay(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &LlmRoute,
    call: Call,
    answered: Answered,
) -> Result<(), Refusal> {
    let Answered {
        mut answer,
        candidate,
        own_key,
        mut metered,
        ..
    } = answered;
    let internal = |_| Refusal::new(Code::Internal);
    let limit = context.state.snapshot.parameters.limits.sse_event_bytes;
    let mut decoder =
        Decoder::of(answer.header("content-encoding")).map_err(ExchangeError::refusal)?;
    let status = answer.status();
    let mut head = respond::forwarded(&mut answer, own_key, context)?;
    head.insert_header(respond::PROVIDER_REQUEST_ID, context.record.id.as_str())
        .map_err(internal)?;
    if let Some(metered) = &mut metered {
        metered.streams(&call, limit);
        respond::tell(&mut head, call.dialect, &metered.rates()).map_err(internal)?;
    }
    head.insert_header("x-accel-buffering", "no")
        .map_err(internal)?;
    head.insert_header("transfer-encoding", "chunked")
        .map_err(internal)?;
    context.record.status = status;
    context.record.streamed = true;
    session.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut stream = Stream::with_limit(&call, limit);
    let price = price(context, &candidate);
    let question = question(context, route, call, candidate);
    let mut waiter = Waiter::new(
        waypoint,
        context.state.snapshot.generation,
        idle(route, &question),
        Ends::of(context),
    );
    if session.write_response_header(head).await.is_err() {
        context.record.downstream_gone = true;
        return Ok(());
    }
    let running = waypoint.recorder.metrics.stream("llm");
    let mut out: Vec<Bytes> = Vec::new();
    let end = loop {
        let pushed = match waiter.next(session, &mut answer).await {
            Next::Chunk(chunk) => {
                let mut next = Some(chunk);
                let mut pushed = Ok(());
                while pushed.is_ok()
                    && let Some(chunk) = next
                {
                    pushed = match decoder.push(chunk, limit).map_err(ExchangeError::refusal) {
                        Ok(bytes) => {
                            llm_limits::push(metered.as_mut(), &mut stream, bytes, &mut out).await
                        }
                        Err(refusal) => Err(refusal),
                    };
                    next = answer.ready_chunk().filter(|_| pushed.is_ok());
                }
                pushed
            }
            Next::End => {
                let rest = decoder.finish().map_err(ExchangeError::refusal);
                let rest = match rest {
                    Ok(bytes) => {
                        llm_limits::push(metered.as_mut(), &mut stream, bytes, &mut out).await
                    }
                    Err(refusal) => Err(refusal),
                };
                let whole = stream.finish(&mut out).is_ok();
                settle(&mut metered, &stream);
                if !write(session, &mut out).await {
                    break End::Gone;
                }
                break match (whole, rest) {
                    (true, _) => End::Whole,
                    (false, Err(refusal)) => End::Cut(refusal),
                    (false, Ok(())) => End::Cut(Refusal::new(Code::StreamTruncated)),
                };
            }
            // After the terminator nothing that happens to the connection matters.
            Next::Failed(_) if stream.saw_terminator() => break End::Whole,
            Next::Failed(ExchangeError::Idle) => break End::Cut(ExchangeError::Idle.refusal()),
            Next::Failed(_) => break End::Cut(Refusal::new(Code::StreamTruncated)),
            Next::Gone => break End::Gone,
            Next::ShuttingDown => break End::Cut(Refusal::new(Code::ShuttingDown)),
            Next::Again => {
                let ask = |context: &Context| question.ask(waypoint, session, context);
                if let Err(refusal) = ask(context) {
                    break End::Cut(refusal);
                }
                if context.outlives_token(|context| ask(context).is_ok()) {
                    continue;
                }
                break End::Cut(Refusal::new(Code::PolicyRevoked));
            }
        };
        // After an error more may come.
        if stream.saw_terminator() && !stream.saw_error() {
            // Before the caller has it all, who may at once send the next call.
            settle(&mut metered, &stream);
        }
        if context.record.first_token.is_none() && !out.is_empty() {
            context.record.first_token = Some(context.record.started.elapsed());
        }
        if !write(session, &mut out).await {
            break End::Gone;
        }
        if let Err(refusal) = pushed {
            break End::Cut(refusal);
        }
    };
    // The upstream is told at once that nobody listens, unless it has finished by itself.
    drop(answer);
    context.record.used(*stream.usage(), price.as_ref());
    // What ends for another reason, even after a limit was exceeded, does not look complete.
    let is_exceeded = matches!(&end, End::Cut(refusal) if refusal.code == Code::QuotaExhausted);
    let closing = metered
        .as_mut()
        .filter(|_| is_exceeded)
        .and_then(|metered| metered.close(stream.usage()));
    settle(&mut metered, &stream);
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
            let frame = closing.unwrap_or_else(|| stream.error_frame(&refusal));
            if session.write_response_body(frame, true).await.is_err() {
                context.record.downstream_gone = true;
            }
            let _ = session.finish_body().await;
            refusal.code.as_str()
        }
    };
    drop(running);
    waypoint.recorder.metrics.stream_ended("llm", how);
    Ok(())
}

/// Settles what a stream has used, once.
fn settle(metered: &mut Option<Box<Metered>>, stream: &Stream) {
    if let Some(mut metered) = metered.take() {
        metered.ended(stream.usage());
    }
}

fn question(context: &Context, route: &LlmRoute, call: Call, candidate: Candidate) -> Question {
    let provider = context.record.action.provider.clone();
    Question {
        caller: Caller::of(context),
        route: route.name.clone(),
        provider: provider.unwrap_or_else(|| route.name.clone()),
        call,
        model: candidate.model,
    }
}

/// How long the stream may be silent: by the rule that matched the call.
fn idle(route: &LlmRoute, question: &Question) -> std::time::Duration {
    let rule = route
        .rules
        .iter()
        .find(|rule| rule.matches(&question.call.model));
    rule.map_or_else(Default::default, |rule| rule.timeouts)
        .stream_idle
}

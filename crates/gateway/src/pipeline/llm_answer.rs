//! A plain LLM answer: read whole, measured, given to the caller.

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use waypoint_config::LlmRoute;
use waypoint_llm::{Candidate, filter_models, is_error_in_dialect, read_answer, refusal_body};
use waypoint_policy::{Action, Code, Operation, Query, Refusal};

use super::llm::{Answered, Prepared, price, targets};
use crate::coding::Decoder;
use crate::context::Context;
use crate::exchange::{Answer, ExchangeError};
use crate::proxy::{Waypoint, interrupted};
use crate::respond;

/// The whole body of an answer, without its content coding.
pub(super) async fn decoded(
    answer: &mut Answer,
    limit_bytes: usize,
) -> Result<Bytes, ExchangeError> {
    let mut decoder = Decoder::of(answer.header("content-encoding"))?;
    let body = answer.body(limit_bytes).await?;
    if matches!(decoder, Decoder::Identity) {
        return Ok(body);
    }
    let start = decoder.push(body, limit_bytes)?;
    let rest = decoder.finish()?;
    Ok(if rest.is_empty() {
        start
    } else {
        Bytes::from([start, rest].concat())
    })
}

/// Gives a plain answer to the caller.
///
/// # Errors
/// A refusal when the answer is cut, is not JSON, or comes too late; nothing has been written.
pub(super) async fn plain(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &LlmRoute,
    prepared: Prepared,
    answered: Answered,
) -> Result<(), Refusal> {
    let Answered {
        mut answer,
        candidate,
        own_key,
        error_body,
        exhausted,
        deadline,
        mut metered,
    } = answered;
    let call = prepared.call;
    let status = answer.status();
    let is_error = error_body.is_some();
    let body = match error_body {
        Some(body) => body,
        None => {
            let limit = context.state.snapshot.parameters.limits.answer_bytes;
            let read = tokio::time::timeout_at(deadline, decoded(&mut answer, limit));
            tokio::select! {
                biased;
                read = read => read.map_err(|_| ExchangeError::Timeout.refusal())?
                    .map_err(ExchangeError::refusal)?,
                interruption = interrupted(waypoint, session) => {
                interruption.result::<()>()?;
                    context.record.downstream_gone = true;
                    return Ok(());
                }
            }
        }
    };
    if !is_error {
        let usage = read_answer(call.dialect, call.operation, &body)
            .map_err(|_| Refusal::new(Code::UpstreamBadAnswer))?;
        if let Some(usage) = usage {
            let price = price(context, &candidate);
            context.record.used(usage, price.as_ref());
        }
        if let Some(metered) = &mut metered {
            metered.answered(usage.as_ref());
        }
    }
    // Settled before the caller has its answer, who may at once send the next call.
    let rates = metered.map(|metered| metered.settle());
    // A page of some proxy on the way, or half an answer, says nothing an SDK could use.
    let is_foreign = is_error && !is_error_in_dialect(call.dialect, &body);
    let body = match is_foreign {
        true => {
            let code = if status < 500 {
                Code::BadRequest
            } else {
                Code::UpstreamUnavailable
            };
            let refusal = Refusal::new(code)
                .with_message(format!("the upstream answered with status {status}"));
            context.record.refused(&refusal);
            Bytes::from(refusal_body(
                call.dialect,
                &refusal,
                context.record.id.as_str(),
            ))
        }
        false => body,
    };
    let body = match call.operation == Operation::Models && !is_error {
        true => permitted_models(context, route, &call, &candidate, body)?,
        false => body,
    };
    let internal = |_| Refusal::new(Code::Internal);
    let retry = is_error.then(|| Retry::of(&answer, exhausted));
    let mut head = respond::forwarded(&mut answer, own_key, context)?;
    head.insert_header(respond::PROVIDER_REQUEST_ID, context.record.id.as_str())
        .map_err(internal)?;
    if is_foreign {
        head.insert_header("content-type", "application/json")
            .map_err(internal)?;
    }
    if let Some(rates) = rates {
        respond::tell(&mut head, call.dialect, &rates).map_err(internal)?;
    }
    if let Some(retry) = retry {
        retry.write(&mut head).map_err(internal)?;
    }
    drop(answer);
    context.record.status = status;
    if respond::whole(session, head, body).await.is_err() {
        context.record.downstream_gone = true;
    }
    Ok(())
}

/// What a forwarded error says about trying again. A wait beyond 60 s is not passed on: some SDKs
/// sleep for as long as they are told, however long that is.
struct Retry {
    worthwhile: bool,
    after: Option<String>,
    after_milliseconds: Option<u32>,
}

impl Retry {
    fn of(answer: &Answer, exhausted: bool) -> Self {
        let wait = answer.header("retry-after").map(str::trim);
        let seconds = wait.and_then(|wait| wait.parse::<f64>().ok());
        let too_long =
            wait.is_some() && seconds.is_none_or(|seconds| !(0.0..=60.0).contains(&seconds));
        let transient = matches!(answer.status(), 408 | 409 | 429 | 500..=599);
        let worthwhile = match answer.header("x-should-retry") {
            Some("false") => false,
            _ => transient && !exhausted && !too_long,
        };
        let milliseconds = answer.header("retry-after-ms");
        Self {
            worthwhile,
            after: wait.map(str::to_owned),
            after_milliseconds: milliseconds
                .and_then(|text| text.trim().parse().ok())
                .filter(|milliseconds| *milliseconds <= 60_000),
        }
    }

    fn write(self, head: &mut pingora_http::ResponseHeader) -> pingora_error::Result<()> {
        let worthwhile = if self.worthwhile { "true" } else { "false" };
        head.insert_header("x-should-retry", worthwhile)?;
        if let (true, Some(after)) = (self.worthwhile, self.after) {
            head.insert_header("retry-after", after)?;
            if let Some(milliseconds) = self.after_milliseconds {
                head.insert_header("retry-after-ms", milliseconds)?;
            }
        }
        Ok(())
    }
}

/// The models list without what the caller may not use.
fn permitted_models(
    context: &Context,
    route: &LlmRoute,
    call: &waypoint_llm::Call,
    candidate: &Candidate,
    body: Bytes,
) -> Result<Bytes, Refusal> {
    if !call.model.is_empty() {
        return Ok(body);
    }
    let snapshot = &context.state.snapshot;
    let Some(provider) = snapshot.provider(candidate.provider) else {
        return Err(Refusal::new(Code::Internal));
    };
    let targets = targets(route, provider);
    let permitted = |model: &str| {
        // A model is listed when a call for it would find this provider and be allowed.
        let Some(rule) = route.rules.iter().find(|rule| rule.matches(model)) else {
            return false;
        };
        let reaches = rule
            .backends
            .iter()
            .any(|backend| backend.provider == candidate.provider && backend.weight > 0);
        let Some(upstream) = provider.llm.upstream_model(model) else {
            return false;
        };
        reaches
            && snapshot
                .policy
                .decide_after(
                    &context.verdict,
                    &Query {
                        principal: &context.record.principal,
                        targets: &targets,
                        action: Action::Llm {
                            provider: candidate.provider,
                            requested: model,
                            upstream,
                            operation: None,
                            max_output_tokens: None,
                        },
                        facts: context.facts.view(),
                    },
                )
                .is_allowed()
    };
    filter_models(call.dialect, &body, permitted)
        .map(Bytes::from)
        .map_err(|_| Refusal::new(Code::UpstreamBadAnswer))
}

//! LLM egress: from a request to an upstream answer that may be given to the caller.

use bytes::Bytes;
use http::{HeaderName, Method, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tokio::time::Instant;
use waypoint_config::{Credential, LlmRoute, Provider};
use waypoint_llm::{
    Allowances, Call, Candidate, Dialect, Failure, Plan, Price, Retryable, candidates, classify,
    path_of, plan, retry_verdict,
};
use waypoint_policy::{Action, Code, Decision, Operation, Permit, Query, Refusal, TargetId};

use super::llm_limits::{self, Metered};
use super::{llm_answer, llm_stream};
use crate::body;
use crate::context::Context;
use crate::edge::Head;
use crate::exchange::{self, Answer, ExchangeError, Outgoing, Patience, RequestHead};
use crate::headers::{self, Passing};
use crate::proxy::{Waypoint, interrupted};
use crate::respond::Voice;

/// An error answer is read so far to learn whether trying again makes sense, and to pass it on.
pub(super) const ERROR_BODY_MAX_BYTES: usize = 1 << 20;

/// Where Anthropic's API looks for a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Which callers of Anthropic's API send.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// A call that may be made.
pub(super) struct Prepared {
    pub(super) call: Call,
    pub(super) body: Bytes,
    pub(super) plan: Plan,
}

/// What an upstream answered, and which of the planned targets it was.
pub(super) struct Answered {
    pub(super) answer: Box<Answer>,
    pub(super) candidate: Candidate,
    pub(super) own_key: bool,
    /// The body of an error answer, which has been read already.
    pub(super) error_body: Option<Bytes>,
    /// Whether the route's attempts are used up: the caller need not try again at once.
    pub(super) exhausted: bool,
    /// When a plain answer must have ended.
    pub(super) deadline: Instant,
    /// What the call holds of its limits.
    pub(super) metered: Option<Box<Metered>>,
}

/// Serves one LLM call.
///
/// # Errors
/// A refusal, when nothing has been written to the caller yet.
pub(crate) async fn serve(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &LlmRoute,
    head: &Head,
) -> Result<(), Refusal> {
    context.record.action.kind = "llm";
    context.record.route = Some(std::sync::Arc::clone(&route.label));
    let Some(prepared) = Box::pin(prepare(session, context, route, head)).await? else {
        return Ok(());
    };
    let answered = Box::pin(call_upstream(
        waypoint, session, context, route, &prepared, head,
    ))
    .await?;
    let Some(answered) = answered else {
        context.record.downstream_gone = true;
        return Ok(());
    };
    let is_stream = answered.answer.status() < 300
        && answered.answer.header("content-type").is_some_and(|media| {
            media
                .trim_start()
                .to_ascii_lowercase()
                .starts_with("text/event-stream")
        });
    if !is_stream {
        return Box::pin(llm_answer::plain(
            waypoint, session, context, route, prepared, answered,
        ))
        .await;
    }
    if !prepared.call.stream {
        return Err(Refusal::new(Code::UpstreamBadAnswer));
    }
    // What is only needed to send is dropped before a stream that may last for hours.
    let Prepared { call, body, plan } = prepared;
    drop((body, plan));
    Box::pin(llm_stream::relay(
        waypoint, session, context, route, call, answered,
    ))
    .await
}

/// Reads the call and decides it for every candidate.
async fn prepare(
    session: &mut ServerSession,
    context: &mut Context,
    route: &LlmRoute,
    head: &Head,
) -> Result<Option<Prepared>, Refusal> {
    let rest = after_prefix(&head.path, &route.prefix);
    let is_anthropic = session.req_header().headers.contains_key(ANTHROPIC_VERSION);
    let guess = match rest.starts_with("/v1/messages") || is_anthropic {
        true => Dialect::Anthropic,
        false => Dialect::OpenAi,
    };
    context.voice = Voice::Llm(guess);
    if context.record.principal.spiffe().is_none() {
        // Known before the body is read: strangers cost us nothing.
        return Err(Refusal::new(Code::IdentityRequired).decided_by(waypoint_policy::By::Identity));
    }
    let Some((dialect, operation, model)) = classify(&head.method, rest, is_anthropic) else {
        return Err(Refusal::new(Code::OperationNotAllowed));
    };
    context.voice = Voice::Llm(dialect);
    context.record.action.operation = Some(operation);
    let state = std::sync::Arc::clone(&context.state);
    let limits = &state.snapshot.parameters.limits;
    let (call, body) = match operation {
        Operation::Models => (Call::models(dialect, model.as_deref()), Bytes::new()),
        _ => {
            body::check_json(session)?;
            // Who may do nothing here is told so before the body is read.
            permit_any(context, route, dialect)?;
            let body = context
                .read_body(session, limits.llm_body_bytes, limits.body_timeout)
                .await?;
            // Each provider's own allowances are held by `candidates`.
            let call = Call::parse(dialect, operation, &body, &Allowances::ALL)?;
            (call, body)
        }
    };
    context.record.action.model = Some(call.model.clone());
    context.record.action.max_output_tokens = call.max_output_tokens;
    let plan = match operation == Operation::Models && call.model.is_empty() {
        true => permit_list(context, route, &call)?,
        false => permit_call(context, route, &call)?,
    };
    Ok(Some(Prepared { call, body, plan }))
}

/// Refuses who may use no provider of this route at all.
fn permit_any(context: &mut Context, route: &LlmRoute, dialect: Dialect) -> Result<(), Refusal> {
    let state = std::sync::Arc::clone(&context.state);
    let mut denied = None;
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    for backend in backends.filter(|backend| backend.weight > 0) {
        let Some((provider, _)) = state.provider(backend.provider) else {
            continue;
        };
        if provider.llm.dialect != dialect {
            continue;
        }
        let targets = targets(route, provider);
        let query = Query {
            principal: &context.record.principal,
            targets: &targets,
            action: Action::LlmAny {
                provider: backend.provider,
            },
            facts: context.facts.view(),
        };
        let decision = (state.snapshot.policy).decide_after(&context.verdict, &query);
        if decision.is_allowed() {
            return Ok(());
        }
        denied = denied.or(Some((decision, provider.llm.name.clone())));
    }
    // A route without any such provider is for what follows to speak about.
    let Some((denied, provider)) = denied else {
        return Ok(());
    };
    context.record.action.provider = Some(provider);
    context.record.decided(&denied);
    // No model is allowed: in the words that the call itself would be refused in.
    Err(Refusal::new(Code::ModelNotAllowed).decided_by(denied.by().clone()))
}

/// Decides every candidate of a call; those that are denied are not tried.
fn permit_call(context: &mut Context, route: &LlmRoute, call: &Call) -> Result<Plan, Refusal> {
    let state = std::sync::Arc::clone(&context.state);
    let provider = |id| state.provider(id).map(|(provider, _)| &provider.llm);
    let (rule, found) = candidates(&route.rules, provider, call, rand::random())?;
    let mut permitted: Vec<(Candidate, Permit)> = Vec::with_capacity(found.len());
    let mut denied: Option<Decision> = None;
    for candidate in found {
        let decision = decide(context, route, call, &candidate);
        if decision.is_allowed() {
            let permit = decision.permit()?;
            permitted.push((candidate, permit));
        } else if denied.is_none() {
            context.record.action.provider = provider(candidate.provider).map(|p| p.name.clone());
            note_model(context, &candidate);
            denied = Some(decision);
        }
    }
    match (permitted.first(), denied) {
        (Some((_, permit)), _) => context.record.decided(permit.decision()),
        (None, Some(denied)) => {
            context.record.decided(&denied);
            denied.permit()?;
        }
        (None, None) => return Err(Refusal::new(Code::ModelNotFound)),
    }
    Ok(plan(&route.rules[rule], permitted))
}

/// The models list goes to the first provider of the dialect on which the caller may use
/// anything; what it may not use is taken out of the answer.
fn permit_list(context: &mut Context, route: &LlmRoute, call: &Call) -> Result<Plan, Refusal> {
    let state = std::sync::Arc::clone(&context.state);
    let mut denied = None;
    for rule in &route.rules {
        for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
            let Some((provider, _)) = state.provider(backend.provider) else {
                continue;
            };
            if provider.llm.dialect != call.dialect
                || !provider.llm.operations.contains(&Operation::Models)
            {
                continue;
            }
            let targets = targets(route, provider);
            let query = Query {
                principal: &context.record.principal,
                targets: &targets,
                action: Action::LlmAny {
                    provider: backend.provider,
                },
                facts: context.facts.view(),
            };
            let decision = (state.snapshot.policy).decide_after(&context.verdict, &query);
            context.record.action.provider = Some(provider.llm.name.clone());
            context.record.decided(&decision);
            match decision.permit() {
                Ok(permit) => {
                    let candidate = Candidate {
                        provider: backend.provider,
                        model: Box::default(),
                    };
                    return Ok(plan(rule, vec![(candidate, permit)]));
                }
                Err(refusal) => denied = denied.or(Some(refusal)),
            }
        }
    }
    Err(denied.unwrap_or(Refusal::new(Code::OperationNotAllowed)))
}

/// The objects whose policies apply to a call.
pub(super) fn targets(route: &LlmRoute, provider: &Provider) -> SmallVec<[TargetId; 4]> {
    let mut targets = SmallVec::from_slice(&route.targets);
    targets.extend(provider.target);
    targets
}

/// What the tokens of a target cost, where that is known.
pub(super) fn price(context: &Context, candidate: &Candidate) -> Option<Price> {
    let (provider, _) = context.state.provider(candidate.provider)?;
    provider.llm.price(&candidate.model)
}

/// Asks the policy about one candidate.
pub(super) fn decide(
    context: &Context,
    route: &LlmRoute,
    call: &Call,
    candidate: &Candidate,
) -> Decision {
    let snapshot = &context.state.snapshot;
    let targets = snapshot
        .provider(candidate.provider)
        .map(|provider| targets(route, provider))
        .unwrap_or_default();
    let query = query(context, &targets, call, candidate);
    snapshot.policy.decide_after(&context.verdict, &query)
}

/// The question whether a call to one target may be made, and what limits it.
pub(super) fn query<'q>(
    context: &'q Context,
    targets: &'q [TargetId],
    call: &'q Call,
    candidate: &'q Candidate,
) -> Query<'q> {
    Query {
        principal: &context.record.principal,
        targets,
        action: Action::Llm {
            provider: candidate.provider,
            requested: &call.model,
            upstream: &candidate.model,
            operation: Some(call.operation),
            max_output_tokens: call.max_output_tokens,
        },
        facts: context.facts.view(),
    }
}

/// Makes the planned attempts until one gives an answer for the caller. `None` when the caller
/// has gone.
async fn call_upstream(
    waypoint: &Waypoint,
    session: &mut ServerSession,
    context: &mut Context,
    route: &LlmRoute,
    prepared: &Prepared,
    head: &Head,
) -> Result<Option<Answered>, Refusal> {
    let Prepared { call, body, plan } = prepared;
    let deadline = Instant::now() + plan.timeouts().request;
    let mut number = 0;
    let mut metered: Option<Box<Metered>> = None;
    loop {
        let attempt = plan
            .attempt(number)
            .ok_or(Refusal::new(Code::UpstreamUnavailable))?;
        let candidate = attempt.candidate().clone();
        let state = std::sync::Arc::clone(&context.state);
        let (provider, upstream) = state
            .provider(candidate.provider)
            .ok_or(Refusal::new(Code::Internal))?;
        note_target(context, provider, &candidate);
        match &mut metered {
            Some(held) if held.is_for(&candidate) => held.again(),
            _ => {
                // What was held for another target is settled first.
                if let Some(metered) = metered.take() {
                    metered.moved();
                }
                let target = (provider, &candidate);
                let reserved = llm_limits::reserve(waypoint, context, route, call, target, body);
                metered = reserved.await?;
            }
        }
        let outgoing_body = call.upstream_body(body, &candidate.model);
        let outgoing_head = upstream_head(
            session.req_header(),
            head,
            call,
            &candidate,
            provider,
            &outgoing_body,
            waypoint.credentials.secret(&provider.credential)?,
        )?;
        let until = plan
            .timeouts()
            .per_try
            .map_or(deadline, |limit| deadline.min(Instant::now() + limit));
        context.record.attempts += 1;
        context
            .record
            .upstream_started
            .get_or_insert_with(std::time::Instant::now);
        let outgoing = Outgoing {
            head: &outgoing_head,
            body: &outgoing_body,
        };
        let patience = Patience {
            connect: plan.timeouts().connect,
            until,
        };
        if let Some(metered) = &mut metered {
            metered.sent();
        }
        let sent = tokio::select! {
            biased;
            sent = exchange::send(&waypoint.connector, upstream, outgoing, patience) => sent,
            interruption = interrupted(waypoint, session) => return interruption.result(),
        };
        let (failure, verdict, outcome) = tokio::select! {
            biased;
            judged = judge(sent, until) => judged,
            interruption = interrupted(waypoint, session) => return interruption.result(),
        };
        let metrics = &waypoint.recorder.metrics;
        let label = &*provider.llm.name.name;
        let Some(failure) = failure else {
            metrics.attempt(label, "ok");
            let answered = finish(outcome, candidate, provider, deadline, false)?;
            return Ok(Some(Answered {
                metered,
                ..answered
            }));
        };
        if let Some(metered) = &mut metered {
            metered.failed(failure);
        }
        let next = match verdict {
            Retryable::Yes { after } if plan.retry().on.covers(failure) => {
                let left = deadline.saturating_duration_since(Instant::now());
                plan.next(number, after, left, rand::random())
            }
            _ => None,
        };
        match next {
            Some((next, pause)) if Instant::now() + pause < deadline => {
                metrics.attempt(label, "retried");
                number = next;
                if !pause.is_zero() {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        interruption = interrupted(waypoint, session) => return interruption.result(),
                    }
                }
            }
            _ => {
                metrics.attempt(label, "failed");
                let exhausted = plan.retry().on.covers(failure) && number > 0;
                let answered = finish(outcome, candidate, provider, deadline, exhausted)?;
                return Ok(Some(Answered {
                    metered,
                    ..answered
                }));
            }
        }
    }
}

fn note_target(context: &mut Context, provider: &Provider, candidate: &Candidate) {
    note_model(context, candidate);
    let action = &mut context.record.action;
    action.provider = Some(provider.llm.name.clone());
    // Only a configured name becomes a label: other names are the caller's text.
    let listed = provider
        .llm
        .models
        .as_ref()
        .is_some_and(|models| models.resolve(&candidate.model).is_some());
    action.model_label = Some(if listed {
        candidate.model.clone()
    } else {
        "unlisted".into()
    });
}

fn note_model(context: &mut Context, candidate: &Candidate) {
    let action = &mut context.record.action;
    let is_other = action.model.as_ref() != Some(&candidate.model);
    action.upstream_model = is_other.then(|| candidate.model.clone());
}

type Outcome = Result<(Box<Answer>, Option<Bytes>), ExchangeError>;

/// Whether a try failed, how, and what its answer says about another one.
async fn judge(
    sent: Result<Box<Answer>, ExchangeError>,
    until: Instant,
) -> (Option<Failure>, Retryable, Outcome) {
    let mut answer = match sent {
        Ok(answer) if answer.status() < 300 => {
            return (None, Retryable::No, Ok((answer, None)));
        }
        // An SDK would follow it, with the prompt, to where no policy is asked.
        Ok(answer) if answer.status() < 400 => {
            let error = ExchangeError::Malformed;
            return (Some(Failure::Reset), Retryable::No, Err(error));
        }
        Ok(answer) => answer,
        Err(error) => {
            let failure = match error {
                error if error.is_connect_failure() => Failure::Connect,
                ExchangeError::Timeout => Failure::Timeout,
                _ => Failure::Reset,
            };
            // What was answered, if in a way nobody understands, was done: and is billed again.
            let verdict = match error {
                ExchangeError::Malformed | ExchangeError::TooLarge => Retryable::No,
                _ => Retryable::Yes { after: None },
            };
            return (Some(failure), verdict, Err(error));
        }
    };
    let status = answer.status();
    let read = tokio::time::timeout_at(
        until,
        llm_answer::decoded(&mut answer, ERROR_BODY_MAX_BYTES),
    );
    // An error answer that cannot be read is still an error of that status.
    let body = read.await.ok().and_then(Result::ok).unwrap_or_default();
    let verdict = retry_verdict(status, |name| answer.header(name), &body);
    (
        Some(Failure::Status(status)),
        verdict,
        Ok((answer, Some(body))),
    )
}

fn finish(
    outcome: Outcome,
    candidate: Candidate,
    provider: &Provider,
    deadline: Instant,
    exhausted: bool,
) -> Result<Answered, Refusal> {
    let (answer, error_body) = outcome.map_err(ExchangeError::refusal)?;
    let own_key = matches!(provider.credential, Credential::Passthrough);
    if matches!(answer.status(), 401 | 403) && !own_key {
        // Our key is broken, not the caller's identity: it could do nothing about a 401.
        tracing::error!(
            provider = %provider.llm.name,
            status = answer.status(),
            "provider does not accept the configured credential"
        );
        return Err(Refusal::new(Code::UpstreamAuth));
    }
    Ok(Answered {
        answer,
        candidate,
        own_key,
        error_body,
        exhausted,
        deadline,
        metered: None,
    })
}

/// Whether a query parameter goes upstream. A list, because keys travel in queries too.
fn may_pass(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    matches!(
        name,
        "beta" | "limit" | "order" | "after" | "before" | "after_id" | "before_id"
    )
}

/// The path after the route's prefix, beginning with `/`.
fn after_prefix<'a>(path: &'a str, prefix: &str) -> &'a str {
    match prefix {
        "/" => path,
        prefix => match path.strip_prefix(prefix) {
            Some("") | None => "/",
            Some(rest) => rest,
        },
    }
}

/// The head of the upstream request: the operation's own path, our credential, and what of the
/// caller's headers may pass.
fn upstream_head(
    request: &RequestHeader,
    head: &Head,
    call: &Call,
    candidate: &Candidate,
    provider: &Provider,
    body: &Bytes,
    secret: Option<String>,
) -> Result<RequestHead, Refusal> {
    let internal = |_| Refusal::new(Code::Internal);
    let malformed = |_| Refusal::new(Code::BadRequest);
    let endpoint = &provider.endpoint;
    // The provider's own name of it, which is what was decided.
    let model = (!call.model.is_empty()).then_some(&*candidate.model);
    let model = if call.operation == Operation::Models {
        model
    } else {
        None
    };
    let own = path_of(call.operation, model);
    // Providers serve their API under `/v1` unless their endpoint says where.
    let own = match endpoint.prefix.is_empty() {
        true => &*own,
        false => own.strip_prefix("/v1").unwrap_or(&own),
    };
    let mut target =
        String::with_capacity(endpoint.prefix.len() + own.len() + head.query.len() + 1);
    target.push_str(&endpoint.prefix);
    target.push_str(own);
    for pair in head.query.split('&').filter(|pair| may_pass(pair)) {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(pair);
    }
    let method = match call.operation {
        Operation::Models => Method::GET,
        _ => Method::POST,
    };
    let mut out = RequestHead::new(method, &target).map_err(malformed)?;
    own_fields(&mut out, endpoint, body).map_err(internal)?;
    let passing = Passing {
        secrets: matches!(provider.credential, Credential::Passthrough),
        tracing: false,
        without: &[],
    };
    headers::copy_request(&request.headers, &mut out, passing).map_err(malformed)?;
    if let Some(secret) = secret {
        let secret = secret.as_bytes();
        match provider.llm.dialect {
            Dialect::OpenAi => out.push_parts(&header::AUTHORIZATION, &[b"Bearer ", secret]),
            Dialect::Anthropic => out.push(&API_KEY, secret),
        }
        .map_err(|_| Refusal::new(Code::CredentialUnavailable))?;
    }
    Ok(out)
}

/// `host`, `accept-encoding` and `content-length` of an upstream request.
pub(crate) fn own_fields(
    out: &mut RequestHead,
    endpoint: &waypoint_config::Endpoint,
    body: &Bytes,
) -> Result<(), ExchangeError> {
    // As it stands in an authority: an IPv6 address has its brackets.
    let host = endpoint.host.as_bytes();
    let default_port = if endpoint.tls.is_some() { 443 } else { 80 };
    let mut port = itoa::Buffer::new();
    if endpoint.port == default_port {
        out.push(&header::HOST, host)?;
    } else {
        let port = port.format(endpoint.port).as_bytes();
        out.push_parts(&header::HOST, &[host, b":", port])?;
    }
    out.push(&header::ACCEPT_ENCODING, b"identity")?;
    if out.method() == Method::POST {
        let mut length = itoa::Buffer::new();
        let length = length.format(body.len()).as_bytes();
        out.push(&header::CONTENT_LENGTH, length)?;
    }
    Ok(())
}

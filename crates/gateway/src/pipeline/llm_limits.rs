//! What an LLM call holds of its limits: reserved for each target, grown while a stream runs.

use std::sync::Arc;

use bytes::Bytes;
use waypoint_config::{LlmRoute, Provider};
use waypoint_llm::{
    Call, Candidate, Closing, Failure, Price, Source, Stream, StreamError, Usage, cost, input_size,
};
use waypoint_policy::limit::{Cut, Rates, Subject};
use waypoint_policy::{Code, Operation, Refusal};

use super::llm::{query, targets};
use crate::context::Context;
use crate::limits::{Ask, Estimate, Reservation, Used};
use crate::proxy::Waypoint;

/// Output tokens that have to be left for a stream to begin.
const BEGIN: u64 = 64;

/// What a call to one target holds, and what is to be learned from it.
pub(super) struct Metered {
    reservation: Reservation,
    estimate: Arc<Estimate>,
    bytes: usize,
    candidate: Candidate,
    generates: bool,
    price: Option<Price>,
    /// Of a stream that may have to end as if it were complete.
    closing: Option<Box<Closing>>,
}

/// Reserves what a call to this target may use; `None` where nothing limits it.
///
/// The input is estimated from the request's size. Of the output a plain answer reserves all that
/// the caller accepts, since it cannot be cut; a stream reserves what is usual, and takes more as it
/// goes.
///
/// # Errors
/// The refusal of a limit that has no room.
pub(super) async fn reserve(
    waypoint: &Waypoint,
    context: &mut Context,
    route: &LlmRoute,
    call: &Call,
    (provider, candidate): (&Provider, &Candidate),
    body: &[u8],
) -> Result<Option<Box<Metered>>, Refusal> {
    let policy = &context.state.snapshot.policy;
    if policy.usage_limits().is_empty() {
        return Ok(None);
    }
    let bytes = input_size(body);
    let targets = targets(route, provider);
    let limits = policy.limits(&query(context, &targets, call, candidate));
    if limits.is_empty() {
        return Ok(None);
    }
    let generates = call.operation.generates();
    let counts = generates || call.operation == Operation::Embeddings;
    let label = context.record.action.model_label.as_deref();
    let estimate = waypoint
        .limits
        .estimate(&provider.llm.name.to_string(), label.unwrap_or_default());
    let (input, least_input) = match counts {
        true => (estimate.input(bytes), Estimate::least_input(bytes)),
        false => (0, 0),
    };
    let usual = estimate.output().saturating_mul(call.answers);
    let (output, least_output) = match (call.max_output_tokens, call.stream) {
        _ if !generates => (0, None),
        (Some(most), false) => (most, None),
        (Some(most), true) => (most.min(usual), Some(BEGIN)),
        (None, true) => (usual, Some(BEGIN)),
        // It cannot be cut.
        (None, false) => (usual, Some(BEGIN.max(usual / 4))),
    };
    let ask = Ask {
        input,
        least_input,
        output,
        least_output,
        price: provider.llm.price(&candidate.model),
        is_billed: counts,
    };
    let claims = context.facts.view().claims;
    let subject = Subject {
        route: context.record.route.as_deref(),
        provider: Some(&provider.llm.name),
        model: Some(&candidate.model),
        claims,
        ..Subject::of(&context.record.principal)
    };
    let would_deny = &mut context.record.would_deny;
    let costs = limits.iter().any(|limit| limit.cost.is_some());
    let reserved = waypoint.limits.reserve(limits, &subject, ask, would_deny);
    let reservation = reserved.await?;
    context.record.warned(reservation.warnings());
    context.record.price_unknown = costs && counts && ask.price.is_none();
    Ok(Some(Box::new(Metered {
        reservation,
        estimate,
        bytes,
        candidate: candidate.clone(),
        generates,
        price: ask.price,
        closing: None,
    })))
}

impl Metered {
    /// The call goes to another target.
    pub(super) fn moved(self) {
        self.reservation.moved();
    }

    /// Whether it was reserved for this target.
    pub(super) fn is_for(&self, candidate: &Candidate) -> bool {
        self.candidate == *candidate
    }

    /// A stream begins, which is kept track of if it may have to end as if it were complete.
    pub(super) fn streams(&mut self, call: &Call, event_limit_bytes: usize) {
        let may_finish = self.generates && self.reservation.may_finish();
        self.closing = may_finish.then(|| Box::new(Closing::new(call, event_limit_bytes)));
    }

    /// What ends the stream that was cut, where that is to look like its end.
    pub(super) fn close(&mut self, usage: &Usage) -> Option<Bytes> {
        let closing = self.closing.take();
        let is_asked = self.reservation.cut() == Some(Cut::Finish);
        let mut usage = *usage;
        usage.input.get_or_insert(self.estimate.input(self.bytes));
        closing.filter(|_| is_asked)?.end(&usage)
    }

    /// The call is on its way.
    pub(super) fn sent(&mut self) {
        self.reservation.sent();
    }

    /// A try failed. One that was refused, or never arrived, used nothing; what became of any other
    /// nobody knows.
    pub(super) fn failed(&mut self, failure: Failure) {
        match failure {
            Failure::Status(_) | Failure::Connect => self.reservation.refused(),
            Failure::Reset | Failure::Timeout => {}
        }
    }

    /// The same call is made again.
    pub(super) fn again(&mut self) {
        self.reservation.again();
    }

    /// A plain answer is complete, and says this of itself.
    pub(super) fn answered(&mut self, usage: Option<&Usage>) {
        match usage {
            Some(usage) if usage.source == Source::Upstream => self.exact(usage),
            _ if !self.generates => self.reservation.used(Used {
                output: Some(0),
                ..Used::default()
            }),
            // What it used nobody says: it keeps what it holds.
            _ => {}
        }
    }

    /// What is left of its limits.
    pub(super) fn rates(&self) -> Rates {
        self.reservation.rates()
    }

    /// Settles, and says what is left.
    pub(super) fn settle(self) -> Rates {
        self.reservation.settle()
    }

    /// A stream has ended, in whatever way: what came of it was counted.
    pub(super) fn ended(&mut self, usage: &Usage) {
        match usage.source {
            Source::Upstream => self.exact(usage),
            Source::Estimated => {
                self.reservation.used(Used {
                    input: usage.input,
                    output: Some(usage.output.unwrap_or_default()),
                    cost: None,
                });
            }
        }
    }

    /// Takes what a stream has used beyond what it holds. What it has written counts even where the
    /// provider has named a smaller number before.
    async fn grow(&mut self, stream: &Stream) -> Result<(), Refusal> {
        let usage = stream.usage();
        let written = stream.output_tokens();
        let output = usage.output.unwrap_or_default().max(written);
        self.reservation.grow(usage.input, output).await
    }

    fn exact(&mut self, usage: &Usage) {
        let output = usage.output.or((!self.generates).then_some(0));
        // With the cache's part, which the estimate knows nothing of.
        let known = usage.input.is_some() && output.is_some();
        let price = self.price.filter(|_| known);
        self.reservation.used(Used {
            input: usage.input,
            output,
            cost: price.map(|price| cost(&price, usage)),
        });
        if let Some(input) = usage.input {
            let output = usage.output.filter(|_| self.generates);
            self.estimate.learn(self.bytes, input, output);
        }
    }
}

/// Pushes a piece of an answer into its stream. Where limits are held that is done event by event:
/// what is left of them is taken before more is shown, and beyond it nothing is.
///
/// # Errors
/// The refusal of a limit that cuts the stream, or of an event that is too large; what may be shown
/// is in `out` all the same.
pub(super) async fn push(
    metered: Option<&mut Box<Metered>>,
    stream: &mut Stream,
    mut bytes: Bytes,
    out: &mut Vec<Bytes>,
) -> Result<(), Refusal> {
    let too_large = |_: StreamError| {
        Refusal::new(Code::UpstreamBadAnswer).with_message("an event of the upstream is too large")
    };
    let Some(metered) = metered else {
        return stream.push(bytes, out).map_err(too_large);
    };
    let mut cut = Ok(());
    let mut shown = out.len();
    while !bytes.is_empty() {
        let before = stream.output_bytes();
        let pushed = stream.push(bytes.split_to(event_end(&bytes)), out);
        // What comes after the cut has been written too, and is counted.
        if cut.is_ok() {
            let grown = metered.grow(stream).await;
            // What writes nothing tells what has been used, or ends the stream: holding it back
            // would save nothing.
            if stream.output_bytes() > before {
                cut = grown;
            }
        }
        if cut.is_ok() {
            if let Some(closing) = &mut metered.closing {
                let events = out.get(shown..).unwrap_or_default();
                events.iter().for_each(|events| closing.see(events));
            }
            shown = out.len();
        }
        if let Err(error) = pushed {
            cut = cut.and(Err(too_large(error)));
            break;
        }
    }
    out.truncate(shown);
    cut
}

/// Where the first event ends: after its empty line, or with the bytes.
fn event_end(bytes: &[u8]) -> usize {
    let mut ends = memchr::memchr_iter(b'\n', bytes).map(|at| at + 1);
    let is_empty = |rest: &[u8]| matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]);
    let end = ends.find(|&end| bytes.get(end..).is_some_and(is_empty));
    end.map_or(bytes.len(), |end| match bytes.get(end) {
        Some(b'\n') => end + 1,
        _ => end + 2,
    })
}

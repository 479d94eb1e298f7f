//! The facts of one request, gathered on its way and written once at its end.

mod audit;
mod dollars;
mod event;
mod metrics;
mod principals;
mod recent;
mod series;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use waypoint_config::Snapshot;
use waypoint_llm::{Price, Usage, cost};
use waypoint_mesh::IdentitySource;
use waypoint_policy::istio::Verdict;
use waypoint_policy::{By, Code, Decision, ObjectName, Operation, Principal, Refusal, RuleName};

use crate::limits::Warning;

pub(crate) use audit::{AuditLog, Sinks as AuditSinks};
pub(crate) use event::Timestamp;
pub(crate) use metrics::Metrics;
pub(crate) use recent::{Recent, Remembered};

/// Identifies a request in answers, audit events and `/decisions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 32]);

impl RequestId {
    pub(crate) fn new() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let random = rand::random::<u128>().to_be_bytes();
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Self(text)
    }

    /// Reads an id as [`Self::as_str`] writes it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        let text: [u8; 32] = text.as_bytes().try_into().ok()?;
        text.iter().all(is_digit).then_some(Self(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The first digit's value: as random as all of it.
    pub(crate) fn first_digit(&self) -> usize {
        let [first, ..] = self.0;
        match first {
            b'a'.. => usize::from(first - b'a') + 10,
            _ => usize::from(first.saturating_sub(b'0')),
        }
    }
}

/// What was asked, in the words of the audit event.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActionRecord {
    pub(crate) kind: &'static str,
    pub(crate) provider: Option<ObjectName>,
    pub(crate) operation: Option<Operation>,
    pub(crate) model: Option<Box<str>>,
    /// What the provider is asked for, where that is another name.
    pub(crate) upstream_model: Option<Box<str>>,
    /// The bound that the caller sets on the answer.
    pub(crate) max_output_tokens: Option<u64>,
    /// The model as a metric label: a configured name, never the caller's text.
    pub(crate) model_label: Option<Box<str>>,
    pub(crate) server: Option<Arc<str>>,
    pub(crate) method: Option<Box<str>>,
    /// The method as a metric label: a known one.
    pub(crate) method_label: Option<&'static str>,
    /// What was decided on: that of a task is what made it.
    pub(crate) decided_method: Option<&'static str>,
    pub(crate) tool: Option<Box<str>>,
}

/// The facts of one request.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    pub(crate) id: RequestId,
    pub(crate) started: Instant,
    pub(crate) time: SystemTime,
    pub(crate) generation: u64,
    pub(crate) listener: Arc<str>,
    pub(crate) principal: Principal,
    pub(crate) identity_source: IdentitySource,
    pub(crate) trace_id: Option<Box<str>>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) action: ActionRecord,
    pub(crate) allowed: Option<bool>,
    pub(crate) by: Option<By>,
    pub(crate) would_deny: Vec<Arc<RuleName>>,
    /// Istio policies on trial that would deny the request, whatever it asks for.
    istio_would_deny: Vec<Arc<RuleName>>,
    /// AUDIT rules, and rules of Istio's policies on trial, that match.
    istio_marked: Vec<Arc<RuleName>>,
    /// Rules of the agents' policies on trial that match.
    tried: Box<[Arc<RuleName>]>,
    pub(crate) status: u16,
    pub(crate) code: Option<Code>,
    pub(crate) usage: Option<Usage>,
    /// What that cost, where a price is known.
    pub(crate) cost_micro_usd: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) first_token: Option<Duration>,
    pub(crate) upstream_started: Option<Instant>,
    pub(crate) streamed: bool,
    pub(crate) downstream_gone: bool,
    /// Whether it went on although an external authorizer could not be asked.
    pub(crate) failed_open: bool,
    /// Limits of which much is used.
    pub(crate) limit_warnings: Vec<Warning>,
    /// Whether money is limited, and nobody knows what the call costs.
    pub(crate) price_unknown: bool,
}

impl RequestRecord {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        Self {
            id: RequestId::new(),
            started: Instant::now(),
            time: SystemTime::now(),
            generation: snapshot.generation,
            listener: Arc::from(""),
            principal: Principal::Anonymous,
            identity_source: IdentitySource::None,
            trace_id: None,
            route: None,
            action: ActionRecord::default(),
            allowed: None,
            by: None,
            would_deny: Vec::new(),
            istio_would_deny: Vec::new(),
            istio_marked: Vec::new(),
            tried: Box::default(),
            status: 0,
            code: None,
            usage: None,
            cost_micro_usd: None,
            attempts: 0,
            first_token: None,
            upstream_started: None,
            streamed: false,
            downstream_gone: false,
            failed_open: false,
            limit_warnings: Vec::new(),
            price_unknown: false,
        }
    }

    /// Notes what the policy said; the last word counts.
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.allowed = Some(decision.is_allowed());
        self.by = Some(decision.by().clone());
        self.would_deny.clone_from(&self.istio_would_deny);
        self.would_deny.extend_from_slice(decision.would_deny());
        self.tried = decision.tried().into();
    }

    /// Notes what the call used, and what that cost at this price.
    pub(crate) fn used(&mut self, usage: Usage, price: Option<&Price>) {
        self.usage = Some(usage);
        self.cost_micro_usd = price
            .filter(|_| usage.is_counted())
            .map(|price| cost(price, &usage));
    }

    /// Notes limits of which much is used, each once.
    pub(crate) fn warned(&mut self, warnings: impl Iterator<Item = Warning>) {
        for warning in warnings {
            let known = &mut self.limit_warnings;
            known.retain(|known| known.limit.name != warning.limit.name);
            known.push(warning);
        }
    }

    /// Rules that matched and decide nothing.
    fn marked(&self) -> impl Iterator<Item = &Arc<RuleName>> {
        self.istio_marked.iter().chain(&self.tried)
    }

    /// Notes what Istio's policies said, and which of their rules matched for nothing.
    pub(crate) fn judged(&mut self, verdict: &Verdict, marked: Vec<Arc<RuleName>>) {
        self.istio_marked = marked;
        self.istio_would_deny = verdict.would_deny().to_vec();
        self.would_deny.clone_from(&self.istio_would_deny);
    }

    /// Notes that the caller is refused, and why.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.code = Some(refusal.code);
        if let Some(by) = &refusal.by {
            self.allowed = Some(false);
            self.by = Some(by.clone());
        }
    }
}

/// Where facts go: counters, and the audit log.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) metrics: Metrics,
    pub(crate) audit: AuditLog,
}

impl Recorder {
    /// Writes a request that was cut off before it could end, as happens when the process does.
    pub(crate) fn abandon(&self, record: &mut RequestRecord) {
        record.code.get_or_insert(Code::ShuttingDown);
        let took = record.started.elapsed();
        self.metrics.request(record, took);
        self.audit.push(record, took);
    }

    pub(crate) fn new() -> Self {
        Self {
            metrics: Metrics::new(),
            audit: AuditLog::new(),
        }
    }

    /// Writes a finished request: metrics, the audit event, a debug span. Waits only while the
    /// audit log is full.
    pub(crate) async fn finish(&self, record: &RequestRecord) {
        let took = record.started.elapsed();
        self.metrics.request(record, took);
        self.audit.write(record, took).await;
        tracing::debug!(
            target: "waypoint::request",
            request_id = record.id.as_str(),
            status = record.status,
            code = record.code.map(Code::as_str),
            allowed = record.allowed,
            duration_ms = took.as_secs_f64() * 1e3,
            "request"
        );
    }
}

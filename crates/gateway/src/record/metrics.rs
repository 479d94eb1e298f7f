//! Every metric family of the gateway, with its labels and its unit.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use waypoint_mesh::ConnectionResult;
use waypoint_policy::{Kind, PolicySet};

use super::RequestRecord;
use super::dollars::Dollars;
use super::principals::Principals;
use super::series::{Found, Labels, NONE, Series, rule_labels};
use crate::limits::StoreMetrics;

/// Boundaries of the OpenTelemetry GenAI conventions, in seconds.
const SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// Boundaries of the OpenTelemetry GenAI conventions, in tokens.
const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
];
/// What names a rule.
const RULE: [&str; 4] = ["kind", "namespace", "policy", "rule"];
/// Rules beyond this have a counter from their first hit on.
const RULES_MAX: usize = 2_000;

/// All families, registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    principals: Principals,
    found: Found,
    requests: IntCounterVec,
    decisions: IntCounterVec,
    would_deny: IntCounterVec,
    limit_warnings: IntCounterVec,
    rule_hits: IntCounterVec,
    connections: IntCounterVec,
    attempts: IntCounterVec,
    ext_authz: IntCounterVec,
    token_usage: HistogramVec,
    cost: Dollars,
    unpriced: IntCounterVec,
    llm_duration: HistogramVec,
    first_token: HistogramVec,
    mcp_server_duration: HistogramVec,
    mcp_client_duration: HistogramVec,
    streams: IntGaugeVec,
    streams_ended: IntCounterVec,
    keys_fetched: IntCounterVec,
    pub(crate) generation: IntGauge,
    pub(crate) limit_buckets: IntGauge,
    pub(crate) limit_store: StoreMetrics,
    pub(crate) rejected: IntCounter,
    pub(crate) audit_lost: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histograms = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(opts, labels))
        };
        let llm = [
            "gen_ai_operation_name",
            "gen_ai_provider_name",
            "gen_ai_request_model",
        ];
        let llm_error = [llm[0], llm[1], llm[2], "error_type"];
        let mcp = ["mcp_method_name", "waypoint_server", "error_type"];
        Self {
            requests: counters(
                "waypoint_requests_total",
                "Requests that ended, by listener, route, status class and refusal code.",
                &["listener", "route", "status", "code"],
            ),
            decisions: counters(
                "waypoint_decisions_total",
                "Policy decisions, by outcome, action family, mode, refusal code, the policy that decided (its kind and namespace, or the kind of default that did) and principal.",
                &[
                    "decision",
                    "action",
                    "mode",
                    "code",
                    "kind",
                    "namespace",
                    "policy",
                    "principal",
                ],
            ),
            limit_warnings: counters(
                "waypoint_limit_warnings_total",
                "Calls that reached a warning threshold of a limit, by limit and threshold in percent.",
                &["namespace", "limit", "at_percent"],
            ),
            would_deny: counters(
                "waypoint_would_deny_total",
                "Decisions that a dry-run policy, or an observed default, would have denied.",
                &RULE,
            ),
            rule_hits: counters(
                "waypoint_rule_hits_total",
                "Requests that a rule decided, or of AUDIT and dry-run policies: matched, by the rule's object and name; a rule that never does stays at 0.",
                &RULE,
            ),
            connections: counters(
                "waypoint_connections_total",
                "Downstream connection attempts, by listener and result.",
                &["listener", "result"],
            ),
            attempts: counters(
                "waypoint_upstream_attempts_total",
                "Upstream tries, by upstream and result (ok, retried, failed).",
                &["upstream", "result"],
            ),
            ext_authz: counters(
                "waypoint_ext_authz_checks_total",
                "Questions to external authorizers, by extension provider and result (allowed, denied, failed, failed_open).",
                &["provider", "result"],
            ),
            token_usage: histograms(
                "gen_ai_client_token_usage",
                "Tokens per call.",
                TOKENS,
                &["gen_ai_token_type", llm[0], llm[1], llm[2], "principal"],
            ),
            cost: register(
                &registry,
                Dollars::new(
                    "gen_ai_client_cost_usd_total",
                    "What calls cost whose price is known, in USD.",
                    &[llm[0], llm[1], llm[2], "principal"],
                ),
            ),
            unpriced: counters(
                "waypoint_unpriced_calls_total",
                "Calls whose tokens are known and whose price is not, by provider.",
                &["provider"],
            ),
            llm_duration: histograms(
                "gen_ai_client_operation_duration_seconds",
                "LLM calls from the request's head to the end of the answer, in seconds.",
                SECONDS,
                &llm_error,
            ),
            first_token: histograms(
                "gen_ai_server_time_to_first_token_seconds",
                "Streamed LLM calls from the request's head to the first event, in seconds.",
                SECONDS,
                &llm,
            ),
            mcp_server_duration: histograms(
                "mcp_server_operation_duration_seconds",
                "MCP calls as the caller sees them, in seconds.",
                SECONDS,
                &mcp,
            ),
            mcp_client_duration: histograms(
                "mcp_client_operation_duration_seconds",
                "MCP calls from the start of the upstream request, in seconds.",
                SECONDS,
                &mcp,
            ),
            streams: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("waypoint_streams", "Streams that run now."),
                    &["kind"],
                ),
            ),
            streams_ended: counters(
                "waypoint_streams_ended_total",
                "Streams that ended, by kind and how.",
                &["kind", "how"],
            ),
            keys_fetched: counters(
                "waypoint_jwks_fetches_total",
                "Attempts to fetch the keys of tokens, by the place as configured (or that of the issuer's OpenID configuration) and result (ok, failed).",
                &["uri", "result"],
            ),
            limit_buckets: register(
                &registry,
                IntGauge::new(
                    "waypoint_limit_buckets",
                    "Buckets of usage limits that are remembered.",
                ),
            ),
            limit_store: StoreMetrics {
                up: register(
                    &registry,
                    IntGaugeVec::new(
                        Opts::new(
                            "waypoint_limit_store_up",
                            "1 while the store of shared limits answers; nothing where there is none.",
                        ),
                        &[],
                    ),
                ),
                round_trips: register(
                    &registry,
                    IntCounter::new(
                        "waypoint_limit_store_round_trips_total",
                        "Questions to the store of shared limits.",
                    ),
                ),
                failures: register(
                    &registry,
                    IntCounter::new(
                        "waypoint_limit_store_failures_total",
                        "Questions to the store of shared limits that had no answer, or none that could be used.",
                    ),
                ),
            },
            generation: register(
                &registry,
                IntGauge::new(
                    "waypoint_config_generation",
                    "Configuration generation in force.",
                ),
            ),
            rejected: register(
                &registry,
                IntCounter::new(
                    "waypoint_config_rejected_total",
                    "Changed configurations that had errors and were not taken.",
                ),
            ),
            audit_lost: register(
                &registry,
                IntCounter::new(
                    "waypoint_audit_lost_total",
                    "Audit events that could not be written.",
                ),
            ),
            principals: Principals::default(),
            found: Found::default(),
            registry,
        }
    }

    /// Makes the counter of every rule in force, so that those that are never needed are seen too.
    pub(crate) fn rules(&self, policy: &PolicySet) {
        for rule in rules(policy).take(RULES_MAX) {
            let _ = self.rule_hits.with_label_values(&rule);
        }
    }

    /// How often each rule has decided a request, or matched one where it decides nothing.
    pub(crate) fn rule_hits(&self, policy: &PolicySet) -> Vec<serde_json::Value> {
        let hits = |rule: [&str; 4]| {
            let [kind, namespace, name, rule_name] = rule;
            let hits = self.rule_hits.with_label_values(&rule).get();
            serde_json::json!({
                "kind": kind, "namespace": namespace, "name": name, "rule": rule_name, "hits": hits,
            })
        };
        rules(policy).take(RULES_MAX).map(hits).collect()
    }

    pub(crate) fn connection(&self, listener: &str, result: ConnectionResult) {
        self.connections
            .with_label_values(&[listener, result.as_str()])
            .inc();
    }

    /// Counts one upstream try.
    pub(crate) fn attempt(&self, upstream: &str, result: &str) {
        self.attempts.with_label_values(&[upstream, result]).inc();
    }

    /// Counts a question to an external authorizer.
    pub(crate) fn ext_authz(&self, provider: &str, result: &str) {
        self.ext_authz.with_label_values(&[provider, result]).inc();
    }

    /// Counts an attempt to fetch keys.
    pub(crate) fn keys_fetched(&self, uri: &str, is_ok: bool) {
        let result = if is_ok { "ok" } else { "failed" };
        self.keys_fetched.with_label_values(&[uri, result]).inc();
    }

    /// Counts a running stream until the guard is dropped.
    pub(crate) fn stream(&self, kind: &'static str) -> StreamGuard {
        let gauge = self.streams.with_label_values(&[kind]);
        gauge.inc();
        StreamGuard { gauge }
    }

    /// Counts how a stream ended.
    pub(crate) fn stream_ended(&self, kind: &'static str, how: &'static str) {
        self.streams_ended.with_label_values(&[kind, how]).inc();
    }

    pub(super) fn request(&self, record: &RequestRecord, took: Duration) {
        let labels = Labels::of(record);
        let series = self.found.get(labels, || self.series(labels));
        series.requests.inc();
        if let Some(decisions) = &series.decision {
            decisions.inc();
        }
        if let Some(hits) = &series.rule_hits {
            hits.inc();
        }
        for rule in record.marked() {
            self.rule_hits.with_label_values(&rule_labels(rule)).inc();
        }
        for warning in &record.limit_warnings {
            let name = &warning.limit.name;
            let labels = [&*name.namespace, &*name.name, &warning.at.to_string()];
            self.limit_warnings.with_label_values(&labels).inc();
        }
        for rule in &record.would_deny {
            self.would_deny.with_label_values(&rule_labels(rule)).inc();
        }
        if let Some(duration) = &series.duration {
            duration.observe(took.as_secs_f64());
        }
        match record.action.kind {
            "llm" => self.llm(&series, labels, record),
            "mcp" => self.mcp(&series, labels, record),
            _ => {}
        }
    }

    /// Looks the handles of these labels up.
    fn series(&self, labels: Labels<'_>) -> Series {
        let Labels {
            listener,
            route,
            status,
            code,
            decision,
            mode,
            kind,
            policy,
            principal,
            rule,
            operation,
            backend,
            model,
        } = labels;
        let requests = [listener, route, status, code];
        let mut series = Series::new(labels, self.requests.with_label_values(&requests));
        if !decision.is_empty() {
            let principal = self.principals.label(principal);
            let [of, namespace, policy] = policy;
            let decided = [decision, kind, mode, code, of, namespace, policy, principal];
            series.decision = Some(self.decisions.with_label_values(&decided));
        }
        if rule != Labels::NO_RULE {
            series.rule_hits = Some(self.rule_hits.with_label_values(&rule));
        }
        series.duration = match kind {
            "llm" => {
                let call = [operation, backend, model, code];
                Some(self.llm_duration.with_label_values(&call))
            }
            "mcp" => {
                let call = [operation, backend, code];
                Some(self.mcp_server_duration.with_label_values(&call))
            }
            _ => None,
        };
        series
    }

    fn llm(&self, series: &Series, labels: Labels<'_>, record: &RequestRecord) {
        let call = [labels.operation, labels.backend, labels.model];
        if let Some(first) = record.first_token {
            let family = &self.first_token;
            series
                .first_token
                .get_or_init(|| family.with_label_values(&call))
                .observe(first.as_secs_f64());
        }
        let Some(usage) = &record.usage else { return };
        match record.cost_micro_usd {
            Some(micro_usd) => {
                let made = || {
                    let [operation, provider, model] = call;
                    let principal = self.principals.label(labels.principal);
                    self.cost
                        .with_label_values(&[operation, provider, model, principal])
                };
                series.cost.get_or_init(made).inc_by(micro_usd);
            }
            None if usage.is_counted() => {
                self.unpriced.with_label_values(&[labels.backend]).inc();
            }
            None => {}
        }
        let counted = [
            ("input", usage.input),
            ("output", usage.output),
            ("cached_input", usage.cached_input),
            ("reasoning", usage.reasoning),
        ];
        for ((kind, tokens), histogram) in counted.into_iter().zip(&series.tokens) {
            if let Some(tokens) = tokens {
                let made = || {
                    let [operation, provider, model] = call;
                    let principal = self.principals.label(labels.principal);
                    let counted = [kind, operation, provider, model, principal];
                    self.token_usage.with_label_values(&counted)
                };
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "token counts stay far below 2^52"
                )]
                histogram.get_or_init(made).observe(tokens as f64);
            }
        }
    }

    fn mcp(&self, series: &Series, labels: Labels<'_>, record: &RequestRecord) {
        let call = [labels.operation, labels.backend, labels.code];
        if let Some(started) = record.upstream_started {
            let family = &self.mcp_client_duration;
            series
                .upstream_duration
                .get_or_init(|| family.with_label_values(&call))
                .observe(started.elapsed().as_secs_f64());
        }
    }

    /// The registry in Prometheus text format.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }
}

/// Counts a stream as running for as long as it lives.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    gauge: IntGauge,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Kind, namespace, name and rule of every rule in force.
fn rules(policy: &PolicySet) -> impl Iterator<Item = [&str; 4]> {
    let agents = policy.policies().iter().flat_map(|policy| {
        let of = &policy.name;
        let kind = Kind::AgentPolicy.as_str();
        let rules = policy.rules.iter();
        rules.map(move |rule| [kind, &*of.namespace, &*of.name, &*rule.name])
    });
    let istio = policy.istio_policies().iter().flat_map(|policy| {
        let of = &policy.name;
        let kind = Kind::AuthorizationPolicy.as_str();
        let rules = policy.rules.iter();
        rules.map(move |rule| [kind, &*of.namespace, &*of.name, &*rule.name])
    });
    // A policy of this kind denies as a whole.
    let access = policy.access_policies().flat_map(|policy| {
        let of = &policy.name;
        let kind = Kind::XAccessPolicy.as_str();
        let rules = policy.rules.iter().flatten().map(|rule| &*rule.name);
        let rules = std::iter::once(NONE).chain(rules);
        rules.map(move |rule| [kind, &*of.namespace, &*of.name, rule])
    });
    agents.chain(istio).chain(access)
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("metric names and labels are constants of this file");
    registry
        .register(Box::new(collector.clone()))
        .expect("each metric family is registered once");
    collector
}

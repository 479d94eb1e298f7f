//! Reserving and settling by local limits, with 100,000 live buckets.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::future::Future as _;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use waypoint_gateway::limits::{Ask, Limits, Used};
use waypoint_policy::limit::{
    Count, Cut, Dimension, ExhaustedStatus, OnExceeded, Period, Prefix, Requests, Store, Subject,
    Tokens, UsageLimit,
};
use waypoint_policy::{LlmBlock, Mode, ObjectName, Principal, Rule};

const BUCKETS: usize = 100_000;

/// Tokens, requests, output tokens, calls at the same time: each counts one of them.
fn limit(number: usize) -> UsageLimit {
    let name = format!("limit-{number}");
    let period = Period::Window(Duration::from_secs(86_400));
    UsageLimit {
        rule: Rule {
            name: (&*name).into(),
            from: None,
            llm: vec![LlmBlock::default()],
            mcp: Vec::new(),
            http: Vec::new(),
        },
        name: ObjectName::new("agents", &name),
        targets: Vec::new(),
        mode: Mode::Enforce,
        per: vec![Dimension::Principal, Dimension::Model],
        tokens: number.is_multiple_of(2).then_some(Tokens {
            limit: 1_000_000_000,
            period,
            count: if number.is_multiple_of(4) {
                Count::Total
            } else {
                Count::Output
            },
        }),
        requests: (number % 4 == 1).then_some(Requests {
            limit: 1_000_000_000,
            period,
            burst: None,
        }),
        cost: None,
        concurrency: (number % 4 == 3).then_some(100),
        on_exceeded: OnExceeded::Cut,
        cut: Cut::Error,
        warn_at: Vec::new(),
        prefix: Prefix::default(),
        exhausted_status: ExhaustedStatus::default(),
        store: Store::Local,
    }
}

fn agent(number: usize) -> Principal {
    let id = format!("spiffe://cluster.local/ns/agents/sa/agent-{number}");
    Principal::Workload(id.parse().unwrap())
}

fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits");
    let ask = Ask {
        input: 300,
        output: 1000,
        least_input: 300,
        least_output: None,
        price: None,
        is_billed: true,
    };
    for held in [1, 4] {
        let store = Arc::new(Limits::default());
        let all: Vec<Arc<UsageLimit>> = (0..held)
            .map(|number| Arc::new(limit(number).ready()))
            .collect();
        let agents: Vec<Principal> = (0..BUCKETS / held).map(agent).collect();
        let call = |principal: &Principal| {
            let subject = Subject {
                model: Some("gpt-4o"),
                ..Subject::of(principal)
            };
            let mut would_deny = Vec::new();
            let reserved = store.reserve(&all, &subject, black_box(ask), &mut would_deny);
            // Local limits wait for nothing.
            let context = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(mut reservation)) = pin!(reserved).poll(context) else {
                panic!("not reserved");
            };
            reservation.sent();
            reservation.used(Used {
                input: Some(290),
                output: Some(40),
                cost: None,
            });
        };
        agents.iter().for_each(call);
        // A busy agent's buckets are in the cache; of agents that call once in a while nothing is,
        // and they are far apart in memory.
        for (which, agents) in [("busy", agents.get(..100).unwrap()), ("idle", &agents[..])] {
            let mut next = 0;
            group.bench_function(
                format!("reserve and settle, {held} limits of 100,000 buckets, {which}"),
                |bencher| {
                    let mut choose = || {
                        next = (next + 7919) % agents.len();
                        let principal = &agents[next];
                        // Who calls has been looked at before.
                        black_box(principal.spiffe().map(|id| id.as_str().to_owned()));
                        principal
                    };
                    bencher.iter_batched(&mut choose, call, BatchSize::NumIterations(100));
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, limits);
criterion_main!(benches);

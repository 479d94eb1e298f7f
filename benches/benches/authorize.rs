//! Istio's policies, with 10 to 10,000 of them that differ in one field: the cost must not grow. And
//! the memory that 10,000 policies hold, Istio's and ours.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::alloc::System;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use waypoint_policy::istio::{
    Attribute, AuthorizationPolicy, IstioAction, IstioRule, Request, Test, TextMatch, Value,
};
use waypoint_policy::{
    AgentPolicy, Caller, Effect, HttpBlock, Kind, LlmBlock, McpBlock, MethodRule, Mode, ObjectName,
    ObjectRef, Operation, PolicySet, Posture, Principal, ProviderId, Rule, ServerId, Settings,
    SpiffePattern,
};

/// Counts what is held; what is timed beside compiling allocates nothing.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn gateway() -> ObjectRef {
    ObjectRef::whole(Kind::Gateway, ObjectName::new("agents", "wp"))
}

fn test(attribute: Attribute, field: &str, value: &str) -> Test {
    Test {
        attribute,
        field: field.into(),
        values: Some(vec![Value::Text(TextMatch::new(value))]),
        not_values: Vec::new(),
    }
}

/// Who, where and what the policy of this number is about; all policies differ in `differ` alone.
fn names(differ: &str, number: usize) -> [String; 3] {
    let of = |field: &str| if field == differ { number } else { 0 };
    [
        format!("cluster.local/ns/agents/sa/agent-{}", of("principals")),
        format!("host-{}.example.com", of("hosts")),
        format!("/path-{}/", of("paths")),
    ]
}

fn policies(count: usize, differ: &str) -> Vec<AuthorizationPolicy> {
    let one = |number: usize| {
        let [principal, host, path] = names(differ, number);
        AuthorizationPolicy {
            name: ObjectName::new("agents", &format!("policy-{number}")),
            targets: vec![gateway()],
            action: IstioAction::Allow,
            provider: None,
            mode: Mode::Enforce,
            rules: vec![IstioRule {
                name: "rule[0]".into(),
                from: Some(vec![vec![test(
                    Attribute::Principal,
                    "principals",
                    &principal,
                )]]),
                to: Some(vec![vec![
                    test(Attribute::Host, "hosts", &host),
                    test(Attribute::Path, "paths", &format!("{path}*")),
                ]]),
                when: Vec::new(),
            }],
        }
    };
    (0..count).map(one).collect()
}

fn settings() -> Settings {
    Settings {
        posture: Posture::Strict,
        namespace: "agents".into(),
        trust_domains: vec!["cluster.local".into()],
    }
}

fn compile(policies: Vec<AuthorizationPolicy>) -> PolicySet {
    PolicySet::compile_all(Vec::new(), policies, settings())
}

/// As many policies of our own, each about another agent with a model, a tool and a path of its own.
fn agents(count: usize) -> Vec<AgentPolicy> {
    let caller = |number: usize| {
        let id = format!("spiffe://cluster.local/ns/agents/sa/agent-{number}");
        Caller {
            spiffe: Some(SpiffePattern::Exact(id.parse().unwrap())),
            service_account: None,
            namespace: None,
            jwt: None,
        }
    };
    let one = |number: usize| AgentPolicy {
        name: ObjectName::new("agents", &format!("policy-{number}")),
        targets: vec![gateway()],
        effect: Effect::Allow,
        mode: Mode::Enforce,
        rules: vec![Rule {
            name: "rule".into(),
            from: Some(vec![caller(number)]),
            llm: vec![LlmBlock {
                providers: Some(vec![ProviderId(0)]),
                models: Some(vec![format!("model-{number}-*").parse().unwrap()]),
                operations: Some(vec![Operation::Chat]),
                max_output_tokens: None,
            }],
            mcp: vec![McpBlock {
                servers: Some(vec![ServerId(0)]),
                methods: Some(vec![MethodRule {
                    method: "tools/call".parse().unwrap(),
                    params: Some(vec![format!("tool_{number}").parse().unwrap()]),
                }]),
                arguments: Vec::new(),
            }],
            http: vec![HttpBlock {
                paths: Some(vec![format!("/path-{number}/*").parse().unwrap()]),
                ..HttpBlock::default()
            }],
        }],
    };
    (0..count).map(one).collect()
}

/// Prints what a compiled set holds.
fn memory(kind: &str, compiled: impl FnOnce() -> PolicySet) {
    let region = Region::new(ALLOCATOR);
    let set = compiled();
    let change = region.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    println!(
        "authorize/memory of 10000 {kind}: {:.1} MiB held",
        held as f64 / (1 << 20) as f64
    );
    drop(set);
}

fn authorize(criterion: &mut Criterion) {
    memory("AuthorizationPolicy", || {
        compile(policies(10_000, "principals"))
    });
    memory("AgentPolicy", || {
        PolicySet::compile(agents(10_000), settings())
    });
    for differ in ["principals", "hosts", "paths"] {
        for count in [10, 1_000, 10_000] {
            let set = compile(policies(count, differ));
            let targets = [set.target(&gateway()).unwrap()];
            let [principal, host, path] = names(differ, count / 2);
            let principal: Principal =
                Principal::Workload(format!("spiffe://{principal}").parse().unwrap());
            let path = format!("{path}x");
            let request = Request {
                port: 8080,
                method: "POST",
                host: &host,
                path: &path,
                ..Request::of(&principal)
            };
            assert!(set.authorize(&request, &targets).allowed().is_some());
            let name = format!("authorize/distinct {differ}/{count} policies");
            criterion.bench_function(&name, |bencher| {
                bencher.iter(|| set.authorize(black_box(&request), &targets));
            });
        }
    }
    criterion.bench_function("authorize/compile 10000 policies", |bencher| {
        let all = policies(10_000, "principals");
        bencher.iter_batched(|| all.clone(), compile, BatchSize::LargeInput);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = authorize
}
criterion_main!(benches);

//! Istio's policies, with 10 to 10,000 of them that differ in one field: the cost must not grow.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use waypoint_policy::istio::{
    Attribute, AuthorizationPolicy, IstioAction, IstioRule, Request, Test, TextMatch, Value,
};
use waypoint_policy::{Kind, Mode, ObjectName, ObjectRef, PolicySet, Posture, Principal, Settings};

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

fn compile(policies: Vec<AuthorizationPolicy>) -> PolicySet {
    let settings = Settings {
        posture: Posture::Strict,
        namespace: "agents".into(),
        trust_domains: vec!["cluster.local".into()],
    };
    PolicySet::compile_all(Vec::new(), policies, settings)
}

fn authorize(criterion: &mut Criterion) {
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

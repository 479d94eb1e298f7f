//! One decision, with 10 to 10,000 rules: the cost must not grow.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use waypoint_policy::{
    Action, AgentPolicy, Arguments, Caller, Effect, Facts, Kind, LlmBlock, McpBlock, MethodRule,
    Mode, ObjectName, ObjectRef, Operation, PolicySet, Posture, Principal, ProviderId, Query, Rule,
    ServerId, Settings, SpiffePattern,
};

fn gateway() -> ObjectRef {
    ObjectRef::whole(Kind::Gateway, ObjectName::new("agents", "wp"))
}

fn agent(number: usize) -> String {
    format!("spiffe://cluster.local/ns/agents/sa/agent-{number}")
}

/// A policy of ten rules for each ten rules; each rule names another agent, model and tool.
fn policies(rules: usize) -> PolicySet {
    let rule = |number: usize| Rule {
        name: format!("rule-{number}").into(),
        from: Some(vec![Caller {
            spiffe: Some(SpiffePattern::Exact(agent(number).parse().unwrap())),
            service_account: None,
            namespace: None,
            jwt: None,
        }]),
        llm: vec![LlmBlock {
            providers: Some(vec![ProviderId(0)]),
            models: Some(vec![
                format!("model-{number}").parse().unwrap(),
                format!("family-{number}-*").parse().unwrap(),
            ]),
            operations: Some(vec![Operation::Chat]),
            max_output_tokens: Some(4096),
        }],
        mcp: vec![McpBlock {
            servers: Some(vec![ServerId(0)]),
            methods: Some(vec![MethodRule {
                method: "tools/call".parse().unwrap(),
                params: Some(vec![
                    format!("tool_{number}").parse().unwrap(),
                    format!("search_{number}_*").parse().unwrap(),
                ]),
            }]),
            arguments: Vec::new(),
        }],
        http: Vec::new(),
    };
    let policies = (0..rules / 10)
        .map(|policy| AgentPolicy {
            name: ObjectName::new("agents", &format!("policy-{policy}")),
            targets: vec![gateway()],
            effect: Effect::Allow,
            mode: Mode::Enforce,
            rules: (policy * 10..policy * 10 + 10).map(rule).collect(),
        })
        .collect();
    PolicySet::compile(
        policies,
        Settings {
            posture: Posture::Strict,
            namespace: "agents".into(),
            trust_domains: vec!["cluster.local".into()],
        },
    )
}

fn decide(criterion: &mut Criterion) {
    for rules in [10, 1_000, 10_000] {
        let set = policies(rules);
        let targets = [set.target(&gateway()).unwrap()];
        let number = rules / 2;
        let principal = Principal::Workload(agent(number).parse().unwrap());
        let (model, tool) = (format!("model-{number}"), format!("search_{number}_code"));
        let llm = |upstream| Action::Llm {
            provider: ProviderId(0),
            requested: "smart",
            upstream,
            operation: Some(Operation::Chat),
            max_output_tokens: Some(256),
        };
        let mcp = |name| Action::Mcp {
            server: ServerId(0),
            method: "tools/call",
            name,
            arguments: Arguments::Absent,
        };
        for (what, allowed, action) in [
            ("model allowed", true, llm(&model)),
            ("tool allowed by a glob", true, mcp(&tool)),
            ("tool denied", false, mcp("tool_of_nobody")),
        ] {
            let query = Query {
                principal: &principal,
                targets: &targets,
                action,
                facts: Facts::default(),
            };
            assert_eq!(set.decide(&query).is_allowed(), allowed, "{what}");
            criterion.bench_function(&format!("decide/{what}/{rules} rules"), |bencher| {
                bencher.iter(|| set.decide(black_box(&query)).is_allowed());
            });
        }
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);

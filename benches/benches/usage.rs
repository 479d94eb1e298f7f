//! Reading a chat call, and the usage of its plain answer.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use waypoint_benches::traffic;
use waypoint_llm::{Allowances, Call, Dialect, read_answer};
use waypoint_policy::Operation;

fn usage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("usage");
    let answer = traffic::chat_answer();
    read_answer(Dialect::OpenAi, Operation::Chat, answer.as_bytes())
        .unwrap()
        .unwrap();
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("answer 1 KiB", |bencher| {
        bencher.iter(|| {
            read_answer(
                Dialect::OpenAi,
                Operation::Chat,
                black_box(answer.as_bytes()),
            )
        });
    });
    for kib in [1, 64] {
        let body = Bytes::from(traffic::chat("gpt-plain", kib * 1024, false));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("call {kib} KiB"), |bencher| {
            bencher.iter(|| {
                Call::parse(
                    Dialect::OpenAi,
                    Operation::Chat,
                    black_box(&body),
                    &Allowances::default(),
                )
                .is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, usage);
criterion_main!(benches);

//! Reading a `tools/call` message, strictly.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use waypoint_benches::traffic;
use waypoint_wire::jsonrpc;

fn peek(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("jsonrpc");
    for (name, bytes) in [("1 KiB", 1024), ("11 KiB", 11 * 1024)] {
        let message = traffic::tools_call(bytes - 220);
        jsonrpc::parse(message.as_bytes()).unwrap();
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("tools/call {name}"), |bencher| {
            bencher.iter(|| jsonrpc::parse(black_box(message.as_bytes())).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, peek);
criterion_main!(benches);

//! A streamed answer of 50 events: cut into events, and metered.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use waypoint_benches::case::{Case, EVENTS};
use waypoint_benches::traffic;
use waypoint_llm::{Allowances, Call, Dialect, Stream};
use waypoint_policy::Operation;
use waypoint_wire::sse::Splitter;

fn stream(criterion: &mut Criterion) {
    let events: Vec<Bytes> = traffic::chat_events()
        .into_iter()
        .map(Bytes::from)
        .collect();
    let whole = Bytes::from(events.concat());
    let body = Bytes::from(traffic::chat(traffic::model(Case::Sse), 1024, true));
    let call = Call::parse(Dialect::OpenAi, Operation::Chat, &body, &Allowances::ALL).unwrap();
    let mut group = criterion.benchmark_group("sse");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, chunks) in [("a chunk each", events), ("one chunk", vec![whole])] {
        group.bench_function(format!("splitter/{name}"), |bencher| {
            bencher.iter(|| {
                let mut splitter = Splitter::new(1 << 20);
                let mut found = 0;
                for chunk in &chunks {
                    splitter.push(black_box(chunk.clone()));
                    while splitter.next().unwrap().is_some() {
                        found += 1;
                    }
                }
                assert_eq!(found, EVENTS);
            });
        });
        group.bench_function(format!("llm stream/{name}"), |bencher| {
            bencher.iter_batched_ref(
                || Vec::with_capacity(EVENTS),
                |out| {
                    let mut stream = Stream::new(&call);
                    for chunk in &chunks {
                        stream.push(black_box(chunk.clone()), out).unwrap();
                    }
                    assert!(stream.saw_terminator());
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, stream);
criterion_main!(benches);

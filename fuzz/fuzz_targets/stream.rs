//! A provider's streamed answer, cut anywhere: what is shown is what came, in whole events, and
//! it can be ended at any of them.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waypoint_llm::{Allowances, Call, Closing, Dialect, Stream};
use waypoint_policy::{Code, Operation, Refusal};

const EVENT_LIMIT: usize = 4096;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, size, bytes) = input;
    let (dialect, operation) = match kind % 3 {
        0 => (Dialect::OpenAi, Operation::Chat),
        1 => (Dialect::OpenAi, Operation::Responses),
        _ => (Dialect::Anthropic, Operation::Messages),
    };
    let asked = Bytes::from_static(
        br#"{"model":"m","stream":true,"max_tokens":9,"stream_options":{"include_usage":true},"messages":[]}"#,
    );
    let call = Call::parse(dialect, operation, &asked, &Allowances::default());
    let call = call.expect("a call");
    let mut stream = Stream::with_limit(&call, EVENT_LIMIT);
    let mut closing = Closing::new(&call, EVENT_LIMIT);
    let mut shown = Vec::new();
    for chunk in bytes.chunks(usize::from(size).max(1)) {
        let mut out = Vec::new();
        let pushed = stream.push(Bytes::copy_from_slice(chunk), &mut out);
        for events in &out {
            closing.see(events);
            shown.extend_from_slice(events);
        }
        if pushed.is_err() {
            break;
        }
    }
    // The caller asked for everything, so nothing is left out and nothing is made up.
    assert!(bytes.starts_with(&shown));
    let frame = stream.error_frame(&Refusal::new(Code::StreamTruncated));
    assert!(frame.ends_with(b"\n\n"));
    if stream.saw_terminator() {
        return;
    }
    if let Some(end) = closing.end(stream.usage()) {
        // What we take for an end is one to ourselves.
        let mut again = Stream::with_limit(&call, 1 << 20);
        again.push(end, &mut Vec::new()).expect("small events");
        assert!(again.saw_terminator() && !again.saw_error());
    }
});

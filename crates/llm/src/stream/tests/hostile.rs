//! Streams that mean harm.

use super::*;

#[test]
fn an_endless_event_is_an_error() {
    let mut stream = Stream::with_limit(&call(Operation::Chat, false), 1 << 20);
    let mut out = Vec::new();
    stream.push(CHAT.into(), &mut out).unwrap();
    let chunk = Bytes::from(vec![b'a'; 64 << 10]);
    let failed = (0..1000).position(|_| stream.push(chunk.clone(), &mut out).is_err());
    assert!(failed.is_some_and(|pushes| pushes <= 17), "{failed:?}");
    assert!(stream.push(chunk, &mut out).is_err());
    assert_eq!(out.concat(), CHAT.as_bytes());
    assert_eq!(stream.finish(&mut out), Err(Truncated));
}

#[test]
fn hostile_events_pass_or_fail_in_bounds() {
    for (case, event) in [
        (
            "deep",
            [&b"data: {\"usage\":"[..], &vec![b'['; 1 << 20], b"\n\n"].concat(),
        ),
        (
            "not UTF-8",
            b"data: {\"choices\":[],\"usage\":{\"\xff\":1}}\n\n".to_vec(),
        ),
        (
            "lone surrogate",
            br#"data: {"choices":[],"usage":{},"x":"\ud800"}"#.to_vec(),
        ),
        (
            "deltas",
            [&b"data: "[..], &b"\"delta\":{".repeat(100_000), b"\n\n"].concat(),
        ),
        (
            "quotes",
            [
                &b"data: \"delta\":\""[..],
                &b"\\\"".repeat(100_000),
                b"\n\n",
            ]
            .concat(),
        ),
        (
            "usages",
            [&b"data: "[..], &b"\"usage\":null,".repeat(100_000), b"\n\n"].concat(),
        ),
        (
            "number",
            b"data: {\"sequence_number\":99999999999999999999999}\n\n".to_vec(),
        ),
        (
            "last number",
            b"data: {\"sequence_number\":18446744073709551615}\n\n".to_vec(),
        ),
    ] {
        for operation in [Operation::Chat, Operation::Messages, Operation::Responses] {
            let passed = run(operation, true, &event, 64 << 10);
            assert!(passed.end.is_err(), "{case}");
        }
    }
}

//! Laws that hold for every stream.

use proptest::prelude::*;

use super::*;

/// A piece of a chat stream; the flag marks what a caller that did not ask must not see.
fn any_event() -> impl Strategy<Value = (String, bool)> {
    let end = prop_oneof![Just("\n"), Just("\r\n")];
    let event = prop_oneof![
        "[a-z\"\\\\ {}\\[\\]:,é]{0,30}".prop_map(|text| {
            let text = serde_json::Value::from(text);
            (
                format!(r#"data: {{"choices":[{{"delta":{{"content":{text}}}}}],"usage":null}}"#),
                false,
            )
        }),
        (0_u64..1000).prop_map(|tokens| {
            (
                format!(r#"data: {{"choices":[],"usage":{{"completion_tokens":{tokens}}}}}"#),
                true,
            )
        }),
        (0_u64..1000).prop_map(|tokens| {
            (
                format!(r#"data: {{"choices":[{{}}],"usage":{{"prompt_tokens":{tokens}}}}}"#),
                false,
            )
        }),
        Just((": comment".to_owned(), false)),
        Just(("id: 7\ndata: {}\ndata:".to_owned(), false)),
        Just(("data: {\"choices\":[]}".to_owned(), false)),
    ];
    (event, end).prop_map(|((event, hidden), end)| {
        (format!("{}{end}{end}", event.replace('\n', end)), hidden)
    })
}

proptest! {
    #[test]
    fn hides_usage_alone_and_chunks_make_no_difference(
        events in prop::collection::vec(any_event(), 0..12),
        done: bool,
        cuts in prop::collection::vec(1_usize..40, 1..200),
    ) {
        let mut all: String = events.iter().map(|(event, _)| event.as_str()).collect();
        let mut shown: String = events
            .iter()
            .filter(|(_, hidden)| !hidden)
            .map(|(event, _)| event.as_str())
            .collect();
        if done {
            all.push_str(DONE);
            shown.push_str(DONE);
        }
        let whole = run(Operation::Chat, false, all.as_bytes(), usize::MAX);
        prop_assert_eq!(&whole.text, &shown);
        prop_assert_eq!(whole.end.is_ok(), done);
        let asked = run(Operation::Chat, true, all.as_bytes(), usize::MAX);
        prop_assert_eq!(&asked.text, &all);
        prop_assert_eq!(asked.usage, whole.usage);

        let mut stream = Stream::new(&call(Operation::Chat, false));
        let (mut out, mut rest) = (Vec::new(), all.as_bytes());
        for cut in cuts.iter().cycle().take_while(|_| !all.is_empty()) {
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            stream.push(Bytes::copy_from_slice(chunk), &mut out).unwrap();
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(stream.finish(&mut out).is_ok(), done);
        prop_assert_eq!(String::from_utf8(out.concat()).unwrap(), shown);
        prop_assert_eq!(stream.usage(), &whole.usage);
        prop_assert_eq!(stream.output_bytes(), whole.output_bytes);
    }

    #[test]
    fn any_bytes_come_out_the_same_however_they_are_cut(
        pieces in prop::collection::vec(
            prop_oneof![
                Just(b"data: [DONE]".to_vec()),
                Just(b"event: error".to_vec()),
                Just(b"event: message_stop\n".to_vec()),
                Just(b"data: {\"type\":\"message_stop\"}".to_vec()),
                Just(b"data: {\"usage\":{\"output_tokens\":5}}".to_vec()),
                Just(b"\n\n".to_vec()),
                Just(b"\n".to_vec()),
                Just(b"\r".to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ],
            0..12,
        ),
        size in 1_usize..30,
    ) {
        let input = pieces.concat();
        for operation in [Operation::Chat, Operation::Messages, Operation::Responses] {
            let whole = run(operation, false, &input, usize::MAX);
            let cut = run(operation, false, &input, size);
            prop_assert_eq!(&whole.text, &cut.text);
            prop_assert_eq!(whole.end, cut.end);
            prop_assert_eq!(whole.usage, cut.usage);
            prop_assert_eq!(whole.frame, cut.frame);
        }
    }
}

use super::*;
use crate::{Allowances, Dialect, Source, Stream};

fn call(operation: Operation, wants_usage: bool) -> Call {
    let dialect = match operation {
        Operation::Messages => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    };
    let options = format!(r#","stream_options":{{"include_usage":{wants_usage}}}"#);
    let body = format!(r#"{{"model":"m","stream":true{options}}}"#);
    Call::parse(dialect, operation, &body.into(), &Allowances::default()).unwrap()
}

const USAGE: Usage = Usage {
    input: Some(10),
    cached_input: None,
    cache_write: None,
    output: Some(7),
    reasoning: None,
    source: Source::Estimated,
};

/// What ends an answer after these events, which a `Stream` takes for complete.
fn ended(call: &Call, events: &[String]) -> Vec<Value> {
    let mut closing = Closing::new(call, 1 << 20);
    let mut stream = Stream::new(call);
    let mut out = Vec::new();
    for event in events {
        let event = Bytes::from(event.clone());
        closing.see(&event);
        stream.push(event, &mut out).unwrap();
    }
    assert!(!stream.saw_terminator());
    let end = closing.end(&USAGE).unwrap();
    stream.push(end.clone(), &mut out).unwrap();
    assert!(stream.saw_terminator() && !stream.saw_error());
    let text = String::from_utf8(end.to_vec()).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into()))
        .collect()
}

/// Events with a name, as Anthropic's and those of responses have.
fn named(data: impl IntoIterator<Item = Value>) -> Vec<String> {
    let event = |data: Value| {
        format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap()
        )
    };
    data.into_iter().map(event).collect()
}

fn with(common: &Value, fields: Value) -> Value {
    let mut all = common.clone();
    let Value::Object(fields) = fields else {
        unreachable!()
    };
    all.as_object_mut().unwrap().extend(fields);
    all
}

#[test]
fn a_chat_ends_at_its_length() {
    let common = json!({"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"});
    let chunk = |index: u64, finish: Value| {
        let choice = json!({"index": index, "delta": {"content": "a"}, "finish_reason": finish});
        let data = with(&common, json!({"choices": [choice], "usage": null}));
        format!("data: {data}\n\n")
    };
    let events = [
        chunk(0, Value::Null),
        chunk(1, Value::Null),
        chunk(2, Value::Null),
        chunk(1, "stop".into()),
    ];
    let end = ended(&call(Operation::Chat, true), &events);
    let [last, usage, done] = &*end else {
        panic!("{end:?}");
    };
    let choice =
        |index| json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": "length"});
    let choices = json!({"choices": [choice(0), choice(2)]});
    assert_eq!(*last, with(&common, choices));
    let counted = json!({"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17});
    let counted = json!({"choices": [], "usage": counted});
    assert_eq!(*usage, with(&common, counted));
    assert_eq!(done, "[DONE]");
    // Who did not ask for usage gets none.
    let end = ended(&call(Operation::Chat, false), &events);
    assert_eq!(end.len(), 2, "{end:?}");
}

#[test]
fn a_message_closes_its_blocks() {
    let events = named([
        json!({"type": "message_start", "message": {"id": "m1"}}),
        json!({"type": "content_block_start", "index": 0}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1}),
    ]);
    let end = ended(&call(Operation::Messages, false), &[events.concat()]);
    let delta = json!({"type": "message_delta",
        "delta": {"stop_reason": "max_tokens", "stop_sequence": null},
        "usage": {"output_tokens": 7}});
    let stop = json!({"type": "content_block_stop", "index": 1});
    assert_eq!(end, [stop, delta, json!({"type": "message_stop"})]);
}

#[test]
fn a_response_is_incomplete_and_keeps_what_was_said() {
    let message = json!({"id": "i1", "type": "message", "status": "in_progress", "content": []});
    let call_of =
        json!({"id": "i2", "type": "function_call", "status": "in_progress", "arguments": ""});
    let thought = json!({"id": "i0", "type": "reasoning", "summary": []});
    let text = |delta: &str| {
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0,
            "delta": delta})
    };
    let begun = json!({"id": "r1", "status": "in_progress", "output": []});
    let data = [
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": thought}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": thought}),
        json!({"type": "response.output_item.added", "output_index": 1, "item": message}),
        json!({"type": "response.content_part.added", "output_index": 1, "content_index": 0,
            "part": {"type": "output_text", "text": ""}}),
        text("Hel"),
        text("lo"),
        json!({"type": "response.output_item.added", "output_index": 2, "item": call_of}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 2,
            "delta": "{\"a\":"}),
    ];
    let numbered = (0u64..).zip(data).map(|(number, mut data)| {
        data["sequence_number"] = number.into();
        data
    });
    let events = named(numbered);
    let end = ended(&call(Operation::Responses, false), &events);
    let part = json!({"type": "output_text", "text": "Hello"});
    let said = with(&message, json!({"status": "incomplete", "content": [part]}));
    let called = with(
        &call_of,
        json!({"status": "incomplete", "arguments": "{\"a\":"}),
    );
    let [first, second, last] = &*end else {
        panic!("{end:?}");
    };
    let done = json!({"type": "response.output_item.done", "sequence_number": 9,
        "output_index": 1, "item": said});
    assert_eq!(*first, done);
    assert_eq!(second["item"], called);
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["sequence_number"], 11);
    let response = &last["response"];
    assert_eq!(response["id"], "r1");
    assert_eq!(response["status"], "incomplete");
    let why = json!({"reason": "max_output_tokens"});
    assert_eq!(response["incomplete_details"], why);
    assert_eq!(response["output"], json!([thought, said, called]));
    assert_eq!(response["usage"]["total_tokens"], 17);
}

/// Before the first event there is nothing to end, and of an answer beyond the bound too little is
/// known.
#[test]
fn what_is_not_known_is_not_made_up() {
    let chat = call(Operation::Chat, false);
    assert!(Closing::new(&chat, 1000).end(&USAGE).is_none());
    let chunk = Bytes::from_static(b"data: {\"id\":\"c\",\"choices\":[]}\n\n");
    let mut closing = Closing::new(&chat, 100);
    closing.see(&chunk);
    closing.see(&Bytes::from_static(b": comment\n\ndata: nonsense\n\n"));
    closing.see(&Bytes::from(vec![b' '; 100]));
    closing.see(&chunk);
    assert!(closing.end(&USAGE).is_none());
    let mut many = Closing::new(&call(Operation::Messages, false), 1 << 20);
    let start = |index: u64| json!({"type": "content_block_start", "index": index});
    let events = named(
        [json!({"type": "message_start"})]
            .into_iter()
            .chain((0..200).map(start)),
    );
    events
        .iter()
        .for_each(|event| many.see(&Bytes::from(event.clone())));
    assert!(many.end(&USAGE).is_none());
}

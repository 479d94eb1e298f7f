use waypoint_policy::Code;

use super::*;
use crate::Allowances;

mod hostile;
mod properties;

fn call(operation: Operation, wants_usage: bool) -> Call {
    let dialect = match operation {
        Operation::Messages => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    };
    let options = format!(r#","stream_options":{{"include_usage":{wants_usage}}}"#);
    let body = format!(r#"{{"model":"m","stream":true{options}}}"#);
    Call::parse(dialect, operation, &body.into(), &Allowances::default()).unwrap()
}

struct Passed {
    text: String,
    usage: Usage,
    output_bytes: u64,
    end: Result<(), Truncated>,
    frame: String,
}

/// Runs a stream cut at every multiple of `size` bytes.
fn run(operation: Operation, wants_usage: bool, input: &[u8], size: usize) -> Passed {
    let mut stream = Stream::new(&call(operation, wants_usage));
    let mut out = Vec::new();
    for chunk in input.chunks(size.max(1)) {
        stream
            .push(Bytes::copy_from_slice(chunk), &mut out)
            .unwrap();
    }
    let end = stream.finish(&mut out);
    let frame = stream.error_frame(&Refusal::new(Code::StreamTruncated));
    Passed {
        text: String::from_utf8_lossy(&out.concat()).into_owned(),
        usage: *stream.usage(),
        output_bytes: stream.output_bytes(),
        end,
        frame: String::from_utf8(frame.to_vec()).unwrap(),
    }
}

fn show(usage: &Usage) -> String {
    let show = |tokens: Option<u64>| tokens.map_or("-".to_owned(), |tokens| tokens.to_string());
    let fields = [
        usage.input,
        usage.cached_input,
        usage.cache_write,
        usage.output,
        usage.reasoning,
    ];
    format!("{} {:?}", fields.map(show).join(" "), usage.source)
}

const CHAT: &str = concat!(
    ": keep-alive\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"The \"usage\": [DONE] "}}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"usage"},"finish_reason":"stop"}],"usage": null}"#,
    "\n\n",
);
const CHAT_USAGE: &str = concat!(
    r#"data: {"id":"c","choices":[ ],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,"#,
    r#""prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}"#,
    "\n\n",
);
const DONE: &str = "data: [DONE]\n\n";
const MESSAGES: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":25,"cache_read_input_tokens":7,"output_tokens":1}}}"#,
    "\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello, world"}}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
    "\n\n",
);
const MESSAGES_END: &str = concat!(
    "event: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":20,"output_tokens":15}}"#,
    "\n\n",
    "event: message_delta\n",
    r#"data: {"type":"message_delta","delta":{},"usage":{"output_tokens":16,"output_tokens_details":{"thinking_tokens":2}}}"#,
    "\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);
const RESPONSES: &str = concat!(
    "event: response.created\n",
    r#"data: {"type":"response.created","sequence_number":0,"response":{"id":"r","usage":null}}"#,
    "\n\n",
    "event: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","sequence_number":1,"delta":"Hello"}"#,
    "\n\n",
);
const RESPONSES_END: &str = concat!(
    "event: response.completed\n",
    r#"data: {"type":"response.completed","sequence_number":2,"response":{"id":"r","usage":{"input_tokens":5,"output_tokens":4,"output_tokens_details":{"reasoning_tokens":3}}}}"#,
    "\n\n",
);

#[test]
fn passes_whole_streams() {
    use Operation::{Chat, Messages, Responses};
    let usage_on_a_chunk = concat!(
        r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":1}}"#,
        "\n\n",
    );
    let azure = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
    let continuous = concat!(
        r#"data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#,
        "\n\n",
        r#"data: {"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#,
        "\n\n",
    );
    let nameless = MESSAGES.replace("event: message_start\n", "");
    let failed =
        "data: {\"response\":{\"usage\":{\"input_tokens\":1}},\"type\":\"response.failed\"}\n\n";
    for (case, operation, wants, input, expected, usage) in [
        (
            "chat, asked",
            Chat,
            true,
            [CHAT, CHAT_USAGE, DONE].concat(),
            [CHAT, CHAT_USAGE, DONE].concat(),
            "9 4 - 3 1 Upstream",
        ),
        (
            "chat, hidden",
            Chat,
            false,
            [CHAT, CHAT_USAGE, DONE].concat(),
            [CHAT, DONE].concat(),
            "9 4 - 3 1 Upstream",
        ),
        (
            "usage with choices",
            Chat,
            false,
            [usage_on_a_chunk, DONE].concat(),
            [usage_on_a_chunk, DONE].concat(),
            "2 - - 1 - Upstream",
        ),
        (
            "no usage",
            Chat,
            false,
            [azure, DONE].concat(),
            [azure, DONE].concat(),
            "- - - - - Estimated",
        ),
        (
            "continuous usage",
            Chat,
            false,
            [continuous, DONE].concat(),
            [continuous, DONE].concat(),
            "9 - - 2 - Upstream",
        ),
        (
            "what follows the end",
            Chat,
            false,
            [DONE, "\n", CHAT].concat(),
            [DONE, "\n"].concat(),
            "- - - - - Estimated",
        ),
        (
            "messages",
            Messages,
            false,
            [MESSAGES, MESSAGES_END].concat(),
            [MESSAGES, MESSAGES_END].concat(),
            "27 7 - 16 2 Upstream",
        ),
        (
            "messages without names",
            Messages,
            false,
            [&nameless, MESSAGES_END].concat(),
            [&nameless, MESSAGES_END].concat(),
            "27 7 - 16 2 Upstream",
        ),
        (
            "responses",
            Responses,
            false,
            [RESPONSES, RESPONSES_END, DONE].concat(),
            [RESPONSES, RESPONSES_END].concat(),
            "5 - - 4 3 Upstream",
        ),
        (
            "responses without names",
            Responses,
            false,
            [RESPONSES, failed].concat(),
            [RESPONSES, failed].concat(),
            "1 - - 2 - Estimated",
        ),
    ] {
        for size in [1, 7, 4096] {
            let passed = run(operation, wants, input.as_bytes(), size);
            assert_eq!(passed.text, expected, "{case} by {size}");
            assert_eq!(passed.end, Ok(()), "{case} by {size}");
            assert_eq!(show(&passed.usage), usage, "{case} by {size}");
        }
    }
}

#[test]
fn knows_ends() {
    use Operation::{Chat, Messages, Responses};
    let with_done = |text: &str| [CHAT, text].concat();
    for (case, operation, input, rest, whole) in [
        ("nothing", Chat, String::new(), String::new(), false),
        (
            "no terminator",
            Chat,
            CHAT.to_owned(),
            CHAT.to_owned(),
            false,
        ),
        (
            "cut in an event",
            Chat,
            with_done("data: {\"cho"),
            CHAT.to_owned(),
            false,
        ),
        (
            "text is no terminator",
            Chat,
            "data: \"[DONE]\"\n\n".to_owned(),
            "data: \"[DONE]\"\n\n".to_owned(),
            false,
        ),
        (
            "no blank line",
            Chat,
            with_done("data: [DONE]\n"),
            with_done(DONE),
            true,
        ),
        (
            "no line end",
            Chat,
            with_done("data: [DONE]"),
            with_done(DONE),
            true,
        ),
        (
            "carriage return",
            Chat,
            with_done("data:[DONE]\r"),
            with_done("data:[DONE]\r\n\n"),
            true,
        ),
        (
            "cut in the terminator",
            Chat,
            with_done("data: [DON"),
            CHAT.to_owned(),
            false,
        ),
        (
            "crlf",
            Chat,
            "data: [DONE]\r\n\r\n".to_owned(),
            "data: [DONE]\r\n\r\n".to_owned(),
            true,
        ),
        (
            "other fields follow",
            Chat,
            "data: [DONE]\nid: 4\n\n".to_owned(),
            "data: [DONE]\nid: 4\n\n".to_owned(),
            true,
        ),
        (
            "error",
            Chat,
            with_done("data: {\"error\":{\"message\":\"m\"}}\n\n"),
            with_done("data: {\"error\":{\"message\":\"m\"}}\n\n"),
            true,
        ),
        (
            "error, then the end",
            Chat,
            with_done("data: {\"error\":{}}\n\ndata: [DONE]\n\n"),
            with_done("data: {\"error\":{}}\n\ndata: [DONE]\n\n"),
            true,
        ),
        (
            "no error",
            Chat,
            "data: {\"error\":null,\"choices\":[]}\n\n".to_owned(),
            "data: {\"error\":null,\"choices\":[]}\n\n".to_owned(),
            false,
        ),
        (
            "named error",
            Chat,
            "event: error\ndata: x\n\n".to_owned(),
            "event: error\ndata: x\n\n".to_owned(),
            true,
        ),
        (
            "messages",
            Messages,
            MESSAGES.to_owned(),
            MESSAGES.to_owned(),
            false,
        ),
        (
            "messages do not end like chat",
            Messages,
            DONE.to_owned(),
            DONE.to_owned(),
            false,
        ),
        (
            "messages error",
            Messages,
            "event: error\ndata: {}\n\n".to_owned(),
            "event: error\ndata: {}\n\n".to_owned(),
            true,
        ),
        (
            "messages, cut in the terminator",
            Messages,
            "event: message_stop\ndata: {\"ty".to_owned(),
            String::new(),
            false,
        ),
        (
            "messages, no blank line",
            Messages,
            "event: message_stop\ndata: {}\n".to_owned(),
            "event: message_stop\ndata: {}\n\n".to_owned(),
            true,
        ),
        (
            "responses",
            Responses,
            RESPONSES.to_owned(),
            RESPONSES.to_owned(),
            false,
        ),
        (
            "responses error",
            Responses,
            "event: error\ndata: {}\n\n".to_owned(),
            "event: error\ndata: {}\n\n".to_owned(),
            true,
        ),
    ] {
        let passed = run(operation, true, input.as_bytes(), 4096);
        assert_eq!(passed.text, rest, "{case}");
        assert_eq!(passed.end.is_ok(), whole, "{case}");
    }
}

#[test]
fn estimates_what_was_not_counted() {
    use Operation::{Chat, Messages, Responses};
    let tools = concat!(
        r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","#,
        r#""function":{"name":"f","arguments":"{\"a\": 1}"}}]}},{"delta":{"content":"1234"}}]}"#,
        "\n\n",
    );
    for (case, operation, input, bytes, usage) in [
        ("chat", Chat, CHAT, 27, "- - - 7 - Estimated"),
        (
            "tools and two choices",
            Chat,
            tools,
            15,
            "- - - 4 - Estimated",
        ),
        ("messages", Messages, MESSAGES, 19, "32 7 - 5 - Estimated"),
        ("responses", Responses, RESPONSES, 5, "- - - 2 - Estimated"),
        (
            "null",
            Chat,
            "data: {\"choices\":[{\"delta\":null,\"x\":\"abc\"}]}\n\n",
            0,
            "- - - - - Estimated",
        ),
        (
            "unclosed",
            Chat,
            "data: {\"choices\":[{\"delta\":{\"content\":\"abc\\\n\n",
            6,
            "- - - 2 - Estimated",
        ),
    ] {
        let passed = run(operation, false, input.as_bytes(), 4096);
        assert_eq!(passed.output_bytes, bytes, "{case}");
        assert_eq!(show(&passed.usage), usage, "{case}");
    }
}

#[test]
fn an_error_frame_continues_the_numbers() {
    let passed = run(Operation::Responses, false, RESPONSES.as_bytes(), 9);
    assert!(
        passed.frame.contains("\"sequence_number\":2"),
        "{}",
        passed.frame
    );
    let chat = run(Operation::Chat, false, CHAT.as_bytes(), 9);
    assert!(
        chat.frame.starts_with("event: error\ndata: {"),
        "{}",
        chat.frame
    );
    assert!(chat.frame.ends_with("}\n\n"), "{}", chat.frame);
}

#[test]
fn events_of_a_chunk_leave_as_one_piece() {
    let mut stream = Stream::new(&call(Operation::Chat, false));
    let mut out = Vec::new();
    let chunk = Bytes::from([CHAT, CHAT_USAGE, DONE].concat());
    let address = chunk.as_ptr();
    stream.push(chunk, &mut out).unwrap();
    assert_eq!(out, [CHAT, DONE]);
    assert_eq!(out[0].as_ptr(), address);
}

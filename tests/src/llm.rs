//! Requests and answers of LLM APIs, short and with known numbers of tokens.

use serde_json::{Value, json};

use crate::client::Request;
use crate::upstream::Reply;

/// A chat call of the OpenAI API.
#[must_use]
pub fn chat(model: &str) -> Request {
    Request::post("/ai/v1/chat/completions", chat_body(model, &json!({})))
}

/// A streamed chat call of the OpenAI API.
#[must_use]
pub fn chat_stream(model: &str) -> Request {
    let body = chat_body(model, &json!({"stream": true}));
    Request::post("/ai/v1/chat/completions", body)
}

/// The body of a chat call with further members.
#[must_use]
pub fn chat_body(model: &str, more: &Value) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body.to_string()
}

/// A call of the Anthropic API.
#[must_use]
pub fn messages(model: &str, more: &Value) -> Request {
    let mut body = json!({"max_tokens": 16});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    Request::post("/ai/v1/messages", chat_body(model, &body))
        .header("anthropic-version", "2026-10-21")
}

/// An answer to [`chat`]: 11 tokens in, 7 out.
#[must_use]
pub fn chat_answer() -> Reply {
    Reply::json(&json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }))
}

/// An answer to [`messages`]: 13 tokens in (3 of them from a cache), 5 out.
#[must_use]
pub fn messages_answer() -> Reply {
    Reply::json(&json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 5},
    }))
}

/// One piece of a streamed chat answer.
#[must_use]
pub fn delta(text: &str) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
    });
    format!("data: {chunk}\n\n")
}

/// The chunk with the usage of a streamed chat answer: 11 tokens in, 7 out.
#[must_use]
pub fn usage_chunk() -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    });
    format!("data: {chunk}\n\n")
}

/// The terminator of a streamed chat answer.
pub const DONE: &str = "data: [DONE]\n\n";

/// A whole streamed chat answer.
#[must_use]
pub fn chat_stream_answer() -> Reply {
    Reply::stream()
        .chunk(delta("one"))
        .chunk(delta("two"))
        .chunk(usage_chunk())
        .chunk(DONE)
        .end()
}

/// A whole streamed answer of the Anthropic API: 13 tokens in, 5 out, and a placeholder that must
/// not be counted.
#[must_use]
pub fn messages_stream_answer() -> Reply {
    let event = |name: &str, data: Value| format!("event: {name}\ndata: {data}\n\n");
    Reply::stream()
        .chunk(event(
            "message_start",
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
                "model": "m", "content": [],
                "usage": {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 1}}}),
        ))
        .chunk(event("ping", json!({"type": "ping"})))
        .chunk(event(
            "content_block_delta",
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
        ))
        .chunk(event(
            "message_delta",
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}),
        ))
        .chunk(event("message_stop", json!({"type": "message_stop"})))
        .end()
}

/// An error answer of the OpenAI API.
#[must_use]
pub fn error_answer(status: u16, code: &str, headers: &[(&str, &str)]) -> Reply {
    let body =
        json!({"error": {"message": "scripted", "type": "scripted", "param": null, "code": code}});
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    Reply::whole(status, &all, body.to_string())
}

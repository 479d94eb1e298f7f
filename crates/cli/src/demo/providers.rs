//! What stands in for the outside world: two LLM providers, and two plain APIs.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http_body_util::channel::Channel;
use serde_json::{Value, json};

use super::setup::{ANTHROPIC_KEY, OPENAI_KEY};

/// The model whose first call fails, as busy providers do.
pub(super) const BUSY_MODEL: &str = "gpt-4.1";
/// Between two events of a stream.
const PACE: Duration = Duration::from_millis(15);

/// Models that were asked for before.
type Seen = Arc<Mutex<HashSet<String>>>;

/// Speaks OpenAI's chat completions.
pub(super) fn openai() -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .with_state(Seen::default())
}

/// Speaks Anthropic's messages.
pub(super) fn anthropic() -> Router {
    Router::new().route("/v1/messages", post(messages))
}

/// Answers for every plain host.
pub(super) fn outside() -> Router {
    Router::new().fallback(any(echo))
}

async fn echo(request: Request) -> Json<Value> {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    Json(json!({"host": host, "path": request.uri().path()}))
}

fn text<'v>(body: &'v Value, field: &str) -> &'v str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn is_stream(body: &Value) -> bool {
    body.get("stream")
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// Roughly what a tokenizer would count.
fn tokens(body: &Value) -> usize {
    let messages = body
        .get("messages")
        .map(Value::to_string)
        .unwrap_or_default();
    7 + messages.len() / 4
}

async fn chat(State(seen): State<Seen>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let key = headers.get(header::AUTHORIZATION);
    if key.is_none_or(|key| *key != format!("Bearer {OPENAI_KEY}").as_str()) {
        let error = json!({"error": {"message": "Incorrect API key", "type": "invalid_request_error",
            "param": null, "code": "invalid_api_key"}});
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    let model = text(&body, "model");
    let first = seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(model.to_owned());
    if first && model == BUSY_MODEL {
        let error = json!({"error": {"message": "The engine is overloaded", "type": "server_error",
            "param": null, "code": null}});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response();
    }
    let usage = json!({"prompt_tokens": tokens(&body), "completion_tokens": 12,
        "total_tokens": tokens(&body) + 12});
    let answer = "Looks good to me: one unused import in lib.rs, otherwise ready.";
    if !is_stream(&body) {
        return Json(json!({
            "id": "chatcmpl-demo", "object": "chat.completion", "created": 1_760_000_000,
            "model": model,
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": answer}}],
            "usage": usage,
        }))
        .into_response();
    }
    let chunk = |delta: Value, finish: Option<&str>| {
        json!({
            "id": "chatcmpl-demo", "object": "chat.completion.chunk", "created": 1_760_000_000,
            "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    };
    let mut events = vec![event(None, &chunk(json!({"role": "assistant"}), None))];
    for word in answer.split_inclusive(' ') {
        events.push(event(None, &chunk(json!({"content": word}), None)));
    }
    events.push(event(None, &chunk(json!({}), Some("stop"))));
    let asked = body
        .pointer("/stream_options/include_usage")
        .and_then(Value::as_bool);
    if asked == Some(true) {
        let mut last = chunk(json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage;
        events.push(event(None, &last));
    }
    events.push("data: [DONE]\n\n".into());
    stream(events)
}

async fn messages(headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if headers
        .get("x-api-key")
        .is_none_or(|key| *key != ANTHROPIC_KEY)
    {
        let error = json!({"type": "error",
            "error": {"type": "authentication_error", "message": "invalid x-api-key"}});
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    let model = text(&body, "model");
    let input = tokens(&body);
    let answer = "Three findings, none of them critical; the change can be merged today.";
    let head = |content: Value, stop: Option<&str>, output: usize| {
        json!({
            "id": "msg_demo", "type": "message", "role": "assistant", "model": model,
            "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": input, "output_tokens": output},
        })
    };
    if !is_stream(&body) {
        let content = json!([{"type": "text", "text": answer}]);
        return Json(head(content, Some("end_turn"), 14)).into_response();
    }
    let named = |value: Value| event(value.get("type").and_then(Value::as_str), &value);
    let mut events = vec![
        named(json!({"type": "message_start", "message": head(json!([]), None, 1)})),
        named(json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}})),
    ];
    for word in answer.split_inclusive(' ') {
        events.push(named(json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": word}})));
    }
    events.push(named(json!({"type": "content_block_stop", "index": 0})));
    events.push(named(json!({"type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": null},
        "usage": {"output_tokens": 14}})));
    events.push(named(json!({"type": "message_stop"})));
    stream(events)
}

fn event(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// An event stream at the pace of a fast model.
fn stream(events: Vec<String>) -> Response {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    tokio::spawn(async move {
        for event in events {
            if sender.send_data(Bytes::from(event)).await.is_err() {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::new(body),
    )
        .into_response()
}

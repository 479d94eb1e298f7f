//! How a stream that has to end here ends as the dialect's own streams do: as if the model had
//! reached its maximum of output.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use waypoint_policy::Operation;
use waypoint_wire::sse::{self, Splitter};

use crate::{Call, Usage};

/// Most blocks, choices or items of one answer that are kept track of.
const PARTS_MAX: usize = 128;

/// What a caller has been shown of a streamed answer, as far as its end needs it.
#[derive(Debug)]
pub struct Closing {
    operation: Operation,
    wants_usage: bool,
    splitter: Splitter,
    /// Bytes of events still to be seen; what is longer cannot be ended legally any more.
    left: usize,
    /// What every event repeats: a chat's chunk without choices, or the response.
    frame: Option<Map<String, Value>>,
    /// What has begun and not ended, by index: choices, blocks, or items of a response.
    open: BTreeMap<u64, Value>,
    /// Items of a response that have ended.
    done: BTreeMap<u64, Value>,
    sequence_number: u64,
}

impl Closing {
    /// For the answer to `call`, of which at most `most_bytes` are looked at.
    #[must_use]
    pub fn new(call: &Call, most_bytes: usize) -> Self {
        Self {
            operation: call.operation,
            wants_usage: call.wants_usage,
            splitter: Splitter::new(most_bytes),
            left: most_bytes,
            frame: None,
            open: BTreeMap::new(),
            done: BTreeMap::new(),
            sequence_number: 0,
        }
    }

    /// Takes whole events that the caller is shown.
    pub fn see(&mut self, events: &Bytes) {
        let Some(left) = self.left.checked_sub(events.len()) else {
            self.give_up();
            return;
        };
        self.left = left;
        self.splitter.push(events.clone());
        while let Ok(Some(event)) = self.splitter.next() {
            let data = sse::parse(&event).data;
            let Ok(Value::Object(data)) = serde_json::from_slice(&data) else {
                continue;
            };
            match self.operation {
                Operation::Messages => self.message_event(&data),
                Operation::Responses => self.response_event(data),
                _ => self.chat_event(data),
            }
            if self.open.len() + self.done.len() > PARTS_MAX {
                self.give_up();
                return;
            }
        }
    }

    /// The events that end the answer here; `None` where they cannot be told, as before its first.
    #[must_use]
    pub fn end(mut self, usage: &Usage) -> Option<Bytes> {
        let frame = self.frame.take()?;
        let mut out = Vec::new();
        match self.operation {
            Operation::Messages => self.end_message(usage, &mut out),
            Operation::Responses => self.end_response(frame, usage, &mut out),
            _ => self.end_chat(frame, usage, &mut out),
        }
        Some(out.into())
    }

    fn give_up(&mut self) {
        self.left = 0;
        self.frame = None;
        self.open.clear();
        self.done.clear();
    }

    fn chat_event(&mut self, mut chunk: Map<String, Value>) {
        chunk.remove("usage");
        let choices = chunk.remove("choices");
        for choice in choices
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let index = index(choice, "index");
            match choice.get("finish_reason") {
                None | Some(Value::Null) => self.open.insert(index, Value::Null),
                Some(_) => self.open.remove(&index),
            };
        }
        self.frame = Some(chunk);
    }

    fn end_chat(&self, frame: Map<String, Value>, usage: &Usage, out: &mut Vec<u8>) {
        let mut chunk = Value::Object(frame);
        let choices = self.open.keys().map(|index| {
            json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": "length"})
        });
        chunk["choices"] = choices.collect();
        event(out, None, &chunk);
        if self.wants_usage {
            let (input, output) = counted(usage);
            chunk["choices"] = json!([]);
            chunk["usage"] = json!({
                "prompt_tokens": input,
                "completion_tokens": output,
                "total_tokens": input.saturating_add(output),
            });
            event(out, None, &chunk);
        }
        sse::write_event(out, None, b"[DONE]");
    }

    fn message_event(&mut self, data: &Map<String, Value>) {
        let block = data.get("index").and_then(Value::as_u64).unwrap_or(0);
        match kind(data) {
            "message_start" => self.frame = Some(Map::new()),
            "content_block_start" => {
                self.open.insert(block, Value::Null);
            }
            "content_block_stop" => {
                self.open.remove(&block);
            }
            _ => {}
        }
    }

    fn end_message(&self, usage: &Usage, out: &mut Vec<u8>) {
        for index in self.open.keys() {
            let stop = json!({"type": "content_block_stop", "index": index});
            event(out, Some("content_block_stop"), &stop);
        }
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": null},
            "usage": {"output_tokens": counted(usage).1},
        });
        event(out, Some("message_delta"), &delta);
        event(out, Some("message_stop"), &json!({"type": "message_stop"}));
    }

    fn response_event(&mut self, mut data: Map<String, Value>) {
        if let Some(number) = data.get("sequence_number").and_then(Value::as_u64) {
            self.sequence_number = number.saturating_add(1);
        }
        let at = data
            .get("output_index")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        match kind(&data) {
            "response.created" | "response.in_progress" => {
                if let Some(Value::Object(response)) = data.remove("response") {
                    self.frame = Some(response);
                }
            }
            "response.output_item.added" => {
                self.open
                    .insert(at, data.remove("item").unwrap_or_default());
            }
            "response.output_item.done" => {
                self.open.remove(&at);
                self.done
                    .insert(at, data.remove("item").unwrap_or_default());
            }
            "response.content_part.added" => {
                let part = data.remove("part").unwrap_or_default();
                let item = self.open.get_mut(&at);
                if let Some(Value::Array(parts)) = item.and_then(|item| item.get_mut("content"))
                    && parts.len() < PARTS_MAX
                {
                    parts.push(part);
                }
            }
            "response.output_text.delta" => {
                let part = index(&Value::Object(data.clone()), "content_index");
                let part = usize::try_from(part).unwrap_or(usize::MAX);
                let item = self.open.get_mut(&at);
                let parts = item.and_then(|item| item.get_mut("content"));
                append(parts.and_then(|parts| parts.get_mut(part)), "text", &data);
            }
            "response.function_call_arguments.delta" => {
                append(self.open.get_mut(&at), "arguments", &data);
            }
            _ => {}
        }
    }

    fn end_response(&mut self, mut frame: Map<String, Value>, usage: &Usage, out: &mut Vec<u8>) {
        for (at, mut item) in std::mem::take(&mut self.open) {
            if let Some(item) = item.as_object_mut() {
                item.insert("status".to_owned(), "incomplete".into());
            }
            let name = "response.output_item.done";
            let number = self.next_number();
            let done =
                json!({"type": name, "sequence_number": number, "output_index": at, "item": item});
            event(out, Some(name), &done);
            self.done.insert(at, item);
        }
        let (input, output) = counted(usage);
        let fields = [
            ("status", json!("incomplete")),
            ("incomplete_details", json!({"reason": "max_output_tokens"})),
            (
                "output",
                std::mem::take(&mut self.done).into_values().collect(),
            ),
            (
                "usage",
                json!({
                    "input_tokens": input,
                    "input_tokens_details": {"cached_tokens": usage.cached_input.unwrap_or(0)},
                    "output_tokens": output,
                    "output_tokens_details": {"reasoning_tokens": usage.reasoning.unwrap_or(0)},
                    "total_tokens": input.saturating_add(output),
                }),
            ),
        ];
        frame.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        let name = "response.incomplete";
        let number = self.next_number();
        let last = json!({"type": name, "sequence_number": number, "response": frame});
        event(out, Some(name), &last);
    }

    fn next_number(&mut self) -> u64 {
        let number = self.sequence_number;
        self.sequence_number = number.saturating_add(1);
        number
    }
}

fn kind(data: &Map<String, Value>) -> &str {
    data.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn index(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Adds an event's `delta` to a text of what it is about.
fn append(to: Option<&mut Value>, name: &str, data: &Map<String, Value>) {
    let delta = data.get("delta").and_then(Value::as_str);
    if let (Some(Value::String(text)), Some(delta)) = (to.and_then(|to| to.get_mut(name)), delta) {
        text.push_str(delta);
    }
}

/// Input and output; what nobody has counted is nothing.
fn counted(usage: &Usage) -> (u64, u64) {
    (usage.input.unwrap_or(0), usage.output.unwrap_or(0))
}

fn event(out: &mut Vec<u8>, name: Option<&str>, data: &Value) {
    sse::write_event(out, name, data.to_string().as_bytes());
}

#[cfg(test)]
mod tests;

//! Tasks that an answer creates.

use waypoint_wire::{
    json::{self, Value},
    jsonrpc::{self, Message},
};

use crate::call::MAX_TASK_ID;

/// The id of the task that this answer to a `tools/call` created, if it did.
///
/// `message` is one JSON-RPC response: a JSON answer or the data of one event.
/// Reads both shapes of `CreateTaskResult`: `result.task.taskId` (2025-11-25)
/// and `result.taskId` beside `"resultType":"task"` (SEP-2663). An id over 1024
/// bytes counts as none, so its task stays unknown to everyone.
#[must_use]
pub fn task_created(message: &[u8]) -> Option<Box<str>> {
    match jsonrpc::parse_answer(message).ok()? {
        Message::Response { result, .. } => created_in(result?),
        _ => None,
    }
}

/// The same, of the `result` alone.
pub(crate) fn created_in(result: Value<'_>) -> Option<Box<str>> {
    let result = json::object(result).ok()?;
    let holder = match result.value_of("task") {
        Some(task) => json::object(task).ok()?,
        None => {
            let kind = result.value_of("resultType")?.as_str()?;
            if kind != "task" {
                return None;
            }
            result
        }
    };
    let id = holder.value_of("taskId")?.as_str()?;
    (1..=MAX_TASK_ID)
        .contains(&id.len())
        .then(|| id.as_ref().into())
}

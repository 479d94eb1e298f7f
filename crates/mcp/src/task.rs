//! Tasks that an answer creates.

use waypoint_wire::{
    json::{self, Object},
    jsonrpc::{self, Message},
};

use crate::{call::MAX_TASK_ID, list::FilterError};

/// Reads the answer to a request that lists nothing: gives the id of the task that it created, if
/// it did.
///
/// `message` is one JSON-RPC response: a JSON answer or the data of one event.
/// Reads both shapes of `CreateTaskResult`: `result.task.taskId` (2025-11-25)
/// and `result.taskId` beside `"resultType":"task"` (SEP-2663). An id over 1024
/// bytes counts as none, so its task stays unknown to everyone.
///
/// # Errors
/// [`FilterError`] for anything but the response to the request with this id: it could be a list
/// that nobody filtered.
pub fn read_answer(
    message: &[u8],
    expected_id: Option<&[u8]>,
) -> Result<Option<Box<str>>, FilterError> {
    let Message::Response { id, fields, .. } = jsonrpc::parse_answer(message)? else {
        return Err(FilterError::NotAResponse);
    };
    match (id, expected_id) {
        // An error that names no request.
        (None, _) => {}
        (Some(id), Some(expected)) if id.is(expected) => {}
        (Some(_), _) => return Err(FilterError::UnexpectedId),
    }
    Ok(fields.as_ref().and_then(created_in))
}

/// The same, of the members of `result` alone.
pub(crate) fn created_in(result: &Object<'_>) -> Option<Box<str>> {
    let holder = match result.value_of("task") {
        Some(task) => &json::object(task).ok()?,
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

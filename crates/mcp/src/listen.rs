//! Taking denied subscriptions out of a `subscriptions/listen` request.

use std::borrow::Cow;

use waypoint_wire::{
    json,
    jsonrpc::{self, Message},
};

use crate::{
    call::{self, Listened},
    refusal::McpRefusal,
    splice::Edits,
};

/// The request without the URIs and task ids that are not to be kept; borrowed if all are.
///
/// The server then acknowledges what is left, which tells the caller.
///
/// # Errors
/// As [`crate::read`], for a body that was not read before.
pub fn cut_listen(
    body: &[u8],
    mut keep_uri: impl FnMut(&str) -> bool,
    mut keep_task: impl FnMut(&str) -> bool,
) -> Result<Cow<'_, [u8]>, McpRefusal> {
    let Message::Request { params, .. } = jsonrpc::parse(body)? else {
        return Err(McpRefusal::request("a request must have an id"));
    };
    let [uris, tasks] = call::listened(params.as_ref())?;
    let mut edits = Edits::default();
    cut(&mut edits, &uris, &mut keep_uri)?;
    cut(&mut edits, &tasks, &mut keep_task)?;
    if edits.is_empty() {
        return Ok(Cow::Borrowed(body));
    }
    Ok(Cow::Owned(edits.apply(body)))
}

/// Cuts the denied items of one key, which may stand in two arrays.
fn cut(
    edits: &mut Edits,
    items: &[Listened<'_>],
    keep: &mut dyn FnMut(&str) -> bool,
) -> Result<(), McpRefusal> {
    for group in items.chunk_by(|a, b| a.0.start == b.0.start) {
        let Some((array, _)) = group.first() else {
            continue;
        };
        let all = json::array(*array).map_err(|_| McpRefusal::params("not an array"))?;
        let kept: Vec<_> = all
            .iter()
            .zip(group)
            .filter(|(_, (_, text))| keep(text))
            .map(|(item, _)| *item)
            .collect();
        if kept.len() < all.len() {
            edits.keep(*array, &kept);
        }
    }
    Ok(())
}

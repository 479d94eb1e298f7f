//! Lists: taking out what the caller may not use.

use std::borrow::Cow;

use waypoint_wire::{
    json::{self, Members, Object, Value},
    jsonrpc::{self, JsonRpcError, Message},
    sse::SseError,
};

use crate::{annotations, era::Era, splice::Edits};

/// What a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    ResourceTemplates,
    /// `tasks/list`, revision 2025-11-25.
    Tasks,
}

impl ListKind {
    pub(crate) const ALL: &[Self] = &[
        Self::Tools,
        Self::Prompts,
        Self::Resources,
        Self::ResourceTemplates,
        Self::Tasks,
    ];

    /// The key of the array in the result.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resourceTemplates",
            Self::Tasks => "tasks",
        }
    }

    /// The key of an item that says what it is called.
    fn name(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::ResourceTemplates => "uriTemplate",
            Self::Tasks => "taskId",
        }
    }

    /// The method whose permission shows an item of this list; `None` for tasks,
    /// which are shown to whoever created them.
    #[must_use]
    pub fn method(self) -> Option<&'static str> {
        match self {
            Self::Tools => Some("tools/call"),
            Self::Prompts => Some("prompts/get"),
            Self::Resources | Self::ResourceTemplates => Some("resources/read"),
            Self::Tasks => None,
        }
    }
}

/// A message after filtering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// Nothing had to be taken out: send the bytes that came.
    Unchanged,
    /// Send these. Items that were kept, and all else around, have their own bytes.
    Changed(Vec<u8>),
}

/// Why an upstream's message may not be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// It can not be read, so what it lists is not known.
    #[error("the upstream's message is not readable: {0}")]
    Unreadable(#[from] JsonRpcError),
    /// A response to another request than the ones that are open here.
    #[error("the upstream answered a request that was not asked")]
    UnexpectedId,
    /// A request or a notification where the response was due.
    #[error("the upstream's answer is not a response")]
    NotAResponse,
    /// The result of a list that is not shaped like one.
    #[error("the upstream's list is not well formed")]
    BadList,
    /// An event stream that can not be cut into events.
    #[error("the upstream's stream is not readable: {0}")]
    Stream(#[from] SseError),
}

/// Filters the JSON answer to one list request.
///
/// `keep` gets the name, URI, URI template or task id of each item. An item
/// without a readable one is left out. Errors pass unchanged, and so does the
/// cursor of the next page. In the modern era the result becomes private to
/// this caller and stale at once, on every page: what was filtered for one must
/// not be served to another (MCP 2026-07-28, Caching).
///
/// # Errors
/// [`FilterError`]; the message must not be passed on.
pub fn filter_result(
    list: ListKind,
    era: Era,
    message: &[u8],
    expected_id: &[u8],
    mut keep: impl FnMut(&str) -> bool,
) -> Result<Filtered, FilterError> {
    let Message::Response {
        id, result, fields, ..
    } = jsonrpc::parse_answer(message)?
    else {
        return Err(FilterError::NotAResponse);
    };
    match id {
        Some(id) if id.is(expected_id) => {}
        // An error that names no request lists nothing.
        None => {}
        Some(_) => return Err(FilterError::UnexpectedId),
    }
    if result.is_none() {
        return Ok(Filtered::Unchanged);
    }
    let result = fields.ok_or(FilterError::BadList)?;
    let edits = edit_list(&[list], era, &result, &mut |_, name| keep(name))?;
    Ok(finish(edits, message))
}

pub(crate) fn finish(edits: Edits, message: &[u8]) -> Filtered {
    if edits.is_empty() {
        Filtered::Unchanged
    } else {
        Filtered::Changed(edits.apply(message))
    }
}

/// Decides about one item of a list.
pub(crate) type Keep<'k> = dyn FnMut(ListKind, &str) -> bool + 'k;

/// What to change in a result that holds these lists.
pub(crate) fn edit_list(
    kinds: &[ListKind],
    era: Era,
    result: &Object<'_>,
    keep: &mut Keep<'_>,
) -> Result<Edits, FilterError> {
    let mut edits = Edits::default();
    for &kind in kinds {
        if folds(result, kind.key()) {
            return Err(FilterError::BadList);
        }
        let Some(array) = result.value_of(kind.key()) else {
            continue;
        };
        let items = json::objects(array, |members| name(kind, members))
            .map_err(|_| FilterError::BadList)?;
        let all = items.len();
        let kept: Vec<_> = items
            .into_iter()
            .filter(|(item, name)| {
                let name = name.as_ref().and_then(Option::as_ref);
                name.is_some_and(|name| keep(kind, name)) && usable(kind, era, item)
            })
            .map(|(item, _)| item)
            .collect();
        if kept.len() < all {
            edits.keep(array, &kept);
        }
    }
    if era == Era::Modern {
        make_private(&mut edits, result)?;
    }
    Ok(edits)
}

/// Whether a result holds any list, under a plain key or one that passes for it.
pub(crate) fn is_list(result: &Object<'_>) -> bool {
    ListKind::ALL
        .iter()
        .any(|kind| result.get(kind.key()).is_some() || folds(result, kind.key()))
}

fn folds(object: &Object<'_>, key: &str) -> bool {
    object
        .members()
        .iter()
        .any(|member| json::folds_to(&member.key, key))
}

/// What an item is called; `None` when two readers could disagree about it: no name, two of them,
/// or a key that passes for it.
fn name<'a>(kind: ListKind, members: &mut Members<'a>) -> Option<Cow<'a, str>> {
    let mut name = None;
    for (key, value) in members {
        if key == kind.name() {
            if name.is_some() {
                return None;
            }
            name = Some(value.as_str()?);
        } else if json::folds_to(&key, kind.name()) {
            return None;
        }
    }
    name
}

/// Tools whose header annotations are invalid must not be offered to clients.
fn usable(kind: ListKind, era: Era, item: &Value<'_>) -> bool {
    kind != ListKind::Tools || era == Era::Legacy || annotations::are_valid(item.raw)
}

fn make_private(edits: &mut Edits, result: &Object<'_>) -> Result<(), FilterError> {
    let mut missing = String::new();
    for (key, wanted) in [("cacheScope", "\"private\""), ("ttlMs", "0")] {
        if folds(result, key) {
            return Err(FilterError::BadList);
        }
        match result.value_of(key) {
            Some(value) if value.raw == wanted.as_bytes() => {}
            Some(value) => edits.replace(value.range(), wanted.into()),
            None => {
                if !result.is_empty() || !missing.is_empty() {
                    missing.push(',');
                }
                missing.push_str(&format!("\"{key}\":{wanted}"));
            }
        }
    }
    if !missing.is_empty() {
        let value = result.value();
        let end = value.range().end - 1;
        edits.replace(end..end, missing.into());
    }
    Ok(())
}

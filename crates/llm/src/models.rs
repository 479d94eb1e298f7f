//! The list of models, cut to what the caller may use.

use waypoint_wire::json::{self, JsonError, Kind};

use crate::Dialect;
use crate::usage::LENIENT;

/// Why a list of models could not be filtered; nothing of it may be shown then.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not one complete JSON object.
    #[error("the list of models is not a valid JSON object: {0}")]
    Json(#[from] JsonError),
    /// No array under `data`.
    #[error("the list of models has no array under `data`")]
    NoData,
}

/// Keeps the models whose `id` passes `keep`; kept ones are byte-identical.
///
/// Entries without a string `id` go. So does every other array or object beside `data`: some
/// servers list the same models a second time in another shape. Anthropic's `first_id` and
/// `last_id` name the first and last kept entry, or are `null`.
///
/// # Errors
/// [`FilterError`] if the answer is not a list in the dialect's shape.
pub fn filter_models(
    dialect: Dialect,
    body: &[u8],
    mut keep: impl FnMut(&str) -> bool,
) -> Result<Vec<u8>, FilterError> {
    let list = json::parse_object(body, &LENIENT)?;
    let data = list
        .value_of("data")
        .filter(|value| value.kind == Kind::Array)
        .ok_or(FilterError::NoData)?;
    let mut kept: Vec<&[u8]> = Vec::new();
    let (mut first, mut last): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    for item in json::array(data)? {
        let Ok(object) = json::object(item) else {
            continue;
        };
        let Some(id) = object.value_of("id") else {
            continue;
        };
        if id.as_str().is_some_and(|name| keep(&name)) {
            kept.push(item.raw);
            first = first.or(Some(id.raw));
            last = Some(id.raw);
        }
    }
    let data = [b"[", kept.join(&b","[..]).as_slice(), b"]"].concat();
    let mut filtered = Vec::with_capacity(body.len());
    filtered.push(b'{');
    for member in list.members() {
        let value = match (&*member.key, dialect) {
            ("data", _) => data.as_slice(),
            ("first_id", Dialect::Anthropic) => first.unwrap_or(b"null"),
            ("last_id", Dialect::Anthropic) => last.unwrap_or(b"null"),
            _ if matches!(member.value.kind, Kind::Array | Kind::Object) => continue,
            _ => member.value.raw,
        };
        if filtered.len() > 1 {
            filtered.push(b',');
        }
        filtered.extend_from_slice(&crate::edit::quoted(&member.key));
        filtered.push(b':');
        filtered.extend_from_slice(value);
    }
    filtered.push(b'}');
    Ok(filtered)
}

#[cfg(test)]
mod tests;

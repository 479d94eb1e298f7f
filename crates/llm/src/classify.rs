//! Which operation a path means, and the path an operation has.

use std::borrow::Cow;

use waypoint_policy::Operation;

use crate::Dialect;

/// What `method` on `path` asks for; `None` is a path we do not serve.
///
/// `path` is normalized, without the route's prefix and without the query, such as
/// `/v1/chat/completions`. `/v1/models` belongs to both dialects; Anthropic's clients are told
/// apart by their `anthropic-version` header. The third value is the model named in the path
/// (`GET /v1/models/{id}`), percent-decoded, so that a policy sees the name the provider will see.
///
/// The list is closed: a path that is not here is not inference as we can account for it.
#[must_use]
pub fn classify<'a>(
    method: &str,
    path: &'a str,
    has_anthropic_version: bool,
) -> Option<(Dialect, Operation, Option<Cow<'a, str>>)> {
    match (method, path) {
        ("POST", "/v1/chat/completions") => Some((Dialect::OpenAi, Operation::Chat, None)),
        ("POST", "/v1/responses") => Some((Dialect::OpenAi, Operation::Responses, None)),
        ("POST", "/v1/embeddings") => Some((Dialect::OpenAi, Operation::Embeddings, None)),
        ("POST", "/v1/messages") => Some((Dialect::Anthropic, Operation::Messages, None)),
        ("POST", "/v1/messages/count_tokens") => {
            Some((Dialect::Anthropic, Operation::CountTokens, None))
        }
        ("GET", path) => {
            let rest = path.strip_prefix("/v1/models")?;
            let model = match rest.strip_prefix('/') {
                Some(id) => Some(decode(id).filter(|id| is_model_name(id) && is_path_safe(id))?),
                None if rest.is_empty() => None,
                None => return None,
            };
            let dialect = if has_anthropic_version {
                Dialect::Anthropic
            } else {
                Dialect::OpenAi
            };
            Some((dialect, Operation::Models, model))
        }
        _ => None,
    }
}

/// The path of an operation at its provider, such as `/v1/messages`; with `model` the path of
/// that one model, for [`Operation::Models`] only.
#[must_use]
pub fn path_of(operation: Operation, model: Option<&str>) -> Cow<'static, str> {
    match (operation, model) {
        (Operation::Chat, _) => Cow::Borrowed("/v1/chat/completions"),
        (Operation::Responses, _) => Cow::Borrowed("/v1/responses"),
        (Operation::Embeddings, _) => Cow::Borrowed("/v1/embeddings"),
        (Operation::Messages, _) => Cow::Borrowed("/v1/messages"),
        (Operation::CountTokens, _) => Cow::Borrowed("/v1/messages/count_tokens"),
        (Operation::Models, None) => Cow::Borrowed("/v1/models"),
        (Operation::Models, Some(id)) => Cow::Owned(format!("/v1/models/{}", encode(id))),
    }
}

/// Longest accepted model name, in bytes.
pub(crate) const MODEL_NAME_LIMIT_BYTES: usize = 256;

/// A model name is 1 to 256 bytes without control characters.
pub(crate) fn is_model_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MODEL_NAME_LIMIT_BYTES && !name.chars().any(char::is_control)
}

/// A name may hold slashes, but must not lead elsewhere when it stands in a path.
fn is_path_safe(name: &str) -> bool {
    name.split('/')
        .all(|segment| !matches!(segment, "" | "." | ".."))
}

/// Percent-decodes once; `None` for a malformed escape or bytes that are not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, tail @ ..] = tail else {
                return None;
            };
            let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
            bytes.push(u8::try_from(value).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Percent-encodes what RFC 3986 §3.3 does not allow in a path. A slash stays: compatible servers
/// have models such as `meta-llama/Llama-3` and read the rest of the path.
fn encode(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => path.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'/' => path.push(char::from(byte)),
            _ => {
                path.push('%');
                for digit in [byte >> 4, byte & 15] {
                    path.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
    path
}

#[cfg(test)]
mod tests;

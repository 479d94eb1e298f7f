//! A strict JSON reader that checks bytes in place and never rebuilds them, and a small writer
//! (RFC 8259).
//!
//! A gateway decides on a body and then forwards the same bytes, so the one
//! thing it may not do is read them differently from the server behind it.
//! Whatever two parsers are known to disagree about is refused here: repeated
//! keys, a byte order mark, unpaired surrogates, text after the value.
//!
//! ```
//! use waypoint_wire::json::{Options, parse_object};
//!
//! let body = br#"{"model":"gpt-4o","stream":true}"#;
//! let object = parse_object(body, &Options::default())?;
//! let model = object.get("model").and_then(|member| member.value.as_str());
//! assert_eq!(model.as_deref(), Some("gpt-4o"));
//! # Ok::<(), waypoint_wire::json::JsonError>(())
//! ```

mod keys;
mod scan;
mod text;
mod view;
mod walk;
mod write;

#[cfg(test)]
mod tests;

pub use text::folds_to;
pub use view::{Kind, Member, Members, Object, Value, array, members, object, objects};
pub use write::{ObjectWriter, push_string};

/// What a document must keep to beyond the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many objects and arrays may be open at once.
    pub max_depth: usize,
    /// Which objects may not repeat a key.
    pub unique_keys: UniqueKeys,
    /// Whether `\ud800` without its other half is acceptable inside values.
    pub surrogates: Surrogates,
}

impl Default for Options {
    /// The strictest reading: 64 levels, no repeated key anywhere, paired surrogates.
    fn default() -> Self {
        Self {
            max_depth: 64,
            unique_keys: UniqueKeys::Everywhere,
            surrogates: Surrogates::Paired,
        }
    }
}

/// Which objects may not repeat a key; keys are compared after unescaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniqueKeys {
    /// The outermost object only.
    TopLevel,
    /// The outermost object and the objects that its members hold.
    TwoLevels,
    /// Every object of the document.
    Everywhere,
}

/// What to think of an escaped UTF-16 surrogate without its other half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surrogates {
    /// Refused: parsers replace, keep or reject it, so they read different text.
    Paired,
    /// Accepted, for text that is only passed on. [`Value::as_str`] is still
    /// `None` for such a string, and a key that is compared may not hold one.
    Any,
}

/// Why bytes are not a document we accept. Offsets count bytes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Bytes that are not UTF-8 (RFC 8259 §8.1).
    #[error("not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// First bad byte.
        offset: usize,
    },
    /// A byte order mark before the value; servers differ on it.
    #[error("byte order mark before the value")]
    ByteOrderMark,
    /// The document ends inside a value.
    #[error("the document ends too early")]
    UnexpectedEnd,
    /// A byte the grammar does not allow here.
    #[error("unexpected byte at {offset}")]
    Unexpected {
        /// The byte.
        offset: usize,
    },
    /// A raw control character in a string.
    #[error("control character in a string at byte {offset}")]
    Control {
        /// The character.
        offset: usize,
    },
    /// An escape that JSON does not know.
    #[error("bad escape in a string at byte {offset}")]
    Escape {
        /// Its backslash.
        offset: usize,
    },
    /// An escaped surrogate without its other half.
    #[error("unpaired surrogate at byte {offset}")]
    Surrogate {
        /// Its backslash.
        offset: usize,
    },
    /// A number outside the grammar, such as `01` or `1.`.
    #[error("bad number at byte {offset}")]
    Number {
        /// Its first byte.
        offset: usize,
    },
    /// More nesting than allowed.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// [`Options::max_depth`].
        limit: usize,
    },
    /// A key that its object holds already.
    #[error("repeated key at byte {offset}")]
    DuplicateKey {
        /// The opening quote of the second one.
        offset: usize,
    },
    /// Something after the value.
    #[error("text after the value at byte {offset}")]
    TrailingData {
        /// First byte of it.
        offset: usize,
    },
    /// Well-formed, but an object was needed.
    #[error("not an object")]
    NotObject,
    /// Well-formed, but an array was needed.
    #[error("not an array")]
    NotArray,
    /// More bytes than offsets of 32 bits can name.
    #[error("document larger than 4 GiB")]
    TooLarge,
}

impl JsonError {
    /// Whether the bytes are not JSON at all, rather than JSON that we refuse.
    #[must_use]
    pub fn is_syntax(&self) -> bool {
        !matches!(
            self,
            Self::Surrogate { .. }
                | Self::TooDeep { .. }
                | Self::DuplicateKey { .. }
                | Self::NotObject
                | Self::NotArray
                | Self::TooLarge
        )
    }
}

/// Checks a whole document: one value, optionally with whitespace around it.
///
/// Runs in time linear in `bytes` and without recursion.
///
/// # Errors
/// The first [`JsonError`] from the start of the document.
pub fn validate<'a>(bytes: &'a [u8], options: &Options) -> Result<Value<'a>, JsonError> {
    scan::document(bytes, options, None)
}

/// Checks a whole document that must be an object, and indexes its members on the way.
///
/// # Errors
/// As [`validate`], and [`JsonError::NotObject`]. A key repeated in this object
/// is always refused.
pub fn parse_object<'a>(bytes: &'a [u8], options: &Options) -> Result<Object<'a>, JsonError> {
    parse_nested(bytes, options, "").map(|(object, _)| object)
}

/// As [`parse_object`], and indexes in the same pass the object that its member `key` holds.
///
/// The second object is absent where `key` is, or holds something else.
///
/// # Errors
/// As [`parse_object`]. A key repeated in the inner object is not refused under
/// [`UniqueKeys::TopLevel`].
pub fn parse_nested<'a>(
    bytes: &'a [u8],
    options: &Options,
    key: &str,
) -> Result<(Object<'a>, Option<Object<'a>>), JsonError> {
    let mut index = scan::Index {
        // What most messages have room in.
        top: Vec::with_capacity(12),
        inner: Vec::new(),
        inner_key: key,
    };
    let value = scan::document(bytes, options, Some(&mut index))?;
    if value.kind != Kind::Object {
        return Err(JsonError::NotObject);
    }
    let top = Object::new(value, index.top);
    let inner = top
        .value_of(key)
        .filter(|inner| inner.kind == Kind::Object && !key.is_empty())
        .map(|inner| Object::new(inner, index.inner));
    Ok((top, inner))
}

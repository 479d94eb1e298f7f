//! Views into a checked document: values, the members of one object, the items of one array.

use std::{borrow::Cow, ops::Range};

use super::{JsonError, keys::Keys, text, walk::Walk};

/// The seven kinds of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 8259")]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// One value, as the bytes it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// What it is, by its first byte.
    pub kind: Kind,
    /// Its bytes without surrounding whitespace; a string includes its quotes.
    pub raw: &'a [u8],
    /// Offset of `raw` in the whole document, in bytes.
    pub start: usize,
}

impl<'a> Value<'a> {
    /// Where it lies in the whole document.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// The text of a string, unescaped; `None` for other kinds and for text
    /// with an unpaired surrogate. Borrows when nothing was escaped.
    #[must_use]
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        if self.kind != Kind::String {
            return None;
        }
        let inner = self.raw.get(1..self.raw.len().checked_sub(1)?)?;
        text::unescape(std::str::from_utf8(inner).ok()?)
    }

    /// A non-negative integer written without fraction or exponent.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.number()?.parse().ok()
    }

    /// An integer written without fraction or exponent.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    /// The truth value of `true` and `false`.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.kind {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    fn number(&self) -> Option<&'a str> {
        if self.kind != Kind::Number {
            return None;
        }
        std::str::from_utf8(self.raw).ok()
    }
}

/// One member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The key, unescaped.
    pub key: Cow<'a, str>,
    /// Where the key lies in the whole document, with its quotes.
    pub key_range: Range<usize>,
    /// What it holds.
    pub value: Value<'a>,
}

/// The members of one object, in the order they were written; no key twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<'a> {
    value: Value<'a>,
    members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    pub(super) fn new(value: Value<'a>, members: Vec<Member<'a>>) -> Self {
        Self { value, members }
    }

    /// The member with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Member<'a>> {
        self.members.iter().find(|member| member.key == key)
    }

    /// The value with this key.
    #[must_use]
    pub fn value_of(&self, key: &str) -> Option<Value<'a>> {
        self.get(key).map(|member| member.value)
    }

    /// All members in order.
    #[must_use]
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// The object itself, braces included.
    #[must_use]
    pub fn value(&self) -> Value<'a> {
        self.value
    }

    /// Whether it has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// The members of an object that [`super::validate`] has accepted, without their own members.
///
/// # Errors
/// [`JsonError::NotObject`]; [`JsonError::DuplicateKey`] even where validation
/// did not look at this object.
pub fn object(value: Value<'_>) -> Result<Object<'_>, JsonError> {
    if value.kind != Kind::Object {
        return Err(JsonError::NotObject);
    }
    let mut walk = Walk::new(value)?;
    let mut keys = Keys::new();
    let mut members = Vec::new();
    let opened = keys.open();
    while let Some((start, end, item)) = walk.member()? {
        if !keys.insert(&opened, value.raw, start + 1, end)? {
            return Err(JsonError::DuplicateKey {
                offset: value.start + start,
            });
        }
        let offset = value.start + start;
        members.push(Member {
            key: key(key_of(value.raw, start, end), end, offset)?,
            key_range: offset..value.start + end.quote + 1,
            value: item,
        });
    }
    Ok(Object::new(value, members))
}

/// The keys and values of an object that [`super::validate`] has accepted, one after the other
/// and without a look at repeated keys: for values that are only read, not decided on.
///
/// Ends at the first member that cannot be read, such as one whose key holds an unpaired
/// surrogate. Gives nothing for values that are no objects.
pub fn members(value: Value<'_>) -> Members<'_> {
    let walk = (value.kind == Kind::Object).then(|| Walk::new(value).ok());
    Members {
        walk: walk.flatten(),
    }
}

/// See [`members`].
#[derive(Debug)]
pub struct Members<'a> {
    /// `None` where there are none, and once one could not be read.
    walk: Option<Walk<'a>>,
}

impl<'a> Members<'a> {
    fn read(&mut self) -> Result<Option<(Cow<'a, str>, Value<'a>)>, JsonError> {
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        let Some((start, end, item)) = walk.member()? else {
            return Ok(None);
        };
        let Value {
            raw, start: base, ..
        } = walk.value();
        let key = key(key_of(raw, start, end), end, base + start)?;
        Ok(Some((key, item)))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok(member) => member,
            Err(_) => {
                // What follows must not look as if it were the whole.
                self.walk = None;
                None
            }
        }
    }
}

/// The items of an array that [`super::validate`] has accepted, with what `read` makes of the
/// members of those that are objects, in one pass.
///
/// # Errors
/// [`JsonError::NotArray`]; [`JsonError::Unexpected`] for an item with a member that cannot be
/// read.
pub fn objects<'a, T>(
    value: Value<'a>,
    mut read: impl FnMut(&mut Members<'a>) -> T,
) -> Result<Vec<(Value<'a>, Option<T>)>, JsonError> {
    if value.kind != Kind::Array {
        return Err(JsonError::NotArray);
    }
    let mut walk = Walk::new(value)?;
    let mut items = Vec::new();
    while walk.more()? {
        let Some(inner) = walk.enter() else {
            items.push((walk.step()?, None));
            continue;
        };
        let mut members = Members { walk: Some(inner) };
        let made = read(&mut members);
        members.by_ref().for_each(drop);
        let item = walk.leave(members.walk.as_ref())?;
        items.push((item, Some(made)));
    }
    Ok(items)
}

/// The items of an array that [`super::validate`] has accepted.
///
/// # Errors
/// [`JsonError::NotArray`].
pub fn array(value: Value<'_>) -> Result<Vec<Value<'_>>, JsonError> {
    if value.kind != Kind::Array {
        return Err(JsonError::NotArray);
    }
    let mut walk = Walk::new(value)?;
    let mut items = Vec::new();
    while let Some(item) = walk.item()? {
        items.push(item);
    }
    Ok(items)
}

/// The text of a key, unescaped if it needs to be. `offset` is that of its opening quote.
#[inline]
pub(super) fn key(
    inner: Option<&str>,
    end: text::End,
    offset: usize,
) -> Result<Cow<'_, str>, JsonError> {
    let inner = inner.ok_or(JsonError::NotUtf8 { offset })?;
    if !end.escaped {
        return Ok(Cow::Borrowed(inner));
    }
    text::unescape(inner).ok_or(JsonError::Surrogate { offset })
}

/// The key that opens at `start` of `bytes` and ends at `end`, where only bytes are known.
fn key_of(bytes: &[u8], start: usize, end: text::End) -> Option<&str> {
    std::str::from_utf8(bytes.get(start + 1..end.quote)?).ok()
}

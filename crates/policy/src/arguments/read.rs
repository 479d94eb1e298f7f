//! Steps into JSON text, without a tree.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::pointer::Segment;

/// What a pointer leads to.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Value(&'a RawValue),
    /// Nothing is there.
    Absent,
    /// Something on the way is no object or array, or can be read in two ways.
    Unreadable,
}

/// The members of one object.
pub(super) struct Members<'a>(SmallVec<[(Cow<'a, str>, &'a RawValue); 8]>);

impl<'a> Members<'a> {
    pub(super) fn find(&self, segment: &Segment) -> Found<'a> {
        let Segment::Key(wanted, _) = segment else {
            return Found::Unreadable;
        };
        let mut lookup = Lookup::new(wanted);
        for (key, value) in &self.0 {
            lookup.see(key, value);
        }
        lookup.found
    }
}

/// A JSON document as one value.
pub(super) fn value(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}

/// The members of a document that is an object.
pub(super) fn members(json: &[u8]) -> Option<Members<'_>> {
    let mut members = SmallVec::new();
    object(value(json)?, |key, value| members.push((key, value)))?;
    Some(Members(members))
}

/// Looks for one key among members.
struct Lookup<'k, 'a> {
    wanted: &'k str,
    found: Found<'a>,
}

impl<'k, 'a> Lookup<'k, 'a> {
    fn new(wanted: &'k str) -> Self {
        Self {
            wanted,
            found: Found::Absent,
        }
    }

    fn see(&mut self, key: &str, value: &'a RawValue) {
        if key == self.wanted {
            self.found = match self.found {
                Found::Absent => Found::Value(value),
                Found::Value(_) | Found::Unreadable => Found::Unreadable,
            };
        } else if folds_to(key, self.wanted) {
            self.found = Found::Unreadable;
        }
    }
}

/// Whether a lenient reader could take `key` for `wanted`: Go's `encoding/json` ignores case in all
/// of Unicode, so that `ſ` is an `s` and the Kelvin sign a `k`.
fn folds_to(key: &str, wanted: &str) -> bool {
    if key.is_ascii() && wanted.is_ascii() {
        return key.eq_ignore_ascii_case(wanted);
    }
    let fold = |letter: char| letter.to_uppercase().flat_map(char::to_lowercase);
    key.chars().flat_map(fold).eq(wanted.chars().flat_map(fold))
}

/// Gives everything that `segments` lead to from `from`, for as long as `see` wants more; says
/// whether it still does.
pub(super) fn each(
    from: Found<'_>,
    segments: &[Segment],
    see: &mut dyn FnMut(Found<'_>) -> bool,
) -> bool {
    let (Some((segment, rest)), Found::Value(value)) = (segments.split_first(), from) else {
        return see(from);
    };
    match (segment, value.get().as_bytes().first()) {
        (Segment::Key(key, _), Some(b'{')) => {
            let mut lookup = Lookup::new(key);
            let found = match object(value, |key, value| lookup.see(&key, value)) {
                Some(()) => lookup.found,
                None => Found::Unreadable,
            };
            each(found, rest, see)
        }
        (Segment::Key(_, Some(index)), Some(b'[')) => {
            let mut found = Found::Absent;
            let mut at = 0;
            let whole = array(value, |item| {
                if at == *index {
                    found = Found::Value(item);
                }
                at += 1;
                at <= *index
            });
            if whole.is_none() {
                found = Found::Unreadable;
            }
            each(found, rest, see)
        }
        // RFC 6901 §4: the element behind the last one, which is never there.
        (Segment::Key(key, None), Some(b'[')) if **key == *"-" => see(Found::Absent),
        (Segment::Every, Some(b'[')) => {
            let (mut some, mut more) = (false, true);
            let whole = array(value, |item| {
                some = true;
                more = each(Found::Value(item), rest, see);
                more
            });
            match (whole, some) {
                (None, _) => see(Found::Unreadable),
                // No element is no value: an empty list may mean everything to a tool.
                (Some(()), false) => see(Found::Absent),
                (Some(()), true) => more,
            }
        }
        _ => see(Found::Unreadable),
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a string, unescaped.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get())
        .ok()
        .map(|text| text.0)
}

/// How many elements an array has.
pub(super) fn count(value: &RawValue) -> Option<u64> {
    struct Count;
    impl<'de> Visitor<'de> for Count {
        type Value = u64;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
            let mut count = 0;
            while items.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    let mut json = serde_json::Deserializer::from_str(value.get());
    json.deserialize_seq(Count).ok()
}

/// Every member of an object; `None` if it cannot be read to its end.
fn object<'a>(value: &'a RawValue, member: impl FnMut(Cow<'a, str>, &'a RawValue)) -> Option<()> {
    struct Each<F>(F);
    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Each<F> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
            while let Some(key) = members.next_key::<Text<'de>>()? {
                (self.0)(key.0, members.next_value()?);
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_str(value.get());
    json.deserialize_map(Each(member)).ok()
}

/// The elements of an array, for as long as `item` wants more; `None` if one cannot be read.
fn array<'a>(value: &'a RawValue, item: impl FnMut(&'a RawValue) -> bool) -> Option<()> {
    struct Each<'s, F>(F, &'s mut bool);
    impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Each<'_, F> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
            while let Some(item) = items.next_element()? {
                if !(self.0)(item) {
                    *self.1 = true;
                    break;
                }
            }
            Ok(())
        }
    }
    let mut stopped = false;
    let mut json = serde_json::Deserializer::from_str(value.get());
    let read = json.deserialize_seq(Each(item, &mut stopped));
    // What was not looked at any more is reported as trailing.
    (read.is_ok() || stopped).then_some(())
}

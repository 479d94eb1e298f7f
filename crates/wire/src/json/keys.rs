//! The keys seen so far in each open object, to find one that comes twice.

use std::{
    borrow::Cow,
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

use hashbrown::{HashTable, hash_table::Entry};

use super::{JsonError, text};

/// Up to this many keys an object is searched one by one.
const FEW: usize = 16;

/// Keys of all open objects. Objects close in reverse order of opening, so
/// small ones share one stack; a large one moves to a hash table, keyed at
/// random so that nobody can choose colliding keys.
#[derive(Debug)]
pub(super) struct Keys {
    few: Vec<Key>,
    many: HashTable<Hashed>,
    random: Option<RandomState>,
    opened: u32,
}

/// Position of a key between its quotes, with a print that differs for most keys.
#[derive(Debug, Clone, Copy)]
struct Key {
    print: u32,
    start: u32,
    /// Without the top bit, which says whether it holds escapes.
    end: u32,
}

/// A key of a large object, with its hash so that a growing table need not compute it again.
#[derive(Debug, Clone, Copy)]
struct Hashed {
    hash: u64,
    object: u32,
    key: Key,
}

const ESCAPED: u32 = 1 << 31;

/// An object whose keys are being collected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    first: usize,
    serial: u32,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            few: Vec::with_capacity(FEW),
            many: HashTable::new(),
            random: None,
            opened: 0,
        }
    }

    /// Begins an object.
    pub(super) fn open(&mut self) -> Opened {
        self.opened = self.opened.wrapping_add(1);
        Opened {
            first: self.few.len(),
            serial: self.opened,
        }
    }

    /// Ends an object; the ones opened after it have ended before.
    pub(super) fn close(&mut self, object: &Opened) {
        self.few.truncate(object.first);
    }

    /// Adds the key at `start..end` (without quotes) to the object opened last; `false` if it is there.
    #[inline]
    pub(super) fn insert(
        &mut self,
        object: &Opened,
        bytes: &[u8],
        start: usize,
        end: text::End,
    ) -> Result<bool, JsonError> {
        let key = Key::new(bytes, start, end)?;
        let own = self.few.get(object.first..).unwrap_or_default();
        for other in own {
            if other.print == key.print && other.same(&key, bytes) {
                return Ok(false);
            }
        }
        if own.len() < FEW {
            self.few.push(key);
            return Ok(true);
        }
        Ok(self.insert_many(object.serial, bytes, key))
    }

    #[inline(never)]
    fn insert_many(&mut self, serial: u32, bytes: &[u8], key: Key) -> bool {
        let random = self.random.get_or_insert_with(RandomState::new);
        let mut hasher = random.build_hasher();
        hasher.write_u32(serial);
        hasher.write(&key.text(bytes));
        let hash = hasher.finish();
        let found = self.many.entry(
            hash,
            |known| known.hash == hash && known.object == serial && known.key.same(&key, bytes),
            |known| known.hash,
        );
        match found {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Hashed {
                    hash,
                    object: serial,
                    key,
                });
                true
            }
        }
    }
}

impl Key {
    #[inline]
    fn new(bytes: &[u8], start: usize, end: text::End) -> Result<Self, JsonError> {
        let offset = |at: usize| {
            u32::try_from(at)
                .ok()
                .filter(|at| at & ESCAPED == 0)
                .ok_or(JsonError::TooLarge)
        };
        let mut key = Self {
            print: 0,
            start: offset(start)?,
            end: offset(end.quote)?,
        };
        if end.escaped {
            key.end |= ESCAPED;
            let text = key.unescaped(bytes);
            let text = text.ok_or(JsonError::Surrogate { offset: start })?;
            key.print = print(text.as_bytes());
        } else {
            key.print = print(key.raw(bytes));
        }
        Ok(key)
    }

    fn raw<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let end = self.end & !ESCAPED;
        bytes
            .get(self.start as usize..end as usize)
            .unwrap_or_default()
    }

    fn unescaped<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        text::unescape(std::str::from_utf8(self.raw(bytes)).ok()?)
    }

    fn text<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.end & ESCAPED == 0 {
            return Cow::Borrowed(self.raw(bytes));
        }
        match self.unescaped(bytes) {
            Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            _ => Cow::Borrowed(self.raw(bytes)),
        }
    }

    fn same(&self, other: &Self, bytes: &[u8]) -> bool {
        self.text(bytes) == other.text(bytes)
    }
}

/// Mixes the length with the first and the last bytes; different for most keys of one object.
#[inline]
fn print(text: &[u8]) -> u32 {
    let (head, tail) = if let (Some(head), Some(tail)) = (text.first_chunk(), text.last_chunk()) {
        (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
    } else if let (Some(head), Some(tail)) = (text.first_chunk(), text.last_chunk()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        (u64::from(head), u64::from(tail))
    } else {
        let word = text
            .iter()
            .fold(0, |word, &byte| word << 8 | u64::from(byte));
        (word, 0)
    };
    let mixed = (head ^ tail.rotate_left(29) ^ (text.len() as u64) << 56)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

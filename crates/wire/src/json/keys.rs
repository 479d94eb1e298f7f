//! The keys seen so far in each open object, to find one that comes twice.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

use hashbrown::HashTable;

use super::{JsonError, text};

/// Up to this many keys an object is searched one by one.
const FEW: usize = 16;

/// Keys of all open objects. Objects close in reverse order of opening, so
/// small ones share one stack; a large one moves to a hash table, keyed at
/// random so that nobody can choose colliding keys.
#[derive(Debug)]
pub(super) struct Keys {
    few: Vec<Key>,
    many: HashTable<(u32, Key)>,
    random: Option<RandomState>,
    opened: u32,
}

/// Position of a key between its quotes, with a print that differs for most keys.
#[derive(Debug, Clone, Copy)]
struct Key {
    print: u32,
    start: u32,
    end: u32,
}

/// An object whose keys are being collected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    first: usize,
    serial: u32,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            few: Vec::new(),
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
    pub(super) fn insert(
        &mut self,
        object: &Opened,
        bytes: &[u8],
        start: usize,
        end: usize,
    ) -> Result<bool, JsonError> {
        let raw = bytes.get(start..end).unwrap_or_default();
        let at = |offset: usize| u32::try_from(offset).map_err(|_| JsonError::TooLarge);
        let escaped = memchr::memchr(b'\\', raw).is_some();
        let key = Key {
            print: if escaped {
                print(plain(raw)?.as_bytes())
            } else {
                print(raw)
            },
            start: at(start)?,
            end: at(end)?,
        };
        let own = self.few.get(object.first..).unwrap_or_default();
        for other in own {
            if other.print == key.print && same(bytes, other, &key) {
                return Ok(false);
            }
        }
        if own.len() < FEW {
            self.few.push(key);
            return Ok(true);
        }
        self.insert_many(object, bytes, key)
    }

    #[cold]
    fn insert_many(&mut self, object: &Opened, bytes: &[u8], key: Key) -> Result<bool, JsonError> {
        let random = self.random.get_or_insert_with(RandomState::new);
        let hash = |serial: u32, key: &Key| {
            let mut hasher = random.build_hasher();
            hasher.write_u32(serial);
            let raw = raw(bytes, key);
            match text::unescape(std::str::from_utf8(raw).unwrap_or_default()) {
                Some(text) => hasher.write(text.as_bytes()),
                None => hasher.write(raw),
            }
            hasher.finish()
        };
        let serial = object.serial;
        let found = self.many.entry(
            hash(serial, &key),
            |(other, known)| {
                *other == serial && known.print == key.print && same(bytes, known, &key)
            },
            |(serial, key)| hash(*serial, key),
        );
        match found {
            hashbrown::hash_table::Entry::Occupied(_) => Ok(false),
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert((serial, key));
                Ok(true)
            }
        }
    }
}

fn raw<'a>(bytes: &'a [u8], key: &Key) -> &'a [u8] {
    bytes
        .get(key.start as usize..key.end as usize)
        .unwrap_or_default()
}

fn plain(raw: &[u8]) -> Result<std::borrow::Cow<'_, str>, JsonError> {
    std::str::from_utf8(raw)
        .ok()
        .and_then(text::unescape)
        .ok_or(JsonError::Surrogate { offset: 0 })
}

fn same(bytes: &[u8], a: &Key, b: &Key) -> bool {
    let (a, b) = (raw(bytes, a), raw(bytes, b));
    if a == b {
        return true;
    }
    match (plain(a), plain(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Mixes the length, the first and the last eight bytes.
#[inline]
fn print(text: &[u8]) -> u32 {
    let short = |text: &[u8]| {
        text.iter()
            .take(8)
            .fold(0u64, |word, &byte| word << 8 | u64::from(byte))
    };
    let head = text
        .first_chunk::<8>()
        .map_or_else(|| short(text), |chunk| u64::from_le_bytes(*chunk));
    let tail = text
        .last_chunk::<8>()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk));
    let mixed = (head ^ tail.rotate_left(29) ^ (text.len() as u64) << 56)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

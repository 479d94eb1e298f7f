//! Names and globs to numbers, so that a name finds the patterns that may match it by hashing.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::Pattern;

#[cfg(test)]
mod tests;

/// The number of a pattern, or of a group of globs that begin or end alike.
pub(crate) type Key = u32;
pub(crate) type Keys = SmallVec<[Key; 8]>;

/// Patterns that cannot be hashed, and fields that restrict nothing.
pub(crate) const ANY: Key = 0;
/// The block as a whole, for actions that ask whether anything at all is permitted.
pub(crate) const WHOLE: Key = 1;
const FIRST_FREE: Key = 2;

/// Literal ends of globs are told apart to the byte up to here, then in steps, then not at all:
/// a look-up tries each length that is in use.
const END_EXACT_BYTES: usize = 64;
const END_STEP_BYTES: usize = 8;
const END_MAX_BYTES: usize = 256;

/// The patterns of one field.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    exact: HashMap<Box<str>, Key>,
    prefixes: Ends,
    suffixes: Ends,
    count: u32,
}

/// Literal text before the first or after the last `*` of a glob.
#[derive(Debug, Default)]
struct Ends {
    keys: HashMap<Box<str>, Key>,
    /// Lengths in bytes of `keys`, ascending.
    lengths: Vec<usize>,
}

impl Texts {
    /// The key under which `pattern` is filed.
    pub(crate) fn intern(&mut self, pattern: &Pattern) -> Key {
        let fresh = FIRST_FREE + self.count;
        let key = if let Some(name) = pattern.as_exact() {
            *self.exact.entry_ref(name).or_insert(fresh)
        } else {
            let prefix = cut(pattern.literal_prefix(), true);
            let suffix = cut(pattern.literal_suffix(), false);
            match (prefix.len(), suffix.len()) {
                (0, 0) => return ANY,
                (p, s) if p >= s => self.prefixes.intern(prefix, fresh),
                _ => self.suffixes.intern(suffix, fresh),
            }
        };
        if key == fresh {
            self.count += 1;
        }
        key
    }

    /// The keys of every pattern that may match `text`; always has [`ANY`].
    pub(crate) fn find(&self, text: &str, keys: &mut Keys) {
        if keys.is_empty() {
            keys.push(ANY);
        }
        let exact = self.exact.get(text).copied();
        let prefixes = self.prefixes.find(text.len(), |bytes| text.get(..bytes));
        let suffixes = self.suffixes.find(text.len(), |bytes| {
            text.len()
                .checked_sub(bytes)
                .and_then(|start| text.get(start..))
        });
        for key in exact.into_iter().chain(prefixes).chain(suffixes) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
}

impl Ends {
    fn intern(&mut self, end: &str, fresh: Key) -> Key {
        if let Err(at) = self.lengths.binary_search(&end.len()) {
            self.lengths.insert(at, end.len());
        }
        *self.keys.entry_ref(end).or_insert(fresh)
    }

    fn find<'t>(
        &self,
        bytes: usize,
        end: impl Fn(usize) -> Option<&'t str>,
    ) -> impl Iterator<Item = Key> {
        let lengths = self.lengths.iter().take_while(move |&&l| l <= bytes);
        lengths.filter_map(move |&length| self.keys.get(end(length)?).copied())
    }
}

/// Cuts a literal end down to a length that is looked up, from its outer side.
fn cut(end: &str, is_prefix: bool) -> &str {
    let bytes = match end.len() {
        len if len <= END_EXACT_BYTES => len,
        len => len.min(END_MAX_BYTES) / END_STEP_BYTES * END_STEP_BYTES,
    };
    let kept = match is_prefix {
        true => (0..=bytes).rev().find_map(|bytes| end.get(..bytes)),
        false => (end.len() - bytes..=end.len()).find_map(|start| end.get(start..)),
    };
    kept.unwrap_or_default()
}

//! Principals as metric labels, bounded: after so many distinct ones the rest share a label.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// Distinct principals that get a label of their own.
const MAX: usize = 1_000;
/// The label of all others.
const REST: &str = "other";

#[derive(Debug, Default)]
pub(crate) struct Principals {
    known: RwLock<HashSet<Box<str>>>,
}

impl Principals {
    /// The label of a principal.
    pub(crate) fn label<'a>(&self, principal: &'a str) -> &'a str {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains(principal) {
            return principal;
        }
        if known.len() >= MAX {
            return REST;
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX && !known.contains(principal) {
            return REST;
        }
        known.insert(principal.into());
        principal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_stable() {
        let principals = Principals::default();
        for index in 0..MAX {
            let name = format!("spiffe://td/{index}");
            assert_eq!(principals.label(&name), name);
        }
        assert_eq!(principals.label("spiffe://td/one-too-many"), REST);
        assert_eq!(principals.label("spiffe://td/7"), "spiffe://td/7");
    }
}

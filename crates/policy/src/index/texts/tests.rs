#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever a pattern matches finds its key, also where its ends are long or cut.
    #[test]
    fn finds_every_pattern_that_matches(
        patterns in proptest::collection::vec("(a|é|bc){0,120}\\*?(a|é){0,120}", 1..6),
        middle in "[ab]{0,3}",
    ) {
        let mut texts = Texts::default();
        let filed: Vec<(Pattern, Key)> = patterns
            .iter()
            .filter_map(|text| text.parse().ok())
            .map(|pattern: Pattern| {
                let key = texts.intern(&pattern);
                (pattern, key)
            })
            .collect();
        for text in patterns.iter().map(|text| text.replace('*', &middle)) {
            let mut keys = Keys::new();
            texts.find(&text, &mut keys);
            for (pattern, key) in &filed {
                if pattern.matches(&text) {
                    prop_assert!(keys.contains(key), "{pattern} {text}");
                }
            }
        }
    }
}

/// A look-up tries each length that is in use, so their number has a bound whatever is filed.
#[test]
fn long_ends_share_their_lengths() {
    let mut texts = Texts::default();
    for bytes in 1..=400 {
        let end = "a".repeat(bytes);
        texts.intern(&format!("{end}*").parse().unwrap());
        texts.intern(&format!("*{end}").parse().unwrap());
    }
    let lengths: Vec<usize> = (1..=64).chain((72..=256).step_by(8)).collect();
    assert_eq!(texts.prefixes.lengths, lengths);
    assert_eq!(texts.suffixes.lengths, lengths);
}

#[test]
fn tells_names_apart() {
    let mut texts = Texts::default();
    let mut key = |text: &str| texts.intern(&text.parse().unwrap());
    assert_eq!(key("*"), ANY);
    assert_eq!(key("*a*"), ANY);
    let keys = [key("a"), key("b"), key("a*"), key("*a"), key("b*")];
    for (at, one) in keys.iter().enumerate() {
        assert!(*one >= FIRST_FREE && !keys[..at].contains(one), "{keys:?}");
    }
    assert_eq!(key("a*x*y"), keys[2], "globs that begin alike share a key");
    assert_eq!(key("a"), keys[0]);
}

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

#[test]
fn matches_globs() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "A", false),
        ("a", "aa", false),
        ("*", "", true),
        ("**", "x/y", true),
        ("a*", "a", true),
        ("a*", "ba", false),
        ("*a", "ba", true),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("a*bc*bc", "abcbc", true),
        ("a*bc*bc", "abc", false),
        ("*/x/*", "a/b/x/c", true),
        ("é*", "éa", true),
        ("gpt-4o*", "gpt-4o-mini", true),
        (".", "x", false),
    ] {
        let parsed: Pattern = pattern.parse().unwrap();
        assert_eq!(parsed.matches(text), expected, "{pattern} {text}");
        assert_eq!(parsed.to_string(), pattern);
    }
}

#[test]
fn parses() {
    assert_eq!("".parse::<Pattern>(), Err(PatternError::Empty));
    let long = "a".repeat(2049);
    assert_eq!(
        long.parse::<Pattern>(),
        Err(PatternError::TooLong { bytes: 2049 })
    );
    assert!("a".repeat(2048).parse::<Pattern>().is_ok());
    let exact: Pattern = "a/b".parse().unwrap();
    assert_eq!(format!("{exact:?}"), r#""a/b""#);
    assert_eq!(exact.as_exact(), Some("a/b"));
    let glob: Pattern = "a*".parse().unwrap();
    assert_eq!((glob.as_exact(), glob.is_any()), (None, false));
    assert!("**".parse::<Pattern>().unwrap().is_any());
}

#[test]
fn hosts_have_one_spelling() {
    for (host, expected) in [("A.b.", "a.b"), ("*.B", "*.b"), (".", "."), ("a", "a")] {
        assert_eq!(
            host.parse::<Pattern>().unwrap().for_hosts().as_str(),
            expected
        );
    }
}

#[test]
fn many_stars_do_not_backtrack() {
    let pattern: Pattern = "a*".repeat(1000).parse().unwrap();
    let text = format!("{}b", "a".repeat(100_000));
    let start = Instant::now();
    assert!(pattern.matches(&text));
    let pattern: Pattern = format!("{}c", "*a".repeat(1000)).parse().unwrap();
    assert!(!pattern.matches(&text));
    assert!(start.elapsed() < Duration::from_secs(1));
}

proptest! {
    #[test]
    fn agrees_with_the_recursive_matcher(pattern in "[abé*]{1,8}", text in "[abé]{0,10}") {
        let parsed: Pattern = pattern.parse().unwrap();
        let chars: Vec<char> = pattern.chars().collect();
        let expected = crate::set::naive::glob(&chars, &text.chars().collect::<Vec<_>>());
        prop_assert_eq!(parsed.matches(&text), expected);
    }
}

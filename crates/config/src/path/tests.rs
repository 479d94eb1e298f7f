use proptest::prelude::*;

use super::{PathError, normalize_path};

#[test]
fn normalizes() {
    for (case, path, expected) in [
        (
            "nothing to do",
            "/v1/chat/completions",
            Ok("/v1/chat/completions"),
        ),
        ("root", "/", Ok("/")),
        (
            "hidden names stay",
            "/.well-known/..x/x..",
            Ok("/.well-known/..x/x.."),
        ),
        ("slashes are merged", "//v1///chat//", Ok("/v1/chat/")),
        ("dot segments go", "/a/./b/../c", Ok("/a/c")),
        ("last dot segment leaves a slash", "/a/b/..", Ok("/a/")),
        ("up to the root", "/a/..", Ok("/")),
        ("unreserved is decoded", "/%61%2D%7e", Ok("/a-~")),
        ("escaped dots are dots", "/a/%2e%2E/b", Ok("/b")),
        ("other escapes get upper case", "/a%3ab", Ok("/a%3Ab")),
        (
            "an escaped percent sign stays one",
            "/%252e%252e/",
            Ok("/%252e%252e/"),
        ),
        ("beyond ASCII is escaped", "/é", Ok("/%C3%A9")),
        ("and equal to its escape", "/%c3%a9", Ok("/%C3%A9")),
        ("no slash first", "v1", Err(PathError::NotAbsolute)),
        ("empty", "", Err(PathError::NotAbsolute)),
        ("above the root", "/a/../../b", Err(PathError::AboveRoot)),
        ("short escape", "/a%2", Err(PathError::BadEscape)),
        ("no hex", "/a%zz", Err(PathError::BadEscape)),
        ("sign is no digit", "/a%+1", Err(PathError::BadEscape)),
        ("nul", "/a%00", Err(PathError::Ambiguous)),
        ("escaped slash", "/a%2Fb", Err(PathError::Ambiguous)),
        ("escaped backslash", "/a%5cb", Err(PathError::Ambiguous)),
        ("backslash", "/a\\b", Err(PathError::Ambiguous)),
        ("line feed", "/a\nb", Err(PathError::Ambiguous)),
        ("query", "/a?b", Err(PathError::Ambiguous)),
        ("parameters on dots", "/a/..;x/b", Err(PathError::Ambiguous)),
        (
            "the same, escaped",
            "/a/%2e.;x/b",
            Err(PathError::Ambiguous),
        ),
    ] {
        assert_eq!(
            normalize_path(path).as_deref(),
            expected.as_ref().copied(),
            "{case}"
        );
    }
}

proptest! {
    #[test]
    fn is_idempotent(path in "/([a-c./%2eéE;~]|%2e|/)*") {
        if let Ok(once) = normalize_path(&path) {
            let again = normalize_path(&once);
            prop_assert_eq!(again.as_deref(), Ok(&*once));
            prop_assert!(!once.contains("//"));
            prop_assert!(!once.split('/').any(|s| s == "." || s == ".."));
        }
    }
}

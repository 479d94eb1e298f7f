use std::borrow::Cow;

use proptest::prelude::*;

use super::{PathError, PathNormalization, normalize_path};

const ALL: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

/// Istio's `MeshConfig.ProxyPathNormalization`, RFC 3986 §5.2.4, §5.4.2 and §6.2.2.
#[test]
fn normalizes() {
    // What NONE, BASE, MERGE_SLASHES and DECODE_AND_MERGE_SLASHES make of it.
    for (case, path, [none, base, merge, decode]) in [
        ("nothing to do", "/v1/chat", ["/v1/chat"; 4]),
        ("root", "/", ["/"; 4]),
        (
            "names with dots",
            "/.well-known/..x/x../...",
            ["/.well-known/..x/x../..."; 4],
        ),
        (
            "dot segments",
            "/a/./b/../c",
            ["/a/./b/../c", "/a/c", "/a/c", "/a/c"],
        ),
        (
            "a dot segment at the end leaves a slash",
            "/a/b/..",
            ["/a/b/..", "/a/", "/a/", "/a/"],
        ),
        ("a single one", "/a/.", ["/a/.", "/a/", "/a/", "/a/"]),
        ("up to the root", "/a/..", ["/a/..", "/", "/", "/"]),
        ("above the root", "/../../g", ["/../../g", "/g", "/g", "/g"]),
        (
            "unreserved",
            "/%61%2D%7e%5f",
            ["/%61%2D%7e%5f", "/a-~_", "/a-~_", "/a-~_"],
        ),
        (
            "escaped dots",
            "/a/%2e%2E/b",
            ["/a/%2e%2E/b", "/b", "/b", "/b"],
        ),
        (
            "other escapes",
            "/a%3ab%20",
            ["/a%3ab%20", "/a%3Ab%20", "/a%3Ab%20", "/a%3Ab%20"],
        ),
        (
            "an escaped percent sign",
            "/%252e%252F/",
            ["/%252e%252F/"; 4],
        ),
        (
            "slashes",
            "//a///b//",
            ["//a///b//", "//a///b//", "/a/b/", "/a/b/"],
        ),
        (
            "dots between slashes",
            "/a//../b",
            ["/a//../b", "/a/b", "/a/b", "/a/b"],
        ),
        (
            "slashes that dots leave",
            "/a/b/..//c",
            ["/a/b/..//c", "/a//c", "/a/c", "/a/c"],
        ),
        ("backslashes", "/a\\b", ["/a\\b", "/a/b", "/a/b", "/a/b"]),
        (
            "backslashes and dots",
            "/a\\..\\b",
            ["/a\\..\\b", "/b", "/b", "/b"],
        ),
        (
            "an escaped slash",
            "/a%2Fb",
            ["/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"],
        ),
        (
            "in small letters",
            "/a%2f/b",
            ["/a%2f/b", "/a%2F/b", "/a%2F/b", "/a/b"],
        ),
        (
            "an escaped backslash",
            "/a%5cb",
            ["/a%5cb", "/a%5Cb", "/a%5Cb", "/a/b"],
        ),
        (
            "dots behind an escaped slash",
            "/a/..%2Fb",
            ["/a/..%2Fb", "/a/..%2Fb", "/a/..%2Fb", "/b"],
        ),
        ("parameters on dots", "/a/..;x/b", ["/a/..;x/b"; 4]),
    ] {
        for (mode, expected) in ALL.into_iter().zip([none, base, merge, decode]) {
            let normal = mode.normalize(path);
            assert_eq!(normal.as_deref(), Ok(expected), "{case}: {mode:?}");
            let is_borrowed = matches!(normal, Ok(Cow::Borrowed(_)));
            assert_eq!(is_borrowed, path == expected, "{case}: {mode:?}");
        }
    }
}

#[test]
fn refuses_in_every_mode() {
    for (case, path, expected) in [
        ("no slash first", "v1", PathError::NotAbsolute),
        ("empty", "", PathError::NotAbsolute),
        ("short escape", "/a%2", PathError::BadEscape),
        ("no hex", "/a%zz", PathError::BadEscape),
        ("sign is no digit", "/a%+1", PathError::BadEscape),
        (
            "an escape that a character cuts",
            "/a%2é",
            PathError::BadEscape,
        ),
        ("escaped nul", "/a%00", PathError::Forbidden),
        ("escaped line feed", "/a%0A", PathError::Forbidden),
        ("escaped delete", "/a%7f", PathError::Forbidden),
        ("line feed", "/a\nb", PathError::Forbidden),
        ("space", "/a b", PathError::Forbidden),
        ("query", "/a?b", PathError::Forbidden),
        ("fragment", "/a#b", PathError::Forbidden),
    ] {
        for mode in ALL {
            assert_eq!(mode.normalize(path), Err(expected), "{case}: {mode:?}");
        }
    }
    // Nothing may be changed, and RFC 3986 has no such bytes.
    assert_eq!(
        PathNormalization::None.normalize("/é"),
        Err(PathError::Forbidden)
    );
    assert_eq!(
        PathNormalization::Base.normalize("/é").as_deref(),
        Ok("/%C3%A9")
    );
}

#[test]
fn our_own_form_is_not_ambiguous() {
    for (path, expected) in [
        ("/v1/chat", Ok("/v1/chat")),
        ("//v1///chat//", Ok("/v1/chat/")),
        ("/a/../b", Ok("/b")),
        ("/%c3%a9", Ok("/%C3%A9")),
        ("/a%2fb", Err(PathError::Ambiguous)),
        ("/a%5Cb", Err(PathError::Ambiguous)),
        ("/a\\b", Err(PathError::Ambiguous)),
        ("/a/..;x/b", Err(PathError::Ambiguous)),
        ("/a/.%3bx/b", Err(PathError::Ambiguous)),
        ("/a/%2e.;x/b", Err(PathError::Ambiguous)),
        ("/a\n", Err(PathError::Forbidden)),
    ] {
        assert_eq!(normalize_path(path).as_deref(), expected.as_ref().copied());
    }
}

proptest! {
    #[test]
    fn is_idempotent_and_leaves_nothing_behind(
        path in r"/([a-c./%2eéE;~\\]|%2e|%2f|%5C|%61|/)*",
        mode in prop::sample::select(&ALL[..]),
    ) {
        let Ok(once) = mode.normalize(&path) else {
            return Ok(());
        };
        let again = mode.normalize(&once);
        prop_assert_eq!(again.as_deref(), Ok(&*once));
        prop_assert!(once.starts_with('/'));
        if mode == PathNormalization::None {
            prop_assert_eq!(&*once, &*path);
            return Ok(());
        }
        prop_assert!(!once.split('/').any(|s| s == "." || s == ".."));
        prop_assert!(!once.contains('\\') && once.is_ascii());
        prop_assert!(!["%61", "%2E", "%2e", "%2f", "%5c"].iter().any(|e| once.contains(e)));
        prop_assert_eq!(mode.merges() && once.contains("//"), false);
        if mode == PathNormalization::DecodeAndMergeSlashes {
            prop_assert!(!once.contains("%2F") && !once.contains("%5C"));
        }
    }

    /// Each mode goes on from the one before.
    #[test]
    fn modes_build_on_each_other(path in r"/([a-c./;\\]|%2e|%2F|%5C|/)*") {
        let [_, base, merge, decode] = ALL;
        let Ok(of_base) = base.normalize(&path) else {
            return Ok(());
        };
        let merged = merge.normalize(&path);
        prop_assert_eq!(&merge.normalize(&of_base), &merged);
        let decoded = path.replace("%2F", "/").replace("%5C", "/");
        prop_assert_eq!(decode.normalize(&path), merge.normalize(&decoded));
    }
}

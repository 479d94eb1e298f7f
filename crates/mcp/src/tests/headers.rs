//! Headers that repeat the body, or lie about it.

use super::*;

#[test]
fn takes_only_plain_json() {
    let one = |value| header(Some(value));
    for (case, content_type, coding, accepted) in [
        ("plain", one("application/json"), Header::Absent, true),
        (
            "charset",
            one("application/json; charset=utf-8"),
            Header::Absent,
            true,
        ),
        (
            "charset in capitals",
            one("application/json;Charset=UTF-8"),
            Header::Absent,
            true,
        ),
        (
            "quoted charset",
            one("application/json; charset=\"utf-8\""),
            Header::Absent,
            true,
        ),
        ("identity", one("application/json"), one("identity"), true),
        (
            "A13 utf-7",
            one("application/json; charset=utf-7"),
            Header::Absent,
            false,
        ),
        (
            "A13 two charsets",
            one("application/json; charset=utf-8; charset=utf-7"),
            Header::Absent,
            false,
        ),
        (
            "A14 utf-16",
            one("application/json; charset=utf-16"),
            Header::Absent,
            false,
        ),
        ("A14 gzip", one("application/json"), one("gzip"), false),
        (
            "A14 two codings",
            one("application/json"),
            Header::Many,
            false,
        ),
        ("A15 capital", one("Application/json"), Header::Absent, true),
        (
            "A15 longer",
            one("application/jsonfoo"),
            Header::Absent,
            false,
        ),
        (
            "A15 list",
            one("application/json, text/plain"),
            Header::Absent,
            false,
        ),
        ("A15 none", Header::Absent, Header::Absent, false),
        ("A15 two", Header::Many, Header::Absent, false),
        (
            "A15 other parameter",
            one("application/json; profile=x"),
            Header::Absent,
            false,
        ),
        ("text", one("text/plain"), Header::Absent, false),
    ] {
        let found = check_media(content_type, coding);
        assert_eq!(found.is_ok(), accepted, "{case}");
        if let Err(refusal) = found {
            assert_eq!(refusal.status(), 415, "{case}");
        }
    }
}

#[test]
fn tells_the_eras_apart() {
    const OLD: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}"#;
    const FAR: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2099-01-01","io.modelcontextprotocol/clientCapabilities":{}}"#;
    const BARE: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    const NUMBER: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":1}"#;
    for (case, method, meta, version, expected) in [
        ("no version", "tools/list", "", None, "Legacy"),
        (
            "legacy header",
            "tools/list",
            "",
            Some("2025-06-18"),
            "Legacy",
        ),
        (
            "first revision",
            "tools/list",
            "",
            Some("2024-11-05"),
            "Legacy",
        ),
        (
            "legacy both",
            "tools/list",
            OLD,
            Some("2025-11-25"),
            "Legacy",
        ),
        ("modern", "tools/list", META, Some("2026-07-28"), "Modern"),
        (
            "modern with space",
            "tools/list",
            META,
            Some(" 2026-07-28 "),
            "Modern",
        ),
        (
            "initialize names the modern one",
            "initialize",
            r#""protocolVersion":"2026-07-28""#,
            None,
            "Legacy",
        ),
        (
            "initialize with its header",
            "initialize",
            r#""protocolVersion":"2026-07-28""#,
            Some("2026-07-28"),
            "Legacy",
        ),
        (
            "A20 legacy header, modern body",
            "tools/list",
            META,
            Some("2025-11-25"),
            "400 -32020",
        ),
        (
            "A20 no header, modern body",
            "tools/list",
            META,
            None,
            "400 -32020",
        ),
        (
            "A20 modern header, legacy body",
            "tools/list",
            OLD,
            Some("2026-07-28"),
            "400 -32020",
        ),
        (
            "modern header, no body",
            "tools/list",
            "",
            Some("2026-07-28"),
            "400 -32602",
        ),
        (
            "modern without capabilities",
            "tools/list",
            BARE,
            Some("2026-07-28"),
            "400 -32602",
        ),
        (
            "version as number",
            "tools/list",
            NUMBER,
            Some("2026-07-28"),
            "400 -32602",
        ),
        (
            "A21 unknown",
            "tools/list",
            "",
            Some("2099-01-01"),
            "400 -32022",
        ),
        (
            "A21 unknown in both",
            "tools/list",
            FAR,
            Some("2099-01-01"),
            "400 -32022",
        ),
        ("A21 unknown in body", "tools/list", FAR, None, "400 -32020"),
        (
            "A21 no version",
            "tools/list",
            "",
            Some("newest"),
            "400 -32022",
        ),
        ("A21 empty", "tools/list", "", Some(""), "400 -32022"),
        (
            "case",
            "tools/list",
            META,
            Some("2026-07-28\u{7f}"),
            "400 -32020",
        ),
    ] {
        let body = request(method, meta);
        let found = read(body.as_bytes(), &head(version, Some(method), None));
        let found = found.as_ref().map_or_else(
            |refusal| format!("{} {}", refusal.status, refusal.error),
            |call| format!("{:?}", call.era),
        );
        assert_eq!(found, expected, "{case}");
    }
    let many = Head {
        protocol_version: Header::Many,
        ..Head::default()
    };
    let refusal = read(request("ping", "").as_bytes(), &many).unwrap_err();
    assert_eq!((refusal.status, refusal.error), (400, -32020));
    // A22: a session id means nothing to a modern request.
    let stolen = Head {
        session: Header::One(b"stolen"),
        ..head(Some("2026-07-28"), Some("tools/list"), None)
    };
    assert_eq!(
        read(request("tools/list", META).as_bytes(), &stolen)
            .unwrap()
            .era,
        Era::Modern
    );
    let response = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let refusal = read(response, &head(Some("2026-07-28"), None, None)).unwrap_err();
    assert_eq!(
        (refusal.status, refusal.error),
        (400, -32600),
        "no responses in the modern era"
    );
    let notification = br#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
    let call = read(notification, &head(Some("2026-07-28"), None, None)).unwrap();
    assert_eq!((call.era, call.kind), (Era::Modern, CallKind::Notification));
}

#[test]
fn compares_headers_with_the_body() {
    let sentinel = "=?base64?c2VjcmV0?="; // secret
    let literal = "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="; // =?base64?literal?=
    let call = |era, name: &str, method, mirrored| {
        let meta = if era == Era::Modern {
            format!(",{META}")
        } else {
            String::new()
        };
        let body = request("tools/call", &format!(r#""name":"{name}"{meta}"#));
        let version = if era == Era::Modern {
            "2026-07-28"
        } else {
            "2025-11-25"
        };
        outcome(&read(
            body.as_bytes(),
            &Head {
                method,
                name: mirrored,
                ..head(Some(version), None, None)
            },
        ))
    };
    let one = |value| header(Some(value));
    let right = one("tools/call");
    for (case, name, method, mirrored, in_modern, in_legacy) in [
        (
            "agree",
            "secret",
            right,
            one("secret"),
            "tools/call secret",
            "tools/call secret",
        ),
        (
            "space around",
            "secret",
            right,
            one(" secret\t"),
            "tools/call secret",
            "tools/call secret",
        ),
        (
            "no headers",
            "secret",
            Header::Absent,
            Header::Absent,
            "400 -32020",
            "tools/call secret",
        ),
        (
            "no name",
            "secret",
            right,
            Header::Absent,
            "400 -32020",
            "tools/call secret",
        ),
        (
            "A16, A19 other name",
            "secret",
            right,
            one("allowed"),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A16, A19 other method",
            "secret",
            one("tools/list"),
            one("secret"),
            "400 -32020",
            "400 -32020",
        ),
        (
            "method in other case",
            "secret",
            one("Tools/Call"),
            one("secret"),
            "400 -32020",
            "400 -32020",
        ),
        (
            "name in other case",
            "secret",
            right,
            one("Secret"),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A17 two methods",
            "secret",
            Header::Many,
            one("secret"),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A17 two names",
            "secret",
            right,
            Header::Many,
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 encoded, agrees",
            "secret",
            right,
            one(sentinel),
            "tools/call secret",
            "tools/call secret",
        ),
        (
            "A18 encoded, hides another",
            "allowed",
            right,
            one(sentinel),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 capitals are no marker",
            "secret",
            right,
            one("=?BASE64?c2VjcmV0?="),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 capitals are a name",
            "=?BASE64?c2VjcmV0?=",
            right,
            one("=?BASE64?c2VjcmV0?="),
            "tools/call =?BASE64?c2VjcmV0?=",
            "tools/call =?BASE64?c2VjcmV0?=",
        ),
        (
            "A18 no padding",
            "a",
            right,
            one("=?base64?YQ?="),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 bad bits",
            "a",
            right,
            one("=?base64?YR==?="),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 bad alphabet",
            "a",
            right,
            one("=?base64?Y_==?="),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 not UTF-8",
            "a",
            right,
            one("=?base64?/w==?="),
            "400 -32020",
            "400 -32020",
        ),
        (
            "A18 literal marker",
            "=?base64?literal?=",
            right,
            one(literal),
            "tools/call =?base64?literal?=",
            "tools/call =?base64?literal?=",
        ),
        (
            "control character",
            "secret",
            right,
            one("secret\u{1}"),
            "400 -32020",
            "400 -32020",
        ),
    ] {
        assert_eq!(
            call(Era::Modern, name, method, mirrored),
            in_modern,
            "{case}, modern"
        );
        assert_eq!(
            call(Era::Legacy, name, method, mirrored),
            in_legacy,
            "{case}, legacy"
        );
    }
    // A name for what names nothing would route or count by something undecided.
    for method in ["tools/list", "completion/complete"] {
        let reference = r#""ref":{"type":"ref/prompt","name":"p"}"#;
        let found = modern(method, reference, Some("p"));
        assert_eq!(outcome(&found), "400 -32020", "{method}");
    }
}

//! Messages that two parsers could read differently.

use serde_json::json;
use waypoint_tests::client::Request;
use waypoint_tests::mcp_server::{Form, LEGACY, MODERN, modern};
use waypoint_tests::waypoint::ANN;

use super::{post, post_modern, server};

/// A body that could be read in two ways, and how it is refused.
struct Strict(&'static str, Request, u16, i64);

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_refused() {
    let (upstream, waypoint, _gate) = server(Form::Json).await;
    let echo = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"}}"#;
    let change = |from: &str, to: &str| {
        assert!(echo.contains(from));
        post(&echo.replace(from, to))
    };
    let typed = |media: &str| {
        post(echo)
            .without("content-type")
            .header("content-type", media)
    };
    let modern_echo = modern(7, "tools/call", &json!({"name": "echo"}));
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"echo","arguments":{{"a":{}{}}}}}}}"#,
        "[".repeat(70),
        "]".repeat(70)
    );
    let raw = |bytes: Vec<u8>| Request {
        body: bytes,
        ..post(echo)
    };
    let large = change(
        "\"name\":\"echo\"",
        &format!("\"name\":\"echo\",\"a\":\"{}\"", "a".repeat(5 << 20)),
    );
    for Strict(case, request, status, code) in [
        Strict(
            "name twice",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"name\":\"secret\""),
            400,
            -32600,
        ),
        Strict(
            "name twice, one escaped",
            change(
                "\"name\":\"echo\"",
                "\"name\":\"echo\",\"n\\u0061me\":\"secret\"",
            ),
            400,
            -32600,
        ),
        Strict(
            "method twice",
            change("\"method\":", "\"method\":\"ping\",\"method\":"),
            400,
            -32600,
        ),
        Strict(
            "params twice",
            change("\"params\":", "\"params\":{},\"params\":"),
            400,
            -32600,
        ),
        Strict(
            "id twice",
            change("\"id\":7", "\"id\":7,\"id\":8"),
            400,
            -32600,
        ),
        Strict(
            "a key twice, deep down",
            change(
                "\"name\":\"echo\"",
                "\"name\":\"echo\",\"arguments\":{\"a\":{\"b\":1,\"b\":2}}",
            ),
            400,
            -32600,
        ),
        Strict(
            "Name",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"Name\":\"secret\""),
            400,
            -32600,
        ),
        Strict(
            "METHOD",
            change("\"method\":", "\"METHOD\":\"ping\",\"method\":"),
            400,
            -32600,
        ),
        Strict(
            "a long s",
            change("\"params\":", "\"param\u{17f}\":{},\"params\":"),
            400,
            -32600,
        ),
        Strict(
            "a Kelvin sign",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"tas\u{212a}\":{}"),
            400,
            -32600,
        ),
        Strict(
            "half a surrogate pair",
            change("echo", "ech\\ud800"),
            400,
            -32600,
        ),
        Strict(
            "a byte order mark",
            raw([b"\xef\xbb\xbf", echo.as_bytes()].concat()),
            400,
            -32700,
        ),
        Strict(
            "invalid UTF-8",
            raw(echo
                .replace("echo", "ech\u{1}")
                .into_bytes()
                .into_iter()
                .map(|byte| if byte == 1 { 0xff } else { byte })
                .collect()),
            400,
            -32700,
        ),
        Strict(
            "UTF-16",
            raw(echo.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            400,
            -32700,
        ),
        Strict("two documents", post(&format!("{echo}{echo}")), 400, -32700),
        Strict(
            "NaN",
            change("\"name\":\"echo\"", "\"name\":\"echo\",\"a\":NaN"),
            400,
            -32700,
        ),
        Strict(
            "a comment",
            change("\"name\":", "/* */\"name\":"),
            400,
            -32700,
        ),
        Strict("cut", post(&echo[..40]), 400, -32700),
        Strict("nothing", post(""), 400, -32700),
        Strict("a batch of one", post(&format!("[{echo}]")), 400, -32600),
        Strict(
            "a batch of two",
            post(&format!("[{echo},{echo}]")),
            400,
            -32600,
        ),
        Strict("an empty batch", post("[]"), 400, -32600),
        Strict("id null", change("\"id\":7", "\"id\":null"), 400, -32600),
        Strict(
            "id with a fraction",
            change("\"id\":7", "\"id\":7.0"),
            400,
            -32600,
        ),
        Strict(
            "id too large",
            change("\"id\":7", "\"id\":9007199254740993"),
            400,
            -32600,
        ),
        Strict("id true", change("\"id\":7", "\"id\":true"), 400, -32600),
        Strict(
            "method and result",
            change("\"id\":7", "\"id\":7,\"result\":{}"),
            400,
            -32600,
        ),
        Strict(
            "result and error",
            post(r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#),
            400,
            -32600,
        ),
        Strict(
            "no version",
            change("\"jsonrpc\":\"2.0\",", ""),
            400,
            -32600,
        ),
        Strict("version 1", change("\"2.0\"", "\"1.0\""), 400, -32600),
        Strict(
            "method is no string",
            change("\"tools/call\"", "[\"tools/call\"]"),
            400,
            -32600,
        ),
        Strict(
            "params are a list",
            change("{\"name\":\"echo\"}", "[\"echo\"]"),
            400,
            -32600,
        ),
        Strict(
            "name is a list",
            change("\"echo\"", "[\"echo\"]"),
            400,
            -32602,
        ),
        Strict("no name", change("\"name\":\"echo\"", ""), 400, -32602),
        Strict("too deep", post(&deep), 400, -32600),
        Strict("too large", large, 413, -32600),
        Strict(
            "utf-7",
            typed("application/json; charset=utf-7"),
            415,
            -32600,
        ),
        Strict(
            "utf-16 by name",
            typed("application/json; charset=utf-16"),
            415,
            -32600,
        ),
        Strict("another type", typed("application/jsonfoo"), 415, -32600),
        Strict("text", typed("text/plain"), 415, -32600),
        Strict("no type", post(echo).without("content-type"), 415, -32600),
        Strict(
            "two types",
            post(echo).header("content-type", "text/plain"),
            415,
            -32600,
        ),
        Strict(
            "compressed",
            post(echo).header("content-encoding", "gzip"),
            415,
            -32600,
        ),
        Strict(
            "Mcp-Name of another tool",
            post_modern(
                "tools/call",
                Some("echo"),
                &modern(7, "tools/call", &json!({"name": "secret"})),
            ),
            400,
            -32020,
        ),
        Strict(
            "Mcp-Name twice",
            post_modern("tools/call", Some("echo"), &modern_echo).header("mcp-name", "secret"),
            400,
            -32020,
        ),
        Strict(
            "no Mcp-Name",
            post_modern("tools/call", None, &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "bad base64",
            post_modern("tools/call", Some("=?base64?ZWNob?="), &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "base64 in capitals",
            post_modern("tools/call", Some("=?BASE64?ZWNobw==?="), &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "another Mcp-Method",
            post_modern("tools/list", Some("echo"), &modern_echo),
            400,
            -32020,
        ),
        Strict(
            "no Mcp-Method",
            post_modern("tools/call", Some("echo"), &modern_echo).without("mcp-method"),
            400,
            -32020,
        ),
        Strict("version only in the body", post(&modern_echo), 400, -32020),
        Strict(
            "versions that differ",
            post_modern("tools/call", Some("echo"), &modern_echo)
                .without("mcp-protocol-version")
                .header("mcp-protocol-version", LEGACY),
            400,
            -32020,
        ),
        Strict(
            "two versions",
            post(echo)
                .header("mcp-protocol-version", LEGACY)
                .header("mcp-protocol-version", MODERN),
            400,
            -32020,
        ),
        Strict(
            "a version nobody published",
            post(echo).header("mcp-protocol-version", "2099-01-01"),
            400,
            -32022,
        ),
        Strict(
            "modern without _meta",
            post(echo)
                .header("mcp-protocol-version", MODERN)
                .header("mcp-method", "tools/call")
                .header("mcp-name", "echo"),
            400,
            -32602,
        ),
    ] {
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        let body = answer.json();
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert_eq!(
            (&body["jsonrpc"], &body["error"]["code"]),
            (&json!("2.0"), &json!(code)),
            "{case}: {body}"
        );
        assert!(
            body.as_object().is_some_and(|body| body.contains_key("id")),
            "{case}: {body}"
        );
    }
    assert_eq!(upstream.connections(), 0);
    let good = waypoint.workload(ANN).call(&post(echo)).await.unwrap();
    assert_eq!(good.status, 200, "the template itself: {}", good.text());
}

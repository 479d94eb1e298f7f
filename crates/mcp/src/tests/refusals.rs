//! What callers are told.

use super::*;

fn denied(method: &str, params: &str, denial: Denial) -> (u16, String) {
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":"\u0061","method":"{method}","params":{{{params}}}}}"#);
    let refusal = McpRefusal::denied(&legacy(&body).unwrap(), denial);
    (refusal.status, text(&refusal.body()))
}

#[test]
fn hides_or_says() {
    for (method, params, denial, status, error) in [
        (
            "tools/call",
            r#""name":"x""#,
            Denial::Hide,
            200,
            r#"{"code":-32602,"message":"Unknown tool: x"}"#,
        ),
        (
            "tools/call",
            r#""name":"a\"\n\u2028b""#,
            Denial::Hide,
            200,
            r#"{"code":-32602,"message":"Unknown tool: a\"\u000a\u2028b"}"#,
        ),
        (
            "prompts/get",
            r#""name":"x""#,
            Denial::Hide,
            200,
            r#"{"code":-32602,"message":"Unknown prompt: x"}"#,
        ),
        (
            "resources/read",
            r#""uri":"f:x""#,
            Denial::Hide,
            200,
            r#"{"code":-32002,"message":"Resource not found","data":{"uri":"f:x"}}"#,
        ),
        (
            "resources/subscribe",
            r#""uri":"f:x""#,
            Denial::Hide,
            200,
            r#"{"code":-32002,"message":"Resource not found","data":{"uri":"f:x"}}"#,
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"x"}"#,
            Denial::Hide,
            200,
            r#"{"code":-32602,"message":"Unknown prompt: x"}"#,
        ),
        (
            "tasks/get",
            r#""taskId":"x""#,
            Denial::Hide,
            200,
            r#"{"code":-32602,"message":"Unknown task: x"}"#,
        ),
        (
            "tools/call",
            r#""name":"x""#,
            Denial::Explicit,
            403,
            r#"{"code":-32602,"message":"Not permitted: x","data":{"code":"tool_denied"}}"#,
        ),
        (
            "resources/read",
            r#""uri":"f:x""#,
            Denial::Explicit,
            403,
            r#"{"code":-32602,"message":"Not permitted: f:x","data":{"code":"tool_denied"}}"#,
        ),
        (
            "tools/list",
            "",
            Denial::Hide,
            403,
            r#"{"code":-32602,"message":"RBAC: access denied","data":{"code":"forbidden"}}"#,
        ),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":"\u0061","error":{error}}}"#);
        assert_eq!(
            denied(method, params, denial),
            (status, body),
            "{method} {denial:?}"
        );
    }
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{{"uri":"f:x",{META}}}}}"#
    );
    let call = read(
        body.as_bytes(),
        &head(Some("2026-07-28"), Some("resources/read"), Some("f:x")),
    )
    .unwrap();
    assert_eq!(
        McpRefusal::denied(&call, Denial::Hide).error,
        -32602,
        "modern"
    );
}

#[test]
fn echoes_the_id_where_there_is_one() {
    let found = |body: &str| text(&legacy(body).unwrap_err().body());
    assert_eq!(
        found("{"),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"the document ends too early"}}"#
    );
    assert_eq!(
        found(r#"{"jsonrpc":"2.0","id":"\u0061\n","method":"x/y"}"#),
        r#"{"jsonrpc":"2.0","id":"\u0061\n","error":{"code":-32601,"message":"Method not found"}}"#,
        "A35: the token goes back as it was escaped"
    );
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let refusal = read(body, &head(Some("2099-01-01"), None, None)).unwrap_err();
    assert_eq!(
        text(&refusal.body()),
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"Unsupported protocol version","data":{"supported":["2026-07-28","2025-11-25","2025-06-18","2025-03-26","2024-11-05","2024-10-07"],"requested":"2099-01-01"}}}"#
    );
}

#[test]
fn bounds_what_it_echoes() {
    let (_, body) = denied(
        "tools/call",
        &format!(r#""name":"{}""#, "é".repeat(10_000)),
        Denial::Hide,
    );
    assert!(body.len() < 400);
}

#[test]
fn speaks_for_every_refusal() {
    for &code in Code::ALL {
        let refusal = McpRefusal::from(Refusal::new(code));
        assert_ne!(refusal.status, 401, "{code}");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!(body["error"]["data"]["code"], code.as_str());
        let error = body["error"]["code"].as_i64().unwrap();
        let reserved = (-32099..=-32020).contains(&error);
        assert!(
            !reserved || [-32020, -32021, -32022].contains(&error),
            "{code}"
        );
    }
}

#[test]
fn knows_session_ids() {
    for (id, valid) in [
        ("a", true),
        ("0~!", true),
        ("", false),
        ("a b", false),
        ("a\n", false),
        ("é", false),
    ] {
        assert_eq!(session::is_valid_id(id.as_bytes()), valid, "{id:?}");
    }
    assert!(!session::is_valid_id(&[b'a'; session::MAX_ID_BYTES + 1]));
}

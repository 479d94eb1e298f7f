//! Bodies that two servers would read differently.

use super::*;

#[test]
fn refuses_what_servers_read_differently() {
    for (case, body, expected) in [
        (
            "A1 name twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"allowed","name":"secret"}}"#,
            "400 -32600",
        ),
        (
            "A2 method twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"a"}}"#,
            "400 -32600",
        ),
        (
            "A2 params twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#,
            "400 -32600",
        ),
        (
            "A2 id twice",
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            "400 -32600",
        ),
        (
            "A2 twice in arguments",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":{"p":1,"p":2}}}}"#,
            "400 -32600",
        ),
        (
            "A3 name twice, once escaped",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"allowed","n\u0061me":"secret"}}"#,
            "400 -32600",
        ),
        (
            "A4 escaped value",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ech\u006f"}}"#,
            "tools/call echo",
        ),
        (
            "A4 escaped key",
            r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools\/call","params":{"n\u0061me":"echo"}}"#,
            "tools/call echo",
        ),
        (
            "A5 Name",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"secret"}}"#,
            "400 -32600",
        ),
        (
            "A5 METHOD",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}"#,
            "400 -32600",
        ),
        (
            "A5 long s",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"param\u{17f}\":{}}",
            "400 -32600",
        ),
        (
            "A5 Kelvin sign",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tasks/get\",\"params\":{\"taskId\":\"a\",\"tas\u{212a}Id\":\"b\"}}",
            "400 -32600",
        ),
        (
            "A5 in ref",
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","NAME":"b"}}}"#,
            "400 -32600",
        ),
        (
            "A5 in _meta",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"ProgressToken":1}}}"#,
            "400 -32600",
        ),
        (
            "A6 case stays",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ECHO"}}"#,
            "tools/call ECHO",
        ),
        (
            "A6 NUL stays",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo\u0000x"}}"#,
            "tools/call echo\0x",
        ),
        (
            "A6 space stays",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo "}}"#,
            "tools/call echo ",
        ),
        (
            "A6 NFD stays",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"e\u{301}\"}}",
            "tools/call e\u{301}",
        ),
        (
            "A6 lone surrogate",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}"#,
            "400 -32600",
        ),
        (
            "A7 byte order mark",
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
            "400 -32700",
        ),
        (
            "A8 second object",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{}"#,
            "400 -32700",
        ),
        (
            "A8 comment",
            r#"{"jsonrpc":"2.0",/**/"id":1,"method":"ping"}"#,
            "400 -32700",
        ),
        (
            "A8 NaN",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}"#,
            "400 -32700",
        ),
        (
            "A9 batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a"}}]"#,
            "400 -32600",
        ),
        (
            "A10 null id",
            r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"a"}}"#,
            "400 -32600",
        ),
        (
            "A10 float id",
            r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/call","params":{"name":"a"}}"#,
            "400 -32600",
        ),
        (
            "A10 bool id",
            r#"{"jsonrpc":"2.0","id":true,"method":"tools/call","params":{"name":"a"}}"#,
            "400 -32600",
        ),
        (
            "A11 method and result",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"result":{}}"#,
            "400 -32600",
        ),
        (
            "A12 no id",
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}"#,
            "400 -32600",
        ),
        (
            "A23 name as array",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["a"]}}"#,
            "400 -32602",
        ),
        (
            "A23 name missing",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
            "400 -32602",
        ),
        (
            "A23 no params",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            "400 -32602",
        ),
        (
            "A23 __proto__",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"__proto__":{"name":"a"}}}"#,
            "400 -32602",
        ),
        (
            "A23 params as array",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["a"]}"#,
            "400 -32600",
        ),
        (
            "A23 ref of no type",
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"name":"a"}}}"#,
            "400 -32602",
        ),
        (
            "A23 ref of two kinds",
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","uri":"f:b"}}}"#,
            "400 -32602",
        ),
        (
            "A23 _meta as array",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":[]}}"#,
            "400 -32602",
        ),
        (
            "A24 trailing space",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call ","params":{"name":"a"}}"#,
            "200 -32601",
        ),
        (
            "A24 case",
            r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"a"}}"#,
            "200 -32601",
        ),
        (
            "A24 own method",
            r#"{"jsonrpc":"2.0","id":1,"method":"acme/x"}"#,
            "200 -32601",
        ),
        (
            "A24 notification with id",
            r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#,
            "200 -32601",
        ),
        (
            "A24 own notification",
            r#"{"jsonrpc":"2.0","method":"notifications/acme"}"#,
            "discard",
        ),
        (
            "A30 resource as written",
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"FILE:///a/../%2e%2E/secret"}}"#,
            "resources/read FILE:///a/../%2e%2E/secret",
        ),
        (
            "A46 numbers are not read",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1e400,"y":9007199254740993}}}"#,
            "tools/call a",
        ),
        (
            "notification",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "session",
        ),
        (
            "response",
            r#"{"jsonrpc":"2.0","id":"s1","result":{"action":"accept"}}"#,
            "session",
        ),
    ] {
        assert_eq!(outcome(&legacy(body)), expected, "{case}");
    }
    let nest = |levels| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a","arguments":{}{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert_eq!(outcome(&legacy(&nest(62))), "tools/call a");
    assert_eq!(outcome(&legacy(&nest(20_000))), "400 -32600", "A44");
}

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn sort(result: Result<Message<'_>, JsonRpcError>) -> String {
    match result {
        Ok(Message::Request { id, method, .. }) => {
            format!("request {} {method}", String::from_utf8_lossy(id.raw()))
        }
        Ok(Message::Notification { method, .. }) => format!("notification {method}"),
        Ok(Message::Response { id, result, .. }) => {
            let id = id.map_or("none".into(), |id| String::from_utf8_lossy(id.raw()));
            let sort = if result.is_some() { "result" } else { "error" };
            format!("{sort} {id}")
        }
        Err(error) => error.code().to_string(),
    }
}

#[test]
fn judges_what_clients_send() {
    for (case, text, expected) in [
        (
            "request",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            "request 1 ping",
        ),
        (
            "text id",
            r#"{"jsonrpc":"2.0","id":"a\u0062","method":"ping","params":{}}"#,
            r#"request "a\u0062" ping"#,
        ),
        (
            "largest id",
            r#"{"jsonrpc":"2.0","id":-9007199254740991,"method":"ping"}"#,
            "request -9007199254740991 ping",
        ),
        (
            "escaped method",
            r#"{"jsonrpc":"2.0","id":1,"method":"p\u0069ng"}"#,
            "request 1 ping",
        ),
        (
            "unknown keys",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","x":1}"#,
            "request 1 ping",
        ),
        (
            "notification",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "notification notifications/initialized",
        ),
        (
            "result",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            "result 1",
        ),
        (
            "error",
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#,
            "error 1",
        ),
        ("not JSON", "{", "-32700"),
        ("byte order mark", "\u{feff}{}", "-32700"),
        ("comment", "{} //", "-32700"),
        (
            "batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            "-32600",
        ),
        ("empty batch", " []", "-32600"),
        ("text", r#""ping""#, "-32600"),
        ("no version", r#"{"id":1,"method":"ping"}"#, "-32600"),
        (
            "version 1",
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            "-32600",
        ),
        (
            "version as number",
            r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#,
            "-32600",
        ),
        (
            "null id",
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            "-32600",
        ),
        (
            "float id",
            r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#,
            "-32600",
        ),
        (
            "exponent id",
            r#"{"jsonrpc":"2.0","id":1e2,"method":"ping"}"#,
            "-32600",
        ),
        (
            "negative zero",
            r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#,
            "-32600",
        ),
        (
            "bool id",
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            "-32600",
        ),
        (
            "large id",
            r#"{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}"#,
            "-32600",
        ),
        (
            "method twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            "-32600",
        ),
        (
            "id twice",
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            "-32600",
        ),
        (
            "params twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{},"params":{}}"#,
            "-32600",
        ),
        (
            "twice in params",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":1,"n\u0061me":2}}"#,
            "-32600",
        ),
        (
            "method as number",
            r#"{"jsonrpc":"2.0","id":1,"method":1}"#,
            "-32600",
        ),
        (
            "params as array",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#,
            "-32600",
        ),
        (
            "params null",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":null}"#,
            "-32600",
        ),
        (
            "method and result",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
            "-32600",
        ),
        (
            "method and error",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","error":{}}"#,
            "-32600",
        ),
        (
            "result and error",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            "-32600",
        ),
        ("nothing", r#"{"jsonrpc":"2.0","id":1}"#, "-32600"),
        (
            "result without id",
            r#"{"jsonrpc":"2.0","result":{}}"#,
            "-32600",
        ),
        (
            "error without id",
            r#"{"jsonrpc":"2.0","error":{}}"#,
            "-32600",
        ),
        (
            "error with null id",
            r#"{"jsonrpc":"2.0","id":null,"error":{}}"#,
            "-32600",
        ),
        (
            "case of a key",
            r#"{"jsonrpc":"2.0","id":1,"METHOD":"b","method":"a"}"#,
            "-32600",
        ),
        (
            "long s",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"param\u{17f}\":{}}",
            "-32600",
        ),
        (
            "long s, escaped",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}"#,
            "-32600",
        ),
        (
            "case in params",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"Name":1}}"#,
            "-32600",
        ),
        (
            "Kelvin sign in params",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"tas\u212aId":1}}"#,
            "-32600",
        ),
        (
            "case in arguments is theirs",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"arguments":{"Name":1}}}"#,
            "request 1 a",
        ),
    ] {
        assert_eq!(sort(parse(text.as_bytes())), expected, "{case}");
    }
}

#[test]
fn judges_what_servers_send() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{}{}}}"#,
        "[".repeat(300),
        "]".repeat(300)
    );
    for (case, text, expected) in [
        (
            "result",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            "result 1",
        ),
        ("deep", deep.as_str(), "result 1"),
        (
            "repeats in content",
            r#"{"jsonrpc":"2.0","id":1,"result":{"x":{"a":1,"a":2},"t":"\ud800"}}"#,
            "result 1",
        ),
        (
            "error without id",
            r#"{"jsonrpc":"2.0","error":{}}"#,
            "error none",
        ),
        (
            "error with null id",
            r#"{"jsonrpc":"2.0","id":null,"error":{}}"#,
            "error none",
        ),
        (
            "result without id",
            r#"{"jsonrpc":"2.0","result":{}}"#,
            "-32600",
        ),
        (
            "result with null id",
            r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
            "-32600",
        ),
        (
            "result twice",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#,
            "-32600",
        ),
        (
            "case of result",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"Result":{}}"#,
            "-32600",
        ),
        (
            "float id",
            r#"{"jsonrpc":"2.0","id":1.0,"result":{}}"#,
            "-32600",
        ),
        (
            "batch",
            r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#,
            "-32600",
        ),
    ] {
        assert_eq!(sort(parse_answer(text.as_bytes())), expected, "{case}");
    }
}

#[test]
fn compares_ids_by_meaning() {
    for (a, b, same) in [
        ("1", "1", true),
        (r#""a""#, r#""\u0061""#, true),
        ("1", r#""1""#, false),
        (r#""a""#, r#""A""#, false),
    ] {
        let (a, b) = (
            IdKey::of(a.as_bytes()).unwrap(),
            IdKey::of(b.as_bytes()).unwrap(),
        );
        assert_eq!(a == b, same, "{a:?} {b:?}");
    }
    for bad in ["1.0", "null", "", "{}", "1 2"] {
        assert_eq!(IdKey::of(bad.as_bytes()), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn survives_any_bytes(bytes: Vec<u8>) {
        let _ = (parse(&bytes).is_ok(), parse_answer(&bytes).is_ok(), IdKey::of(&bytes));
    }

    #[test]
    fn accepts_only_what_serde_json_reads_alike(text in r#"\{("jsonrpc":"2.0"|"id":1|"method":"a"|"method":"b"|"params":\{("name":"x"|"n\\u0061me":"y"|,|"z":[0-9]){0,4}\}|,){0,9}\}"#) {
        if let Ok(Message::Request { method, params, .. }) = parse(text.as_bytes()) {
            let model: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(model["method"].as_str(), Some(&*method));
            let name = params.and_then(|params| params.value_of("name")?.as_str());
            prop_assert_eq!(model["params"]["name"].as_str(), name.as_deref());
        }
    }
}

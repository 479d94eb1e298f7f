//! Lists of servers, and tasks that their answers create.

use proptest::prelude::*;

use super::*;

fn filter(list: ListKind, era: Era, message: &str) -> String {
    let found = filter_result(list, era, message.as_bytes(), b"1", |name| {
        !name.contains("secret")
    });
    match found {
        Ok(Filtered::Unchanged) => "unchanged".into(),
        Ok(Filtered::Changed(bytes)) => text(&bytes),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn keeps_what_is_permitted() {
    use ListKind::{Prompts, ResourceTemplates, Resources, Tasks, Tools};
    for (case, list, message, expected) in [
        (
            "nothing to cut",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}]}}"#,
            "unchanged",
        ),
        (
            "one",
            Tools,
            r#"{ "jsonrpc":"2.0", "id":1,"result":{"x":1e400,"tools":[ {"name":"a", "d":1.0}, {"name":"secret"},{"name":"b"} ],"nextCursor":""} }"#,
            r#"{ "jsonrpc":"2.0", "id":1,"result":{"x":1e400,"tools":[{"name":"a", "d":1.0},{"name":"b"}],"nextCursor":""} }"#,
        ),
        (
            "all",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"secret"}],"nextCursor":"c"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"nextCursor":"c"}}"#,
        ),
        (
            "escaped name",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"s\u0065cret"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#,
        ),
        (
            "items without a plain name",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{},{"name":1},1,{"name":"a","name":"secret"},{"name":"a","Name":"secret"},{"name":"\ud800"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}]}}"#,
        ),
        (
            "prompts",
            Prompts,
            r#"{"jsonrpc":"2.0","id":1,"result":{"prompts":[{"name":"secret"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"prompts":[]}}"#,
        ),
        (
            "resources go by URI",
            Resources,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resources":[{"name":"secret","uri":"f:a"},{"name":"a","uri":"f:secret"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resources":[{"name":"secret","uri":"f:a"}]}}"#,
        ),
        (
            "templates",
            ResourceTemplates,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resourceTemplates":[{"uriTemplate":"f:secret/{x}"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resourceTemplates":[]}}"#,
        ),
        (
            "tasks",
            Tasks,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"secret"},{"taskId":"t"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"t"}]}}"#,
        ),
        (
            "error",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"x"}}"#,
            "unchanged",
        ),
        (
            "error without id",
            Tools,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"x"}}"#,
            "unchanged",
        ),
        (
            "no list",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            "unchanged",
        ),
        (
            "A34 other id",
            Tools,
            r#"{"jsonrpc":"2.0","id":2,"result":{"tools":[]}}"#,
            "error: the upstream answered a request that was not asked",
        ),
        (
            "A34 id as text",
            Tools,
            r#"{"jsonrpc":"2.0","id":"1","result":{"tools":[]}}"#,
            "error: the upstream answered a request that was not asked",
        ),
        (
            "result twice",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]},"result":{"tools":[{"name":"secret"}]}}"#,
            "error: the upstream's message is not readable: repeated key at byte 46",
        ),
        (
            "list twice",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"secret"}]}}"#,
            "error: the upstream's message is not readable: repeated key at byte 45",
        ),
        (
            "list under another case",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"Tools":[{"name":"secret"}]}}"#,
            "error: the upstream's list is not well formed",
        ),
        (
            "a key that cannot be read before the name that counts",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","\ud800":1,"name":"secret"}]}}"#,
            "error: the upstream's list is not well formed",
        ),
        (
            "list as object",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":{"name":"secret"}}}"#,
            "error: the upstream's list is not well formed",
        ),
        (
            "result as list",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":[{"name":"secret"}]}"#,
            "error: the upstream's list is not well formed",
        ),
        (
            "not JSON",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[}"#,
            "error: the upstream's message is not readable: unexpected byte at 43",
        ),
        (
            "a request",
            Tools,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            "error: the upstream's answer is not a response",
        ),
    ] {
        assert_eq!(filter(list, Era::Legacy, message), expected, "{case}");
    }
}

#[test]
fn makes_modern_lists_private() {
    for (case, result, expected) in [
        (
            "absent",
            r#"{"tools":[]}"#,
            r#"{"tools":[],"cacheScope":"private","ttlMs":0}"#,
        ),
        ("empty", "{}", r#"{"cacheScope":"private","ttlMs":0}"#),
        (
            "public",
            r#"{"ttlMs":60000,"tools":[{"name":"secret"}],"cacheScope":"public"}"#,
            r#"{"ttlMs":0,"tools":[],"cacheScope":"private"}"#,
        ),
        (
            "one is there",
            r#"{"cacheScope":"private","tools":[] }"#,
            r#"{"cacheScope":"private","tools":[] ,"ttlMs":0}"#,
        ),
        (
            "both are there",
            r#"{"cacheScope":"private","tools":[],"ttlMs":0}"#,
            "unchanged",
        ),
        (
            "look-alike",
            r#"{"cachescope":"public","tools":[]}"#,
            "error: the upstream's list is not well formed",
        ),
    ] {
        let message = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let expected = if expected.starts_with('{') {
            message(expected)
        } else {
            expected.into()
        };
        assert_eq!(
            filter(ListKind::Tools, Era::Modern, &message(result)),
            expected,
            "{case}"
        );
    }
}

#[test]
fn leaves_out_tools_with_invalid_header_annotations() {
    for (case, schema, valid) in [
        ("none", r#"{"type":"object"}"#, true),
        (
            "plain",
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"Region"}}}"#,
            true,
        ),
        (
            "nested",
            r#"{"properties":{"a":{"type":"object","properties":{"b":{"type":"integer","x-mcp-header":"B"}}}}}"#,
            true,
        ),
        (
            "property of that name",
            r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#,
            true,
        ),
        (
            "in an example",
            r#"{"examples":[{"x-mcp-header":""}]}"#,
            true,
        ),
        (
            "A45 line break",
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A\r\nB: c"}}}"#,
            false,
        ),
        (
            "A45 empty",
            r#"{"properties":{"a":{"type":"string","x-mcp-header":""}}}"#,
            false,
        ),
        (
            "A45 two alike",
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#,
            false,
        ),
        (
            "A45 number",
            r#"{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}"#,
            false,
        ),
        (
            "A45 no type",
            r#"{"properties":{"a":{"x-mcp-header":"A"}}}"#,
            false,
        ),
        (
            "A45 not text",
            r#"{"properties":{"a":{"type":"string","x-mcp-header":1}}}"#,
            false,
        ),
        (
            "A45 at the root",
            r#"{"x-mcp-header":"A","type":"string"}"#,
            false,
        ),
        (
            "A45 in items",
            r#"{"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}"#,
            false,
        ),
        (
            "A45 in oneOf",
            r#"{"oneOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}"#,
            false,
        ),
        (
            "A45 in $defs",
            r#"{"$defs":{"a":{"type":"string","x-mcp-header":"A"}}}"#,
            false,
        ),
    ] {
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"a","inputSchema":{schema}}}],"cacheScope":"private","ttlMs":0}}}}"#
        );
        assert_eq!(
            filter(ListKind::Tools, Era::Modern, &message) == "unchanged",
            valid,
            "{case}"
        );
        assert_eq!(
            filter(ListKind::Tools, Era::Legacy, &message),
            "unchanged",
            "{case}, legacy"
        );
    }
}

#[test]
fn finds_tasks() {
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"task":{{"taskId":"{}"}}}}}}"#,
        "x".repeat(1025)
    );
    for (case, message, expected) in [
        (
            "2025-11-25",
            r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t\u0031","status":"working"}}}"#,
            Some("t1"),
        ),
        (
            "extension",
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t1","status":"working"}}"#,
            Some("t1"),
        ),
        (
            "tasks/get",
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","taskId":"t1"}}"#,
            None,
        ),
        (
            "plain result",
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#,
            None,
        ),
        (
            "empty",
            r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":""}}}"#,
            None,
        ),
        ("long", &long, None),
        (
            "error",
            r#"{"jsonrpc":"2.0","id":1,"error":{"task":{"taskId":"t1"}}}"#,
            None,
        ),
        ("not JSON", "{", None),
    ] {
        assert_eq!(
            read_answer(message.as_bytes(), Some(b"1"))
                .ok()
                .flatten()
                .as_deref(),
            expected,
            "{case}"
        );
    }
}

#[test]
fn only_the_answer_that_was_asked_for_is_read() {
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    for (case, message, expected_id, is_read) in [
        ("same id", result, Some(&b"1"[..]), true),
        ("another id", result, Some(b"2"), false),
        ("a text that reads the same", result, Some(b"\"1\""), false),
        ("nothing asked", result, None, false),
        (
            "an id written otherwise",
            r#"{"jsonrpc":"2.0","id":"\u0061","result":{}}"#,
            Some(b"\"a\""),
            true,
        ),
        (
            "an error without an id",
            r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"?"}}"#,
            Some(b"1"),
            true,
        ),
        (
            "a request",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            Some(b"1"),
            false,
        ),
        (
            "a result with a key twice",
            r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#,
            Some(b"1"),
            false,
        ),
    ] {
        let read = read_answer(message.as_bytes(), expected_id);
        assert_eq!(read.is_ok(), is_read, "{case}");
    }
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-c\"\\\\é]{0,4}", 0..30)
}

proptest! {
    #[test]
    fn shows_exactly_the_kept_items(names in names(), denied in names(), pretty: bool, modern: bool) {
        let tools: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name, "n": 1})).collect();
        let message = serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "nextCursor": "c"}});
        let message = if pretty { serde_json::to_vec_pretty(&message) } else { serde_json::to_vec(&message) }.unwrap();
        let era = if modern { Era::Modern } else { Era::Legacy };
        let keep = |name: &str| !denied.iter().any(|denied| denied == name);
        let filtered = match filter_result(ListKind::Tools, era, &message, b"1", keep).unwrap() {
            Filtered::Unchanged => message.clone(),
            Filtered::Changed(bytes) => bytes,
        };
        let found: serde_json::Value = serde_json::from_slice(&filtered).unwrap();
        let shown: Vec<_> = found["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        let expected: Vec<_> = names.iter().map(String::as_str).filter(|name| keep(name)).collect();
        prop_assert_eq!(&shown, &expected);
        prop_assert_eq!(&found["result"]["nextCursor"], "c");
        prop_assert_eq!(found["result"]["cacheScope"].as_str(), modern.then_some("private"));
        prop_assert_eq!(shown.len() == names.len() && !modern, filtered == message);
    }

    #[test]
    fn survives_any_bytes(bytes: Vec<u8>, id: Vec<u8>) {
        let _ = filter_result(ListKind::Tools, Era::Modern, &bytes, &id, |_| true).is_ok();
    }
}

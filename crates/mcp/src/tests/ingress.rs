//! What callers send.

use proptest::prelude::*;

use super::*;

#[test]
fn asks_for_what_a_method_names() {
    for (method, params, name, in_legacy, in_modern) in [
        (
            "initialize",
            r#""protocolVersion":"2026-07-28""#,
            None,
            "session",
            "404 -32601",
        ),
        ("ping", "", None, "session", "404 -32601"),
        (
            "logging/setLevel",
            r#""level":"debug""#,
            None,
            "session",
            "404 -32601",
        ),
        ("server/discover", "", None, "session", "session"),
        ("tools/list", r#""cursor":"""#, None, "session", "session"),
        ("prompts/list", "", None, "session", "session"),
        ("resources/list", "", None, "session", "session"),
        ("resources/templates/list", "", None, "session", "session"),
        ("tasks/list", "", None, "session", "404 -32601"),
        (
            "tools/call",
            r#""name":"a""#,
            Some("a"),
            "tools/call a",
            "tools/call a",
        ),
        (
            "tools/call",
            r#""name":"a","task":{"ttl":1}"#,
            Some("a"),
            "tools/call a",
            "tools/call a",
        ),
        (
            "prompts/get",
            r#""name":"a""#,
            Some("a"),
            "prompts/get a",
            "prompts/get a",
        ),
        (
            "resources/read",
            r#""uri":"f:a""#,
            Some("f:a"),
            "resources/read f:a",
            "resources/read f:a",
        ),
        (
            "resources/subscribe",
            r#""uri":"f:a""#,
            Some("f:a"),
            "resources/read f:a, resources/subscribe f:a",
            "404 -32601",
        ),
        (
            "resources/unsubscribe",
            r#""uri":"f:a""#,
            Some("f:a"),
            "resources/read f:a, resources/unsubscribe f:a",
            "404 -32601",
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"p"}"#,
            None,
            "prompts/get p, completion/complete p",
            "prompts/get p, completion/complete p",
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"f:{x}"}"#,
            None,
            "resources/read f:{x}, completion/complete f:{x}",
            "resources/read f:{x}, completion/complete f:{x}",
        ),
        (
            "subscriptions/listen",
            r#""notifications":{"toolsListChanged":true}"#,
            None,
            "200 -32601",
            "session",
        ),
        (
            "subscriptions/listen",
            r#""notifications":{"resourceSubscriptions":["f:a","f:b"],"taskIds":["t"]}"#,
            None,
            "200 -32601",
            "listen f:a f:b | t",
        ),
        (
            "subscriptions/listen",
            r#""resourceSubscriptions":["f:a"]"#,
            None,
            "200 -32601",
            "listen f:a | ",
        ),
        (
            "tasks/get",
            r#""taskId":"t""#,
            Some("t"),
            "task t",
            "task t",
        ),
        (
            "tasks/cancel",
            r#""taskId":"t""#,
            Some("t"),
            "task t",
            "task t",
        ),
        (
            "tasks/update",
            r#""taskId":"t""#,
            Some("t"),
            "task t",
            "task t",
        ),
        (
            "tasks/result",
            r#""taskId":"t""#,
            Some("t"),
            "task t",
            "404 -32601",
        ),
    ] {
        assert_eq!(
            outcome(&legacy(&request(method, params))),
            in_legacy,
            "{method} {params}, legacy"
        );
        assert_eq!(
            outcome(&modern(method, params, name)),
            in_modern,
            "{method} {params}, modern"
        );
    }
}

#[test]
fn keeps_what_is_needed_later() {
    let body = r#"{"jsonrpc":"2.0","id":"\u0061b","method":"tools/call","params":{"name":"a","task":{},"_meta":{"progressToken":"t"}}}"#;
    let call = legacy(body).unwrap();
    assert_eq!(call.id.as_deref(), Some(&br#""\u0061b""#[..]));
    assert_eq!(call.progress_token.as_deref(), Some(&br#""t""#[..]));
    assert!(call.wants_task);
    assert_eq!(
        (call.name(), call.task_id(), call.list),
        (Some("a"), None, None)
    );
    let call = legacy(&request("tools/list", "")).unwrap();
    assert_eq!(call.list, Some(ListKind::Tools));
    let call = legacy(&request("tasks/get", r#""taskId":"t1""#)).unwrap();
    assert_eq!(call.task_id(), Some("t1"));
    assert!(legacy(&request("initialize", "")).unwrap().is_initialize());
    let long = "x".repeat(1025);
    let found = legacy(&request("tasks/get", &format!(r#""taskId":"{long}""#)));
    assert_eq!(outcome(&found), "400 -32602");
}

#[test]
fn cuts_denied_subscriptions() {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{{"resourceSubscriptions":["f:a", "f:\u0062","f:c"],"taskIds":["t1","t2"],"toolsListChanged":true}},{META}}}}}"#
    );
    let keep_all = cut_listen(body.as_bytes(), |_| true, |_| true).unwrap();
    assert!(matches!(keep_all, std::borrow::Cow::Borrowed(_)));
    let cut = cut_listen(body.as_bytes(), |uri| uri != "f:a", |task| task == "t2").unwrap();
    let expected = body
        .replace(r#"["f:a", "f:\u0062","f:c"]"#, r#"["f:\u0062","f:c"]"#)
        .replace(r#"["t1","t2"]"#, r#"["t2"]"#);
    assert_eq!(text(&cut), expected);
    let none = cut_listen(body.as_bytes(), |_| false, |_| true).unwrap();
    assert!(text(&none).contains(r#""resourceSubscriptions":[],"#));
    let many = vec!["\"f:a\""; 1025].join(",");
    let params = format!(r#""notifications":{{"resourceSubscriptions":[{many}]}}"#);
    assert_eq!(
        outcome(&modern("subscriptions/listen", &params, None)),
        "400 -32602"
    );
    for bad in [
        r#""resourceSubscriptions":"f:a""#,
        r#""resourceSubscriptions":[1]"#,
        r#""ResourceSubscriptions":["f:a"]"#,
    ] {
        let found = modern(
            "subscriptions/listen",
            &format!(r#""notifications":{{{bad}}}"#),
            None,
        );
        assert!(found.is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn encodes_names_reversibly(name: String) {
        let encoded = encode_name(&name);
        prop_assert!(encoded.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        prop_assert_eq!(encoded.trim(), &*encoded);
        let decoded = decode_name(&encoded).unwrap();
        prop_assert_eq!(&*decoded, &*name);
    }

    #[test]
    fn asks_for_the_name_the_server_reads(name: String, escape: bool) {
        let quoted = serde_json::to_string(&name).unwrap();
        let quoted = if escape { quoted.replace('a', "\\u0061") } else { quoted };
        let encoded = encode_name(&name);
        let call = modern("tools/call", &format!(r#""name":{quoted}"#), Some(&encoded)).unwrap();
        prop_assert_eq!(call.name(), Some(&*name));
    }

    #[test]
    fn survives_any_bytes(body: Vec<u8>, version: Vec<u8>, name: Vec<u8>) {
        let head = Head {
            protocol_version: Header::One(&version),
            name: Header::One(&name),
            ..Head::default()
        };
        let _ = read(&body, &head).is_ok();
        let _ = cut_listen(&body, |_| false, |_| false).is_ok();
        let _ = read_answer(&body, Some(&version));
        let _ = check_media(Header::One(&version), Header::One(&name)).is_ok();
        let _ = session::is_valid_id(&name);
    }
}

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use waypoint_policy::Operation;

use super::*;
use crate::{Allowances, Call, Dialect};

fn parse(operation: Operation, body: &Bytes) -> Call {
    let dialect = match operation {
        Operation::Messages => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    };
    Call::parse(dialect, operation, body, &Allowances::default()).unwrap()
}

#[test]
fn edits_only_what_must_change() {
    use Operation::{Chat, Messages, Responses};
    for (operation, body, model, expected) in [
        (Chat, r#"{"model":"m"}"#, "m", r#"{"model":"m"}"#),
        (
            Chat,
            r#"{ "model" : "\u006d" , "x":1}"#,
            "m",
            r#"{ "model" : "\u006d" , "x":1}"#,
        ),
        (
            Chat,
            r#"{ "model" : "m" , "x":1}"#,
            "a\"b",
            r#"{ "model" : "a\"b" , "x":1}"#,
        ),
        (
            Chat,
            r#"{"model":"m","stream":true}"#,
            "m",
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
        ),
        (
            Chat,
            " {\n \"model\":\"m\",\"stream\":true}",
            "other",
            " {\"stream_options\":{\"include_usage\":true},\n \"model\":\"other\",\"stream\":true}",
        ),
        (
            Chat,
            r#"{"stream_options": null ,"model":"m","stream":true}"#,
            "o",
            r#"{"stream_options": {"include_usage":true} ,"model":"o","stream":true}"#,
        ),
        (
            Chat,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage": false}}"#,
            "m",
            r#"{"model":"m","stream":true,"stream_options":{"include_usage": true}}"#,
        ),
        (
            Chat,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":null,"a":1}}"#,
            "m",
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"a":1}}"#,
        ),
        (
            Chat,
            r#"{"model":"m","stream":true,"stream_options":{ }}"#,
            "m",
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            Chat,
            r#"{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}"#,
            "m",
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
        ),
        (
            Chat,
            r#"{"model":"m","stream":false,"stream_options":{"include_usage":false}}"#,
            "m",
            r#"{"model":"m","stream":false,"stream_options":{"include_usage":false}}"#,
        ),
        (
            Responses,
            r#"{"model":"m","stream":true}"#,
            "n",
            r#"{"model":"n","stream":true}"#,
        ),
        (
            Messages,
            r#"{"model":"m","stream":true}"#,
            "n",
            r#"{"model":"n","stream":true}"#,
        ),
    ] {
        let bytes = Bytes::from(body.to_owned());
        let edited = parse(operation, &bytes).upstream_body(&bytes, model);
        assert_eq!(std::str::from_utf8(&edited).unwrap(), expected, "{body}");
    }
}

#[test]
fn an_unchanged_body_is_not_copied() {
    let body = Bytes::from_static(
        br#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
    );
    let call = parse(Operation::Chat, &body);
    let upstream = call.upstream_body(&body, "m");
    assert_eq!(upstream.as_ptr(), body.as_ptr());
}

#[test]
fn a_foreign_body_does_no_harm() {
    let call = parse(
        Operation::Chat,
        &Bytes::from_static(br#"{"x":"xxxxxx","model":"m","stream":true}"#),
    );
    for body in [&b""[..], b"{}", b"{\"model\":"] {
        let _ = call.upstream_body(&Bytes::from_static(body), "other");
    }
}

#[test]
fn a_call_without_a_body_stays_without() {
    let call = Call::models(Dialect::Anthropic, Some("alias"));
    assert!(call.upstream_body(&Bytes::new(), "model").is_empty());
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<i32>().prop_map(|number| Json::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map("[a-z\"\\\\é]{0,6}", inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn any_options() -> impl Strategy<Value = Option<Json>> {
    prop_oneof![
        Just(None),
        Just(Some(Json::Null)),
        Just(Some(json!({}))),
        Just(Some(json!({"include_obfuscation": false}))),
        any::<bool>().prop_map(|usage| Some(json!({"include_usage": usage}))),
        Just(Some(json!({"a": [1], "include_usage": null, "z": {}}))),
    ]
}

proptest! {
    #[test]
    fn edits_change_the_edited_fields_alone(
        others in prop::collection::vec(("x[a-z\"\\\\é]{0,5}", any_json()), 0..5),
        model in "[ -~é]{1,20}",
        upstream in "[ -~é]{1,20}",
        stream: bool,
        options in any_options(),
        pretty: bool,
    ) {
        let mut object: Map<String, Json> = others.into_iter().collect();
        object.insert("model".into(), model.clone().into());
        object.insert("stream".into(), stream.into());
        if let Some(options) = &options {
            object.insert("stream_options".into(), options.clone());
        }
        let value = Json::Object(object);
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let body = Bytes::from(text);
        let call = parse(Operation::Chat, &body);
        prop_assert_eq!(&*call.model, &*model);
        let edited = call.upstream_body(&body, &upstream);

        let mut expected = value;
        expected["model"] = upstream.clone().into();
        if stream {
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = json!({});
            }
            expected["stream_options"]["include_usage"] = true.into();
        }
        let edited: Json = serde_json::from_slice(&edited).unwrap();
        prop_assert_eq!(&edited, &expected);

        // Edited once, it needs no edit again.
        let body = Bytes::from(edited.to_string());
        let again = parse(Operation::Chat, &body);
        prop_assert_eq!(again.upstream_body(&body, &upstream).as_ptr(), body.as_ptr());
    }

}

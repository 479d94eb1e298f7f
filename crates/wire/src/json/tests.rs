#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn strict(text: &str) -> Result<Kind, JsonError> {
    validate(text.as_bytes(), &Options::default()).map(|value| value.kind)
}

fn code(result: Result<Kind, JsonError>) -> String {
    match result {
        Ok(kind) => format!("{kind:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn judges() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let (in_bounds, too_deep) = (deep(64), deep(65));
    let endless = "[".repeat(20_000);
    for (case, text, expected) in [
        (
            "object",
            r#" {"a": [1, -0.5e+3, true, false, null]} "#,
            "Object",
        ),
        ("empty containers", "[{},[],{}]", "Array"),
        (
            "every escape",
            r#""\"\\\/\b\f\n\r\t\u0041\ud83d\ude00""#,
            "String",
        ),
        ("big number", "123456789012345678901234567890e400", "Number"),
        ("zero", "-0", "Number"),
        ("bound of depth", &in_bounds, "Array"),
        ("nothing", "", "the document ends too early"),
        ("only space", " \n", "the document ends too early"),
        ("leading zero", "01", "bad number at byte 0"),
        ("no digits", "-", "the document ends too early"),
        ("no fraction", "1.,", "bad number at byte 0"),
        ("no exponent", "[1e]", "bad number at byte 1"),
        ("plus", "+1", "unexpected byte at 0"),
        ("NaN", r#"{"a":NaN}"#, "unexpected byte at 5"),
        ("infinity", "[Infinity]", "unexpected byte at 1"),
        ("cut word", "tru", "the document ends too early"),
        ("wrong word", "trus", "unexpected byte at 0"),
        ("long word", "truee", "text after the value at byte 4"),
        ("comment", "{/**/}", "unexpected byte at 1"),
        ("second value", "{}{}", "text after the value at byte 2"),
        ("trailing comma", "[1,]", "unexpected byte at 3"),
        (
            "trailing comma in object",
            r#"{"a":1,}"#,
            "unexpected byte at 7",
        ),
        ("single quotes", "{'a':1}", "unexpected byte at 1"),
        ("no colon", r#"{"a" 1}"#, "unexpected byte at 5"),
        ("wrong close", "[1}", "unexpected byte at 2"),
        ("open string", r#""abc"#, "the document ends too early"),
        (
            "raw newline",
            "\"a\nb\"",
            "control character in a string at byte 2",
        ),
        (
            "raw NUL in a long string",
            "\"0123456789012345678901234567890123456789012345678901234567890123456789\0\"",
            "control character in a string at byte 71",
        ),
        ("delete is fine", "\"\u{7f}\"", "String"),
        ("bad escape", r#""\x""#, "bad escape in a string at byte 1"),
        (
            "short escape",
            r#""\u12"#,
            "bad escape in a string at byte 1",
        ),
        ("lone high", r#""\ud800""#, "unpaired surrogate at byte 1"),
        ("lone low", r#""\udc00""#, "unpaired surrogate at byte 1"),
        (
            "two high",
            r#""\ud800\ud800""#,
            "unpaired surrogate at byte 1",
        ),
        (
            "byte order mark",
            "\u{feff}{}",
            "byte order mark before the value",
        ),
        ("too deep", &too_deep, "nested deeper than 64 levels"),
        ("never closed", &endless, "nested deeper than 64 levels"),
        ("same key", r#"{"a":1,"a":2}"#, "repeated key at byte 7"),
        (
            "same key, escaped",
            r#"{"name":1,"n\u0061me":2}"#,
            "repeated key at byte 10",
        ),
        (
            "same key, both escaped",
            r#"{"\u0061":1,"\u0061":2}"#,
            "repeated key at byte 12",
        ),
        (
            "same key below",
            r#"[{"b":{"a":1,"a":2}}]"#,
            "repeated key at byte 13",
        ),
        (
            "same key in a sibling",
            r#"[{"a":1},{"a":1,"b":{"a":1}}]"#,
            "Array",
        ),
        ("same empty key", r#"{"":1,"":1}"#, "repeated key at byte 6"),
        (
            "key with a lone surrogate",
            r#"{"\ud800":1}"#,
            "unpaired surrogate at byte 2",
        ),
    ] {
        assert_eq!(code(strict(text)), expected, "{case}");
    }
    let bytes = validate(b"\"\xff\"", &Options::default());
    assert_eq!(bytes, Err(JsonError::NotUtf8 { offset: 1 }));
}

#[test]
fn finds_repeated_keys_in_large_objects() {
    for escaped in [false, true] {
        for count in [15, 16, 17, 40, 1000] {
            let mut keys: Vec<_> = (0..count).map(|n| format!("\"key{n}\":0")).collect();
            let text = |keys: &[String]| format!("[{{{}}},{{\"key0\":1}}]", keys.join(","));
            assert_eq!(code(strict(&text(&keys))), "Array", "{count}");
            let again = if escaped {
                "\"k\\u0065y3\":0"
            } else {
                "\"key3\":0"
            };
            keys.push(again.into());
            let error = code(strict(&text(&keys)));
            assert!(error.starts_with("repeated key"), "{count}: {error}");
        }
    }
}

#[test]
fn looks_at_the_outermost_object_only_when_told() {
    let top = Options {
        unique_keys: UniqueKeys::TopLevel,
        ..Options::default()
    };
    assert!(validate(br#"{"a":{"b":1,"b":2}}"#, &top).is_ok());
    assert!(validate(br#"{"a":1,"a":2}"#, &top).is_err());
    let value = validate(br#"{"a":{"b":1,"b":2}}"#, &top).unwrap();
    let inner = object(value).unwrap().value_of("a").unwrap();
    assert_eq!(object(inner), Err(JsonError::DuplicateKey { offset: 12 }));
    let two = Options {
        unique_keys: UniqueKeys::TwoLevels,
        ..Options::default()
    };
    assert!(validate(br#"{"a":{"b":{"c":1,"c":2}},"d":[{"c":1,"c":2}]}"#, &two).is_ok());
    for text in [r#"{"a":1,"a":2}"#, r#"{"a":{"b":1,"b":2}}"#] {
        assert!(validate(text.as_bytes(), &two).is_err(), "{text}");
    }
}

#[test]
fn reads_the_members_of_items_on_the_way() {
    let items = |text: &'static str| {
        let value = validate(text.as_bytes(), &Options::default()).unwrap();
        let read = |members: &mut Members<'_>| members.next().map(|(key, _)| key.into_owned());
        objects(value, read).map(|items| {
            let shown = items.into_iter();
            let shown =
                shown.map(|(item, key)| (String::from_utf8_lossy(item.raw), item.start, key));
            shown
                .map(|item| format!("{item:?}"))
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    assert_eq!(
        items(r#" [ {"a":[{}],"b":"}"} , 1,{ }]"#).unwrap(),
        r#"("{\"a\":[{}],\"b\":\"}\"}", 3, Some(Some("a"))) ("1", 24, None) ("{ }", 26, Some(None))"#
    );
    assert_eq!(items("{}"), Err(JsonError::NotArray));
    // A key that cannot be read hides what follows it, so the whole is refused.
    let any = Options {
        unique_keys: UniqueKeys::TopLevel,
        surrogates: Surrogates::Any,
        ..Options::default()
    };
    let text = br#"[{"a":{"\ud800":1,"b":2}}]"#;
    let outer = validate(text, &any).unwrap();
    let inner = Value {
        kind: Kind::Array,
        raw: br#"[{"\ud800":1,"b":2}]"#,
        start: 0,
    };
    assert!(objects(outer, |members| members.count()).is_ok());
    assert!(objects(inner, |members| members.count()).is_err());
}

#[test]
fn passes_surrogates_only_when_told() {
    let any = Options {
        surrogates: Surrogates::Any,
        ..Options::default()
    };
    let value = validate(br#""x\ud800""#, &any).unwrap();
    assert_eq!(value.as_str(), None);
}

#[test]
fn indexes_in_one_pass_what_a_second_pass_finds() {
    let text = br#" { "a" : {"x":[1,{"y":2}],"z":{}} , "params":{"name":"n\u0061me","s":"\\","e":[]},"n":[{}] } "#;
    let (top, inner) = parse_nested(text, &Options::default(), "params").unwrap();
    let inner = inner.unwrap();
    let keys = |object: &Object<'_>| {
        let keys: Vec<_> = object
            .members()
            .iter()
            .map(|member| member.key.to_string())
            .collect();
        keys.join(" ")
    };
    assert_eq!(keys(&top), "a params n");
    assert_eq!(keys(&inner), "name s e");
    assert_eq!(inner.value_of("name").unwrap().as_str().unwrap(), "name");
    for outer in top.members() {
        assert_eq!(&text[outer.value.range()], outer.value.raw);
    }
    assert_eq!(object(top.value()).unwrap(), top);
    assert_eq!(object(top.value_of("params").unwrap()).unwrap(), inner);
    let absent = parse_nested(text, &Options::default(), "n").unwrap().1;
    assert_eq!(absent, None);
}

#[test]
fn reads_scalars() {
    let value = validate(
        br#"[1,-1,1.0,18446744073709551616,true,null,"\ud83d\ude00"]"#,
        &Options::default(),
    );
    let items = array(value.unwrap()).unwrap();
    assert_eq!(items.len(), 7);
    assert_eq!(items[0].as_u64(), Some(1));
    assert_eq!((items[1].as_u64(), items[1].as_i64()), (None, Some(-1)));
    assert_eq!(items[2].as_u64(), None);
    assert_eq!(items[3].as_u64(), None);
    assert_eq!(items[4].as_bool(), Some(true));
    assert!(items[5].is_null());
    assert_eq!(items[6].as_str().unwrap(), "😀");
}

#[test]
fn folds() {
    for (key, known, expected) in [
        ("Name", "name", true),
        ("METHOD", "method", true),
        ("param\u{17f}", "params", true),
        ("tas\u{212a}Id", "taskId", true),
        ("name", "name", false),
        ("names", "name", false),
        ("nam", "name", false),
        ("námé", "name", false),
    ] {
        assert_eq!(folds_to(key, known), expected, "{key}");
    }
}

/// Any JSON value, with keys that do not repeat.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|number| serde_json::json!(number)),
        any::<String>().prop_map(Into::into),
        "[a-z\"\\\\\n ]{0,90}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Into::into),
            prop::collection::btree_map("[a-e\"\\\\é]{0,3}", inner, 0..20)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn accepts_what_a_serializer_writes(document in documents(), pretty: bool) {
        let text = if pretty {
            serde_json::to_vec_pretty(&document).unwrap()
        } else {
            serde_json::to_vec(&document).unwrap()
        };
        let value = validate(&text, &Options::default()).unwrap();
        prop_assert_eq!(value.raw, &text[..]);
        check_views(value, &document);
    }

    #[test]
    fn accepts_nothing_that_serde_json_refuses(text in r#"[\[\]{}:,"\\ntrufalse0-9.eE+\- ]{0,40}"#) {
        if validate(text.as_bytes(), &Options::default()).is_ok() {
            // Ranges of numbers are not grammar.
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert!(parsed.is_ok(), "{}", text);
        }
    }

    #[test]
    fn agrees_on_broken_documents(document in documents(), at: prop::sample::Index, byte: u8) {
        let mut text = serde_json::to_vec(&document).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let ours = validate(&text, &Options { max_depth: 128, ..Options::default() });
        // Their scanner does not look at the encoding of text that it skips.
        let theirs = std::str::from_utf8(&text)
            .map(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
        let theirs = theirs == Ok(true);
        match ours {
            Ok(_) => prop_assert!(theirs),
            Err(error) => prop_assert!(!theirs || !error.is_syntax(), "{}", error),
        }
    }

    #[test]
    fn survives_any_bytes(bytes: Vec<u8>) {
        for unique_keys in [UniqueKeys::TopLevel, UniqueKeys::TwoLevels, UniqueKeys::Everywhere] {
            for surrogates in [Surrogates::Paired, Surrogates::Any] {
                let options = Options { max_depth: 8, unique_keys, surrogates };
                let _ = validate(&bytes, &options);
                let _ = parse_nested(&bytes, &options, "a");
            }
        }
        for kind in [Kind::Object, Kind::Array, Kind::String, Kind::Number] {
            let unchecked = Value { kind, raw: &bytes, start: 7 };
            let _ = (object(unchecked), array(unchecked), unchecked.as_str(), unchecked.as_u64());
            let _ = (members(unchecked).count(), objects(unchecked, |members| members.count()));
        }
    }

    #[test]
    fn survives_any_text(text in r#"[\[\]{}:,"\\ud8a0 1e-]{0,60}"#) {
        for kind in [Kind::Object, Kind::Array, Kind::String] {
            let unchecked = Value { kind, raw: text.as_bytes(), start: 0 };
            let _ = (object(unchecked), array(unchecked), unchecked.as_str());
        }
    }
}

/// The views say what the model holds.
fn check_views(value: Value<'_>, model: &serde_json::Value) {
    match model {
        serde_json::Value::Object(map) => {
            let object = object(value).unwrap();
            assert_eq!(object.members().len(), map.len());
            let known = object.members().iter();
            let known = known.map(|member| (member.key.clone(), member.value));
            assert!(members(value).eq(known));
            for (key, model) in map {
                check_views(object.value_of(key).unwrap(), model);
            }
        }
        serde_json::Value::Array(items) => {
            let views = array(value).unwrap();
            assert_eq!(views.len(), items.len());
            for read_to in [0, 1, usize::MAX] {
                let objects = objects(value, |members| members.take(read_to).count()).unwrap();
                assert_eq!(objects.len(), items.len());
                for ((item, count), (view, model)) in
                    objects.into_iter().zip(views.iter().zip(items))
                {
                    assert_eq!(item, *view);
                    let members = model.as_object().map(|map| map.len().min(read_to));
                    assert_eq!(count, members);
                }
            }
            for (view, model) in views.into_iter().zip(items) {
                check_views(view, model);
            }
        }
        serde_json::Value::String(text) => assert_eq!(value.as_str().unwrap(), text.as_str()),
        serde_json::Value::Bool(truth) => assert_eq!(value.as_bool(), Some(*truth)),
        serde_json::Value::Null => assert!(value.is_null()),
        serde_json::Value::Number(number) => {
            assert_eq!(value.raw, number.to_string().as_bytes());
        }
    }
}

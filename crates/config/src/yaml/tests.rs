use serde_json::json;

use super::{Position, read};

fn values(text: &str) -> Vec<serde_json::Value> {
    let (documents, faults) = read(text);
    assert_eq!(faults, [], "{text}");
    documents.iter().map(super::Node::to_json).collect()
}

fn faults(text: &str) -> Vec<(usize, usize, &'static str)> {
    read(text)
        .1
        .iter()
        .map(|f| (f.at.line, f.at.col, f.code))
        .collect()
}

#[test]
fn reads_values() {
    for (case, text, expected) in [
        (
            "scalars",
            "[1, -2, +3, 0x1F, 0o17, 1.5, .5, 1e3, 1., 12e03]",
            json!([1, -2, 3, 31, 15, 1.5, 0.5, 1000.0, 1.0, 12000.0]),
        ),
        (
            "null and bool",
            "[~, null, NULL, true, False]",
            json!([null, null, null, true, false]),
        ),
        (
            "no YAML 1.1",
            "[yes, off, 0777, 1_000, 1:30, .inf, .nan, 5xx]",
            json!(["yes", "off", 777, "1_000", "1:30", ".inf", ".nan", "5xx"]),
        ),
        (
            "quoted stays text",
            "['1', \"true\", !!str 2, ! 3]",
            json!(["1", "true", "2", "3"]),
        ),
        (
            "big",
            "[18446744073709551615, -9223372036854775808, 1e400]",
            json!([u64::MAX, i64::MIN, "1e400"]),
        ),
        ("no value", "a:\nb: x", json!({"a": null, "b": "x"})),
        ("block scalar", "a: |\n  x\n  y\n", json!({"a": "x\ny\n"})),
        (
            "alias",
            "a: &x {b: [1]}\nc: *x",
            json!({"a": {"b": [1]}, "c": {"b": [1]}}),
        ),
        (
            "json",
            "{\"a\": [1, \"\\u00e9\\/\"],\n\t\"b\": {}}",
            json!({"a": [1, "é/"], "b": {}}),
        ),
        (
            "json surrogates",
            "{\"a\": \"\\ud83d\\ude00\"}",
            json!({"a": "😀"}),
        ),
        (
            "key is text",
            "1: a\ntrue: b",
            json!({"1": "a", "true": "b"}),
        ),
        ("byte order mark", "\u{feff}a: 1", json!({"a": 1})),
    ] {
        let got = values(text);
        assert_eq!(got, [expected], "{case}");
    }
}

#[test]
fn reads_documents() {
    assert_eq!(values("# nothing\n"), Vec::<serde_json::Value>::new());
    assert_eq!(
        values("a: 1\n---\n---\nb: 2\n...\n"),
        [json!({"a": 1}), json!(null), json!({"b": 2})]
    );
}

#[test]
fn knows_places() {
    let (documents, _) = read("# x\n---\na: 1\n---\nb:\n  - c\n  - d: [e, f]\n");
    let list = documents[1].get("b").unwrap();
    let super::Value::List(items) = &list.value else {
        panic!("{list:?}")
    };
    assert_eq!(items[0].at, Position { line: 6, col: 5 });
    assert_eq!(items[1].at, Position { line: 7, col: 5 });
    assert_eq!(
        items[1].entry("d").unwrap().at,
        Position { line: 7, col: 5 }
    );
    assert_eq!(items[1].get("d").unwrap().at, Position { line: 7, col: 8 });
}

#[test]
fn finds_faults_and_reads_on() {
    for (case, text, expected) in [
        (
            "repeated key",
            "a: 1\nb: 2\na: 3\n",
            vec![(3, 1, "duplicate-key")],
        ),
        (
            "repeated key in JSON",
            "{\"a\": 1, \"\\u0061\": 2}",
            vec![(1, 10, "duplicate-key")],
        ),
        ("unclosed", "a: [1, 2\n", vec![(2, 1, "yaml-syntax")]),
        (
            "bad indentation",
            "a: 1\n  b: 2\n",
            vec![(2, 4, "yaml-syntax")],
        ),
        (
            "two bad documents",
            "a: ]\n---\nb: 1\n---\nc: }\n---\nd: 1\n",
            vec![(1, 4, "yaml-syntax"), (5, 4, "yaml-syntax")],
        ),
        ("key is a map", "{a: 1}: b", vec![(1, 1, "yaml-syntax")]),
        ("unknown tag", "a: !x 1", vec![(1, 7, "yaml-syntax")]),
        ("alias without anchor", "a: *x", vec![(1, 4, "yaml-syntax")]),
        ("alias to itself", "a: &x [*x]", vec![(1, 8, "yaml-syntax")]),
        (
            "anchors end with the document",
            "a: &x 1\n---\nb: *x\n",
            vec![(3, 4, "yaml-syntax")],
        ),
    ] {
        assert_eq!(faults(text), expected, "{case}");
    }
    let (documents, _) = read("a: ]\n---\nb: 1\n---\nc: }\n---\nd: 1\n");
    let documents: Vec<_> = documents.iter().map(super::Node::to_json).collect();
    assert_eq!(documents, [json!({"b": 1}), json!({"d": 1})]);
}

#[test]
fn is_bounded() {
    let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for level in 1..20 {
        let below = level - 1;
        bomb += &format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{below}"); 10].join(",")
        );
    }
    assert_eq!(faults(&bomb).last().unwrap().2, "yaml-too-large");
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(faults(&deep)[0].2, "yaml-too-deep");
    let fits = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert_eq!(faults(&fits), []);
}

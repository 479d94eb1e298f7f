#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

mod numbers;

fn list(values: &[&str]) -> Option<Vec<Scalar>> {
    let scalar = |text: &&str| match *text {
        "null" => Scalar::Null,
        "true" | "false" => Scalar::Bool(*text == "true"),
        text => match text.parse::<Number>() {
            Ok(number) => Scalar::Number(number),
            Err(_) => Scalar::String(text.into()),
        },
    };
    Some(values.iter().map(scalar).collect())
}

fn is_in(values: &[&str]) -> Constraint {
    Constraint {
        one_of: list(values),
        ..Constraint::default()
    }
}

fn not_in(values: &[&str]) -> Constraint {
    Constraint {
        none_of: list(values),
        ..Constraint::default()
    }
}

fn pattern(text: &str) -> Constraint {
    Constraint {
        pattern: Some(text.parse().unwrap()),
        ..Constraint::default()
    }
}

fn between(min: &str, max: &str) -> Constraint {
    Constraint {
        min: min.parse().ok(),
        max: max.parse().ok(),
        ..Constraint::default()
    }
}

fn long(min: Option<u64>, max: Option<u64>) -> Constraint {
    Constraint {
        min_length: min,
        max_length: max,
        ..Constraint::default()
    }
}

fn is(is: JsonType) -> Constraint {
    Constraint {
        is: Some(is),
        ..Constraint::default()
    }
}

fn optional(constraint: Constraint) -> Constraint {
    Constraint {
        optional: true,
        ..constraint
    }
}

/// Whether an Allow and a Deny match.
fn check(pointer: &str, constraint: Constraint, arguments: Arguments<'_>) -> (bool, bool) {
    let reading = Reading::new(arguments);
    let argument = Argument {
        pointer: pointer.parse().unwrap(),
        constraint,
    };
    let holds = |effect| {
        reading
            .failed(std::slice::from_ref(&argument), effect)
            .is_none()
    };
    (holds(Effect::Allow), holds(Effect::Deny))
}

/// The value holds, it fails, it is of a wrong type.
const HOLDS: (bool, bool) = (true, true);
const FAILS: (bool, bool) = (false, false);
const WRONG: (bool, bool) = (false, true);
/// With `*`: some hold and some fail.
const SOME: (bool, bool) = (false, true);

#[rustfmt::skip]
#[test]
fn constraints() {
    let both = |a: Constraint, b: Constraint| Constraint { is: b.is, none_of: b.none_of, ..a };
    for (case, constraint, value, expected) in [
        ("in", is_in(&["acme", "other"]), r#""acme""#, HOLDS),
        ("not in", is_in(&["acme"]), r#""acme2""#, FAILS),
        ("case is kept", is_in(&["acme"]), r#""Acme""#, FAILS),
        ("escaped text", is_in(&["acme"]), r#""\u0061cm\u0065""#, HOLDS),
        ("a pair of surrogates", is_in(&["😀"]), r#""\ud83d\ude00""#, HOLDS),
        ("half a pair", is_in(&["acme"]), r#""\ud83d""#, WRONG),
        ("in an array", is_in(&["acme"]), r#"["acme"]"#, WRONG),
        ("in an object", is_in(&["acme"]), r#"{"name":"acme"}"#, WRONG),
        ("a number for a string", is_in(&["acme"]), "5", WRONG),
        ("null for a string", is_in(&["acme"]), "null", WRONG),
        ("null that is listed", is_in(&["acme", "null"]), "null", HOLDS),
        ("true", is_in(&["true"]), "true", HOLDS),
        ("false", is_in(&["true"]), "false", FAILS),
        ("text of a boolean", is_in(&["true"]), r#""true""#, WRONG),
        ("another number", is_in(&["1", "x"]), "2", FAILS),
        ("the same number", is_in(&["100"]), "1e2", HOLDS),
        ("not listed", not_in(&["evil"]), r#""acme""#, HOLDS),
        ("listed", not_in(&["evil"]), r#""evil""#, FAILS),
        ("listed in an array", not_in(&["evil"]), r#"["evil"]"#, WRONG),
        ("pattern", pattern("^src/"), r#""src/main.rs""#, HOLDS),
        ("pattern in the middle", pattern("rc/m"), r#""src/main.rs""#, HOLDS),
        ("no pattern", pattern("^src/"), r#""/src/""#, FAILS),
        ("$ is the very end", pattern("rs$"), r#""main.rs\n""#, FAILS),
        (". is one character", pattern("^.$"), r#""é""#, HOLDS),
        ("escapes before the pattern", pattern("^src/"), r#""\u0073rc\/x""#, HOLDS),
        ("pattern of a number", pattern("1"), "1", WRONG),
        ("min", between("1", ""), "1", HOLDS),
        ("below min", between("1", ""), "0.99999999999999999999", FAILS),
        ("max", between("", "100"), "100.0", HOLDS),
        ("max with an exponent", between("", "100"), "1e2", HOLDS),
        ("above max", between("", "100"), "100.00000000000000000001", FAILS),
        ("a number in text", between("", "100"), r#""5""#, WRONG),
        ("2^53", between("9007199254740993", ""), "9007199254740992", FAILS),
        ("2^53 + 1", between("9007199254740993", ""), "9007199254740993", HOLDS),
        ("2^64", between("", "18446744073709551615"), "18446744073709551616", FAILS),
        ("2^64 - 1", between("", "18446744073709551615"), "18446744073709551615", HOLDS),
        ("larger than any float", between("", "100"), "1e400", FAILS),
        ("an exponent out of reason", between("", "100"), "1e99999999999999999999999", FAILS),
        ("a small one", between("0", ""), "1e-99999999999999999999999", HOLDS),
        ("a small negative one", between("0", ""), "-1e-99999999999999999999999", FAILS),
        ("zero whatever its exponent", is_in(&["0"]), "-0.000e99999999999999999999999", HOLDS),
        ("shortest", long(Some(2), None), r#""ab""#, HOLDS),
        ("too short", long(Some(2), None), r#""é""#, FAILS),
        ("escapes are one character", long(None, Some(2)), r#""\u00e9\ud83d\ude00""#, HOLDS),
        ("too long", long(None, Some(2)), r#""abc""#, FAILS),
        ("elements", long(None, Some(2)), "[1, [2, 3, 4]]", HOLDS),
        ("too many elements", long(None, Some(2)), "[1,2,3]", FAILS),
        ("the length of a number", long(None, Some(2)), "1", WRONG),
        ("the length of an object", long(None, Some(2)), "{}", WRONG),
        ("type", is(JsonType::String), r#""x""#, HOLDS),
        ("another type", is(JsonType::String), "1", FAILS),
        ("integer", is(JsonType::Integer), "1.0", HOLDS),
        ("integer with an exponent", is(JsonType::Integer), "12.5e1", HOLDS),
        ("no integer", is(JsonType::Integer), "12.5", FAILS),
        ("huge integer", is(JsonType::Integer), "123456789012345678901234567890", HOLDS),
        ("number", is(JsonType::Number), "1", HOLDS),
        ("array", is(JsonType::Array), "[]", HOLDS),
        ("object", is(JsonType::Object), "{}", HOLDS),
        ("null", is(JsonType::Null), "null", HOLDS),
        ("boolean", is(JsonType::Boolean), "null", FAILS),
        ("another type beside more", both(pattern("^/etc"), is(JsonType::String)), r#"["/etc"]"#, WRONG),
        ("a failure beats a wrong type", both(is_in(&["5"]), not_in(&["x", "6"])), "6", FAILS),
        ("presence", Constraint::default(), "null", HOLDS),
    ] {
        let json = format!(r#"{{"a":{value}}}"#);
        let arguments = Arguments::Json(json.as_bytes());
        assert_eq!(check("/a", constraint.clone(), arguments), expected, "{case}");
        // The same as an element, and deep inside.
        let json = format!(r#" {{ "z" : 1, "b" : [ 0, {{"c~/d" : [ {value} ]}} ] }} "#);
        let arguments = Arguments::Json(json.as_bytes());
        let deep = "/b/1/c~0~1d/*";
        assert_eq!(check(deep, constraint.clone(), arguments), expected, "{case} deep inside");
    }
}

/// The docs of [`Constraint`]: `type` alone says no to another type; beside any other field another
/// type is a wrong one, so that a Deny is not passed by an array around what it speaks of.
#[rustfmt::skip]
#[test]
fn another_type_beside_any_other_field() {
    for (case, constraint, kind, other) in [
        ("in", is_in(&["evil"]), JsonType::String, r#"["evil"]"#),
        ("notIn", not_in(&["good"]), JsonType::String, r#"["evil"]"#),
        ("pattern", pattern("evil"), JsonType::String, r#"["evil"]"#),
        ("min", between("1", ""), JsonType::Number, "[5]"),
        ("max", between("", "9"), JsonType::Number, "[5]"),
        ("minLength", long(Some(1), None), JsonType::String, "[5]"),
        ("maxLength", long(None, Some(9)), JsonType::String, "[5]"),
    ] {
        let json = format!(r#"{{"a":{other}}}"#);
        let arguments = Arguments::Json(json.as_bytes());
        let constraint = Constraint { is: Some(kind), ..constraint };
        assert_eq!(check("/a", constraint, arguments), WRONG, "{case}");
        assert_eq!(check("/a", is(kind), arguments), FAILS, "{case} without it");
    }
}

#[rustfmt::skip]
#[test]
fn places() {
    let absent = (false, false);
    for (case, pointer, json, expected) in [
        ("escaped in the arguments", "/owner", r#"{"\u006fwner":"ok"}"#, HOLDS),
        ("escaped in the pointer", "/a~1b~0c", r#"{"a/b~c":"ok"}"#, HOLDS),
        ("~01 is ~1", "/~01", r#"{"~1":"ok"}"#, HOLDS),
        ("an empty key", "/", r#"{"":"ok"}"#, HOLDS),
        ("a key of digits", "/0", r#"{"0":"ok"}"#, HOLDS),
        ("the whole", "", r#""ok""#, HOLDS),
        ("the first index", "/a/0", r#"{"a":["ok",1]}"#, HOLDS),
        ("an index", "/a/1", r#"{"a":[1,"ok",2]}"#, HOLDS),
        ("behind the last", "/a/2", r#"{"a":[1,"ok"]}"#, absent),
        ("the dash", "/a/-", r#"{"a":["ok"]}"#, absent),
        ("a leading zero", "/a/00", r#"{"a":["ok"]}"#, WRONG),
        ("a key of an array", "/a/b", r#"{"a":["ok"]}"#, WRONG),
        ("no key", "/owner", "{}", absent),
        ("no key further in", "/a/b", r#"{"a":{}}"#, absent),
        ("a key of text", "/a/b", r#"{"a":"ok"}"#, WRONG),
        ("a key of null", "/a/b", r#"{"a":null}"#, WRONG),
        ("arguments are text", "/a", r#""ok""#, WRONG),
        ("arguments are an array", "/a", r#"["ok"]"#, WRONG),
        ("arguments are null", "/a", "null", WRONG),
        ("not JSON", "/a", "{", WRONG),
        ("a raw control character", "/a", "{\"a\":\"\u{1}\"}", WRONG),
        ("text behind", "/a", r#"{"a":"ok"} x"#, WRONG),
        ("a repeated key", "/a", r#"{"a":"ok","a":"ok"}"#, WRONG),
        ("a repeated key, escaped", "/a", r#"{"a":"ok","\u0061":"no"}"#, WRONG),
        ("a repeated key further in", "/x/a", r#"{"x":{"a":"ok","a":"ok"}}"#, WRONG),
        ("another case", "/owner", r#"{"Owner":"ok"}"#, WRONG),
        ("another case beside it", "/owner", r#"{"owner":"ok","OWNER":"no"}"#, WRONG),
        ("a long s", "/case", r#"{"caſe":"ok"}"#, WRONG),
        ("the Kelvin sign", "/key", "{\"\u{212a}ey\":\"ok\"}", WRONG),
        ("another case beyond ASCII", "/größe", r#"{"GRÖSSE":"ok"}"#, WRONG),
        ("another key beyond ASCII", "/größe", r#"{"größer":"no","größe":"ok"}"#, HOLDS),
        ("another case further in", "/x/a", r#"{"x":{"A":"ok"}}"#, WRONG),
        ("a key that cannot be read", "/a", r#"{"a":"ok","\ud800":1}"#, WRONG),
        ("every element", "/a/*", r#"{"a":["ok","ok"]}"#, HOLDS),
        ("some elements", "/a/*", r#"{"a":["no","ok"]}"#, SOME),
        ("no element", "/a/*", r#"{"a":["no","no"]}"#, FAILS),
        ("an element of a wrong type", "/a/*", r#"{"a":["no",["ok"]]}"#, WRONG),
        ("an empty array", "/a/*", r#"{"a":[]}"#, absent),
        ("every element of text", "/a/*", r#"{"a":"ok"}"#, WRONG),
        ("every element of an object", "/a/*", r#"{"a":{"*":"ok"}}"#, WRONG),
        ("inside every element", "/a/*/b", r#"{"a":[{"b":"ok"},{"b":"ok"}]}"#, HOLDS),
        ("missing in one", "/a/*/b", r#"{"a":[{"b":"ok"},{}]}"#, SOME),
        ("elements of elements", "/a/*/*", r#"{"a":[["no"],["no","ok"]]}"#, SOME),
        ("all elements of elements", "/a/*/*", r#"{"a":[["ok"],["ok","ok"]]}"#, HOLDS),
        ("every element of the whole", "/*", r#"["ok"]"#, WRONG),
    ] {
        assert_eq!(check(pointer, is_in(&["ok"]), Arguments::Json(json.as_bytes())), expected, "{case}");
    }
}

#[rustfmt::skip]
#[test]
fn absence() {
    let ok = || is_in(&["ok"]);
    let object = |json: &'static str| Arguments::Json(json.as_bytes());
    for (case, constraint, arguments, expected) in [
        ("no arguments", ok(), Arguments::Absent, (false, false)),
        ("none needed", optional(ok()), Arguments::Absent, HOLDS),
        ("no key", ok(), object("{}"), (false, false)),
        ("no key needed", optional(ok()), object("{}"), HOLDS),
        ("there all the same", optional(ok()), object(r#"{"a":["ok"]}"#), HOLDS),
        ("there and wrong", optional(ok()), object(r#"{"a":["no"]}"#), FAILS),
        ("an empty array", optional(ok()), object(r#"{"a":[]}"#), HOLDS),
        ("null is a value", optional(ok()), object(r#"{"a":[null]}"#), WRONG),
        ("the best there can be", ok(), Arguments::Best, (true, false)),
        ("the worst there can be", optional(ok()), Arguments::Worst, (false, true)),
    ] {
        assert_eq!(check("/a/*", constraint, arguments), expected, "{case}");
    }
}

#[test]
fn all_constraints_of_a_block_have_to_hold() {
    let reading = Reading::new(Arguments::Json(br#"{"a":"ok","b":5}"#));
    let argument = |pointer: &str, constraint| Argument {
        pointer: pointer.parse().unwrap(),
        constraint,
    };
    for (case, second, allow, deny) in [
        ("both hold", between("", "5"), None, None),
        ("one fails", between("6", ""), Some(1), Some(1)),
        ("one is of a wrong type", pattern("5"), Some(1), None),
    ] {
        let both = [argument("/a", is_in(&["ok"])), argument("/b", second)];
        assert_eq!(reading.failed(&both, Effect::Allow), allow, "{case}");
        assert_eq!(reading.failed(&both, Effect::Deny), deny, "{case}");
    }
    assert_eq!(reading.failed(&[], Effect::Deny), None);
}

#[test]
fn nothing_is_read_before_it_is_asked_for() {
    let reading = Reading::new(Arguments::Json(b"{}"));
    assert_eq!(reading.failed(&[], Effect::Allow), None);
    assert!(reading.members.get().is_none());
}

#[test]
fn shows_which_arguments_there_are_and_nothing_of_them() {
    for (arguments, shown) in [
        (Arguments::Best, "Best"),
        (Arguments::Worst, "Worst"),
        (Arguments::Absent, "Absent"),
        (Arguments::Json(br#"{"a":"hunter2"}"#), "Json"),
    ] {
        assert_eq!(format!("{arguments:?}"), shown);
        assert_eq!(format!("{:?}", Reading::new(arguments)), shown);
    }
}

#[test]
fn pointers_and_patterns_that_are_none() {
    for (text, expected) in [
        ("owner", PointerError::NoSlash),
        ("/a~", PointerError::Escape),
        ("/a~2b", PointerError::Escape),
    ] {
        assert_eq!(text.parse::<Pointer>(), Err(expected), "{text}");
    }
    let deep = |segments: usize| "/a".repeat(segments).parse::<Pointer>();
    assert_eq!(deep(64).map(|deep| deep.to_string()), Ok("/a".repeat(64)));
    assert_eq!(deep(65), Err(PointerError::TooDeep));
    for (text, expected) in [
        ("(", "not a regular expression: unclosed group"),
        (
            "(?=x)",
            "look-around, including look-ahead and look-behind, is not supported",
        ),
        ("(a)\\1", "backreferences are not supported"),
        ("(?:\\w{500}){500}", "bytes"),
    ] {
        let error = text.parse::<TextPattern>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn constraints_are_the_same_if_their_patterns_are_written_alike() {
    assert_eq!(pattern("^src/"), pattern("^src/"));
    assert_ne!(pattern("^src/"), pattern("^src"));
    // What they find does not count.
    assert_ne!(pattern("a"), pattern("[a]"));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_somehow(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}\",:a0-9eE.+\\\\u*-]{0,40}") {
        let constraint = Constraint {
            max_length: Some(3),
            ..both_lists()
        };
        for json in [&*bytes, text.as_bytes(), format!("{{\"a\":{text}}}").as_bytes()] {
            for pointer in ["", "/a", "/a/*", "/a/0/a", "/*"] {
                // A Deny is never passed by what an Allow would not match for being unreadable.
                if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_err() {
                    prop_assert_eq!(check(pointer, constraint.clone(), Arguments::Json(json)), WRONG);
                } else {
                    check(pointer, constraint.clone(), Arguments::Json(json));
                }
            }
        }
    }
}

fn both_lists() -> Constraint {
    Constraint {
        none_of: list(&["1", "a"]),
        ..is_in(&["0", "null", "true", "a"])
    }
}

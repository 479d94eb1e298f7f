//! What is said of arguments that do not match.

use super::*;
use crate::{Argument, JsonType, Scalar, arguments::Reading};

#[test]
fn names_arguments_by_their_type_alone() {
    let argument = |pointer: &str, constraint| Argument {
        pointer: pointer.parse().unwrap(),
        constraint,
    };
    let rules = || {
        vec![Rule {
            mcp: vec![McpBlock {
                arguments: vec![
                    argument(
                        "/owner",
                        Constraint {
                            one_of: Some(vec![
                                Scalar::String("acme".into()),
                                Scalar::Number("7".parse().unwrap()),
                            ]),
                            ..Constraint::default()
                        },
                    ),
                    argument(
                        "/files/*/path",
                        Constraint {
                            pattern: Some("^src/".parse().unwrap()),
                            max_length: Some(80),
                            optional: true,
                            ..Constraint::default()
                        },
                    ),
                ],
                ..McpBlock::default()
            }],
            ..rule()
        }]
    };
    let owner = r#"mcp[0].arguments[/owner]: expected "acme" or 7, got "#;
    let path = r#"mcp[0].arguments[/files/*/path]: expected text that matches "^src/" and a length of at most 80, or nothing, got "#;
    let unreadable = "no object or array where one must be, or a key that passes for another";
    for (effect, arguments, expected) in [
        (
            Effect::Allow,
            r#"{"owner": "acme", "files": [{"path": "src/a"}]}"#,
            "matched".to_owned(),
        ),
        (
            Effect::Allow,
            r#"{"owner": "secret"}"#,
            format!("{owner}a string"),
        ),
        (Effect::Allow, r#"{"owner": null}"#, format!("{owner}null")),
        (Effect::Allow, "{}", format!("{owner}nothing")),
        (
            Effect::Allow,
            r#"{"Owner": "acme"}"#,
            format!("{owner}{unreadable}"),
        ),
        (
            Effect::Allow,
            r#"{"owner": 7.0, "files": [{"path": "src/a"}, {"path": 5.5}]}"#,
            format!("{path}a number"),
        ),
        (
            Effect::Allow,
            r#"{"owner": 7.0, "files": [{"path": 5.5}, {"path": "src/a"}]}"#,
            format!("{path}a number"),
        ),
        (
            Effect::Allow,
            r#"{"owner": 7, "files": [5, {"path": "src/a"}]}"#,
            format!("{path}{unreadable}"),
        ),
        (
            Effect::Deny,
            r#"{"owner": "secret"}"#,
            format!("{owner}a string"),
        ),
        (
            Effect::Deny,
            r#"{"owner": ["acme"], "files": [{"path": "secret"}]}"#,
            format!("{path}a string"),
        ),
    ] {
        let action = Action::Mcp {
            server: ServerId(0),
            method: "tools/call",
            name: "x",
            arguments: Arguments::Json(arguments.as_bytes()),
        };
        assert!(!format!("{action:?}").contains("owner"));
        let explanation = explain(effect, rules(), ME, action);
        let outcome = explanation.trace[0].outcome.to_string();
        assert_eq!(outcome, expected, "{effect:?} {arguments}");
    }
    for (effect, arguments, expected) in [
        (Effect::Deny, Arguments::Best, "any arguments"),
        (Effect::Allow, Arguments::Worst, "any arguments"),
        (Effect::Allow, Arguments::Absent, "no arguments"),
    ] {
        let action = Action::Mcp {
            server: ServerId(0),
            method: "tools/call",
            name: "x",
            arguments,
        };
        let explanation = explain(effect, rules(), ME, action);
        assert_eq!(
            explanation.trace[0].outcome.to_string(),
            format!("{owner}{expected}")
        );
    }
}

#[test]
fn says_what_is_asked_of_an_argument() {
    let any = Constraint::default;
    let is = |is| Constraint {
        is: Some(is),
        ..any()
    };
    let listed = || {
        Some(vec![
            Scalar::Null,
            Scalar::Bool(true),
            Scalar::Number("1.50".parse().unwrap()),
            Scalar::String("a\n".into()),
        ])
    };
    let both = Constraint {
        one_of: listed(),
        none_of: listed(),
        ..any()
    };
    let sizes = Constraint {
        min: "-1".parse().ok(),
        max: "1e2".parse().ok(),
        min_length: Some(1),
        max_length: Some(9),
        ..any()
    };
    let optional = Constraint {
        optional: true,
        ..any()
    };
    for (constraint, expected) in [
        (any(), "a value"),
        (optional, "a value, or nothing"),
        (is(JsonType::String), "a string"),
        (is(JsonType::Number), "a number"),
        (is(JsonType::Integer), "an integer"),
        (is(JsonType::Boolean), "a boolean"),
        (is(JsonType::Array), "an array"),
        (is(JsonType::Object), "an object"),
        (is(JsonType::Null), "null"),
        (
            both,
            r#"null, true, 1.50 or "a\n" and not null, true, 1.50 or "a\n""#,
        ),
        (
            sizes,
            "at least -1 and at most 1e2 and a length of at least 1 and a length of at most 9",
        ),
    ] {
        assert_eq!(expected_argument(&constraint), expected);
    }
}

#[test]
fn says_of_which_type_an_argument_is() {
    let argument = Argument {
        pointer: "/a".parse().unwrap(),
        constraint: Constraint {
            one_of: Some(vec![]),
            ..Constraint::default()
        },
    };
    for (value, expected) in [
        (r#""hunter2""#, "a string"),
        ("1.5", "a number"),
        ("1.0", "an integer"),
        ("false", "a boolean"),
        ("[1]", "an array"),
        ("{}", "an object"),
        ("null", "null"),
    ] {
        let json = format!(r#"{{"a":{value}}}"#);
        let reading = Reading::new(Arguments::Json(json.as_bytes()));
        assert_eq!(reading.actual(&argument, Effect::Allow), expected);
    }
}

use super::*;

fn check(dialect: Dialect, body: &str) -> String {
    match filter_models(dialect, body.as_bytes(), |id| id.starts_with("ok")) {
        Ok(filtered) => String::from_utf8(filtered).unwrap(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn filters() {
    use Dialect::{Anthropic, OpenAi};
    for (case, dialect, body, expected) in [
        (
            "openai",
            OpenAi,
            r#"{"object":"list","data":[{"id":"no"}, {"id":"ok-1", "x": [1.0e5, "é"]},{"id":"ok-2"}]}"#,
            r#"{"object":"list","data":[{"id":"ok-1", "x": [1.0e5, "é"]},{"id":"ok-2"}]}"#,
        ),
        (
            "nothing left",
            OpenAi,
            r#"{"data":[{"id":"no"}],"object":"list"}"#,
            r#"{"data":[],"object":"list"}"#,
        ),
        ("empty", OpenAi, r#"{"data":[]}"#, r#"{"data":[]}"#),
        (
            "escaped id",
            OpenAi,
            r#"{"data":[{"id":"\u006fk"},{"id":"\u006eok"}]}"#,
            r#"{"data":[{"id":"\u006fk"}]}"#,
        ),
        (
            "strange items",
            OpenAi,
            r#"{"data":["ok",{"id":1},{},{"name":"ok"},null,{"id":"no","id":"ok"}]}"#,
            r#"{"data":[]}"#,
        ),
        (
            "a second list",
            OpenAi,
            r#"{"models":[{"name":"no"}],"data":[{"id":"no"}],"more":{"no":1},"n":1}"#,
            r#"{"data":[],"n":1}"#,
        ),
        (
            "anthropic",
            Anthropic,
            r#"{"data":[{"id":"no-1"},{"id":"ok-1"},{"id":"ok-2"},{"id":"no-2"}],"has_more":true,"first_id":"no-1","last_id":"no-2"}"#,
            r#"{"data":[{"id":"ok-1"},{"id":"ok-2"}],"has_more":true,"first_id":"ok-1","last_id":"ok-2"}"#,
        ),
        (
            "anthropic, nothing left",
            Anthropic,
            r#"{"data":[{"id":"no"}],"has_more":false,"first_id":"no","last_id":"no"}"#,
            r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#,
        ),
        (
            "no data",
            OpenAi,
            r#"{"object":"list"}"#,
            "the list of models has no array under `data`",
        ),
        (
            "data is no array",
            OpenAi,
            r#"{"data":{"id":"ok"}}"#,
            "the list of models has no array under `data`",
        ),
    ] {
        assert_eq!(check(dialect, body), expected, "{case}");
    }
    for body in [
        "",
        "[]",
        r#"{"data":[{"id":"ok"}"#,
        r#"{"data":[],"data":[]}"#,
    ] {
        let error = filter_models(OpenAi, body.as_bytes(), |_| true);
        assert!(matches!(error, Err(FilterError::Json(_))), "{body}");
    }
}

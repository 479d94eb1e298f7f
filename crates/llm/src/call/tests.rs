use proptest::prelude::*;

use super::*;

const NOTHING: Allowances = Allowances {
    background: false,
    stored: false,
};

fn parse(operation: Operation, body: &str, allow: &Allowances) -> Result<Call, CallError> {
    let dialect = match operation {
        Operation::Messages | Operation::CountTokens => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    };
    Call::parse(dialect, operation, &Bytes::from(body.to_owned()), allow)
}

/// `model`, `stream`, `max` and `wants` as far as they are set, or the refusal.
fn check(operation: Operation, body: &str) -> String {
    match parse(operation, body, &NOTHING) {
        Err(error) => {
            let refusal = Refusal::from(error);
            format!("{}: {}", refusal.code.as_str(), refusal.message)
        }
        Ok(call) => {
            let mut text = call.model.to_string();
            if call.stream {
                text.push_str(" stream");
            }
            if let Some(max) = call.max_output_tokens {
                text.push_str(&format!(" max {max}"));
            }
            if call.wants_usage {
                text.push_str(" usage");
            }
            text
        }
    }
}

const WRONG_MODEL: &str =
    "bad_request: `model` must be a string of 1 to 256 bytes without control characters";

#[test]
fn reads_calls() {
    use Operation::{Chat, CountTokens, Embeddings, Messages, Responses};
    for (operation, body, expected) in [
        (Chat, r#"{"model":"m"}"#, "m"),
        (Chat, r#" {"messages":[],"model":"a\u002fb"} "#, "a/b"),
        (Chat, r#"{"\u006dodel":"m"}"#, "m"),
        (Chat, r#"{"model":"m","stream":true}"#, "m stream"),
        (Chat, r#"{"model":"m","stream":false}"#, "m"),
        (Chat, r#"{"model":"m","stream":null}"#, "m"),
        (Chat, r#"{"model":"m","max_tokens":5}"#, "m max 5"),
        (
            Chat,
            r#"{"model":"m","max_completion_tokens":7,"max_tokens":5}"#,
            "m max 7",
        ),
        (Chat, r#"{"n":3,"model":"m","max_tokens":5}"#, "m max 15"),
        (Chat, r#"{"n":null,"model":"m","max_tokens":null}"#, "m"),
        (Chat, r#"{"n":0,"model":"m","max_tokens":5}"#, "m max 5"),
        (
            Chat,
            r#"{"n":18446744073709551615,"model":"m","max_tokens":5}"#,
            "m max 18446744073709551615",
        ),
        (
            Chat,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            "m stream usage",
        ),
        (Chat, r#"{"model":"m","store":true}"#, "m"),
        (
            Chat,
            r#"{"model":"m","previous_response_id":null,"background":false,"models":null}"#,
            "m",
        ),
        (
            Responses,
            r#"{"model":"m","max_output_tokens":9,"max_tokens":50,"n":2}"#,
            "m max 9",
        ),
        (
            Responses,
            r#"{"model":"m","stream":true,"store":true}"#,
            "m stream",
        ),
        (Embeddings, r#"{"model":"m","input":[[1,2],[3]]}"#, "m"),
        (
            Messages,
            r#"{"model":"m","max_tokens":1024,"stream":true,"messages":[]}"#,
            "m stream max 1024",
        ),
        (
            Messages,
            r#"{"model":"m","n":5,"max_tokens":4,"conversation":"x"}"#,
            "m max 4",
        ),
        (CountTokens, r#"{"model":"m","stream":true}"#, "m"),
    ] {
        assert_eq!(check(operation, body), expected, "{body}");
    }
}

#[test]
fn refuses_calls() {
    use Operation::{Chat, Messages, Responses};
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(257));
    for (operation, body, expected) in [
        (Chat, "{}", WRONG_MODEL),
        (Chat, r#"{"model":null}"#, WRONG_MODEL),
        (Chat, r#"{"model":["m"]}"#, WRONG_MODEL),
        (Chat, r#"{"model":""}"#, WRONG_MODEL),
        (Chat, r#"{"model":"a\nb"}"#, WRONG_MODEL),
        (Chat, &long, WRONG_MODEL),
        (
            Chat,
            r#"{"model":"m","stream":"true"}"#,
            "bad_request: `stream` must be true or false",
        ),
        (
            Chat,
            r#"{"model":"m","stream":1}"#,
            "bad_request: `stream` must be true or false",
        ),
        (
            Chat,
            r#"{"model":"m","max_tokens":"5"}"#,
            "bad_request: `max_tokens` must be a whole number",
        ),
        (
            Chat,
            r#"{"model":"m","max_tokens":1e9}"#,
            "bad_request: `max_tokens` must be a whole number",
        ),
        (
            Chat,
            r#"{"model":"m","max_tokens":-1}"#,
            "bad_request: `max_tokens` must be a whole number",
        ),
        (
            Chat,
            r#"{"model":"m","n":2.0}"#,
            "bad_request: `n` must be a whole number",
        ),
        (
            Chat,
            r#"{"model":"m","stream_options":[]}"#,
            "bad_request: `stream_options` must be an object",
        ),
        (
            Chat,
            r#"{"model":"m","stream_options":{"include_usage":"no"}}"#,
            "bad_request: `stream_options.include_usage` must be true or false",
        ),
        (
            Chat,
            r#"{"model":"m","stream_options":{"Include_Usage":false}}"#,
            "bad_request: a field name differs from `include_usage` only in case",
        ),
        (
            Chat,
            r#"{"model":"m","Model":"x"}"#,
            "bad_request: a field name differs from `model` only in case",
        ),
        (
            Chat,
            r#"{"model":"m","ſtream":true}"#,
            "bad_request: a field name differs from `stream` only in case",
        ),
        (
            Chat,
            r#"{"model":"m","models":["x"]}"#,
            "operation_not_allowed: `models` is not allowed here: a call names one model, in `model`",
        ),
        (
            Chat,
            r#"{"model":"m","fallbacks":["x"]}"#,
            "operation_not_allowed: `fallbacks` is not allowed here: a call names one model, in `model`",
        ),
        (
            Responses,
            r#"{"model":"m","background":true}"#,
            "operation_not_allowed: `background` is not allowed here: \
             the answer of a background call cannot be accounted for",
        ),
        (
            Responses,
            r#"{"model":"m","background":"true"}"#,
            "bad_request: `background` must be true or false",
        ),
        (
            Responses,
            r#"{"model":"m","previous_response_id":"resp_1"}"#,
            "operation_not_allowed: `previous_response_id` is not allowed here: \
             history kept by the provider cannot be inspected",
        ),
        (
            Responses,
            r#"{"model":"m","conversation":{"id":"c"}}"#,
            "operation_not_allowed: `conversation` is not allowed here: \
             history kept by the provider cannot be inspected",
        ),
        (
            Messages,
            r#"{"model":"m","thread":"t"}"#,
            "operation_not_allowed: `thread` is not allowed here: \
             history kept by the provider cannot be inspected",
        ),
    ] {
        assert_eq!(check(operation, body), expected, "{body}");
    }
}

#[test]
fn refuses_what_is_not_one_strict_object() {
    for (case, body) in [
        ("empty", &b""[..]),
        ("array", br#"[{"model":"m"}]"#),
        ("string", br#""model""#),
        ("repeated key", br#"{"model":"m","model":"x"}"#),
        (
            "repeated after unescaping",
            br#"{"model":"m","\u006dodel":"x"}"#,
        ),
        (
            "repeated in stream_options",
            br#"{"model":"m","stream_options":{"a":1,"a":2}}"#,
        ),
        ("byte order mark", b"\xef\xbb\xbf{\"model\":\"m\"}"),
        ("not UTF-8", b"{\"model\":\"m\",\"x\":\"\xff\"}"),
        ("overlong", b"{\"model\":\"m\",\"x\":\"\xc0\xaf\"}"),
        ("lone surrogate", br#"{"model":"m","x":"\ud800"}"#),
        ("lone surrogate in the model", br#"{"model":"\udfff"}"#),
        ("trailing text", br#"{"model":"m"}x"#),
        ("cut", br#"{"model":"m""#),
        ("single quotes", b"{'model':'m'}"),
        ("NaN", br#"{"model":"m","temperature":NaN}"#),
    ] {
        let body = Bytes::from_static(body);
        let error = Call::parse(Dialect::OpenAi, Operation::Chat, &body, &Allowances::ALL);
        assert!(
            matches!(error, Err(CallError::Json(_))),
            "{case}: {error:?}"
        );
    }
}

#[test]
fn deep_nesting_is_refused_without_reading_far() {
    for open in ["[", "{\"a\":", "{\"model\":["] {
        let body = open.repeat((20 << 20) / open.len());
        assert!(parse(Operation::Chat, &body, &NOTHING).is_err(), "{open}");
    }
}

#[test]
fn what_is_allowed_is_noted() {
    let allowed = |operation, body| parse(operation, body, &Allowances::ALL).unwrap().needs;
    for (operation, body, background, stored) in [
        (Operation::Responses, r#"{"model":"m"}"#, false, false),
        (
            Operation::Responses,
            r#"{"model":"m","background":true}"#,
            true,
            false,
        ),
        (
            Operation::Responses,
            r#"{"model":"m","conversation":"c"}"#,
            false,
            true,
        ),
        (
            Operation::Messages,
            r#"{"model":"m","thread":{}}"#,
            false,
            true,
        ),
    ] {
        let needs = Allowances { background, stored };
        assert_eq!(allowed(operation, body), needs, "{body}");
        assert!(Allowances::ALL.cover(needs));
        assert_eq!(NOTHING.cover(needs), needs == NOTHING);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        let _ = Call::parse(Dialect::OpenAi, Operation::Chat, &body, &NOTHING);
    }
}

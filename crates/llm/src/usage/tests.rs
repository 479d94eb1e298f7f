use super::*;

fn check(dialect: Dialect, operation: Operation, body: &str) -> String {
    let usage = match read_answer(dialect, operation, body.as_bytes()) {
        Err(_) => return "cut".to_owned(),
        Ok(None) => return "none".to_owned(),
        Ok(Some(usage)) => usage,
    };
    assert_eq!(usage.source, Source::Upstream);
    let show = |tokens: Option<u64>| tokens.map_or("-".to_owned(), |tokens| tokens.to_string());
    let fields = [
        usage.input,
        usage.cached_input,
        usage.cache_write,
        usage.output,
        usage.reasoning,
    ];
    fields.map(show).join(" ")
}

#[test]
fn reads_answers() {
    use Dialect::{Anthropic, OpenAi};
    use Operation::{Chat, CountTokens, Embeddings, Messages, Responses};
    for (case, dialect, operation, body, expected) in [
        (
            "chat",
            OpenAi,
            Chat,
            r#"{"id":"x","usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
                "prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2,"audio_tokens":0},
                "completion_tokens_details":{"reasoning_tokens":3}}}"#,
            "10 4 2 5 3",
        ),
        (
            "chat, little",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":10,"completion_tokens":5}}"#,
            "10 - - 5 -",
        ),
        (
            "nulls",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":10,"completion_tokens":null,"prompt_tokens_details":null}}"#,
            "10 - - - -",
        ),
        (
            "reasoning only in the total",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":10,"completion_tokens":0,"total_tokens":60}}"#,
            "10 - - 50 -",
        ),
        (
            "deepseek",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":10,"completion_tokens":1,"prompt_cache_hit_tokens":8}}"#,
            "10 8 - 1 -",
        ),
        (
            "groq",
            OpenAi,
            Chat,
            r#"{"x_groq":{"usage":{"prompt_tokens":1,"completion_tokens":2}}}"#,
            "1 - - 2 -",
        ),
        (
            "responses",
            OpenAi,
            Responses,
            r#"{"usage":{"input_tokens":7,"output_tokens":9,"total_tokens":16,
                "input_tokens_details":{"cached_tokens":0},"output_tokens_details":{"reasoning_tokens":8}}}"#,
            "7 0 - 9 8",
        ),
        (
            "embeddings",
            OpenAi,
            Embeddings,
            r#"{"data":[],"usage":{"prompt_tokens":6,"total_tokens":6}}"#,
            "6 - - - -",
        ),
        (
            "messages",
            Anthropic,
            Messages,
            r#"{"usage":{"input_tokens":3,"cache_creation_input_tokens":100,"cache_read_input_tokens":1000,
                "output_tokens":20,"output_tokens_details":{"thinking_tokens":12}}}"#,
            "1103 1000 100 20 12",
        ),
        (
            "messages, cache by age",
            Anthropic,
            Messages,
            r#"{"usage":{"input_tokens":3,"output_tokens":1,
                "cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":6}}}"#,
            "14 - 11 1 -",
        ),
        (
            "overflow",
            Anthropic,
            Messages,
            r#"{"usage":{"input_tokens":18446744073709551615,"cache_read_input_tokens":1}}"#,
            "18446744073709551615 1 - - -",
        ),
        (
            "counting is free",
            Anthropic,
            CountTokens,
            r#"{"input_tokens":14}"#,
            "none",
        ),
        ("absent", OpenAi, Chat, r#"{"choices":[]}"#, "none"),
        ("null", OpenAi, Chat, r#"{"usage":null}"#, "none"),
        ("text", OpenAi, Chat, r#"{"usage":"5"}"#, "none"),
        (
            "numbers of other kinds",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"5"}}"#,
            "- - - - -",
        ),
        (
            "cut",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":10}"#,
            "cut",
        ),
        ("empty", OpenAi, Chat, "", "cut"),
        (
            "usage twice inside: the last counts",
            OpenAi,
            Chat,
            r#"{"usage":{"prompt_tokens":1,"prompt_tokens":10,"completion_tokens":5}}"#,
            "10 - - 5 -",
        ),
        (
            "both names: that of chat counts",
            OpenAi,
            Chat,
            r#"{"usage":{"input_tokens":1,"prompt_tokens":10,"output_tokens":2,"completion_tokens":5}}"#,
            "10 - - 5 -",
        ),
    ] {
        assert_eq!(check(dialect, operation, body), expected, "{case}");
    }
}

#[test]
fn knows_whole_answers() {
    for (body, expected) in [
        (&br#"{"a":[1,{"b":"\ud800"}]}"#[..], true),
        (b" {}\n", true),
        (b"", false),
        (b"{", false),
        (b"[]", false),
        (br#"{"a":1"#, false),
        (b"{} {}", false),
        (b"<html>", false),
        (b"{\"a\":\"\xff\"}", false),
    ] {
        let text = String::from_utf8_lossy(body);
        for operation in [Operation::Chat, Operation::CountTokens] {
            let read = read_answer(Dialect::OpenAi, operation, body);
            assert_eq!(read.is_ok(), expected, "{text}");
        }
    }
    let deep = vec![b'['; 20 << 20];
    assert!(read_answer(Dialect::OpenAi, Operation::Chat, &deep).is_err());
}

use super::*;

fn check(method: &str, path: &str, has_anthropic_version: bool) -> String {
    match classify(method, path, has_anthropic_version) {
        None => "-".to_owned(),
        Some((dialect, operation, None)) => format!("{dialect} {}", operation.as_str()),
        Some((dialect, operation, Some(model))) => {
            format!("{dialect} {} {model}", operation.as_str())
        }
    }
}

#[test]
fn classifies() {
    for (method, path, version, expected) in [
        ("POST", "/v1/chat/completions", false, "openai chat"),
        ("POST", "/v1/responses", false, "openai responses"),
        ("POST", "/v1/embeddings", false, "openai embeddings"),
        ("POST", "/v1/messages", true, "anthropic messages"),
        ("POST", "/v1/messages", false, "anthropic messages"),
        (
            "POST",
            "/v1/messages/count_tokens",
            true,
            "anthropic count_tokens",
        ),
        ("GET", "/v1/models", false, "openai models"),
        ("GET", "/v1/models", true, "anthropic models"),
        ("GET", "/v1/models/gpt-4o", false, "openai models gpt-4o"),
        (
            "GET",
            "/v1/models/claude-x",
            true,
            "anthropic models claude-x",
        ),
        (
            "GET",
            "/v1/models/ft%3Agpt%2d4",
            false,
            "openai models ft:gpt-4",
        ),
        (
            "GET",
            "/v1/models/meta/llama",
            false,
            "openai models meta/llama",
        ),
        ("GET", "/v1/models/", false, "-"),
        ("GET", "/v1/models/a%0Ab", false, "-"),
        ("GET", "/v1/models/%", false, "-"),
        ("GET", "/v1/models/%4", false, "-"),
        ("GET", "/v1/models/%zz", false, "-"),
        ("GET", "/v1/models/%+1", false, "-"),
        ("GET", "/v1/models/%ff", false, "-"),
        ("GET", "/v1/models/%2e%2e", false, "-"),
        ("GET", "/v1/models/a%2f..%2f..%2ffiles", false, "-"),
        ("GET", "/v1/models//a", false, "-"),
        ("GET", "/v1/modelsx", false, "-"),
        ("DELETE", "/v1/models/ft", false, "-"),
        ("HEAD", "/v1/models", false, "-"),
        ("GET", "/v1/chat/completions", false, "-"),
        ("POST", "/v1/chat/completions/", false, "-"),
        ("GET", "/v1/responses/resp_1", false, "-"),
        ("POST", "/v1/responses/compact", false, "-"),
        ("POST", "/v1/messages/batches", true, "-"),
        ("POST", "/v1/files", false, "-"),
        ("post", "/v1/messages", false, "-"),
        ("POST", "", false, "-"),
    ] {
        assert_eq!(check(method, path, version), expected, "{method} {path}");
    }
}

#[test]
fn a_path_leads_back_to_its_operation() {
    for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
        for operation in dialect.operations() {
            let method = match operation {
                Operation::Models => "GET",
                _ => "POST",
            };
            let path = path_of(*operation, None);
            assert_eq!(
                classify(method, &path, dialect == Dialect::Anthropic),
                Some((dialect, *operation, None)),
            );
        }
    }
    for model in ["ft:gpt 4/x", "a?b#c", "50%", "模型"] {
        let path = path_of(Operation::Models, Some(model));
        assert!(path.is_ascii() && !path.contains(['?', '#', ' ']), "{path}");
        let (_, _, read) = classify("GET", &path, false).unwrap();
        assert_eq!(read.as_deref(), Some(model));
    }
}

#[test]
fn dialects_have_names() {
    use crate::DialectError;
    assert_eq!("OpenAI".parse(), Ok(Dialect::OpenAi));
    assert_eq!("Anthropic".parse(), Ok(Dialect::Anthropic));
    for name in ["Gemini", "AzureOpenAI", "Bedrock"] {
        let expected = DialectError::NotSupportedYet(name.to_owned());
        assert_eq!(name.parse::<Dialect>(), Err(expected));
    }
    let unknown = "openai".parse::<Dialect>();
    assert_eq!(unknown, Err(DialectError::Unknown("openai".to_owned())));
}

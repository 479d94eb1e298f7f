use std::fmt::Write as _;

use waypoint_policy::Code;

use super::*;

fn refusals() -> Vec<Refusal> {
    let refuse = |code: Code, message: &'static str| Refusal::new(code).with_message(message);
    vec![
        refuse(Code::IdentityRequired, "no identity"),
        refuse(Code::Forbidden, "access denied"),
        refuse(Code::ModelNotAllowed, "model not allowed"),
        refuse(Code::ModelNotFound, "no \"such\" model \u{1f600}\n"),
        refuse(Code::OperationNotAllowed, "not served"),
        refuse(Code::BadJson, "bad body"),
        refuse(Code::RequestTimeout, "too slow"),
        refuse(Code::BodyTooLarge, "too large"),
        refuse(Code::Internal, "our fault"),
        refuse(Code::UpstreamAuth, "credential"),
        refuse(Code::UpstreamUnavailable, "busy").with_retry_after(Duration::from_millis(1_500)),
        refuse(Code::UpstreamUnavailable, "very busy").with_retry_after(Duration::from_secs(61)),
        refuse(Code::Forbidden, "never").with_retry_after(Duration::from_secs(1)),
        refuse(Code::StreamIdle, "silent"),
    ]
}

fn document(dialect: Dialect) -> String {
    let mut text = String::new();
    for refusal in refusals() {
        let body = String::from_utf8(refusal_body(dialect, &refusal, "req-1")).unwrap();
        let _ = writeln!(text, "{}", refusal.status());
        for (name, value) in refusal_headers(&refusal, "req-1") {
            let _ = writeln!(text, "{name}: {value}");
        }
        let _ = writeln!(text, "\n{body}\n");
    }
    text
}

#[test]
fn speaks_openai() {
    insta::assert_snapshot!("openai", document(Dialect::OpenAi));
}

#[test]
fn speaks_anthropic() {
    insta::assert_snapshot!("anthropic", document(Dialect::Anthropic));
}

#[test]
fn ends_a_stream_in_both_dialects_at_once() {
    let refusal = Refusal::new(Code::PolicyRevoked).with_message("no longer\nallowed");
    let frames = [Dialect::OpenAi, Dialect::Anthropic]
        .map(|dialect| String::from_utf8(error_frame(dialect, &refusal, 7).to_vec()).unwrap());
    insta::assert_snapshot!("frames", frames.concat());
}

#[test]
fn a_refusal_is_an_error_in_its_dialect() {
    for refusal in refusals() {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            let body = refusal_body(dialect, &refusal, "req-1");
            assert!(is_error_in_dialect(dialect, &body));
        }
        let openai = refusal_body(Dialect::OpenAi, &refusal, "req-1");
        assert!(!is_error_in_dialect(Dialect::Anthropic, &openai));
    }
}

#[test]
fn knows_foreign_errors() {
    for (case, body) in [
        ("empty", &b""[..]),
        ("text", b"upstream connect error"),
        ("array", br#"[{"error":{"message":"m"}}]"#),
        ("string", br#"{"error":"m"}"#),
        ("no message", br#"{"type":"error","error":{"type":"t"}}"#),
        (
            "cut",
            br#"{"type":"error","error":{"type":"t","message":"m"}"#,
        ),
        ("not UTF-8", b"{\"error\":{\"message\":\"\xff\"}}"),
    ] {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            assert!(!is_error_in_dialect(dialect, body), "{case} {dialect}");
        }
    }
}

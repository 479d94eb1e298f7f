//! The bytes of requests and answers.

use std::fmt::Write as _;

use crate::case::{Case, EVENTS};

/// Tools that the server lists.
pub const TOOLS: usize = 200;
/// Tools of the list that the policies of the harness leave.
pub const TOOLS_PERMITTED: usize = 90;
/// The tool that is called.
pub const TOOL: &str = "tool_042";
/// The path of the MCP server, at every contender.
pub const MCP_PATH: &str = "/mcp/bench";
/// The model of an answer that stays open after its first event.
pub const IDLE_MODEL: &str = "gpt-idle";

/// The model that makes the upstream answer as a case wants it.
#[must_use]
pub fn model(case: Case) -> &'static str {
    match case {
        Case::Sse => "gpt-paced",
        Case::SseBurst => "gpt-burst",
        _ => "gpt-plain",
    }
}

/// One request, head and body.
#[must_use]
pub fn request(case: Case, session: Option<&str>) -> Vec<u8> {
    match case {
        Case::Chat1k => post("/v1/chat/completions", &chat(model(case), 1024, false), ""),
        Case::Chat64k => post(
            "/v1/chat/completions",
            &chat(model(case), 64 * 1024, false),
            "",
        ),
        Case::Sse | Case::SseBurst => {
            post("/v1/chat/completions", &chat(model(case), 1024, true), "")
        }
        Case::ToolsCall => mcp(&tools_call(200), session),
        Case::ToolsList => mcp(
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}"#,
            session,
        ),
    }
}

/// The request whose answer never ends.
#[must_use]
pub fn idle_request() -> Vec<u8> {
    post("/v1/chat/completions", &chat(IDLE_MODEL, 1024, true), "")
}

/// The request that opens an MCP session.
#[must_use]
pub fn initialize_request() -> Vec<u8> {
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
    post(MCP_PATH, body, "")
}

fn mcp(body: &str, session: Option<&str>) -> Vec<u8> {
    let mut head = String::from("mcp-protocol-version: 2025-06-18\r\n");
    if let Some(session) = session {
        let _ = write!(head, "mcp-session-id: {session}\r\n");
    }
    post(MCP_PATH, body, &head)
}

/// A request as an SDK would send it.
fn post(path: &str, body: &str, more: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: OpenAI/Python 1.99.0\r\n\
         accept: application/json, text/event-stream\r\naccept-encoding: identity\r\n\
         content-type: application/json\r\nauthorization: Bearer sk-caller\r\n\
         x-stainless-lang: python\r\nx-stainless-async: false\r\n{more}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The body of a chat call of about `bytes` bytes.
#[must_use]
pub fn chat(model: &str, bytes: usize, stream: bool) -> String {
    let flags = if stream {
        r#""stream":true,"stream_options":{"include_usage":true},"#
    } else {
        ""
    };
    let mut body = format!(
        r#"{{"model":"{model}",{flags}"max_tokens":256,"temperature":0.2,"messages":[{{"role":"system","content":"You review code.\nBe brief."}},{{"role":"user","content":""#
    );
    let end = r#""}]}"#;
    fill(&mut body, bytes.saturating_sub(end.len()));
    body.push_str(end);
    body
}

/// Grows `text` to `bytes` with prose and its escapes.
fn fill(text: &mut String, bytes: usize) {
    const PROSE: &str =
        r#"The parser keeps \"one\" state per line, and the caller decides what to do with it.\n"#;
    while text.len() + PROSE.len() <= bytes {
        text.push_str(PROSE);
    }
    while text.len() < bytes {
        text.push('.');
    }
}

/// The body of a call of [`TOOL`] with an argument of about `bytes` bytes.
#[must_use]
pub fn tools_call(bytes: usize) -> String {
    let mut body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{TOOL}","arguments":{{"owner":"acme","limit":20,"nested":{{"deep":[1,2,{{"x":true}}]}},"query":""#
    );
    let end = r#""},"_meta":{"progressToken":1}}}"#;
    let to = (body.len() + bytes).saturating_sub(end.len());
    fill(&mut body, to);
    body.push_str(end);
    body
}

/// A plain chat answer of 1 KiB.
#[must_use]
pub fn chat_answer() -> String {
    let mut body = String::from(
        r#"{"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion","created":1741570283,"model":"gpt-plain-2025-01-01","choices":[{"index":0,"finish_reason":"stop","logprobs":null,"message":{"role":"assistant","refusal":null,"annotations":[],"content":""#,
    );
    let end = r#""}}],"usage":{"prompt_tokens":229,"completion_tokens":187,"total_tokens":416,"prompt_tokens_details":{"cached_tokens":128,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default"}"#;
    fill(&mut body, 1024 - end.len());
    body.push_str(end);
    body
}

/// The [`EVENTS`] events of a streamed chat answer.
#[must_use]
pub fn chat_events() -> Vec<String> {
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1741570283,\"model\":\"gpt-paced-2025-01-01\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{choices}]{usage}}}\n\n"
        )
    };
    let delta = |delta: &str| {
        let choice =
            format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}"#);
        event(&choice, r#","usage":null"#)
    };
    let mut events = vec![delta(r#"{"role":"assistant","content":"","refusal":null}"#)];
    while events.len() < EVENTS - 3 {
        let token = events.len();
        events.push(delta(&format!(r#"{{"content":" token{token}"}}"#)));
    }
    events.push(event(
        r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}"#,
        r#","usage":null"#,
    ));
    events.push(event(
        "",
        r#","usage":{"prompt_tokens":229,"completion_tokens":46,"total_tokens":275,"prompt_tokens_details":{"cached_tokens":128}}"#,
    ));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// The result of a tool call; `id` as it was sent.
#[must_use]
pub fn tool_answer(id: &str) -> String {
    let mut body = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"isError":false,"content":[{{"type":"text","text":""#
    );
    let end = r#""}]}}"#;
    fill(&mut body, 512 - end.len());
    body.push_str(end);
    body
}

/// The answer to `initialize`; `id` as it was sent.
#[must_use]
pub fn initialize_answer(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2025-06-18","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"bench","version":"1"}}}}}}"#
    )
}

/// The list of [`TOOLS`] tools; `id` as it was sent.
#[must_use]
pub fn tools_answer(id: &str) -> String {
    let mut body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":["#);
    for tool in 0..TOOLS {
        let comma = if tool == 0 { "" } else { "," };
        let _ = write!(
            body,
            r#"{comma}{{"name":"tool_{tool:03}","title":"Tool {tool}","description":"Searches the repository for \"code\" and returns the matches.","inputSchema":{{"type":"object","properties":{{"query":{{"type":"string","description":"What to look for."}},"limit":{{"type":"integer","minimum":1,"maximum":100}}}},"required":["query"]}}}}"#
        );
    }
    body.push_str("]}}");
    body
}

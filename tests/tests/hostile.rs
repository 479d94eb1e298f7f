//! Callers and upstreams who mean harm: the process lives, memory is bounded, nothing leaks.

use std::sync::Arc;

use serde_json::json;
use waypoint_tests::client::{Client, Request};
use waypoint_tests::llm::{chat, chat_answer, chat_body, chat_stream, error_answer, messages};
use waypoint_tests::upstream::{Reply, Step, Upstream};
use waypoint_tests::waypoint::{ANN, Setup, Waypoint, agent, mcp_proxy, provider, route, secret};

/// More than a gateway of these tests may ever hold.
const MEMORY_MAX_BYTES: u64 = 384 << 20;

fn objects(upstream: &Arc<Upstream>) -> String {
    [
        provider("openai", "OpenAI", upstream, ""),
        provider("anthropic", "Anthropic", upstream, ""),
        route(
            "llm",
            "- backendRefs: [{name: openai}, {name: anthropic}]\n  retry: {attempts: 0}",
        ),
        mcp_proxy("tools", upstream, ""),
    ]
    .concat()
}

async fn start(reply: Reply) -> (Arc<Upstream>, Waypoint) {
    let upstream = Upstream::always(reply).await;
    let waypoint = Setup::new(&objects(&upstream)).start().await;
    (upstream, waypoint)
}

/// It serves as before, and has not grown out of bounds.
async fn assert_well(case: &str, waypoint: &Waypoint) {
    assert_eq!(waypoint.readiness().await.unwrap().0, 200, "{case}");
    let peak = waypoint.peak_memory();
    assert!(peak < MEMORY_MAX_BYTES, "{case}: {peak} bytes");
    assert!(
        !waypoint.stderr().contains("panicked"),
        "{case}: {}",
        waypoint.stderr()
    );
}

/// Bytes without meaning, the same in every run (xorshift).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length).map(|_| next().to_le_bytes()[3]).collect()
}

#[tokio::test]
async fn noise_on_every_port() {
    let (upstream, waypoint) = start(chat_answer()).await;
    let ports = &waypoint.ports;
    let beginnings: [&[u8]; 9] = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16\x03\x03\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n",
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT evil:1 HTTP/1.1\r\nhost: evil:1\r\n\r\n",
    ];
    let all = [
        ports.dev,
        ports.plain,
        ports.mtls,
        ports.optional,
        ports.admin,
        ports.metrics,
        ports.ready,
    ];
    let mut seed = 0;
    for port in all {
        let client = Client::plain(port);
        for beginning in beginnings {
            for length in [1, 9, 300, 5000] {
                seed += 1;
                let mut connection = client.connect().await.unwrap();
                // Both may fail when the other side has seen enough.
                let _ = connection.write(beginning).await;
                let _ = connection.write(&noise(seed, length)).await;
                let _ = connection.finish().await;
                connection.drain().await;
            }
        }
    }
    // Behind a handshake, too.
    for seed in 0..32 {
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        let _ = connection.write(&noise(1000 + seed, 2000)).await;
        let _ = connection.finish().await;
        connection.drain().await;
    }
    assert_well("noise", &waypoint).await;
    assert_eq!(upstream.seen().len(), 0);
    assert_eq!(
        waypoint
            .workload(ANN)
            .call(&chat("m"))
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn bodies_that_are_made_to_hurt() {
    let (upstream, waypoint) = start(chat_answer()).await;
    let ann = waypoint.workload(ANN);
    let nested =
        |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000));
    let keys: String = (0..200_000).map(|key| format!("\"{key}\":0,")).collect();
    let same: String = (0..200_000).map(|_| "\"a\":0,").collect();
    let values = [
        ("20,000 lists", nested("[", "]")),
        (
            "20,000 objects",
            nested("{\"a\":", "}").replace(":}", ":0}"),
        ),
        ("20,000 beginnings", "[".repeat(20_000)),
        ("many keys", format!("{{{keys}\"z\":0}}")),
        ("one key many times", format!("{{{same}\"z\":0}}")),
        ("a long number", "1".repeat(1 << 20)),
        ("a long exponent", format!("1e{}", "9".repeat(1 << 20))),
        ("many escapes", format!("\"{}\"", "\\u0000".repeat(200_000))),
        ("no end", format!("\"{}", "a".repeat(1 << 20))),
        ("invalid UTF-8", "\u{0}".into()),
    ];
    for (case, value) in values {
        let llm = format!("{{\"model\":\"m\",\"x\":{value}}}");
        let mcp = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"a\",\"arguments\":{value}}}}}"
        );
        for (path, body) in [
            ("/ai/v1/chat/completions", &llm),
            ("/ai/v1/messages", &llm),
            ("/mcp/tools/", &mcp),
        ] {
            let mut request = Request::post(path, body.clone());
            if case == "invalid UTF-8" {
                request.body = body
                    .replace('\u{0}', "\"?\"")
                    .bytes()
                    .map(|byte| if byte == b'?' { 0xc0 } else { byte })
                    .collect();
            }
            let before = upstream.seen().len();
            let answer = ann.call(&request).await.unwrap();
            let passed = upstream.seen().len() > before;
            // Large is not wrong. What passes, passes whole.
            let harmless = [
                "many keys",
                "a long number",
                "a long exponent",
                "many escapes",
                "one key many times",
            ];
            if passed {
                assert!(harmless.contains(&case), "{case} at {path}");
                assert!(upstream.last().body == request.body, "{case} at {path}");
            } else {
                assert_eq!(answer.status, 400, "{case} at {path}: {}", answer.text());
            }
        }
        assert_well(case, &waypoint).await;
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_held() {
    let (upstream, waypoint) = start(chat_answer()).await;
    let piece = [b"10000\r\n".to_vec(), vec![b' '; 1 << 16], b"\r\n".to_vec()].concat();
    for path in ["/ai/v1/chat/completions", "/mcp/tools/"] {
        let mut connection = waypoint.workload(ANN).connect().await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        connection.write(head.as_bytes()).await.unwrap();
        let mut sent = 0;
        // A gigabyte would be far beyond every limit.
        while sent < 16_384 && connection.write(&piece).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 16_384, "{path}: all of it was taken");
    }
    assert_well("endless bodies", &waypoint).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn answers_that_are_made_to_hurt() {
    use std::io::Write as _;
    // Of spaces, 256 mebibytes in about one.
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..256 {
        coder.write_all(&spaces).unwrap();
    }
    let bomb = coder.finish().unwrap();
    let json = ("content-type", "application/json");
    let sse = ("content-type", "text/event-stream");
    let gzip = ("content-encoding", "gzip");
    let chunk = [b"10000\r\n".to_vec(), vec![b'a'; 1 << 16], b"\r\n".to_vec()].concat();
    let head: String = (0..100_000)
        .map(|number| format!("x-{number}: a\r\n"))
        .collect();
    for (case, reply, request) in [
        (
            "a gzip bomb",
            Reply::whole(200, &[json, gzip], &bomb),
            chat("m"),
        ),
        (
            "a gzip bomb as an error",
            Reply::whole(500, &[json, gzip], &bomb),
            chat("m"),
        ),
        (
            "a gzip bomb as a stream",
            Reply::chunked(200, &[sse, gzip]).chunk(&bomb).end(),
            chat_stream("m"),
        ),
        (
            "a line without end",
            Reply::stream().then(Step::Endless(chunk.clone())),
            chat_stream("m"),
        ),
        (
            "an answer without end",
            Reply::chunked(200, &[json]).then(Step::Endless(chunk.clone())),
            chat("m"),
        ),
        (
            "an error without end",
            Reply::chunked(503, &[json]).then(Step::Endless(chunk.clone())),
            chat("m"),
        ),
        (
            "a head without end",
            Reply::raw("HTTP/1.1 200 OK\r\n").then(Step::Endless(b"x-a: b\r\n".repeat(1000))),
            chat("m"),
        ),
        (
            "a large head",
            Reply::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n")),
            chat("m"),
        ),
        (
            "interim answers without end",
            Reply::default().then(Step::Endless(
                b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000),
            )),
            chat("m"),
        ),
    ] {
        let upstream = Upstream::always(reply).await;
        let rules =
            "- backendRefs: [{name: openai}]\n  retry: {attempts: 0}\n  timeouts: {request: 5s}";
        let objects = [
            provider("openai", "OpenAI", &upstream, ""),
            route("llm", rules),
        ];
        let limits = "sseEventBytes: 1048576\nanswerBytes: 4194304";
        let waypoint = Setup::new(&objects.concat()).limits(limits).start().await;
        let answer = waypoint.workload(ANN).call(&request).await.unwrap();
        let error = if answer.status == 200 {
            answer.text().contains("event: error\n")
        } else {
            answer.status >= 500
        };
        assert!(error, "{case}: {} {:.200}", answer.status, answer.text());
        assert_well(case, &waypoint).await;
        let peak = waypoint.peak_memory();
        assert!(peak < 128 << 20, "{case}: {peak} bytes");
    }
}

/// An HTTP/2 frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn frames_that_are_made_to_hurt() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    let (upstream, waypoint) = start(chat_answer()).await;
    // POST, http, `/`, and an authority of one byte (RFC 7541).
    let request = [0x83, 0x86, 0x84, 0x41, 0x01, b'a'];
    // A literal field that is not indexed, 16 KiB long.
    let filler = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7f][..], &[b'a'; 16_384]].concat();
    let opened = |number: u32| frame(HEADERS, 0x4, 2 * number + 1, &request);
    let resets = |number: u32| {
        [
            opened(number),
            frame(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8]),
        ]
        .concat()
    };
    type Frames<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let kinds: [(&str, Frames<'_>); 6] = [
        ("streams that are reset at once", &resets),
        ("streams that never end", &opened),
        ("a head that never ends", &|number| match number {
            0 => frame(HEADERS, 0, 1, &request),
            _ => frame(CONTINUATION, 0, 1, &filler[..16_000]),
        }),
        ("settings", &|_| frame(SETTINGS, 0, 0, &[])),
        ("pings", &|_| frame(PING, 0, 0, &[0; 8])),
        ("windows that overflow", &|_| {
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])
        }),
    ];
    for (case, frames) in kinds {
        for client in [waypoint.developer(), waypoint.anonymous()] {
            let mut connection = client.connect().await.unwrap();
            let preface = [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                frame(SETTINGS, 0, 0, &[]),
            ]
            .concat();
            connection.write(&preface).await.unwrap();
            for number in 0..4_000 {
                // At some point the other side has seen enough.
                if connection.write(&frames(number)).await.is_err() {
                    break;
                }
            }
            let _ = connection.finish().await;
            connection.drain().await;
        }
        assert_well(case, &waypoint).await;
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(
        waypoint
            .workload(ANN)
            .call(&chat("m"))
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn nothing_of_keys_and_prompts_is_written_down() {
    const CANARY: &str = "canary-4711";
    let canary = |what: &str| format!("{CANARY}-{what}");
    let upstream = Upstream::start(move |seen| match seen.number % 6 {
        0 => chat_answer(),
        1 => Reply::status(
            500,
            &json!({"error": {"message": canary("error"), "code": "x"}}),
        ),
        2 => Reply::stream()
            .chunk(format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
                canary("stream")
            ))
            .then(Step::Reset),
        3 => Reply::whole(
            200,
            &[("content-type", "application/json")],
            format!("{{\"{}\":", canary("cut")),
        ),
        4 => Reply::raw(format!("HTTP/9 {}\r\n\r\n", canary("head"))).then(Step::Close),
        _ => error_answer(401, &canary("key"), &[]),
    })
    .await;
    let canary = |what: &str| format!("{CANARY}-{what}");
    let objects = [
        provider(
            "openai",
            "OpenAI",
            &upstream,
            "credential: {secretRef: {name: keys, key: key}}",
        ),
        provider(
            "anthropic",
            "Anthropic",
            &upstream,
            "credential: {env: KEY}",
        ),
        secret("keys", &canary("secret")),
        route(
            "llm",
            "- backendRefs: [{name: openai}, {name: anthropic}]\n  retry: {attempts: 0}",
        ),
        mcp_proxy(
            "tools",
            &upstream,
            "credential: {secretRef: {name: keys, key: key}}",
        ),
        agent(
            "some",
            "Allow",
            "- {name: a, llm: [{models: [m]}], mcp: [{methods: [{name: tools/call, params: [echo]}]}]}",
        ),
    ];
    let mut waypoint = Setup::new(&objects.concat())
        .environment("KEY", &canary("environment"))
        .start()
        .await;
    let prompt = json!({"messages": [{"role": "user", "content": canary("prompt")}]});
    let tool = |name: &str| {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {"a": canary("argument")}}});
        Request::post("/mcp/tools/", call.to_string())
    };
    let mut requests = Vec::new();
    for more in [json!({}), json!({"stream": true})] {
        let mut body = prompt.clone();
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        for model in ["m", "denied"] {
            requests.push(Request::post(
                "/ai/v1/chat/completions",
                chat_body(model, &body),
            ));
            requests.push(messages(model, &body));
        }
    }
    requests.push(Request::post(
        "/ai/v1/chat/completions",
        format!(
            "{{\"model\":\"m\",\"{0}\":\"{0}\",\"{0}\":1}}",
            canary("twice")
        ),
    ));
    requests.push(Request::post(
        "/ai/v1/chat/completions",
        format!("{{\"model\":\"m\" {}", canary("broken")),
    ));
    requests.push(Request::new(
        "GET",
        &format!("/ai/v1/models?key={}", canary("query")),
    ));
    requests.push(Request::new("GET", &format!("/nowhere/{}", canary("path"))));
    requests.push(tool("echo"));
    requests.push(tool("secret"));
    let client = waypoint.workload(ANN);
    for _ in 0..6 {
        for request in &requests {
            let request = request
                .clone()
                .header(
                    "authorization",
                    &format!("Bearer {}", canary("authorization")),
                )
                .header("x-api-key", &canary("api-key"))
                .header("cookie", &canary("cookie"));
            // How each ends does not matter here.
            let _ = client.call(&request).await;
        }
    }
    let _ = waypoint
        .developer()
        .connect()
        .await
        .unwrap()
        .write(format!("GET / {}\r\n\r\n", canary("garbage")).as_bytes())
        .await;
    assert!(upstream.seen().len() > 12);
    let mut pages = vec![("metrics", waypoint.metrics().await.text)];
    for path in ["/config_dump", "/decisions"] {
        pages.push((path, waypoint.admin(path).await.text()));
    }
    waypoint.terminate().await;
    waypoint.ended().await;
    pages.push((
        "audit",
        std::fs::read_to_string(waypoint.path("audit.jsonl")).unwrap(),
    ));
    pages.push(("stderr", waypoint.stderr()));
    pages.push(("stdout", waypoint.stdout()));
    for (page, text) in &pages {
        assert!(
            page.starts_with("std") || text.len() > 100,
            "{page} is empty: {text}"
        );
        let found = text
            .find(CANARY)
            .map(|at| &text[at.saturating_sub(200)..(at + 100).min(text.len())]);
        assert_eq!(found, None, "{page}");
    }
}

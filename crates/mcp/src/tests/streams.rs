//! Event streams of servers.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIST: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{"name":"secret"}]}}"#;
const CUT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}]}}"#;

fn filter_for(era: Era, unknown: UnknownIds) -> StreamFilter {
    let expected = vec![
        Expected::new(b"1", Some(ListKind::Tools)).unwrap(),
        Expected::new(b"2", None).unwrap(),
    ];
    StreamFilter::new(era, expected, unknown, 10_000)
}

/// What passes of a stream that comes in these chunks, and how it ends.
fn run<'a>(
    filter: &mut StreamFilter,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (String, Result<(), FilterError>) {
    let mut out = Vec::new();
    let mut keep = |_, name: &str| !name.contains("secret");
    let mut end = Ok(());
    for chunk in chunks {
        end = filter.push(Bytes::copy_from_slice(chunk), &mut keep, &mut out);
        if end.is_err() {
            break;
        }
    }
    let end = end.and_then(|()| filter.finish(&mut keep, &mut out));
    (String::from_utf8_lossy(&out.concat()).into_owned(), end)
}

fn passes(stream: &str, unknown: UnknownIds) -> String {
    let (out, end) = run(&mut filter_for(Era::Legacy, unknown), [stream.as_bytes()]);
    match end {
        Ok(()) => out,
        Err(error) => format!("{out}error: {error}"),
    }
}

#[test]
fn filters_lists_in_every_form() {
    let other = |id: &str| LIST.replace("\"id\":1", &format!("\"id\":{id}"));
    let lines = LIST.replace(",{\"name\"", "\ndata: ,{\"name\"");
    let asked = r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}"#;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.10}}"#;
    let same = String::from("same");
    for (case, stream, expected) in [
        ("A33 one event", format!("data: {LIST}\n\n"), format!("data: {CUT}\n\n")),
        ("A33 CRLF and fields", format!("event: message\r\nid: 4\r\ndata: {LIST}\r\n\r\n"), format!("event: message\r\nid: 4\r\ndata: {CUT}\n\r\n")),
        ("A33 CR", format!("data:{LIST}\r\r"), format!("data: {CUT}\n\r")),
        ("A33 several data lines", format!("data: {lines}\n\n"), format!("data: {CUT}\n\n")),
        ("A33 no final blank line", format!("data: {LIST}"), format!("data: {CUT}\n")),
        ("A33 other event type", format!("event: x\ndata: {LIST}\n\n"), format!("event: x\ndata: {CUT}\n\n")),
        ("A33 behind a mark", format!("\u{feff}data: {LIST}\n\n"), format!("data: {CUT}\n\n")),
        ("A33 twice", format!("data: {LIST}\n\ndata: {LIST}\n\n"), format!("data: {CUT}\n\ndata: {CUT}\n\n")),
        ("A33 not readable", "data: {\"jsonrpc\"\n\n".into(), "error: the upstream's message is not readable: the document ends too early".into()),
        ("A33 batch", format!("data: [{LIST}]\n\n"), "error: the upstream's message is not readable: batches are not supported".into()),
        ("A33 not readable, other type", "event: ping\ndata: 12:00\n\n: x\n\n".into(), ": x\n\n".into()),
        ("A34 other id", format!("data: {}\n\n", other("3")), "error: the upstream answered a request that was not asked".into()),
        ("A34 id as text", format!("data: {}\n\n", other("\"1\"")), "error: the upstream answered a request that was not asked".into()),
        ("A34 id as float", format!("data: {}\n\n", other("1.0")), "error: the upstream's message is not readable: id must be a string or an integer within 2^53".into()),
        ("A34 null id", format!("data: {}\n\n", other("null")), "error: the upstream's message is not readable: id must be a string or an integer within 2^53".into()),
        ("answer of another request", format!("data: {}\n\n", other("2")), same.clone()),
        ("error", "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1}}\n\n".into(), same.clone()),
        ("comment, priming and unknown fields", ": ping\n\nid: 1\nretry: 3\ndata:\n\nx: y\n\n".into(), same.clone()),
        ("request of the server", format!("id: 9\ndata: {asked}\n\n"), same.clone()),
        ("A46 progress", format!("data:   {progress}\n\n"), same.clone()),
        ("A35 separators stay in text", "data: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"t\":\"\u{2028}\\n\"}}\n\n".into(), same.clone()),
    ] {
        let expected = if expected == same { stream.clone() } else { expected };
        assert_eq!(passes(&stream, UnknownIds::Refuse), expected, "{case}");
    }
}

#[test]
fn treats_unknown_ids_as_told() {
    let other = LIST.replace("\"id\":1", "\"id\":\"x\"");
    let cut = CUT.replace("\"id\":1", "\"id\":\"x\"");
    let plain = r#"{"jsonrpc":"2.0","id":"x","result":{"content":[]}}"#;
    let hidden = r#"{"jsonrpc":"2.0","id":"x","result":{"Tools":[]}}"#;
    let mixed = r#"{"jsonrpc":"2.0","id":"x","result":{"prompts":[{"name":"secret"}],"tools":[{"name":"secret"}]}}"#;
    let event = |data: &str| format!("data: {data}\n\n");
    for (case, data, unknown, expected) in [
        ("drop", other.as_str(), UnknownIds::Drop, String::new()),
        ("drop others too", plain, UnknownIds::Drop, String::new()),
        ("by shape", &other, UnknownIds::ByShape, event(&cut)),
        (
            "by shape, all lists",
            mixed,
            UnknownIds::ByShape,
            event(r#"{"jsonrpc":"2.0","id":"x","result":{"prompts":[],"tools":[]}}"#),
        ),
        (
            "by shape, no list",
            plain,
            UnknownIds::ByShape,
            event(plain),
        ),
        (
            "by shape, look-alike",
            hidden,
            UnknownIds::ByShape,
            "error: the upstream's list is not well formed".into(),
        ),
    ] {
        assert_eq!(passes(&event(data), unknown), expected, "{case}");
    }
}

#[test]
fn modern_servers_do_not_ask_on_streams() {
    let mut filter = filter_for(Era::Modern, UnknownIds::Refuse);
    let stream =
        "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sampling/createMessage\"}\n\n: x\n\n";
    assert_eq!(
        run(&mut filter, [stream.as_bytes()]),
        (": x\n\n".into(), Ok(()))
    );
    assert_eq!(filter.answered(), 0);
}

#[test]
fn reports_answers_and_tasks() {
    let mut filter = filter_for(Era::Legacy, UnknownIds::Refuse);
    let stream =
        "data: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"task\":{\"taskId\":\"t\"}}}\n\n";
    let (out, end) = run(&mut filter, [stream.as_bytes()]);
    assert_eq!((out.as_str(), end), (stream, Ok(())));
    assert_eq!(filter.answered(), 1);
    assert_eq!(filter.take_task().as_deref(), Some("t"));
    assert_eq!(filter.take_task(), None);
}

#[test]
fn bounds_an_event() {
    let mut filter = filter_for(Era::Legacy, UnknownIds::Refuse);
    let chunk = [b'x'; 100];
    let (_, end) = run(&mut filter, std::iter::repeat_n(&chunk[..], 1000));
    assert!(matches!(end, Err(FilterError::Stream(_))));
}

proptest! {
    #[test]
    fn filters_alike_for_every_chunking(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10), end in prop::sample::select(vec!["\n", "\r\n", "\r"])) {
        let stream = format!(": hi~~id: 1~data:~~event: message~data: {LIST}~~data: {{\"jsonrpc\":\"2.0\",~data: \"id\":2,\"result\":{{}}}}~~").replace('~', end);
        let whole = run(&mut filter_for(Era::Legacy, UnknownIds::Refuse), [stream.as_bytes()]);
        prop_assert!(whole.1.is_ok() && whole.0.contains(CUT) && !whole.0.contains("secret"));
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let chunks = at.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(run(&mut filter_for(Era::Legacy, UnknownIds::Refuse), chunks), whole);
    }

    #[test]
    fn survives_any_bytes(chunks: Vec<Vec<u8>>) {
        for unknown in [UnknownIds::Drop, UnknownIds::Refuse, UnknownIds::ByShape] {
            let _ = run(&mut filter_for(Era::Modern, unknown), chunks.iter().map(Vec::as_slice));
        }
    }
}

use proptest::prelude::*;

use super::*;

fn headers(text: &str) -> HeaderMap {
    let lines = text.split('|').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (
                name.parse::<http::HeaderName>().unwrap(),
                value.parse().unwrap(),
            )
        })
        .fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append(name, value);
            all
        })
}

#[test]
fn heads_announce_framings() {
    use Framing as F;
    for (case, status, text, expected) in [
        ("length", 200, "content-length: 5", Some(F::Length(5))),
        ("zero", 200, "content-length: 0", Some(F::Done)),
        (
            "equal twice",
            200,
            "content-length: 5|content-length: 5",
            Some(F::Length(5)),
        ),
        (
            "chunked",
            200,
            "transfer-encoding: Chunked",
            Some(F::ChunkSize),
        ),
        ("neither", 200, "", Some(F::UntilClose)),
        ("no content", 204, "content-length: 5", Some(F::Done)),
        (
            "both",
            200,
            "content-length: 5|transfer-encoding: chunked",
            None,
        ),
        (
            "lengths differ",
            200,
            "content-length: 5|content-length: 6",
            None,
        ),
        ("a list", 200, "content-length: 5, 5", None),
        ("signed", 200, "content-length: +5", None),
        (
            "too large",
            200,
            "content-length: 99999999999999999999",
            None,
        ),
        (
            "another coding",
            200,
            "transfer-encoding: gzip, chunked",
            None,
        ),
        (
            "two codings",
            200,
            "transfer-encoding: chunked|transfer-encoding: chunked",
            None,
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(F::of(status, &headers(text)).ok(), expected, "{case}");
    }
}

/// Decodes `wire` cut at `cuts`; the body, whether it ended, and what was left over.
fn decode(wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool, Vec<u8>), ExchangeError> {
    let mut framing = Framing::ChunkSize;
    let (mut body, mut input, mut at) = (Vec::new(), Bytes::new(), 0);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    ends.push(wire.len());
    ends.sort_unstable();
    for end in ends {
        input = Bytes::from([&input[..], &wire[at..end]].concat());
        at = end;
        loop {
            match framing.decode(&mut input)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Hungry => break,
                Decoded::End => {
                    let rest = [&input[..], &wire[at..]].concat();
                    return Ok((body, true, rest));
                }
            }
        }
    }
    Ok((body, false, input.to_vec()))
}

#[test]
fn chunks_are_what_the_specification_says() {
    for (case, wire, expected) in [
        (
            "two chunks",
            &b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..],
            Some(("abcde", true, "")),
        ),
        (
            "extension and trailers",
            b"3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n",
            Some(("abc", true, "")),
        ),
        (
            "bytes after the end",
            b"0\r\n\r\nHTTP",
            Some(("", true, "HTTP")),
        ),
        ("cut in data", b"5\r\nab", Some(("ab", false, ""))),
        (
            "cut before the last chunk",
            b"2\r\nab\r\n",
            Some(("ab", false, "")),
        ),
        ("cut in trailers", b"0\r\nx: y\r\n", Some(("", false, ""))),
        ("no size", b"\r\nabc", None),
        ("not hexadecimal", b"xyz\r\n", None),
        ("negative", b"-1\r\n", None),
        ("overflow", b"fffffffffffffffff\r\n", None),
        ("no line break after data", b"1\r\naX\r\n", None),
    ] {
        let found = decode(wire, &[]).ok();
        let found = found.map(|(body, end, rest)| {
            (
                String::from_utf8(body).unwrap(),
                end,
                String::from_utf8(rest).unwrap(),
            )
        });
        let expected = expected.map(|(body, end, rest)| (body.to_owned(), end, rest.to_owned()));
        assert_eq!(found, expected, "{case}");
    }
    let endless = [b"1;".as_slice(), &[b'x'; LINE_MAX_BYTES + 1]].concat();
    assert!(decode(&endless, &[]).is_err(), "an endless extension");
    let trailer = [b"0\r\n".as_slice(), &[b'x'; LINE_MAX_BYTES + 1]].concat();
    assert!(decode(&trailer, &[]).is_err(), "an endless trailer");
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\nnext");
        let (body, end, rest) = decode(&wire, &cuts).unwrap();
        prop_assert_eq!(body, chunks.concat());
        prop_assert!(end);
        prop_assert_eq!(rest, b"next");
    }

    #[test]
    fn no_bytes_panic(wire in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(any::<usize>(), 0..4)) {
        let _ = decode(&wire, &cuts);
    }
}

//! How large a request is to those who count its tokens.

use memchr::{memchr_iter, memmem};

/// What a picture, a sound or a file counts as, in bytes of text: some 1,500 tokens.
const MEDIA_BYTES: usize = 6_000;
/// Shorter strings are text.
const MEDIA_MIN_BYTES: usize = 1_024;
/// Of media one byte in so many counts beside that: the larger, the more tiles and seconds.
const MEDIA_SHARE: usize = 64;
/// What precedes the payload of a data URL (RFC 2397), as pictures and files are in OpenAI's
/// dialect, and how far from its beginning.
const DATA_URL: &[u8] = b";base64,";
const DATA_URL_MAX_BYTES: usize = 128;

/// The bytes of a body that its input tokens are likely to come from. Blanks beyond those of text
/// do not count, and base64 counts as a picture does: nobody makes a request look large, and
/// those that follow it small, by what models do not read.
#[must_use]
pub fn input_size(body: &[u8]) -> usize {
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let blanks = body.iter().filter(blank).count();
    let mut visible = body.len() - blanks;
    let mut media = 0;
    // What is between two quotes, or an escaped one, is one piece.
    let mut before: [&[u8]; 2] = [b"", b""];
    let mut start = 0;
    for end in memchr_iter(b'"', body).chain([body.len()]) {
        let piece = body.get(start..end).unwrap_or_default();
        start = end + 1;
        if piece.len() >= MEDIA_MIN_BYTES && is_media(piece, before) {
            visible = visible.saturating_sub(piece.len());
            media += MEDIA_BYTES + piece.len() / MEDIA_SHARE;
        }
        before = [before[1], piece];
    }
    media + visible + blanks.min(visible / 3)
}

/// Whether a string is the content of a file; before it come its key and a colon.
fn is_media(text: &[u8], [key, colon]: [&[u8]; 2]) -> bool {
    let head = text.get(..DATA_URL_MAX_BYTES).unwrap_or(text);
    let is_url = text.starts_with(b"data:") && memmem::find(head, DATA_URL).is_some();
    // Pictures of Anthropic, and sounds of OpenAI.
    let is_data = key == b"data" && colon.trim_ascii() == b":";
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    is_url || (is_data && head.iter().all(is_base64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_as_it_is() {
        let body = br#"{"messages": [{"content": "how are you today"}], "model": "m"}"#;
        assert_eq!(input_size(body), body.len());
        assert_eq!(input_size(b""), 0);
    }

    #[test]
    fn blanks_do_not_make_it_large() {
        let mut body = br#"{"model":"m"}"#.to_vec();
        let short = body.len();
        body.extend(std::iter::repeat_n(b' ', 700_000));
        assert!(input_size(&body) <= short * 4 / 3);
    }

    #[test]
    fn pictures_count_as_pictures() {
        let picture = "A".repeat(1_200_000);
        for body in [
            format!(r#"{{"image_url":{{"url":"data:image/png;base64,{picture}"}},"text":"hi"}}"#),
            format!(r#"{{"source":{{"type":"base64","data": "{picture}"}},"text":"hi"}}"#),
            format!(r#"{{"data":"short","input_audio":{{"data":"{picture}"}}}}"#),
        ] {
            let size = input_size(body.as_bytes());
            assert!((6_000..30_000).contains(&size), "{size}");
        }
        // One that never ends, one that is short, and neither.
        let open = format!("\"data:image/png;base64,{picture}");
        assert!(input_size(open.as_bytes()) < 30_000);
        let short = br#"{"url":"data:image/png;base64,AAAA"}"#;
        assert_eq!(input_size(short), short.len());
        let text = format!(r#"{{"content":"{picture}"}}"#);
        assert_eq!(input_size(text.as_bytes()), text.len());
    }
}

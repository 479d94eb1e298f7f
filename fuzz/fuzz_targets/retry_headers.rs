//! The headers by which a provider says whether and when to try again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypoint_llm::{Retryable, retry_verdict};

fuzz_target!(|input: (u16, Vec<(String, String)>, &[u8])| {
    let (status, headers, body) = input;
    let names = ["retry-after", "retry-after-ms", "date", "x-should-retry"];
    let header = |name: &str| {
        let at = names.iter().position(|known| *known == name)?;
        headers.get(at).map(|(_, value)| value.as_str())
    };
    let verdict = retry_verdict(status, header, body);
    if status < 400 || matches!(status, 401 | 403) {
        assert!(matches!(verdict, Retryable::No));
    }
});

use std::time::Duration as Std;

use super::{Duration, NoDuration};

#[test]
fn reads_durations() {
    for (text, expected) in [
        ("0s", Ok(Std::ZERO)),
        ("250ms", Ok(Std::from_millis(250))),
        ("1m30s", Ok(Std::from_secs(90))),
        ("1h1m1s1ms", Ok(Std::from_millis(3_661_001))),
        ("99999h", Ok(Std::from_secs(99_999 * 3600))),
        ("", Err(NoDuration)),
        ("30", Err(NoDuration)),
        ("s", Err(NoDuration)),
        ("1.5s", Err(NoDuration)),
        ("-1s", Err(NoDuration)),
        ("1 s", Err(NoDuration)),
        ("1d", Err(NoDuration)),
        ("123456s", Err(NoDuration)),
        ("1s1s1s1s1s", Err(NoDuration)),
    ] {
        assert_eq!(text.parse::<Duration>().map(|d| d.0), expected, "{text}");
    }
}

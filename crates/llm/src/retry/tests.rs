use super::*;

fn check(status: u16, headers: &[(&str, &str)], body: &str) -> String {
    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    };
    match retry_verdict(status, header, body.as_bytes()) {
        Retryable::No => "no".to_owned(),
        Retryable::Yes { after: None } => "yes".to_owned(),
        Retryable::Yes { after: Some(after) } => format!("after {after:?}"),
    }
}

#[test]
fn judges() {
    let quota =
        r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let spend =
        r#"{"type":"error","error":{"details":{"error_code":"enforced_spend_limit_reached"}}"#;
    let speaks =
        r#"{"error":{"message":"not an \"insufficient_quota\" at all","code":"slow_down"}}"#;
    let date = ("date", "Tue, 29 Feb 2028 23:59:50 GMT");
    let at = ("retry-after", "Wed, 01 Mar 2028 00:00:02 GMT");
    let past = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
    for (case, status, headers, body, expected) in [
        ("success", 200, &[][..], "", "no"),
        ("redirect", 307, &[], "", "no"),
        ("bad request", 400, &[], "", "no"),
        ("credential", 401, &[], "", "no"),
        (
            "credential, whatever it says",
            403,
            &[("x-should-retry", "true")],
            "",
            "no",
        ),
        ("request timeout", 408, &[], "", "yes"),
        ("lock", 409, &[], "", "yes"),
        ("rate", 429, &[], "", "yes"),
        ("quota", 429, &[], quota, "no"),
        (
            "quota, whatever it says",
            429,
            &[("x-should-retry", "true")],
            quota,
            "no",
        ),
        ("spend limit", 429, &[], spend, "no"),
        ("message that speaks of quota", 429, &[], speaks, "yes"),
        ("server", 500, &[], "", "yes"),
        ("not implemented", 501, &[], "", "no"),
        ("bad gateway", 502, &[], "", "yes"),
        ("unavailable", 503, &[], "", "yes"),
        ("gateway timeout", 504, &[], "", "yes"),
        ("overloaded", 529, &[], "", "yes"),
        ("told not to", 503, &[("x-should-retry", "false")], "", "no"),
        ("told to", 400, &[("x-should-retry", "true")], "", "yes"),
        ("seconds", 429, &[("retry-after", "7")], "", "after 7s"),
        (
            "fraction",
            429,
            &[("retry-after", " 0.5 ")],
            "",
            "after 500ms",
        ),
        (
            "milliseconds first",
            429,
            &[("retry-after", "7"), ("retry-after-ms", "20")],
            "",
            "after 20ms",
        ),
        ("hours", 429, &[("retry-after", "7200")], "", "after 7200s"),
        ("date", 503, &[date, at], "", "after 12s"),
        ("date in the past", 503, &[date, past], "", "after 0ns"),
        ("date without ours", 503, &[at], "", "yes"),
        ("negative", 503, &[("retry-after", "-1")], "", "yes"),
        ("not a number", 503, &[("retry-after", "NaN")], "", "yes"),
        ("infinite", 503, &[("retry-after", "inf")], "", "yes"),
        (
            "beyond durations",
            503,
            &[("retry-after", "1e300")],
            "",
            "yes",
        ),
        ("nonsense", 503, &[("retry-after", "soon")], "", "yes"),
    ] {
        assert_eq!(check(status, headers, body), expected, "{case}");
    }
}

#[test]
fn reads_dates() {
    for (text, expected) in [
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
        ("Tue, 29 Feb 2000 12:00:00 GMT", Some(951_825_600)),
        ("Wed, 01 Mar 2028 00:00:00 GMT", Some(1_835_481_600)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 25:49:37 GMT", None),
        ("Sun, 06 Nov 99999999999 08:49:37 GMT", None),
        ("Sun, 06 Nov", None),
        ("", None),
    ] {
        assert_eq!(http_date(text), expected, "{text}");
    }
}

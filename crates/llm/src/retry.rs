//! Whether a failed attempt is worth another one.

use std::time::Duration;

use memchr::memmem;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The upstream answered with this status.
    Status(u16),
    /// No connection; nothing was sent.
    Connect,
    /// The connection broke before the answer began.
    Reset,
    /// No answer in time.
    Timeout,
}

/// What an answer says about another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retryable {
    /// The same call would fail again.
    No,
    /// Another attempt may succeed.
    Yes {
        /// How long the upstream asks to wait; not bounded, the plan judges it.
        after: Option<Duration>,
    },
}

/// Error codes by which a 429 speaks of money and not of rate: waiting does not help.
const MONEY_CODES: [&[u8]; 6] = [
    b"\"insufficient_quota\"",
    b"\"credit_balance_exhausted\"",
    b"\"billing_hard_limit_reached\"",
    b"\"billing_not_active\"",
    b"\"billing_error\"",
    b"spend_limit_reached\"",
];

/// Judges an upstream answer by its status, its headers and the start of its body.
///
/// `header` gives a header's value by its lower-case name. `body_prefix` may be cut anywhere.
/// `x-should-retry` wins over the status, as in the official SDKs, except that a refused
/// credential (401, 403) stays refused and money codes are final.
#[must_use]
pub fn retry_verdict<'h>(
    status: u16,
    header: impl Fn(&str) -> Option<&'h str>,
    body_prefix: &[u8],
) -> Retryable {
    if status < 400 || matches!(status, 401 | 403) {
        return Retryable::No;
    }
    let told = header("x-should-retry").map(str::trim);
    if told == Some("false") {
        return Retryable::No;
    }
    let money = MONEY_CODES
        .iter()
        .any(|code| memmem::find(body_prefix, code).is_some());
    if matches!(status, 402 | 429) && money {
        return Retryable::No;
    }
    let transient = matches!(status, 408 | 409 | 429 | 500 | 502 | 503 | 504 | 529);
    if !transient && told != Some("true") {
        return Retryable::No;
    }
    Retryable::Yes {
        after: retry_after(header),
    }
}

/// `retry-after-ms`, else `retry-after` in seconds or as a date. A date is read against the
/// answer's own `date`, so that no clock needs to agree with the upstream's.
fn retry_after<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<Duration> {
    if let Some(wait) = header("retry-after-ms").and_then(|value| number(value, 1000.0)) {
        return Some(wait);
    }
    let value = header("retry-after")?;
    if let Some(wait) = number(value, 1.0) {
        return Some(wait);
    }
    let at = http_date(value)?;
    let now = http_date(header("date")?)?;
    Some(Duration::from_secs(at.saturating_sub(now)))
}

fn number(value: &str, per_second: f64) -> Option<Duration> {
    let value: f64 = value.trim().parse().ok()?;
    Duration::try_from_secs_f64(value / per_second).ok()
}

/// Seconds since 1970 of an IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`
/// (RFC 9110 §5.6.7; the obsolete forms are not read).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut parts = rest.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':');
    let mut field = |limit: u64| -> Option<u64> {
        let value: u64 = clock.next()?.parse().ok()?;
        (value <= limit).then_some(value)
    };
    let (hour, minute, second) = (field(23)?, field(59)?, field(60)?);
    if parts.next() != Some("GMT") || !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days before this year and month, counting leap days up to the end of February.
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_years = if month < 2 { year - 1 } else { year };
    let leap_days = leap_years / 4 - leap_years / 100 + leap_years / 400 - 477;
    let days = (year - 1970) * 365 + leap_days + BEFORE[month] + (day - 1);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests;

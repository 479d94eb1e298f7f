//! Limits in the headers of the caller's dialect.

use std::time::Duration;

use waypoint_policy::limit::{Left, Rates};

use crate::Dialect;

/// The headers that tell a caller what is left of its limits, names in lower case.
///
/// OpenAI says when a limit is whole again as a duration (`6m0s`), of tokens without telling kinds
/// apart; Anthropic says it as a moment (RFC 3339), which `moment` tells of a time from now.
#[must_use]
pub fn rate_headers(
    dialect: Dialect,
    rates: &Rates,
    moment: &dyn Fn(Duration) -> String,
) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    match dialect {
        Dialect::OpenAi => {
            let tokens = [rates.tokens, rates.input, rates.output]
                .into_iter()
                .flatten();
            let tokens = tokens.min_by_key(|left| left.remaining);
            let names = [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ];
            add(&mut headers, names, rates.requests, duration);
            let names = [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ];
            add(&mut headers, names, tokens, duration);
        }
        Dialect::Anthropic => {
            let kinds = [
                (
                    [
                        "anthropic-ratelimit-requests-limit",
                        "anthropic-ratelimit-requests-remaining",
                        "anthropic-ratelimit-requests-reset",
                    ],
                    rates.requests,
                ),
                (
                    [
                        "anthropic-ratelimit-tokens-limit",
                        "anthropic-ratelimit-tokens-remaining",
                        "anthropic-ratelimit-tokens-reset",
                    ],
                    rates.tokens,
                ),
                (
                    [
                        "anthropic-ratelimit-input-tokens-limit",
                        "anthropic-ratelimit-input-tokens-remaining",
                        "anthropic-ratelimit-input-tokens-reset",
                    ],
                    rates.input,
                ),
                (
                    [
                        "anthropic-ratelimit-output-tokens-limit",
                        "anthropic-ratelimit-output-tokens-remaining",
                        "anthropic-ratelimit-output-tokens-reset",
                    ],
                    rates.output,
                ),
            ];
            for (names, left) in kinds {
                add(&mut headers, names, left, moment);
            }
        }
    }
    headers
}

fn add(
    headers: &mut Vec<(&'static str, String)>,
    [limit, remaining, reset]: [&'static str; 3],
    left: Option<Left>,
    when: impl Fn(Duration) -> String,
) {
    if let Some(left) = left {
        headers.push((limit, left.limit.to_string()));
        headers.push((remaining, left.remaining.to_string()));
        headers.push((reset, when(left.reset)));
    }
}

/// As Go writes it: `12ms`, `1s`, `6m0s`, `23h59m59s`. Rounded up.
fn duration(wait: Duration) -> String {
    if wait < Duration::from_secs(1) {
        return format!("{}ms", wait.as_nanos().div_ceil(1_000_000));
    }
    let seconds = wait.as_nanos().div_ceil(1_000_000_000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests;

use super::*;

fn left(limit: u64, remaining: u64, milliseconds: u64) -> Option<Left> {
    Some(Left {
        limit,
        remaining,
        reset: Duration::from_millis(milliseconds),
    })
}

fn lines(dialect: Dialect, rates: &Rates) -> Vec<String> {
    let headers = rate_headers(dialect, rates, &|wait| {
        format!("in {} ms", wait.as_millis())
    });
    headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

#[test]
fn limits_are_told_in_the_words_of_the_dialect() {
    let rates = Rates {
        requests: left(60, 59, 12),
        tokens: left(1000, 400, 360_000),
        input: None,
        output: left(500, 100, 1001),
    };
    assert_eq!(
        lines(Dialect::OpenAi, &rates),
        [
            "x-ratelimit-limit-requests: 60",
            "x-ratelimit-remaining-requests: 59",
            "x-ratelimit-reset-requests: 12ms",
            "x-ratelimit-limit-tokens: 500",
            "x-ratelimit-remaining-tokens: 100",
            "x-ratelimit-reset-tokens: 2s",
        ]
    );
    assert_eq!(
        lines(Dialect::Anthropic, &rates),
        [
            "anthropic-ratelimit-requests-limit: 60",
            "anthropic-ratelimit-requests-remaining: 59",
            "anthropic-ratelimit-requests-reset: in 12 ms",
            "anthropic-ratelimit-tokens-limit: 1000",
            "anthropic-ratelimit-tokens-remaining: 400",
            "anthropic-ratelimit-tokens-reset: in 360000 ms",
            "anthropic-ratelimit-output-tokens-limit: 500",
            "anthropic-ratelimit-output-tokens-remaining: 100",
            "anthropic-ratelimit-output-tokens-reset: in 1001 ms",
        ]
    );
    for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
        assert!(lines(dialect, &Rates::default()).is_empty());
    }
}

#[test]
fn durations_are_rounded_up() {
    for (milliseconds, text) in [
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1s"),
        (59_001, "1m0s"),
        (360_000, "6m0s"),
        (86_399_000, "23h59m59s"),
        (2_678_400_000, "744h0m0s"),
    ] {
        assert_eq!(duration(Duration::from_millis(milliseconds)), text);
    }
    assert_eq!(duration(Duration::from_nanos(1)), "1ms");
}

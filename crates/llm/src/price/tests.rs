use proptest::prelude::*;

use super::*;

#[test]
fn prices_are_exact() {
    for (text, expected) in [
        ("2.50", Ok(2_500_000)),
        ("0.075", Ok(75_000)),
        ("0.000001", Ok(1)),
        ("0.0000010", Ok(1)),
        ("10", Ok(10_000_000)),
        ("10.", Ok(10_000_000)),
        (".5", Ok(500_000)),
        ("007", Ok(7_000_000)),
        ("0", Ok(0)),
        ("18446744073709.551615", Ok(u64::MAX)),
        ("18446744073709.551616", Err(PriceError::TooLarge)),
        ("99999999999999999999999", Err(PriceError::TooLarge)),
        ("0.0000001", Err(PriceError::TooFine)),
        ("", Err(PriceError::NotDecimal)),
        (".", Err(PriceError::NotDecimal)),
        ("-1", Err(PriceError::NotDecimal)),
        ("+1", Err(PriceError::NotDecimal)),
        ("1.-5", Err(PriceError::NotDecimal)),
        ("1.2.3", Err(PriceError::NotDecimal)),
        ("1e3", Err(PriceError::NotDecimal)),
        ("1,5", Err(PriceError::NotDecimal)),
        (" 1", Err(PriceError::NotDecimal)),
        ("$1", Err(PriceError::NotDecimal)),
        ("٣", Err(PriceError::NotDecimal)),
    ] {
        assert_eq!(
            text.parse().map(|PerMillion(micro)| micro),
            expected,
            "{text}"
        );
    }
}

fn price(input: &str, cached: &str, written: &str, output: &str) -> Price {
    let optional = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    Price {
        input: input.parse().unwrap(),
        cached_input: optional(cached),
        cache_write: optional(written),
        output: output.parse().unwrap(),
    }
}

/// Input, of it from the cache, of it to the cache, output; -1 is not counted.
fn usage([input, cached, written, output]: [i64; 4]) -> Usage {
    let count = |tokens| u64::try_from(tokens).ok();
    Usage {
        input: count(input),
        cached_input: count(cached),
        cache_write: count(written),
        output: count(output),
        ..Usage::default()
    }
}

#[test]
fn calls_cost_what_their_tokens_do() {
    let full = price("3", "0.30", "3.75", "15");
    let plain = price("3", "", "", "15");
    for (case, price, tokens, micro) in [
        ("input and output", full, [1000, -1, -1, 100], 4_500),
        ("of it cached", full, [1000, 600, -1, 100], 2_880),
        ("and written", full, [1000, 600, 400, 0], 1_680),
        ("no price for the cache", plain, [1000, 600, 400, 0], 3_000),
        ("more cached than input", full, [10, 1000, -1, 0], 300),
        ("only cached is known", full, [-1, 1000, -1, -1], 300),
        ("nothing is known", full, [-1; 4], 0),
        ("no tokens", full, [0; 4], 0),
        ("rounded up", price("0.02", "", "", "0"), [1, -1, -1, 0], 1),
        (
            "once, over the sum",
            price("0.25", "0.25", "0.25", "0.25"),
            [3, 1, 1, 1],
            1,
        ),
        (
            "exactly a micro-USD",
            price("0.02", "", "", "0"),
            [50, -1, -1, 0],
            1,
        ),
        ("one more", price("0.02", "", "", "0"), [51, -1, -1, 0], 2),
        ("free", price("0", "", "", "0"), [1000, -1, -1, 1000], 0),
    ] {
        assert_eq!(cost(&price, &usage(tokens)), micro, "{case}");
    }
}

#[test]
fn reasoning_is_part_of_the_output() {
    let of = |reasoning| Usage {
        reasoning,
        ..usage([1000, -1, -1, 100])
    };
    let price = price("3", "", "", "15");
    assert_eq!(cost(&price, &of(Some(90))), cost(&price, &of(None)));
}

#[test]
fn the_largest_numbers_are_the_largest_cost() {
    let most = PerMillion(u64::MAX);
    let price = Price {
        input: most,
        cached_input: None,
        cache_write: None,
        output: most,
    };
    let all = Usage {
        input: Some(u64::MAX),
        cached_input: Some(u64::MAX),
        cache_write: Some(u64::MAX),
        output: Some(u64::MAX),
        ..Usage::default()
    };
    assert_eq!(cost(&price, &all), u64::MAX);
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(micro: u64) {
        let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
        prop_assert_eq!(text.parse(), Ok(PerMillion(micro)));
    }

    /// The cost is the exact sum, and less than one micro-USD above it.
    #[test]
    fn costs_are_exact(
        prices in prop::array::uniform4(0..1_000_000_000_u64),
        tokens in prop::array::uniform4(0..100_000_000_u64),
    ) {
        let [input, cached, written, output] = prices.map(PerMillion);
        let price = Price { input, cached_input: Some(cached), cache_write: Some(written), output };
        let [plain, read, wrote, answered] = tokens;
        let usage = Usage {
            input: Some(plain + read + wrote),
            cached_input: Some(read),
            cache_write: Some(wrote),
            output: Some(answered),
            ..Usage::default()
        };
        let pico: u128 = prices.iter().zip(tokens).map(|(p, t)| u128::from(*p) * u128::from(t)).sum();
        let micro = u128::from(cost(&price, &usage)) * 1_000_000;
        prop_assert!(micro >= pico && micro - pico < 1_000_000);
    }
}

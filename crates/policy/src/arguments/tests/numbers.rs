//! Numbers by table, and against integers.

use super::*;

#[test]
fn numbers_compare_exactly() {
    let sorted = [
        "-1e400",
        "-18446744073709551616",
        "-2",
        "-1.5",
        "-1e-400",
        "0",
        "1e-400",
        "0.1",
        "0.10000000000000000555",
        "0.5",
        "1",
        "1.00000000000000000001",
        "9.99",
        "10",
        "9007199254740992",
        "9007199254740993",
        "1e23",
        "100000000000000000000001",
        "1e400",
    ];
    for (i, left) in sorted.iter().enumerate() {
        for (j, right) in sorted.iter().enumerate() {
            let (a, b): (Number, Number) = (left.parse().unwrap(), right.parse().unwrap());
            assert_eq!(a.cmp(&b), i.cmp(&j), "{left} {right}");
            assert_eq!((a < b, a == b), (i < j, i == j), "{left} {right}");
        }
    }
    for same in [
        &[
            "100",
            "100.0",
            "1e2",
            "1E+2",
            "0.1e3",
            "+100",
            "1000e-1",
            "00100.",
            "1e0000000000000000000002",
        ][..],
        &["0", "-0", "0.0", "0e5", ".0"],
        &["0.05", "5e-2", ".05", "00.050"],
    ] {
        for text in same {
            let number: Number = text.parse().unwrap();
            assert_eq!(number, same[0].parse().unwrap(), "{text}");
        }
    }
    for bad in [
        "", "-", ".", "1e", "e5", "0x10", "1_000", " 1", "NaN", ".inf", "--1", "1.2.3",
    ] {
        assert_eq!(bad.parse::<Number>(), Err(NumberError::NotANumber), "{bad}");
    }
    assert_eq!("1e1000001".parse::<Number>(), Err(NumberError::Exponent));
}

proptest! {
    #[test]
    fn numbers_agree_with_integers(
        a in any::<i64>(), b in any::<i64>(), small in -20i64..20, same in any::<bool>(),
        shift in 0u32..15, spread in 0u32..15,
    ) {
        let b = if same { a.saturating_add(small) } else { b };
        // Both times ten to the power of fifteen, so that what is behind the point counts too.
        let power = |by: u32| 10i128.pow(by);
        let left = format!("{a}e-{shift}").parse::<Number>().unwrap();
        let text = format!("{b}");
        let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
        // The point somewhere inside, with zeros before and behind.
        let digits = format!("{digits:0>width$}", width = spread as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - spread as usize);
        let right = format!("{sign}00{whole}.{fraction}00").parse::<Number>().unwrap();
        let expected = (i128::from(a) * power(15 - shift)).cmp(&(i128::from(b) * power(15 - spread)));
        prop_assert_eq!(left.cmp(&right), expected, "{} {}", left, right);
        let integer = i128::from(b) % power(spread) == 0;
        prop_assert_eq!(right.decimal().is_integer(), integer, "{}", right);
    }
}

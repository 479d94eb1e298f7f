//! The providers' list prices, as they stand in `data/prices.json`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Price;
use crate::Dialect;

const JSON: &str = include_str!("../../data/prices.json");

/// A test reads the file, so there is one.
static LIST: LazyLock<List> = LazyLock::new(|| serde_json::from_str(JSON).unwrap_or_default());

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(rename = "about")]
    _about: IgnoredAny,
    #[serde(rename = "OpenAI", borrow)]
    open_ai: HashMap<&'static str, Price>,
    #[serde(rename = "Anthropic", borrow)]
    anthropic: HashMap<&'static str, Price>,
}

/// What a model costs at the provider whose API it is. A dated name, such as
/// `gpt-4o-2024-08-06`, costs what its undated one does, unless it is listed itself.
#[must_use]
pub fn list_price(dialect: Dialect, model: &str) -> Option<Price> {
    let models = match dialect {
        Dialect::OpenAi => &LIST.open_ai,
        Dialect::Anthropic => &LIST.anthropic,
    };
    let price = models.get(model).or_else(|| models.get(undated(model)?));
    price.copied()
}

/// The name without the date at its end: OpenAI writes `-2024-08-06`, Anthropic `-20250929`.
fn undated(model: &str) -> Option<&str> {
    ["-0000-00-00", "-00000000"].into_iter().find_map(|form| {
        let (name, date) = model.split_at_checked(model.len().checked_sub(form.len())?)?;
        let fits = |(form, byte): (u8, u8)| match form {
            b'0' => byte.is_ascii_digit(),
            dash => byte == dash,
        };
        form.bytes().zip(date.bytes()).all(fits).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_read() {
        let list: List = serde_json::from_str(JSON).unwrap();
        let rows = list.open_ai.len() + list.anthropic.len();
        // A model that stood there twice would be one row.
        assert_eq!(rows, JSON.matches("\"input\":").count());
        assert!(list.open_ai.len() >= 40 && list.anthropic.len() >= 10);
        for (model, price) in list.open_ai.iter().chain(&list.anthropic) {
            let dearest = price.input.0.max(price.output.0);
            // A price per token, or per thousand of them, would not be within these.
            assert!((20_000..=600_000_000).contains(&dearest), "{model}");
            assert!(
                price.cached_input.is_none_or(|it| it.0 < price.input.0),
                "{model}"
            );
        }
    }

    #[test]
    fn models_have_prices() {
        let price = |input: &str, cached: Option<&str>, written: Option<&str>, output: &str| {
            Some(Price {
                input: input.parse().unwrap(),
                cached_input: cached.map(|text| text.parse().unwrap()),
                cache_write: written.map(|text| text.parse().unwrap()),
                output: output.parse().unwrap(),
            })
        };
        let gpt_4o = price("2.50", Some("1.25"), None, "10");
        let sonnet = price("3", Some("0.30"), Some("3.75"), "15");
        for (dialect, model, expected) in [
            (Dialect::OpenAi, "gpt-4o", gpt_4o),
            (Dialect::OpenAi, "gpt-4o-2024-08-06", gpt_4o),
            (
                Dialect::OpenAi,
                "gpt-4o-2024-05-13",
                price("5", None, None, "15"),
            ),
            (
                Dialect::OpenAi,
                "text-embedding-3-small",
                price("0.02", None, None, "0"),
            ),
            (Dialect::Anthropic, "claude-sonnet-4-5", sonnet),
            (Dialect::Anthropic, "claude-sonnet-4-5-20250929", sonnet),
            (Dialect::OpenAi, "claude-sonnet-4-5", None),
            (Dialect::Anthropic, "gpt-4o", None),
            (Dialect::OpenAi, "gpt-4o-2024-08-0", None),
            (Dialect::OpenAi, "gpt-4o-2024_08_06", None),
            (Dialect::OpenAi, "gpt-4o-20240806x", None),
            (Dialect::OpenAi, "gpt-4o-", None),
            (Dialect::OpenAi, "GPT-4o", None),
            (Dialect::OpenAi, "-2024-08-06", None),
            (Dialect::OpenAi, "gpt-4oé2024-08-06", None),
            (Dialect::OpenAi, "", None),
        ] {
            assert_eq!(list_price(dialect, model), expected, "{model}");
        }
    }
}

//! A provider's plain answer: whether it is whole, and what it says of its usage and its cost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypoint_llm::{Dialect, Source, cost, list_price, read_answer};
use waypoint_policy::Operation;

fuzz_target!(|bytes: &[u8]| {
    let kinds = [
        (Dialect::OpenAi, Operation::Chat),
        (Dialect::OpenAi, Operation::Responses),
        (Dialect::OpenAi, Operation::Embeddings),
        (Dialect::Anthropic, Operation::Messages),
        (Dialect::Anthropic, Operation::CountTokens),
    ];
    let price = list_price(Dialect::OpenAi, "gpt-4o").expect("a price of the list");
    for (dialect, operation) in kinds {
        let Ok(Some(usage)) = read_answer(dialect, operation, bytes) else {
            continue;
        };
        assert!(operation != Operation::CountTokens);
        assert!(usage.source == Source::Upstream);
        // Whatever it claims, the sum is a number, and nothing that was counted is free.
        let micro_usd = cost(&price, &usage);
        assert!(usage.output.unwrap_or(0) == 0 || micro_usd > 0);
    }
});

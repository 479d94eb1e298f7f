//! What the models of a provider cost.

use waypoint_llm::{Dialect, Price, list_price};
use waypoint_policy::ObjectName;

use super::snapshot_of;

#[test]
fn what_is_written_beats_the_list() {
    let provider = |name: &str, spec: &str| {
        format!(
            "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: LLMProvider\n\
             metadata: {{name: {name}, namespace: apps}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let own = "dialect: OpenAI, models: [
        {name: gpt-4o, aliases: [gpt-4.1], price: {input: \"1\", cachedInput: \"0.5\", cacheWrite: \"2.25\", output: \"3\"}},
        {name: gpt-4o-mini},
        {name: llama, price: {input: \"0\", output: \"0\"}},
        {name: mistral}]";
    let objects = [
        provider("own", own),
        provider("any", "dialect: OpenAI"),
        provider("claude", "dialect: Anthropic"),
    ];
    let snapshot = snapshot_of(&objects.concat());
    let price = |input: &str, rest: Option<(&str, &str)>, output: &str| Price {
        input: input.parse().unwrap(),
        cached_input: rest.map(|(cached, _)| cached.parse().unwrap()),
        cache_write: rest.map(|(_, written)| written.parse().unwrap()),
        output: output.parse().unwrap(),
    };
    let listed = |dialect, model| Some(list_price(dialect, model).expect("it is listed"));
    let written = Some(price("1", Some(("0.5", "2.25")), "3"));
    for (name, model, expected) in [
        ("own", "gpt-4o", written),
        ("own", "gpt-4.1", written),
        ("own", "gpt-4o-mini", listed(Dialect::OpenAi, "gpt-4o-mini")),
        ("own", "llama", Some(price("0", None, "0"))),
        ("own", "mistral", None),
        ("any", "gpt-4o", listed(Dialect::OpenAi, "gpt-4o")),
        (
            "any",
            "gpt-4o-2024-08-06",
            listed(Dialect::OpenAi, "gpt-4o"),
        ),
        ("any", "llama", None),
        ("claude", "gpt-4o", None),
        (
            "claude",
            "claude-sonnet-4-5-20250929",
            listed(Dialect::Anthropic, "claude-sonnet-4-5"),
        ),
    ] {
        let provider = snapshot.provider_by_name(&ObjectName::new("apps", name));
        let found = provider.unwrap().llm.price(model);
        assert_eq!(found, expected, "{name} {model}");
    }
}

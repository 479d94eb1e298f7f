use super::*;

fn model(name: &str, aliases: &[&str]) -> Model {
    Model {
        name: name.into(),
        aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
        price: None,
    }
}

#[test]
fn resolves_names_and_aliases() {
    let models: Models = [
        model("gpt-4o", &["smart", "gpt-5", "both"]),
        model("gpt-5", &["both"]),
    ]
    .into_iter()
    .collect();
    for (asked, expected) in [
        ("gpt-4o", Some("gpt-4o")),
        ("smart", Some("gpt-4o")),
        ("gpt-5", Some("gpt-5")), // A name beats another model's alias.
        ("both", Some("gpt-4o")),
        ("GPT-4o", None),
        ("", None),
    ] {
        assert_eq!(models.resolve(asked), expected, "{asked}");
    }
    assert_eq!(models.iter().count(), 2);
}

#[test]
fn rules_match_the_requested_name() {
    let rule = |patterns: &[&str]| Rule {
        models: patterns.iter().map(|text| text.parse().unwrap()).collect(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
    };
    for (patterns, asked, expected) in [
        (&[][..], "anything", true),
        (&["gpt-*"][..], "gpt-4o", true),
        (&["gpt-*"][..], "o3", false),
        (&["gpt-*", "o3"][..], "o3", true),
    ] {
        assert_eq!(
            rule(patterns).matches(asked),
            expected,
            "{patterns:?} {asked}"
        );
    }
}

#[test]
fn timeouts_are_retried_only_when_asked_for() {
    let on = RetryOn::default();
    for (failure, expected) in [
        (Failure::Status(503), true),
        (Failure::Status(429), true),
        (Failure::Connect, true),
        (Failure::Reset, true),
        (Failure::Timeout, false),
    ] {
        assert_eq!(on.covers(failure), expected, "{failure:?}");
        assert!(!RetryOn::NONE.covers(failure), "{failure:?}");
    }
}

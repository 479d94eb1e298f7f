use std::collections::HashMap;

use proptest::prelude::*;
use waypoint_policy::{ObjectName, Operation};

use super::*;
use crate::{Allowances, Dialect, Model, Retry, Timeouts};

fn provider(id: u32, dialect: Dialect, models: Option<&[(&str, &[&str])]>) -> Provider {
    Provider {
        id: ProviderId(id),
        name: ObjectName::new("agents", &format!("provider-{id}")),
        dialect,
        operations: dialect.operations().to_vec(),
        models: models.map(|models| {
            let model = |(name, aliases): &(&str, &[&str])| Model {
                name: (*name).into(),
                aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
                price: None,
            };
            models.iter().map(model).collect()
        }),
        allowances: Allowances::default(),
    }
}

/// `id[*weight][@priority][=model]`, such as `0*9@1=gpt-4o`.
fn backend(text: &str) -> Backend {
    let (text, model) = match text.split_once('=') {
        Some((text, model)) => (text, Some(model.into())),
        None => (text, None),
    };
    let (text, priority) = text.split_once('@').unwrap_or((text, "0"));
    let (id, weight) = text.split_once('*').unwrap_or((text, "1"));
    Backend {
        provider: ProviderId(id.parse().unwrap()),
        weight: weight.parse().unwrap(),
        priority: priority.parse().unwrap(),
        model,
    }
}

fn rule(models: &[&str], backends: &str) -> Rule {
    Rule {
        models: models.iter().map(|text| text.parse().unwrap()).collect(),
        backends: backends.split_whitespace().map(backend).collect(),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
    }
}

fn providers() -> Vec<Provider> {
    let mut embedder = provider(3, Dialect::OpenAi, None);
    embedder.operations = vec![Operation::Embeddings];
    let mut stored = provider(4, Dialect::OpenAi, None);
    stored.allowances.stored = true;
    vec![
        provider(0, Dialect::OpenAi, None),
        provider(
            1,
            Dialect::OpenAi,
            Some(&[("gpt-4o", &["smart"]), ("o3", &[])]),
        ),
        provider(2, Dialect::Anthropic, None),
        embedder,
        stored,
    ]
}

fn call(model: &str) -> Call {
    let mut call = Call::models(Dialect::OpenAi, Some(model));
    call.operation = Operation::Chat;
    call
}

fn show(result: Result<(usize, Vec<Candidate>), Refusal>) -> String {
    match result {
        Err(refusal) => refusal.code.as_str().to_owned(),
        Ok((rule, list)) => {
            let list: Vec<String> = list
                .iter()
                .map(|candidate| format!("{}={}", candidate.provider.0, candidate.model))
                .collect();
            format!("{rule}: {}", list.join(" "))
        }
    }
}

fn run(rules: &[Rule], call: &Call, random: u64) -> Result<(usize, Vec<Candidate>), Refusal> {
    let providers = providers();
    let lookup = |id: ProviderId| providers.get(id.0 as usize);
    candidates(rules, lookup, call, random)
}

#[test]
fn chooses() {
    let mut anthropic = call("m");
    anthropic.dialect = Dialect::Anthropic;
    anthropic.operation = Operation::Messages;
    let mut stored = call("m");
    stored.needs.stored = true;
    let any: &[&str] = &[];
    for (case, rules, call, expected) in [
        (
            "by priority",
            vec![rule(any, "1@7 0@2")],
            call("o3"),
            "0: 0=o3 1=o3",
        ),
        ("alias", vec![rule(any, "1")], call("smart"), "0: 1=gpt-4o"),
        (
            "backend's model",
            vec![rule(any, "0=gpt-4o-mini")],
            call("x"),
            "0: 0=gpt-4o-mini",
        ),
        (
            "backend's model is an alias",
            vec![rule(any, "1=smart")],
            call("x"),
            "0: 1=gpt-4o",
        ),
        (
            "weight 0",
            vec![rule(any, "0*0 1@1")],
            call("o3"),
            "0: 1=o3",
        ),
        (
            "only weight 0",
            vec![rule(any, "0*0")],
            call("o3"),
            "operation_not_allowed",
        ),
        (
            "model not served",
            vec![rule(any, "1")],
            call("gpt-9"),
            "model_not_found",
        ),
        (
            "one of two serves it",
            vec![rule(any, "1 0@1")],
            call("gpt-9"),
            "0: 0=gpt-9",
        ),
        (
            "first match only",
            vec![rule(&["gpt-*"], "1"), rule(any, "0")],
            call("gpt-9"),
            "model_not_found",
        ),
        (
            "second rule",
            vec![rule(&["gpt-*"], "1"), rule(any, "0")],
            call("o3"),
            "1: 0=o3",
        ),
        (
            "no rule",
            vec![rule(&["gpt-*"], "0")],
            call("o3"),
            "model_not_found",
        ),
        ("no rules", vec![], call("o3"), "model_not_found"),
        (
            "other dialect",
            vec![rule(any, "2")],
            call("m"),
            "operation_not_allowed",
        ),
        (
            "own dialect",
            vec![rule(any, "0 1 2 3")],
            anthropic,
            "0: 2=m",
        ),
        (
            "other operation",
            vec![rule(any, "3")],
            call("m"),
            "operation_not_allowed",
        ),
        (
            "unknown provider",
            vec![rule(any, "99")],
            call("m"),
            "operation_not_allowed",
        ),
        (
            "allowance",
            vec![rule(any, "0 4")],
            stored.clone(),
            "0: 4=m",
        ),
        (
            "no allowance",
            vec![rule(any, "0")],
            stored,
            "operation_not_allowed",
        ),
        (
            "same target twice",
            vec![rule(any, "0 0@1")],
            call("m"),
            "0: 0=m",
        ),
        (
            "two models of one",
            vec![rule(any, "0=a 0@1=b")],
            call("m"),
            "0: 0=a 0=b",
        ),
    ] {
        assert_eq!(show(run(&rules, &call, 7)), expected, "{case}");
    }
}

#[test]
fn shares_follow_the_weights() {
    let rules = [rule(&[], "0*9 4*1")];
    let mut first = HashMap::new();
    for random in 0..10_000 {
        let (_, list) = run(&rules, &call("m"), random).unwrap();
        assert_eq!(list.len(), 2);
        *first.entry(list[0].provider.0).or_insert(0) += 1;
    }
    assert!((8_850..9_150).contains(&first[&0]), "{first:?}");
}

proptest! {
    #[test]
    fn every_usable_backend_is_there_once_and_priorities_rise(
        backends in prop::collection::vec((0_u32..5, 0_u32..4, 0_u32..3), 0..12),
        random: u64,
    ) {
        let text: Vec<String> = backends
            .iter()
            .map(|(id, weight, priority)| format!("{id}*{weight}@{priority}=o3"))
            .collect();
        let rules = [rule(&[], &text.join(" "))];
        let usable = |id: u32| matches!(id, 0 | 1 | 4);
        let mut best: HashMap<u32, u32> = HashMap::new();
        for (id, weight, priority) in backends {
            if weight > 0 && usable(id) {
                let known = best.entry(id).or_insert(priority);
                *known = priority.min(*known);
            }
        }
        match run(&rules, &call("m"), random) {
            Err(_) => prop_assert!(best.is_empty()),
            Ok((_, list)) => {
                prop_assert_eq!(list.len(), best.len());
                let order: Vec<u32> = list.iter().map(|one| best[&one.provider.0]).collect();
                prop_assert!(order.is_sorted(), "{:?}", order);
            }
        }
    }
}

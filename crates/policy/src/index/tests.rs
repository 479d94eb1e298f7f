use super::*;
use crate::{
    Arguments, Caller, Kind, MethodRule, ObjectName, Posture, Principal, ProviderId, ServerId,
    Settings, SpiffeId,
};

/// How many combinations a rule is filed under, at one target.
fn filed(rule: &Rule) -> usize {
    let mut index = Index::default();
    let gateway = ObjectRef::whole(Kind::Gateway, ObjectName::new("infra", "wp"));
    let target = index.intern_target(&gateway);
    index.file(0, rule, Class::Allow, &[target]);
    let buckets = index.buckets.values();
    buckets
        .map(|bucket| bucket.entries(Class::Allow).len())
        .sum()
}

fn rule() -> Rule {
    Rule {
        name: "r".into(),
        from: None,
        llm: vec![],
        mcp: vec![],
        http: vec![],
    }
}

/// What does not fit is filed once, with its list asked when it is found.
#[test]
fn lists_are_filed_one_by_one_as_long_as_there_is_room() {
    let namespace = |number: u32| Caller {
        namespace: Some(format!("ns{number}").into()),
        ..Caller::default()
    };
    // Any model, and the provider as a whole: each combination counts twice.
    for (providers, callers, expected) in [
        (0, 1, 0),
        (1, 0, 0),
        (2, 1, 4),
        (3, 1, 6),
        (4, 1, 2),
        (1, 3, 6),
        (1, 4, 2),
        (3, 2, 6),
        (4, 3, 6),
        (4, 4, 2),
    ] {
        let llm = LlmBlock {
            providers: Some((0..providers).map(ProviderId).collect()),
            ..LlmBlock::default()
        };
        let rule = Rule {
            from: Some((0..callers).map(namespace).collect()),
            llm: vec![llm],
            ..rule()
        };
        assert_eq!(filed(&rule), expected, "{providers} by {callers}");
    }
}

#[test]
fn the_shorter_of_two_long_lists_is_asked_later() {
    let patterns = |ends: u32| {
        let pattern = |end: u32| format!("x{end}").parse().ok();
        Some((0..ends).filter_map(pattern).collect())
    };
    for (hosts, paths, expected) in [(2, 3, 6), (6, 1, 6), (2, 4, 4), (4, 2, 4), (3, 3, 3)] {
        let http = HttpBlock {
            hosts: patterns(hosts),
            paths: patterns(paths),
            ..HttpBlock::default()
        };
        let rule = Rule {
            http: vec![http],
            ..rule()
        };
        assert_eq!(filed(&rule), expected, "{hosts} by {paths}");
    }
}

#[test]
fn an_entry_asks_for_its_own_part_of_a_list() {
    let exact = |name: &str| name.parse().ok();
    let methods = exact("tools/call").map(|method| MethodRule {
        method,
        params: Some(["a", "b"].into_iter().filter_map(exact).collect()),
    });
    let mcp = McpBlock {
        methods: Some(methods.into_iter().collect()),
        ..McpBlock::default()
    };
    let rule = Rule {
        mcp: vec![mcp],
        ..rule()
    };
    let action = Action::Mcp {
        server: ServerId(0),
        method: "tools/call",
        name: "b",
        arguments: Arguments::Absent,
    };
    let asked = Asked::new(&action, "");
    for (second, expected) in [(0, false), (1, true), (ALL, true)] {
        let entry = Entry {
            rule: 0,
            block: 0,
            first: 0,
            second,
        };
        let matches = entry.matches(&rule, Effect::Allow, &asked);
        assert_eq!(matches, expected, "{second}");
    }
}

/// Each of many service accounts finds its own rules, and those of no other.
#[test]
fn accounts_are_told_apart_by_both_names() {
    let mut callers = Callers::default();
    let names = |at: u32| (format!("n{}", at / 40), format!("s{}", at % 40));
    let sets: Vec<CallerSet> = (0..1600)
        .map(|at| {
            let (namespace, name) = names(at);
            let caller = Caller {
                service_account: Some((namespace.into(), name.into())),
                ..Caller::default()
            };
            callers.single(&caller, Effect::Allow)
        })
        .collect();
    let settings = Settings {
        posture: Posture::Strict,
        namespace: "infra".into(),
        trust_domains: vec!["td".into()],
    };
    for (at, set) in (0..).zip(sets) {
        let (namespace, name) = names(at);
        let id = SpiffeId::of_workload("td", &namespace, &name);
        let principal = id.map_or(Principal::Anonymous, Principal::Workload);
        let mut found = CallerSets::new();
        let who = Who::new(&principal, &settings);
        callers.find(who.as_ref(), None, &mut found);
        assert_eq!(found.as_slice(), [set, ANYONE], "{namespace}/{name}");
    }
}

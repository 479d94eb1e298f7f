//! How many rules one decision looks at, however many there are.

use super::*;

const RULES: usize = 3_000;

/// Rules that `decide` would ask, of `RULES` made by `make`.
fn candidates(make: impl Fn(usize) -> Rule, action: Action<'_>) -> usize {
    let policies = (0..RULES).map(|i| policy(&format!("p{i}"), Allow, vec![make(i)]));
    let set = PolicySet::compile(policies.collect(), settings(Strict));
    let principal = Principal::Workload(ME.parse().unwrap());
    let who = Who::new(&principal, &set.settings).unwrap();
    let host = match action {
        Action::Http { host, .. } => host,
        _ => "",
    };
    let mut found = Found::new();
    let targets = [set.target(&gateway()).unwrap()];
    let asked = Asked::new(&action, host);
    set.index
        .find((Some(&who), None), &targets, &asked, &mut found);
    let entries = found
        .iter()
        .map(|bucket| bucket.entries(Class::Allow).len());
    entries.sum()
}

#[test]
fn candidates_do_not_grow_with_rules() {
    let m = || models(&["m"]);
    let model = |text: String| models(&[&text]);
    let tool = |text: String| tools("tools/call", &[&text]);
    let web = |host: String, path: String| {
        http(HttpBlock {
            paths: patterns(&[&path]),
            ..hosts(&[&host])
        })
    };
    let c = chat("m7", "m7");
    let t = call("tools/call", "t7");
    type Make<'a> = &'a dyn Fn(usize) -> Rule;
    let rows: [(&str, Make<'_>, Action<'_>, usize); 14] = [
        (
            "spiffe",
            &|i| from(m(), &[&format!("{ME}{i}")]),
            chat("m", "m"),
            0,
        ),
        (
            "service account",
            &|i| from(m(), &[&format!("agents/me{i}")]),
            chat("m", "m"),
            0,
        ),
        (
            "namespace",
            &|i| from(m(), &[&format!("agents{i}")]),
            chat("m", "m"),
            0,
        ),
        (
            "prefix",
            &|i| from(m(), &[&format!("spiffe://cluster.local/ns/a{i}/*")]),
            chat("m", "m"),
            0,
        ),
        (
            "caller and model",
            &|i| {
                from(
                    model(format!("m{}", i % 50)),
                    &[&format!("ns{i}"), "agents"],
                )
            },
            c,
            RULES / 50,
        ),
        ("model", &|i| model(format!("m{i}")), c, 1),
        ("model glob", &|i| model(format!("m{i}*")), c, 1),
        (
            "model glob at the front",
            &|i| model(format!("*-{i}m")),
            chat("x-7m", "x-7m"),
            1,
        ),
        ("tool", &|i| tool(format!("t{i}")), t, 1),
        ("tool glob", &|i| tool(format!("t{i}*")), t, 1),
        (
            "host",
            &|i| web(format!("h{i}"), "/x".into()),
            get("h7", "/x"),
            1,
        ),
        (
            "host glob",
            &|i| web(format!("*.h{i}"), "/x".into()),
            get("a.h7", "/x"),
            1,
        ),
        (
            "path",
            &|i| web("h".into(), format!("/x{i}")),
            get("h", "/x7"),
            1,
        ),
        (
            "path glob",
            &|i| web("h".into(), format!("/x{i}/*")),
            get("h", "/x7/y"),
            1,
        ),
    ];
    for (case, make, action, expected) in rows {
        assert_eq!(candidates(make, action), expected, "{case}");
    }
}

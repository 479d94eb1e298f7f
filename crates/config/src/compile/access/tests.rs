use waypoint_policy::access::AccessPolicy;

use super::super::{Drafts, gateway, mcp, parameters};
use super::*;
use crate::object;
use crate::{File, Options};

const BASE: &str = include_str!("../tests/base.yaml");

/// The policies that a file compiles to, also where there are errors, and the codes of what was
/// said.
fn policies(text: &str) -> (Vec<AccessPolicy>, Vec<&'static str>) {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let mut out = Diagnostics::default();
    let (objects, _) = object::load(&[file("base", BASE), file("it", text)], &mut out);
    let set = Set::read(&objects, &mut out);
    let name = gateway::choose(&set, Options::default().gateway.as_ref(), &mut out).unwrap();
    let gateway = set.gateways.get(&name).unwrap();
    let parameters = parameters::compile(&set, gateway, &mut out);
    let chosen = Chosen::compile(&set, gateway, &parameters, false, &mut out);
    let mut drafts = Drafts::default();
    mcp::compile(&set, &chosen, &mut drafts, &mut out);
    let policies = compile(&set, &chosen, &drafts, &mut out);
    let codes = out.finish().iter().map(|said| said.code).collect();
    (policies, codes)
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: XAccessPolicy\n\
         metadata: {{name: p, namespace: apps}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: wp}}]\n{spec}"
    )
}

/// What is refused must not leave its target open: nothing that it says allows anything, and it
/// stays attached.
#[test]
fn what_is_refused_allows_nothing() {
    for (case, spec, left) in [
        (
            "an external authorizer",
            "  action: ExternalAuth\n  externalAuth: {protocol: HTTP}\n",
            0,
        ),
        (
            "an authorizer that would not be asked",
            "  action: Allow\n  externalAuth: {protocol: HTTP}\n  rules: [{name: a}]\n",
            0,
        ),
        (
            "CEL",
            "  action: Allow\n  rules: [{name: a, authorization: {type: CEL, cel: {expression: \"true\"}}}]\n",
            0,
        ),
        (
            "CEL beside a rule",
            "  action: Allow\n  rules: [{name: a, authorization: {type: CEL}}, {name: b}]\n",
            1,
        ),
        (
            "the only path of a rule",
            "  action: Allow\n  rules: [{name: a, authorization: {type: Inline, paths: [{value: x}]}}]\n",
            0,
        ),
        (
            "the only method of a rule",
            "  action: Allow\n  rules: [{name: a, authorization: {type: Inline, mcp: {methods: [{name: tool}]}}}]\n",
            0,
        ),
        (
            "a source without its type",
            "  action: Allow\n  rules: [{name: a, source: {spiffe: \"spiffe://td/a\"}}]\n",
            0,
        ),
        (
            "a source of two types",
            "  action: Allow\n  rules: [{name: a, source: {type: SPIFFE, serviceAccount: {name: a}}}]\n",
            0,
        ),
        ("no rule", "  action: Allow\n  rules: []\n", 0),
    ] {
        let (policies, codes) = policies(&policy(spec));
        let [policy] = policies.as_slice() else {
            panic!("{case}: {codes:?}");
        };
        assert!(!codes.is_empty(), "{case}");
        assert_eq!(policy.targets.len(), 1, "{case}");
        let rules = policy.rules.as_ref().map(Vec::len);
        assert_eq!(rules, Some(left), "{case}: {codes:?}");
    }
}

#[test]
fn what_is_absent_is_any() {
    let absent = "  action: Allow\n";
    let (all, codes) = policies(&policy(absent));
    assert_eq!(
        (all[0].rules.is_none(), &codes[..]),
        (true, &["allows-all"][..])
    );
    // As clients that know the types write what they leave out.
    let empty = "  action: Allow\n  rules: [{name: a, source: {}, authorization: {type: Inline, mcp: {}}}]\n";
    let (all, codes) = policies(&policy(empty));
    assert_eq!(codes, [""; 0]);
    let rule = &all[0].rules.as_ref().unwrap()[0];
    assert_eq!((&rule.source, &rule.mcp), (&None, &None));
    assert_eq!(rule.http, HttpAccess::default());
}

/// All policies of a target are asked, so there is a bound.
#[test]
fn a_target_has_a_bounded_number() {
    let one = |i: usize| {
        policy("  action: Allow\n  rules: [{name: a}]\n")
            .replace("name: p,", &format!("name: p{i},"))
    };
    let documents = |count: usize| (0..count).map(one).collect::<Vec<_>>().join("---\n");
    assert_eq!(policies(&documents(PER_TARGET_MAX)).1, [""; 0]);
    assert_eq!(
        policies(&documents(PER_TARGET_MAX + 1)).1,
        ["limit-per-target"]
    );
}

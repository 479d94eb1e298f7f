//! Postures, effects, coverage and callers.

use super::*;

#[rustfmt::skip]
#[test]
fn decides_by_posture() {
    let m = chat("m", "m");
    let inside = Action::Http {
        method: "GET",
        host: "db",
        path: "/",
        port: 80,
        external: false,
    };
    check_all(vec![
        ("own namespace", Graduated, vec![], ME, m, GRADUATED),
        ("alias of the trust domain", Graduated, vec![], ALIAS, m, GRADUATED),
        ("other namespace", Graduated, vec![], OTHER, m, "deny model_not_allowed by Posture Graduated"),
        ("other trust domain", Graduated, vec![], FOREIGN, m, "deny model_not_allowed by Posture Graduated"),
        ("own namespace, strict", Strict, vec![], ME, m, "deny model_not_allowed by Posture Strict"),
        ("own namespace, observed", Observe, vec![], ME, m, "allow by Posture Observe"),
        ("other namespace, observed", Observe, vec![], OTHER, m, "allow by Posture Observe; would deny: Posture Graduated"),
        ("mcp item", Graduated, vec![], ME, call("tools/call", "x"), GRADUATED),
        ("mcp session of another", Graduated, vec![], OTHER, SESSION, "deny forbidden by Posture Graduated"),
        ("egress", Graduated, vec![], ME, get("h", "/"), "deny forbidden by Posture Graduated"),
        ("inside the mesh", Graduated, vec![], OTHER, inside, GRADUATED),
        ("inside the mesh, anonymous", Graduated, vec![], "", inside, GRADUATED),
        ("inside the mesh, strict", Strict, vec![], ME, inside, "deny forbidden by Posture Strict"),
        ("no match, observed", Observe, allow(models(&["x"])), ME, m, "allow by Posture Observe; would deny: Default no rule allows this"),
        ("deny, observed", Observe, deny(models(&["m"])), ME, m, DENY_MODEL),
        ("anonymous llm", Graduated, vec![], "", m, "deny identity_required by Identity no workload identity"),
        ("anonymous llm, observed", Observe, vec![], "", m, "deny identity_required by Identity no workload identity"),
        ("anonymous mcp, observed", Observe, vec![], "", SESSION, "deny identity_required by Identity no workload identity"),
        ("anonymous llm, allowed to anyone", Observe, allow(models(&["*"])), "", m, "deny identity_required by Identity no workload identity"),
    ]);
}

#[rustfmt::skip]
#[test]
fn decides_by_effect_and_coverage() {
    let m = chat("m", "m");
    let both = |a: Rule, d: Rule| [allow(a), deny(d)].concat();
    check_all(vec![
        ("allow", Strict, allow(models(&["m"])), OTHER, m, BY_R),
        ("deny beats allow", Graduated, both(models(&["*"]), models(&["m"])), ME, m, DENY_MODEL),
        ("deny without allow covers nothing", Graduated, deny(models(&["x"])), ME, m, GRADUATED),
        ("allow covers its family", Graduated, allow(models(&["x"])), ME, m, NO_MODEL),
        ("allow for others covers too", Graduated, allow(from(models(&["m"]), &["other"])), ME, m, NO_MODEL),
        ("allow leaves other families", Graduated, allow(models(&["x"])), ME, SESSION, GRADUATED),
        ("an allow without rules covers all", Graduated, vec![policy("a", Allow, vec![])], ME, SESSION, "deny forbidden by Default no rule allows this"),
        ("a deny without rules does nothing", Graduated, vec![policy("d", Deny, vec![])], ME, m, GRADUATED),
        ("a dry-run allow grants nothing", Strict, dry(allow(models(&["m"]))), ME, m, "deny model_not_allowed by Posture Strict"),
        ("a dry-run allow that matches", Graduated, dry(allow(models(&["m"]))), ME, m, GRADUATED),
        ("a dry-run allow that would cover", Graduated, dry(allow(models(&["x"]))), ME, m, "allow by Posture Graduated; would deny: AgentPolicy infra/a"),
        ("a dry-run deny", Graduated, dry(deny(models(&["m"]))), ME, m, "allow by Posture Graduated; would deny: AgentPolicy infra/d rule r"),
        ("a dry-run deny beside an allow", Strict, [allow(models(&["m"])), dry(deny(models(&["*"])))].concat(), ME, m, "allow by AgentPolicy infra/a rule r; would deny: AgentPolicy infra/d rule r"),
        ("the first by name", Strict, vec![policy("b", Allow, vec![models(&["m"])]), policy("a", Allow, vec![models(&["m"])])], ME, m, BY_R),
    ]);
}

#[rustfmt::skip]
#[test]
fn decides_by_caller() {
    let m = chat("m", "m");
    let rows = [
        ("exact", ME, ME, true),
        (
            "exact is exact",
            "spiffe://cluster.local/ns/agents/sa/me2",
            ME,
            false,
        ),
        ("exact knows no alias", ME, ALIAS, false),
        ("prefix", "spiffe://cluster.local/ns/agents/*", ME, true),
        (
            "prefix of the trust domain",
            "spiffe://cluster.local/*",
            ME,
            true,
        ),
        (
            "prefix ends at a segment",
            "spiffe://cluster.local/ns/age/*",
            ME,
            false,
        ),
        (
            "prefix does not match itself",
            "spiffe://cluster.local/ns/agents/sa/me/*",
            ME,
            false,
        ),
        (
            "prefix of another trust domain",
            "spiffe://cluster.loca/*",
            ME,
            false,
        ),
        ("service account", "agents/me", ME, true),
        ("service account by alias", "agents/me", ALIAS, true),
        ("service account elsewhere", "agents/me", FOREIGN, false),
        ("another service account", "agents/you", ME, false),
        ("namespace", "agents", ME, true),
        ("namespace by alias", "agents", ALIAS, true),
        ("namespace elsewhere", "agents", FOREIGN, false),
        ("another namespace", "agents", OTHER, false),
    ];
    for (case, caller, who, matches) in rows {
        let expected = if matches { BY_R } else { NO_MODEL };
        let one = allow(from(models(&["m"]), &[caller]));
        assert_eq!(check(Strict, &one, who, m), expected, "{case}");
        // Beyond the bound on combinations the list is filed as a whole.
        let mut many = vec!["ns1", "ns2", "ns3/a", "ns4", "spiffe://x/*", "ns5", caller];
        let long = allow(from(models(&["m"]), &many));
        assert_eq!(check(Strict, &long, who, m), expected, "{case}, among many");
        many.truncate(6);
        let without = allow(from(models(&["m"]), &many));
        assert_eq!(
            check(Strict, &without, who, m),
            NO_MODEL,
            "{case}, left out"
        );
    }
    let mut both = from(models(&["m"]), &["agents"]);
    both.from.as_mut().unwrap()[0].spiffe = Some("spiffe://old.local/*".parse().unwrap());
    check_all(vec![
        ("fields of a caller AND", Strict, allow(both.clone()), ME, m, NO_MODEL),
        ("fields of a caller hold", Strict, allow(both), ALIAS, m, BY_R),
        ("nobody", Strict, allow(from(models(&["m"]), &[])), ME, m, NO_MODEL),
        ("anonymous is denied what anyone is", Graduated, deny(http(hosts(&["*"]))), "", get("h", "/"), "deny forbidden by AgentPolicy infra/d rule r"),
        ("anonymous is not anyone", Graduated, allow(http(hosts(&["*"]))), "", get("h", "/"), "deny forbidden by Default no rule allows this"),
    ]);
}

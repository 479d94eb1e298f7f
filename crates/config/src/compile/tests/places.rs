//! Where findings are, and what is found beside what cannot be read.

use super::*;

/// What cannot be read hides nothing of the rest of its object, and what is missing only because it
/// was taken out is not found missing.
#[test]
fn what_cannot_be_read_hides_nothing_else() {
    let access = "apiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: XAccessPolicy\nmetadata: {name: a, namespace: apps}\nspec:\n  targetRefs: [{group: mcp.kgateway.io, kind: MCPProxy, name: base}]\n";
    let agent = "apiVersion: waypoint.kgateway.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: a, namespace: apps}\nspec:\n";
    let istio = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: apps}\nspec:\n";
    for (case, text, expected) in [
        (
            "a reference beside a rule",
            format!("{agent}  targetRefs: [{{kind: Gateway, name: gone}}]\n  rules: [{{name: a, from: [{{spiffe: 7}}], llm: [{{}}]}}]\n"),
            &["5:38 missing-reference", "6:37 wrong-type"][..],
        ),
        (
            "a later rule than one that cannot be read",
            format!("{access}  action: Allow\n  rules:\n  - {{name: 7}}\n  - name: b\n    authorization: {{type: Inline, paths: [{{type: Exact, value: x}}]}}\n"),
            &["8:12 wrong-type", "10:43 bad-value"],
        ),
        (
            "what was taken out is not missing",
            format!("{access}  action: Allow\n  rules:\n  - {{name: a, source: {{type: SPIFFE, spiffe: [x]}}}}\n  - {{name: B}}\n"),
            &["8:46 wrong-type", "9:12 bad-name"],
        ),
        (
            "an action that is none",
            format!("{istio}  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gone}}]\n  action: ALOW\n  rules: [{{}}]\n"),
            &["5:72 missing-reference", "6:11 unknown-value"],
        ),
        (
            "others miss what was taken out",
            "apiVersion: mcp.kgateway.io/v1\nkind: MCPProxy\nmetadata: {name: m, namespace: apps}\nspec:\n  routes:\n  - {name: one, match: {prefix: 7}, destination: {service: files, port: 8080}}\n---\n".to_owned()
                + agent + "  targetRefs: [{group: mcp.kgateway.io, kind: MCPProxy, name: m, sectionName: one}]\n  rules: [{name: a, mcp: [{}]}]\n",
            &["6:33 wrong-type"],
        ),
    ] {
        for gateway in [None, Some(("apps".to_owned(), "wp".to_owned()))] {
            let options = Options {
                gateway,
                ..Options::default()
            };
            let outcome = check(&[file("base.yaml", BASE), file("it.yaml", &text)], &options);
            let found = outcome.diagnostics.iter().filter(|d| d.is_error());
            let found: Vec<_> = found
                .map(|d| format!("{}:{} {}", d.line, d.col, d.code))
                .collect();
            assert_eq!(found, expected, "{case}: {}", render(&outcome));
            assert!(outcome.snapshot.is_none(), "{case}");
        }
    }
}

/// A Gateway that is chosen by name and is not there is missing where it is named first.
#[test]
fn a_missing_gateway_has_the_place_that_names_it() {
    let targets = |kind: &str, group: &str| {
        format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a, namespace: apps}}\nspec:\n  \
             targetRefs:\n  - {{group: gateway.networking.k8s.io, kind: Gateway, name: gone}}\n"
        )
    };
    let parents = |group: &str, kind: &str, more: &str| {
        format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a, namespace: other}}\nspec:\n  \
             {more}\n  parentRefs:\n  - {{name: gone, namespace: apps}}\n"
        )
    };
    let istio = "security.istio.io/v1";
    let routes = "routes: []";
    for (case, text, expected) in [
        ("nobody", String::new(), ""),
        (
            "another",
            targets("AuthorizationPolicy", istio).replace("gone", "wp"),
            "",
        ),
        (
            "another kind",
            targets("AuthorizationPolicy", istio).replace(": Gateway,", ": Service,"),
            "",
        ),
        (
            "a policy of Istio",
            targets("AuthorizationPolicy", istio),
            "it.yaml:6:61: ",
        ),
        (
            "tokens",
            targets("RequestAuthentication", istio),
            "it.yaml:6:61: ",
        ),
        (
            "a policy of ours",
            targets("AgentPolicy", "waypoint.kgateway.io/v1alpha1")
                + "  rules: [{name: a, llm: [{}]}]\n",
            "it.yaml:6:61: ",
        ),
        (
            "a policy of the SIG",
            targets("XAccessPolicy", "agentic.networking.x-k8s.io/v1alpha1") + "  action: Allow\n",
            "it.yaml:6:61: ",
        ),
        (
            "a route",
            parents("gateway.networking.k8s.io/v1", "HTTPRoute", "rules: []"),
            "it.yaml:7:12: ",
        ),
        (
            "a proxy",
            parents("mcp.kgateway.io/v1", "MCPProxy", routes),
            "it.yaml:7:12: ",
        ),
    ] {
        let gateway = Some(("apps".to_owned(), "gone".to_owned()));
        let options = Options {
            gateway,
            ..Options::default()
        };
        let outcome = compile(&[file("it.yaml", &text), file("base.yaml", BASE)], &options);
        let expected = format!("{expected}error[no-gateway]: there is no Gateway apps/gone");
        assert_eq!(render(&outcome), expected, "{case}");
    }
}

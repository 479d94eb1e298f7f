//! Beside policies of the other kind.

use super::*;

/// Deny rules, then this kind, then Allow rules; each kind that is about an action must allow it.
#[test]
fn both_kinds_must_allow() {
    let agent = |name: &str, effect, from: &str| AgentPolicy {
        name: ObjectName::new("agents", name),
        targets: vec![gateway()],
        effect,
        mode: Mode::Enforce,
        rules: vec![Rule {
            name: "a".into(),
            from: Some(vec![Caller {
                spiffe: Some(from.parse().unwrap()),
                ..Caller::default()
            }]),
            llm: vec![LlmBlock::default()],
            mcp: vec![McpBlock::default()],
            http: vec![],
        }],
    };
    let you = "spiffe://cluster.local/ns/agents/sa/you";
    let far = "spiffe://cluster.local/ns/far/sa/me";
    let access = |name: &str, spiffe: &str| {
        let source = Source::Spiffe(spiffe.parse().unwrap());
        policy(
            name,
            Some(vec![rule(Some(source), HttpAccess::default(), None)]),
        )
    };
    let call = item("tools/call", "t");
    for (case, posture, agents, policies, who, action, expected) in [
        (
            "alone",
            Posture::Strict,
            vec![],
            vec![access("p", far)],
            far,
            call,
            "allow by XAccessPolicy agents/p rule r",
        ),
        (
            "another",
            Posture::Graduated,
            vec![],
            vec![access("p", far)],
            ME,
            call,
            "deny by XAccessPolicy agents/p",
        ),
        (
            "all must",
            Posture::Graduated,
            vec![],
            vec![access("p", ME), access("q", you)],
            ME,
            call,
            "deny by XAccessPolicy agents/q",
        ),
        (
            "all do",
            Posture::Strict,
            vec![],
            vec![access("q", ME), access("p", ME)],
            ME,
            call,
            "allow by XAccessPolicy agents/p rule r",
        ),
        (
            "both allow",
            Posture::Strict,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", ME)],
            ME,
            call,
            "allow by AgentPolicy agents/a rule a",
        ),
        (
            "the other does not",
            Posture::Strict,
            vec![agent("a", Effect::Allow, you)],
            vec![access("p", ME)],
            ME,
            call,
            "deny by Default no rule allows this",
        ),
        (
            "this does not",
            Posture::Strict,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", you)],
            ME,
            call,
            "deny by XAccessPolicy agents/p",
        ),
        (
            "a Deny",
            Posture::Strict,
            vec![agent("a", Effect::Deny, ME)],
            vec![access("p", you)],
            ME,
            call,
            "deny by AgentPolicy agents/a rule a",
        ),
        (
            "not about it",
            Posture::Graduated,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", ME)],
            ME,
            plain(),
            "allow by XAccessPolicy agents/p rule r",
        ),
        (
            "without rules",
            Posture::Strict,
            vec![],
            vec![policy("p", None)],
            far,
            LLM,
            "allow by XAccessPolicy agents/p",
        ),
        (
            "rules that were refused",
            Posture::Graduated,
            vec![],
            vec![policy("p", Some(vec![]))],
            ME,
            LLM,
            "deny by XAccessPolicy agents/p",
        ),
        (
            "observed",
            Posture::Observe,
            vec![],
            vec![access("p", you)],
            ME,
            call,
            "allow by Posture Observe",
        ),
        (
            "observed, granted",
            Posture::Observe,
            vec![agent("a", Effect::Allow, ME)],
            vec![access("p", you)],
            ME,
            call,
            "allow by AgentPolicy agents/a rule a",
        ),
    ] {
        let set = PolicySet::compile(agents, settings(posture)).with_access(policies);
        let principal = Principal::Workload(who.parse().unwrap());
        assert_eq!(
            decide(&set, &principal, action, Facts::default()),
            expected,
            "{case}"
        );
    }
    // Nobody without an identity calls a model or a tool, whatever a rule without a source says.
    let set = set(vec![policy("p", None)], Posture::Graduated);
    let decided = decide(&set, &Principal::Anonymous, LLM, Facts::default());
    assert_eq!(decided, "deny by Identity no workload identity");
}

//! Callers by token: what is asked of its claims, and whether anybody verifies such tokens.

use waypoint_policy::limit::UsageLimit;
use waypoint_policy::{AgentPolicy, ClaimRule, ObjectRef, Token};

use super::Served;
use crate::compile::set::Set;
use crate::jwt::{JwtRule, RequestAuthentication};
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics};
use crate::raw::agent as raw;

pub(super) fn compile(raw: &raw::Token, at: At<'_>, out: &mut Diagnostics) -> Token {
    if raw.issuer.is_empty() {
        out.error(at.key("issuer"), "missing-field", "`issuer` must be set");
    }
    let at = at.key("claims");
    let mut claims: Vec<ClaimRule> = Vec::new();
    for (name, values) in &raw.claims {
        let at = at.key(name);
        if values.is_empty() {
            let message = "the claim has no values, so nothing matches; remove it to take any";
            out.error(at, "empty-list", message);
        }
        // Without names it leads to nothing, so that what is refused never holds.
        let path = path(name).unwrap_or_default();
        if path.is_empty() {
            let message = format!("`{name}` is neither the name of a claim nor `[name][name]`");
            out.error(at, "bad-value", message);
        } else if claims.iter().any(|known| known.path == path) {
            let message = format!("`{name}` is the same claim as another entry");
            out.error(at, "duplicate-name", message);
        }
        claims.push(ClaimRule {
            path,
            values: values.iter().map(|value| value.0.clone()).collect(),
        });
    }
    Token {
        issuer: raw.issuer.as_str().into(),
        claims,
    }
}

/// The names that lead to a claim: one, or each in brackets as in Istio's
/// `request.auth.claims[team][name]`.
fn path(name: &str) -> Option<Vec<Box<str>>> {
    let Some(inner) = name.strip_prefix('[') else {
        let is_one = !name.is_empty() && !name.ends_with(']');
        return is_one.then(|| vec![name.into()]);
    };
    let parts: Vec<Box<str>> = inner
        .strip_suffix(']')?
        .split("][")
        .map(Into::into)
        .collect();
    let is_whole = |part: &str| !part.is_empty() && !part.contains(['[', ']']);
    parts.iter().all(|part| is_whole(part)).then_some(parts)
}

/// Tells of issuers whose tokens nobody verifies at this waypoint: no such claim is ever there.
pub(super) fn warn_of_issuers(
    set: &Set<'_>,
    served: &Served,
    (policies, limits): (&[AgentPolicy], &[UsageLimit]),
    authentication: &[RequestAuthentication],
    out: &mut Diagnostics,
) {
    if set.any_broken(ObjectKind::RequestAuthentication) {
        return;
    }
    let here = authentication
        .iter()
        .filter(|one| one.always || !one.hosts.is_empty());
    let rules = here.flat_map(|one| &one.rules);
    let rules: Vec<&JwtRule> = rules.collect();
    let is_here = |targets: &[ObjectRef]| targets.iter().any(|t| served.objects.contains(t));
    for policy in policies.iter().filter(|policy| is_here(&policy.targets)) {
        let Some(decoded) = set.policies.get(&policy.name) else {
            continue;
        };
        let at = decoded.object.spec().key("rules");
        for (index, rule) in decoded.raw.rules.iter().enumerate() {
            warn_of_callers(&rules, rule.from.as_deref(), at.index(index), out);
        }
    }
    for limit in limits.iter().filter(|limit| is_here(&limit.targets)) {
        if let Some(decoded) = set.limits.get(&limit.name) {
            let at = decoded.object.spec();
            warn_of_callers(&rules, decoded.raw.from.as_deref(), at, out);
        }
    }
}

fn warn_of_callers(
    rules: &[&JwtRule],
    from: Option<&[raw::Caller]>,
    at: At<'_>,
    out: &mut Diagnostics,
) {
    let at = at.key("from");
    for (index, caller) in from.into_iter().flatten().enumerate() {
        let at = at.index(index).key("jwt").key("issuer");
        let unknown = caller.jwt.as_ref();
        let unknown = unknown.filter(|token| {
            !token.issuer.is_empty() && !rules.iter().any(|rule| rule.takes(&token.issuer))
        });
        if let Some(token) = unknown {
            let message = format!(
                "no RequestAuthentication that applies here takes tokens of `{}`, so this never \
                 matches",
                token.issuer
            );
            out.warning(at, "never-matches", message);
        }
    }
}

//! Callers that are known by a token, found by its issuer and by what one claim says.

use hashbrown::HashMap;
use serde_json::Value;

use super::callers::Member;
use crate::{Effect, Pattern, Token, istio::Claims, token::Held};

#[cfg(test)]
mod tests;

/// Callers by the token they need, each filed under one of its claims.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<Box<str>, Issuer>);

#[derive(Debug, Default)]
struct Issuer {
    /// Any token.
    any: Vec<Member>,
    /// By the outermost name of the claim, then by those inside it.
    claims: HashMap<Box<str>, Vec<Claim>>,
}

/// The callers that one claim is asked for, with the names that lead to it.
type Claim = (Vec<Box<str>>, Values);

#[derive(Debug, Default)]
struct Values {
    exact: HashMap<Box<str>, Vec<Member>>,
    /// By values with `*`.
    globs: Vec<Member>,
    /// Denials, which match what cannot be read.
    denials: Vec<Member>,
}

impl Tokens {
    /// Files a caller that needs `token`.
    pub(super) fn file(&mut self, token: &Token, member: &Member) {
        let issuer = self.0.entry_ref(&*token.issuer).or_default();
        let is_exact = |values: &[Pattern]| values.iter().all(|value| value.as_exact().is_some());
        let mut claims = token.claims.iter();
        let exact = claims.find(|rule| is_exact(&rule.values));
        let Some(rule) = exact.or(token.claims.first()) else {
            issuer.any.push(member.clone());
            return;
        };
        let Some(name) = rule.path.first() else {
            // Leads to nothing, so it is never there.
            return;
        };
        let of_name = issuer.claims.entry_ref(&**name).or_default();
        let at = match of_name.iter().position(|(path, _)| *path == rule.path) {
            Some(at) => at,
            None => {
                of_name.push((rule.path.clone(), Values::default()));
                of_name.len() - 1
            }
        };
        let Some((_, values)) = of_name.get_mut(at) else {
            return;
        };
        if member.effect == Effect::Deny {
            values.denials.push(member.clone());
        }
        if !is_exact(&rule.values) {
            values.globs.push(member.clone());
            return;
        }
        for value in rule.values.iter().filter_map(Pattern::as_exact) {
            let members = values.exact.entry_ref(value).or_default();
            members.push(member.clone());
        }
    }

    /// Callers that may have a token with these claims.
    pub(super) fn find<'i>(&'i self, claims: &Claims, mut take: impl FnMut(&'i [Member])) {
        let Some(issuer) = self.0.get(claims.text("iss")) else {
            return;
        };
        take(&issuer.any);
        let mut ask = |of_name: &'i [Claim]| {
            for (path, values) in of_name {
                let mut is_there = false;
                let is_odd = Held::at(claims, path).texts(|text| {
                    is_there = true;
                    if let Some(members) = values.exact.get(text) {
                        take(members);
                    }
                });
                if is_there {
                    take(&values.globs);
                }
                if is_odd {
                    take(&values.denials);
                }
            }
        };
        // Whichever are fewer: the names that rules look at, or those that the token has.
        let named = |(name, _): (&String, &Value)| issuer.claims.get(name.as_str());
        match issuer.claims.len() <= claims.0.len() {
            true => issuer.claims.values().for_each(|of_name| ask(of_name)),
            false => claims
                .0
                .iter()
                .filter_map(named)
                .for_each(|of_name| ask(of_name)),
        }
    }
}

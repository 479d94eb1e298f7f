//! CUSTOM: who has to be asked about a request, and what follows from the answers.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    IstioSet, Request,
    index::Found,
    set::{Attached, Class},
};
use crate::{RuleName, TargetId};

/// An external authorizer that has to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomCall {
    /// Its name in the mesh's `extensionProviders`.
    pub provider: Arc<str>,
    /// The first rule that asks for it.
    pub rule: Arc<RuleName>,
}

/// What an external authorizer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomVerdict {
    /// Its name in the mesh's `extensionProviders`.
    pub provider: Arc<str>,
    /// Whether the request may go on.
    pub allows: bool,
}

impl IstioSet {
    fn attached<'s>(&'s self, targets: &'s [TargetId]) -> impl Iterator<Item = &'s Attached> {
        targets.iter().filter_map(|target| self.targets.get(target))
    }

    /// Whether the CUSTOM policies of these targets name more than one provider. A workload has
    /// one, as at Istio's waypoints: what their rules match is denied.
    fn is_ambiguous(&self, targets: &[TargetId]) -> bool {
        let mut providers = self
            .attached(targets)
            .flat_map(|attached| &attached.providers);
        let first = providers.next();
        providers.any(|provider| Some(provider) != first)
    }

    /// The numbers of the CUSTOM rules that match, by policy and place.
    fn custom(&self, request: &Request<'_>, targets: &[TargetId], found: &mut Found) {
        self.candidates(Class::Custom, request, targets, found);
        found.retain(|number| self.matches(*number, request));
        found.sort_unstable();
    }

    /// Who has to be asked about this request before it is judged. Nobody, where the answer would
    /// change nothing: it is denied anyway.
    pub(crate) fn custom_calls(
        &self,
        request: &Request<'_>,
        targets: &[TargetId],
    ) -> SmallVec<[CustomCall; 1]> {
        let mut calls: SmallVec<[CustomCall; 1]> = SmallVec::new();
        if self.is_ambiguous(targets) {
            return calls;
        }
        let mut found = Found::new();
        self.custom(request, targets, &mut found);
        for (rule, provider) in found.iter().filter_map(|number| self.named(*number)) {
            let Some(provider) = provider else {
                continue;
            };
            if calls.iter().all(|call| call.provider != *provider) {
                calls.push(CustomCall {
                    provider: Arc::clone(provider),
                    rule: Arc::clone(rule),
                });
            }
        }
        calls
    }

    /// The first CUSTOM rule that denies: it matches, and its provider did not allow or was not
    /// asked.
    pub(super) fn custom_denial(
        &self,
        request: &Request<'_>,
        targets: &[TargetId],
        found: &mut Found,
    ) -> Option<Arc<RuleName>> {
        self.custom(request, targets, found);
        let mut matching = found.iter().filter_map(|number| self.named(*number));
        let denies = |provider| !self.is_satisfied(provider, request, targets);
        let (rule, _) = matching.find(|(_, provider)| denies(*provider))?;
        Some(Arc::clone(rule))
    }

    /// Whether a CUSTOM rule that matches lets a request go on: its provider was asked, and allowed.
    pub(super) fn is_satisfied(
        &self,
        provider: Option<&Arc<str>>,
        request: &Request<'_>,
        targets: &[TargetId],
    ) -> bool {
        let mut verdicts = request.custom.iter();
        let allowed = verdicts.any(|verdict| {
            provider.is_some_and(|provider| verdict.provider == *provider) && verdict.allows
        });
        allowed && !self.is_ambiguous(targets)
    }
}

//! All limits of a snapshot, filed so that a call finds its own without asking the others.

use std::sync::Arc;

use smallvec::SmallVec;

use super::UsageLimit;
use crate::{
    ObjectRef, TargetId,
    index::{Class, Found, Index},
    istio::Claims,
    matching::{Asked, Who},
};

/// All limits, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct LimitSet {
    limits: Vec<Arc<UsageLimit>>,
    index: Index,
}

impl LimitSet {
    /// Files limits; their order means nothing.
    pub(crate) fn compile(
        mut limits: Vec<UsageLimit>,
        mut intern: impl FnMut(&ObjectRef) -> TargetId,
    ) -> Self {
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        let mut index = Index::default();
        for (number, limit) in (0..).zip(&limits) {
            let mut targets: Vec<TargetId> = limit.targets.iter().map(&mut intern).collect();
            targets.sort_unstable();
            targets.dedup();
            // As a Deny is read: what is uncertain is limited.
            index.file(number, &limit.rule, Class::Deny, &targets);
        }
        let limits = limits
            .into_iter()
            .map(|limit| Arc::new(limit.ready()))
            .collect();
        Self { limits, index }
    }

    pub(crate) fn limits(&self) -> &[Arc<UsageLimit>] {
        &self.limits
    }

    /// The limits of one action, by name.
    pub(crate) fn find(
        &self,
        who: (Option<&Who<'_>>, Option<&Claims>),
        targets: &[TargetId],
        asked: &Asked<'_>,
    ) -> SmallVec<[&Arc<UsageLimit>; 4]> {
        if self.limits.is_empty() {
            return SmallVec::new();
        }
        let mut found = Found::new();
        self.index.find(who, targets, asked, &mut found);
        let mut numbers: SmallVec<[u32; 4]> = SmallVec::new();
        for entry in found.iter().flat_map(|bucket| bucket.entries(Class::Deny)) {
            let limit = self.limits.get(entry.rule as usize);
            let matches =
                limit.is_some_and(|limit| entry.matches(&limit.rule, Class::Deny.effect(), asked));
            if matches && !numbers.contains(&entry.rule) {
                numbers.push(entry.rule);
            }
        }
        numbers.sort_unstable();
        let limits = numbers.iter();
        limits
            .filter_map(|&number| self.limits.get(number as usize))
            .collect()
    }
}

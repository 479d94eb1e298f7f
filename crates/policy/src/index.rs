//! Which rules may match an action, found by hashing rather than by asking each.
//!
//! A rule is filed under every combination of a target, a caller, a backend and two texts: the
//! model; method and name; host and path. A question looks up the few combinations its own
//! fields can make, step by step, so that a combination nobody wrote costs nothing further. What
//! is found is a candidate: [`matching`](crate::matching) has the last word.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::{
    Action, AgentPolicy, Effect, Family, HttpBlock, LlmBlock, McpBlock, Mode, ObjectRef, Pattern,
    Rule, TargetId,
    istio::Claims,
    matching::{Asked, Who},
};

mod callers;
#[cfg(test)]
mod tests;
mod texts;
mod tokens;

use callers::{ANYONE, CallerSet, CallerSets, Callers};
use texts::{ANY, Key, Keys, Texts, WHOLE};

/// The most combinations one block of a rule is filed under; beyond it the longest products are
/// filed more coarsely and their lists asked when the rule is found.
///
/// Tests use a small bound, so that random rules reach beyond it.
const COMBINATIONS_MAX: usize = if cfg!(test) { 6 } else { 4096 };
/// Every entry of a list, in place of the index of one.
const ALL: u32 = u32::MAX;
/// Any backend.
const ANY_BACKEND: u32 = u32::MAX;

/// What rules do and whether they are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Deny,
    Allow,
    DryDeny,
    DryAllow,
}

impl Class {
    pub(crate) fn of(policy: &AgentPolicy) -> Self {
        match (policy.mode, policy.effect) {
            (Mode::Enforce, Effect::Deny) => Self::Deny,
            (Mode::Enforce, Effect::Allow) => Self::Allow,
            (Mode::DryRun, Effect::Deny) => Self::DryDeny,
            (Mode::DryRun, Effect::Allow) => Self::DryAllow,
        }
    }

    pub(crate) fn effect(self) -> Effect {
        match self {
            Self::Deny | Self::DryDeny => Effect::Deny,
            Self::Allow | Self::DryAllow => Effect::Allow,
        }
    }
}

/// One combination a rule is filed under: which block, and which entry of its lists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The rule's number, ascending by policy name and place.
    pub(crate) rule: u32,
    block: u32,
    first: u32,
    second: u32,
}

/// The entries of one combination, by [`Class`], each ascending by rule.
#[derive(Debug, Default)]
pub(crate) struct Bucket([Vec<Entry>; 4]);

impl Bucket {
    pub(crate) fn entries(&self, class: Class) -> &[Entry] {
        self.0.get(class as usize).map_or(&[], Vec::as_slice)
    }
}

/// What a question found.
pub(crate) type Found<'i> = SmallVec<[&'i Bucket; 16]>;

/// The rules of all policies, filed.
#[derive(Debug, Default)]
pub(crate) struct Index {
    targets: HashMap<ObjectRef, TargetId>,
    callers: Callers,
    models: Texts,
    methods: Texts,
    names: Texts,
    hosts: Texts,
    paths: Texts,
    rows: HashMap<Row, u32>,
    cells: HashMap<(u32, Key), u32>,
    buckets: HashMap<(u32, Key), Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    target: TargetId,
    callers: CallerSet,
    family: Family,
    backend: u32,
}

/// The keys of one entry, and the entry's places in the lists of its block.
#[derive(Debug, Clone, Copy)]
struct Place {
    first: (Key, u32),
    second: (Key, u32),
}

impl Place {
    const WHOLE: Self = Self {
        first: (WHOLE, ALL),
        second: (ANY, ALL),
    };
}

impl Index {
    pub(crate) fn target(&self, object: &ObjectRef) -> Option<TargetId> {
        self.targets.get(object).copied()
    }

    /// The number of `object`, given now if it has none yet.
    pub(crate) fn intern_target(&mut self, object: &ObjectRef) -> TargetId {
        let next = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        if let Some(&target) = self.targets.get(object) {
            return target;
        }
        self.targets.insert(object.clone(), TargetId(next));
        TargetId(next)
    }

    /// Files one rule. Rules come in ascending order of `number`.
    pub(crate) fn file(&mut self, number: u32, rule: &Rule, class: Class, targets: &[TargetId]) {
        for (block, llm) in (0..).zip(&rule.llm) {
            let places = self.llm_places(llm, class.effect());
            let backends = llm.providers.as_ref();
            let backends = backends.map(|ids| ids.iter().map(|id| id.0).collect());
            let scope = (Family::Llm, backends, targets);
            self.file_block(number, block, rule, class, scope, &places);
        }
        for (block, mcp) in (0..).zip(&rule.mcp) {
            let places = self.mcp_places(mcp, class.effect());
            let backends = mcp.servers.as_ref();
            let backends = backends.map(|ids| ids.iter().map(|id| id.0).collect());
            let scope = (Family::Mcp, backends, targets);
            self.file_block(number, block, rule, class, scope, &places);
        }
        for (block, http) in (0..).zip(&rule.http) {
            let places = self.http_places(http);
            let scope = (Family::Http, None, targets);
            self.file_block(number, block, rule, class, scope, &places);
        }
    }

    fn file_block(
        &mut self,
        rule: u32,
        block: u32,
        from: &Rule,
        class: Class,
        (family, backends, targets): (Family, Option<Vec<u32>>, &[TargetId]),
        places: &[Place],
    ) {
        let mut backends = backends.unwrap_or_else(|| vec![ANY_BACKEND]);
        let room = |combinations: usize, more: usize| {
            combinations.saturating_mul(more) <= COMBINATIONS_MAX
        };
        let mut combinations = targets.len().saturating_mul(places.len());
        if !backends.is_empty() && !room(combinations, backends.len()) {
            backends = vec![ANY_BACKEND];
        }
        combinations = combinations.saturating_mul(backends.len());
        let callers: Vec<CallerSet> = match from.from.as_deref() {
            None => vec![ANYONE],
            Some([]) => Vec::new(),
            Some(list) if room(combinations, list.len()) => {
                let effect = class.effect();
                let one = |one| self.callers.single(one, effect);
                list.iter().map(one).collect()
            }
            Some(list) => vec![self.callers.group(list, class.effect())],
        };
        for &target in targets {
            for &callers in &callers {
                for &backend in &backends {
                    let row = Row {
                        target,
                        callers,
                        family,
                        backend,
                    };
                    let row = number(&mut self.rows, row);
                    for place in places {
                        let cell = number(&mut self.cells, (row, place.first.0));
                        let bucket = self.buckets.entry((cell, place.second.0)).or_default();
                        if let Some(entries) = bucket.0.get_mut(class as usize) {
                            entries.push(Entry {
                                rule,
                                block,
                                first: place.first.1,
                                second: place.second.1,
                            });
                        }
                    }
                }
            }
        }
    }

    fn llm_places(&mut self, block: &LlmBlock, effect: Effect) -> Vec<Place> {
        let models = keys(&mut self.models, block.models.as_deref());
        let second = (ANY, ALL);
        let places = models.into_iter().map(|first| Place { first, second });
        let is_whole = block.failed_whole(effect).is_none();
        places.chain(is_whole.then_some(Place::WHOLE)).collect()
    }

    fn mcp_places(&mut self, block: &McpBlock, effect: Effect) -> Vec<Place> {
        let whole = block.holds_whole(effect).then_some(Place::WHOLE);
        let mut places: Vec<Place> = whole.into_iter().collect();
        let Some(methods) = &block.methods else {
            places.push(Place {
                first: (ANY, ALL),
                second: (ANY, ALL),
            });
            return places;
        };
        for (index, rule) in (0..).zip(methods) {
            let first = (self.methods.intern(&rule.method), index);
            let params = keys(&mut self.names, rule.params.as_deref());
            places.extend(params.into_iter().map(|second| Place { first, second }));
        }
        places
    }

    fn http_places(&mut self, block: &HttpBlock) -> Vec<Place> {
        let mut hosts = keys(&mut self.hosts, block.hosts.as_deref());
        let mut paths = keys(&mut self.paths, block.paths.as_deref());
        if hosts.len().saturating_mul(paths.len()) > COMBINATIONS_MAX {
            let lists = [&mut hosts, &mut paths];
            if let Some(shorter) = lists.into_iter().min_by_key(|list| list.len()) {
                *shorter = vec![(ANY, ALL)];
            }
        }
        let both = hosts.iter().flat_map(|&first| {
            let place = move |&second: &(Key, u32)| Place { first, second };
            paths.iter().map(place)
        });
        both.collect()
    }

    /// Every bucket that may hold a rule matching `asked`.
    pub(crate) fn find<'i>(
        &'i self,
        (who, claims): (Option<&Who<'_>>, Option<&Claims>),
        targets: &[TargetId],
        asked: &Asked<'_>,
        found: &mut Found<'i>,
    ) {
        let mut callers = CallerSets::new();
        self.callers.find(who, claims, &mut callers);
        let (mut first, mut second) = (Keys::new(), Keys::new());
        let backend = match asked.action {
            Action::Llm {
                provider,
                requested,
                upstream,
                ..
            } => {
                self.models.find(upstream, &mut first);
                if requested != upstream {
                    self.models.find(requested, &mut first);
                }
                second.push(ANY);
                provider.0
            }
            Action::LlmAny { provider } => {
                first.push(WHOLE);
                second.push(ANY);
                provider.0
            }
            Action::Mcp {
                server,
                method,
                name,
                arguments: _,
            } => {
                self.methods.find(method, &mut first);
                self.names.find(name, &mut second);
                server.0
            }
            Action::McpSession { server, .. } => {
                first.push(WHOLE);
                second.push(ANY);
                server.0
            }
            Action::Http { host, path, .. } => {
                self.hosts.find(host, &mut first);
                self.paths.find(path, &mut second);
                ANY_BACKEND
            }
        };
        let backends = [ANY_BACKEND, backend];
        let backends = match backend {
            ANY_BACKEND => &backends[..1],
            _ => &backends[..],
        };
        for &target in targets {
            for &callers in &callers {
                for &backend in backends {
                    let row = Row {
                        target,
                        callers,
                        family: asked.action.family(),
                        backend,
                    };
                    if let Some(&row) = self.rows.get(&row) {
                        self.find_in_row(row, &first, &second, found);
                    }
                }
            }
        }
    }

    fn find_in_row<'i>(&'i self, row: u32, first: &Keys, second: &Keys, found: &mut Found<'i>) {
        for &key in first {
            if let Some(&cell) = self.cells.get(&(row, key)) {
                let buckets = second
                    .iter()
                    .filter_map(|&key| self.buckets.get(&(cell, key)));
                found.extend(buckets);
            }
        }
    }
}

impl Entry {
    /// Whether the entry's own part of `rule` matches. Its caller and target do: they led here.
    pub(crate) fn matches(&self, rule: &Rule, effect: Effect, asked: &Asked<'_>) -> bool {
        let block = self.block as usize;
        match asked.action.family() {
            Family::Llm => rule.llm.get(block).is_some_and(|block| {
                let models = one(block.models.as_deref(), self.first);
                block.failed(models, effect, asked).is_none()
            }),
            Family::Mcp => rule.mcp.get(block).is_some_and(|block| {
                let methods = one(block.methods.as_deref(), self.first);
                let param = (self.second != ALL).then_some(self.second as usize);
                block.failed(methods, param, effect, asked).is_none()
            }),
            Family::Http => rule.http.get(block).is_some_and(|block| {
                let hosts = one(block.hosts.as_deref(), self.first);
                let paths = one(block.paths.as_deref(), self.second);
                block.failed(hosts, paths, effect, asked).is_none()
            }),
        }
    }
}

/// The entry `index` of a list as a list of its own, or the whole list.
fn one<T>(list: Option<&[T]>, index: u32) -> Option<&[T]> {
    match index {
        ALL => list,
        index => list.map(|list| {
            let index = index as usize;
            list.get(index..=index).unwrap_or_default()
        }),
    }
}

/// The keys of a list of patterns with their places in it.
fn keys(texts: &mut Texts, patterns: Option<&[Pattern]>) -> Vec<(Key, u32)> {
    match patterns {
        None => vec![(ANY, ALL)],
        Some(list) => (0..).zip(list).map(|(i, p)| (texts.intern(p), i)).collect(),
    }
}

/// The number of `key`, given now if it has none yet.
fn number<K: std::hash::Hash + Eq>(numbers: &mut HashMap<K, u32>, key: K) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    *numbers.entry(key).or_insert(next)
}

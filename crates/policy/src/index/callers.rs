//! Callers to numbers, so that an identity finds the rules that may name it by hashing.

use std::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};
use smallvec::SmallVec;

use super::tokens::Tokens;
use crate::{Caller, Effect, SpiffePattern, istio::Claims, matching::Who};

/// The number of a caller, or of a whole `from` list.
pub(crate) type CallerSet = u32;
pub(crate) type CallerSets = SmallVec<[CallerSet; 8]>;

/// Anyone with an identity.
pub(crate) const ANYONE: CallerSet = 0;

/// The callers that rules name.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// What a token has to say for a Deny is not what it has to say for an Allow.
    singles: HashMap<(Caller, Option<Effect>), CallerSet>,
    groups: HashMap<(Vec<Caller>, Option<Effect>), CallerSet>,
    count: u32,
    by_identity: ByIdentity<Vec<Member>>,
    by_both: ByIdentity<Tokens>,
    by_token: Tokens,
}

/// What is filed under one field of an identity.
#[derive(Debug, Default)]
struct ByIdentity<V> {
    exact: HashMap<Box<str>, V>,
    accounts: HashMap<Account, V>,
    namespaces: HashMap<Box<str>, V>,
    prefixes: HashMap<Box<str>, V>,
    /// The most `/` in a key of `prefixes`.
    prefix_slashes: usize,
}

/// A caller filed under one of its fields; the others are asked when it is found.
#[derive(Debug, Clone)]
pub(super) struct Member {
    caller: Caller,
    set: CallerSet,
    /// Of the rule that names it.
    pub(super) effect: Effect,
}

#[derive(Debug, PartialEq, Eq)]
struct Account(Box<str>, Box<str>);

#[derive(Hash)]
struct AccountRef<'a>(&'a str, &'a str);

impl Hash for Account {
    fn hash<H: Hasher>(&self, state: &mut H) {
        AccountRef(&self.0, &self.1).hash(state);
    }
}

impl Equivalent<Account> for AccountRef<'_> {
    fn equivalent(&self, account: &Account) -> bool {
        *self.0 == *account.0 && *self.1 == *account.1
    }
}

#[cfg(test)]
impl Member {
    pub(super) fn new(caller: Caller, effect: Effect) -> Self {
        let set = ANYONE;
        Self {
            caller,
            set,
            effect,
        }
    }
}

impl<V: Default> ByIdentity<V> {
    /// Where a caller is filed; nothing if any identity will do.
    fn place(&mut self, caller: &Caller) -> Option<&mut V> {
        Some(match caller {
            Caller {
                spiffe: Some(SpiffePattern::Exact(id)),
                ..
            } => self.exact.entry_ref(id.as_str()).or_default(),
            Caller {
                service_account: Some((namespace, name)),
                ..
            } => {
                let account = Account(namespace.clone(), name.clone());
                self.accounts.entry(account).or_default()
            }
            Caller {
                namespace: Some(namespace),
                ..
            } => self.namespaces.entry_ref(&**namespace).or_default(),
            Caller {
                spiffe: Some(SpiffePattern::Prefix(prefix)),
                ..
            } => {
                self.prefix_slashes = self.prefix_slashes.max(prefix.matches('/').count());
                self.prefixes.entry_ref(prefix.as_str()).or_default()
            }
            Caller { .. } => return None,
        })
    }

    /// Everything that is filed where `who` may be meant.
    fn find<'i>(&'i self, who: &Who<'_>, mut take: impl FnMut(&'i V)) {
        let id = who.id.as_str();
        self.exact.get(id).into_iter().for_each(&mut take);
        if let Some(workload) = who.own {
            let account = AccountRef(workload.namespace, workload.service_account);
            self.accounts.get(&account).into_iter().for_each(&mut take);
            let namespace = self.namespaces.get(workload.namespace);
            namespace.into_iter().for_each(&mut take);
        }
        for (at, _) in id.match_indices('/').take(self.prefix_slashes) {
            let prefix = id.get(..=at).and_then(|prefix| self.prefixes.get(prefix));
            prefix.into_iter().for_each(&mut take);
        }
    }
}

impl Callers {
    /// The set of this caller alone, for a rule with this effect.
    pub(crate) fn single(&mut self, caller: &Caller, effect: Effect) -> CallerSet {
        if caller.is_anyone() {
            return ANYONE;
        }
        let key = (caller.clone(), caller.jwt.is_some().then_some(effect));
        if let Some(&set) = self.singles.get(&key) {
            return set;
        }
        self.count += 1;
        let set = self.count;
        self.singles.insert(key, set);
        self.file(caller, set, effect);
        set
    }

    /// The set of all these callers; for lists that are too long to be filed one by one.
    pub(crate) fn group(&mut self, callers: &[Caller], effect: Effect) -> CallerSet {
        if callers.iter().any(Caller::is_anyone) {
            return ANYONE;
        }
        let has_token = callers.iter().any(|caller| caller.jwt.is_some());
        let key = (callers.to_vec(), has_token.then_some(effect));
        if let Some(&set) = self.groups.get(&key) {
            return set;
        }
        self.count += 1;
        let set = self.count;
        self.groups.insert(key, set);
        for caller in callers {
            self.file(caller, set, effect);
        }
        set
    }

    fn file(&mut self, caller: &Caller, set: CallerSet, effect: Effect) {
        let member = Member {
            caller: caller.clone(),
            set,
            effect,
        };
        match &caller.jwt {
            None => {
                // One without any field is anyone, and never filed.
                let place = self.by_identity.place(caller);
                place
                    .into_iter()
                    .for_each(|place| place.push(member.clone()));
            }
            Some(token) => {
                let place = self.by_both.place(caller);
                place.unwrap_or(&mut self.by_token).file(token, &member);
            }
        }
    }

    /// Every set that a request of `who` with these claims is in. Without an identity only tokens
    /// count, and no Allow rule does.
    pub(crate) fn find(
        &self,
        who: Option<&Who<'_>>,
        claims: Option<&Claims>,
        sets: &mut CallerSets,
    ) {
        let mut take = |members: &[Member]| {
            for member in members {
                let is_meant = member.caller.matches(who, claims, member.effect);
                if is_meant && !sets.contains(&member.set) {
                    sets.push(member.set);
                }
            }
        };
        if let Some(who) = who {
            self.by_identity.find(who, |members| take(members));
        }
        if let Some(claims) = claims {
            if let Some(who) = who {
                self.by_both
                    .find(who, |tokens| tokens.find(claims, &mut take));
            }
            self.by_token.find(claims, &mut take);
        }
        sets.push(ANYONE);
    }
}

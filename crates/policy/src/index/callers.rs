//! Callers to numbers, so that an identity finds the rules that may name it by hashing.

use std::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};
use smallvec::SmallVec;

use crate::{Caller, SpiffePattern, matching::Who};

/// The number of a caller, or of a whole `from` list.
pub(crate) type CallerSet = u32;
pub(crate) type CallerSets = SmallVec<[CallerSet; 8]>;

/// Anyone with an identity.
pub(crate) const ANYONE: CallerSet = 0;

/// The callers that rules name.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    singles: HashMap<Caller, CallerSet>,
    groups: HashMap<Vec<Caller>, CallerSet>,
    count: u32,
    exact: HashMap<Box<str>, Vec<Member>>,
    accounts: HashMap<Account, Vec<Member>>,
    namespaces: HashMap<Box<str>, Vec<Member>>,
    prefixes: HashMap<Box<str>, Vec<Member>>,
    /// The most `/` in a key of `prefixes`.
    prefix_slashes: usize,
}

/// A caller filed under one of its fields; the others are asked when it is found.
#[derive(Debug)]
struct Member {
    caller: Caller,
    set: CallerSet,
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

impl Callers {
    /// The set of this caller alone.
    pub(crate) fn single(&mut self, caller: &Caller) -> CallerSet {
        if *caller == Caller::default() {
            return ANYONE;
        }
        if let Some(&set) = self.singles.get(caller) {
            return set;
        }
        self.count += 1;
        let set = self.count;
        self.singles.insert(caller.clone(), set);
        self.file(caller, set);
        set
    }

    /// The set of all these callers; for lists that are too long to be filed one by one.
    pub(crate) fn group(&mut self, callers: &[Caller]) -> CallerSet {
        if callers.contains(&Caller::default()) {
            return ANYONE;
        }
        if let Some(&set) = self.groups.get(callers) {
            return set;
        }
        self.count += 1;
        let set = self.count;
        self.groups.insert(callers.to_vec(), set);
        for caller in callers {
            self.file(caller, set);
        }
        set
    }

    fn file(&mut self, caller: &Caller, set: CallerSet) {
        let members = match caller {
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
                let slashes = prefix.bytes().filter(|&b| b == b'/').count();
                self.prefix_slashes = self.prefix_slashes.max(slashes);
                self.prefixes.entry_ref(prefix.as_str()).or_default()
            }
            // Has no field, so it is ANYONE and never filed.
            Caller { .. } => return,
        };
        members.push(Member {
            caller: caller.clone(),
            set,
        });
    }

    /// Every set that `who` is in.
    pub(crate) fn find(&self, who: &Who<'_>, sets: &mut CallerSets) {
        let mut take = |members: Option<&Vec<Member>>| {
            for member in members.into_iter().flatten() {
                if member.caller.matches(who) && !sets.contains(&member.set) {
                    sets.push(member.set);
                }
            }
        };
        let id = who.id.as_str();
        take(self.exact.get(id));
        if let Some(workload) = who.own {
            let account = AccountRef(workload.namespace, workload.service_account);
            take(self.accounts.get(&account));
            take(self.namespaces.get(workload.namespace));
        }
        let slashes = id.bytes().enumerate().filter(|&(_, b)| b == b'/');
        for (at, _) in slashes.take(self.prefix_slashes) {
            take(id.get(..=at).and_then(|prefix| self.prefixes.get(prefix)));
        }
        sets.push(ANYONE);
    }
}

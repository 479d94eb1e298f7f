//! Which principal's call made which MCP task, so that nobody else can use it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use waypoint_policy::Principal;

/// Tasks remembered at once. When there are more, the oldest are forgotten: their ids are unknown
/// then, as if they had expired.
const MAX: usize = 65_536;
/// Tasks remembered for one principal, so that none can make the others' be forgotten.
const MAX_PER_PRINCIPAL: usize = 4_096;

/// What the call that made a task had asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) principal: Principal,
    pub(crate) method: &'static str,
    pub(crate) name: Box<str>,
}

type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Table {
    tasks: HashMap<Key, Arc<Made>>,
    /// Oldest first; each principal's own, and all.
    order: HashMap<Principal, VecDeque<Key>>,
    all: VecDeque<Key>,
}

impl Table {
    fn forget(&mut self, key: &Key) {
        let Some(made) = self.tasks.remove(key) else {
            return;
        };
        self.all.retain(|known| known != key);
        if let Some(own) = self.order.get_mut(&made.principal) {
            own.retain(|known| known != key);
            if own.is_empty() {
                self.order.remove(&made.principal);
            }
        }
    }
}

/// The tasks that are known, by route and id.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Mutex<Table>,
}

impl Tasks {
    /// Remembers a task. An id that is already another principal's stays that one's.
    pub(crate) fn bind(&self, route: &str, id: &str, made: Made) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let key: Key = (route.into(), id.into());
        if table.tasks.contains_key(&key) {
            return;
        }
        let own = table.order.get(&made.principal);
        let oldest = match own.filter(|own| own.len() >= MAX_PER_PRINCIPAL) {
            Some(own) => own.front().cloned(),
            None if table.tasks.len() >= MAX => table.all.front().cloned(),
            None => None,
        };
        if let Some(oldest) = oldest {
            table.forget(&oldest);
        }
        table
            .order
            .entry(made.principal.clone())
            .or_default()
            .push_back(key.clone());
        table.all.push_back(key.clone());
        table.tasks.insert(key, Arc::new(made));
    }

    /// What this principal's call that made the task had asked for.
    pub(crate) fn of(&self, route: &str, id: &str, principal: &Principal) -> Option<Arc<Made>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let made = table.tasks.get(&(Box::from(route), Box::from(id)))?;
        (made.principal == *principal).then(|| Arc::clone(made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> Made {
        let principal = Principal::Workload(format!("spiffe://td/ns/a/sa/{name}").parse().unwrap());
        Made {
            principal,
            method: "tools/call",
            name: "search".into(),
        }
    }

    #[test]
    fn a_task_is_its_makers_and_memory_is_bounded() {
        let tasks = Tasks::default();
        let (ann, bob) = (made("ann"), made("bob"));
        tasks.bind("r", "t1", ann.clone());
        tasks.bind("r", "t1", bob.clone());
        assert_eq!(*tasks.of("r", "t1", &ann.principal).unwrap(), ann);
        assert!(tasks.of("r", "t1", &bob.principal).is_none());
        assert!(tasks.of("other", "t1", &ann.principal).is_none());
        tasks.bind("r", "b1", bob.clone());
        for index in 0..MAX_PER_PRINCIPAL {
            tasks.bind("r", &format!("n{index}"), ann.clone());
        }
        assert!(
            tasks.of("r", "t1", &ann.principal).is_none(),
            "the oldest is forgotten"
        );
        assert!(
            tasks.of("r", "b1", &bob.principal).is_some(),
            "another's is not"
        );
        assert_eq!(
            tasks.table.lock().unwrap().tasks.len(),
            MAX_PER_PRINCIPAL + 1
        );
    }
}

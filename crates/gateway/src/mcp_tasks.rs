//! Which principal's call made which MCP task, so that nobody else can use it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use waypoint_policy::{Principal, Secret};

/// Tasks remembered at once. When there are more, the oldest are forgotten: their ids are unknown
/// then, as if they had expired.
const MAX: usize = 65_536;
/// Tasks remembered for one principal, so that none can make the others' be forgotten.
const MAX_PER_PRINCIPAL: usize = 4_096;
/// Bytes of arguments kept for all tasks and for one principal's. When there are more, the oldest
/// tasks are forgotten, but never the one that comes now.
const MAX_BYTES: usize = 64 << 20;
const MAX_BYTES_PER_PRINCIPAL: usize = 4 << 20;

/// What the call that made a task had asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) principal: Principal,
    pub(crate) method: &'static str,
    pub(crate) name: Box<str>,
    /// What the tool was called with; its permission may depend on them.
    pub(crate) arguments: Option<Secret<Bytes>>,
}

impl Made {
    fn bytes(&self) -> usize {
        let arguments = self.arguments.as_ref();
        let arguments = arguments.map_or(0, |arguments| arguments.expose().len());
        arguments + self.name.len()
    }
}

/// One principal's tasks, oldest first.
#[derive(Debug, Default)]
struct Own {
    keys: VecDeque<Key>,
    bytes: usize,
}

type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Table {
    tasks: HashMap<Key, Arc<Made>>,
    /// Oldest first; each principal's own, and all.
    order: HashMap<Principal, Own>,
    all: VecDeque<Key>,
    bytes: usize,
}

impl Table {
    fn forget(&mut self, key: &Key) {
        let Some(made) = self.tasks.remove(key) else {
            return;
        };
        self.all.retain(|known| known != key);
        self.bytes -= made.bytes();
        if let Some(own) = self.order.get_mut(&made.principal) {
            own.keys.retain(|known| known != key);
            own.bytes -= made.bytes();
            if own.keys.is_empty() {
                self.order.remove(&made.principal);
            }
        }
    }

    /// The task that has to go before one that `made` describes can come.
    fn superfluous(&self, made: &Made) -> Option<Key> {
        let own = self.order.get(&made.principal).filter(|own| {
            own.keys.len() >= MAX_PER_PRINCIPAL
                || own.bytes + made.bytes() > MAX_BYTES_PER_PRINCIPAL
        });
        let is_full = self.tasks.len() >= MAX || self.bytes + made.bytes() > MAX_BYTES;
        match own {
            Some(own) => own.keys.front().cloned(),
            None if is_full => self.all.front().cloned(),
            None => None,
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
        while let Some(oldest) = table.superfluous(&made) {
            table.forget(&oldest);
        }
        table.bytes += made.bytes();
        let own = table.order.entry(made.principal.clone()).or_default();
        own.keys.push_back(key.clone());
        own.bytes += made.bytes();
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
            arguments: None,
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

    #[test]
    fn arguments_are_kept_within_bounds() {
        let tasks = Tasks::default();
        let of = |name: &str, bytes: usize| Made {
            arguments: Some(Bytes::from(vec![b' '; bytes]).into()),
            ..made(name)
        };
        let (ann, bob) = (made("ann").principal, made("bob").principal);
        let half = MAX_BYTES_PER_PRINCIPAL / 2;
        tasks.bind("r", "b", of("bob", half));
        for (id, bytes) in [("a1", half), ("a2", half), ("a3", 1)] {
            tasks.bind("r", id, of("ann", bytes));
        }
        let known = |id: &str| tasks.of("r", id, &ann).is_some();
        assert_eq!([known("a1"), known("a2"), known("a3")], [false, true, true]);
        tasks.bind("r", "a4", of("ann", 3 * MAX_BYTES_PER_PRINCIPAL));
        assert_eq!(
            [known("a2"), known("a3"), known("a4")],
            [false, false, true]
        );
        assert!(tasks.of("r", "b", &bob).is_some(), "another's is kept");
        for index in 0..2 * MAX_BYTES / MAX_BYTES_PER_PRINCIPAL {
            tasks.bind(
                "r",
                &format!("n{index}"),
                of(&format!("n{index}"), MAX_BYTES_PER_PRINCIPAL),
            );
            assert!(tasks.table.lock().unwrap().bytes <= MAX_BYTES);
        }
        assert!(!known("a4"));
        let mut table = tasks.table.lock().unwrap();
        while let Some(oldest) = table.all.front().cloned() {
            table.forget(&oldest);
        }
        assert_eq!((table.bytes, table.order.len()), (0, 0));
    }
}

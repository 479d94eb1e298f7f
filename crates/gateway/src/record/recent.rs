//! The last decisions with what they were about, in memory that does not grow.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use smallvec::SmallVec;
use waypoint_mesh::IdentitySource;
use waypoint_policy::istio::{CustomVerdict, Verdict};
use waypoint_policy::{By, Code, Principal, RuleName};

use super::{ActionRecord, RequestId};
use crate::edge::Head;

/// Each has a lock of its own, and a request takes one of them once, at its end.
const SHARDS: usize = 16;
/// Requests that each shard keeps: enough for those whose events `/decisions` shows. What is kept
/// is cold when its place comes round again, so more of it would make every request dearer.
const KEPT: usize = 32;
/// Longer heads are not kept.
const HEAD_MAX_BYTES: usize = 2048;
/// Longer names of models and tools are not kept.
const TEXT_MAX_BYTES: usize = 256;

/// A request that was decided: no headers, no token, no body.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) id: RequestId,
    pub(crate) time: SystemTime,
    pub(crate) generation: u64,
    pub(crate) listener: Arc<str>,
    pub(crate) principal: Principal,
    pub(crate) identity_source: IdentitySource,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The client's address as Istio's policies saw it.
    pub(crate) remote: IpAddr,
    pub(crate) head: Option<Arc<Head>>,
    /// Where the route may lead.
    pub(crate) hosts: SmallVec<[Arc<str>; 2]>,
    /// What external authorizers said.
    pub(crate) custom: Vec<CustomVerdict>,
    /// What Istio's policies said.
    pub(crate) verdict: Verdict,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) action: ActionRecord,
    pub(crate) allowed: Option<bool>,
    pub(crate) by: Option<By>,
    pub(crate) would_deny: Vec<Arc<RuleName>>,
    pub(crate) code: Option<Code>,
    pub(crate) status: u16,
    /// Whether something of it was too long.
    pub(crate) is_cut: bool,
}

impl Remembered {
    /// Drops what is longer than what is kept.
    fn bounded(mut self) -> Self {
        let length = |head: &Head| {
            let parts = [&head.method, &head.authority, &head.path, &head.query];
            parts.into_iter().map(|part| part.len()).sum::<usize>()
        };
        if self
            .head
            .as_deref()
            .is_some_and(|head| length(head) > HEAD_MAX_BYTES)
        {
            self.head = None;
            self.is_cut = true;
        }
        let action = &mut self.action;
        for text in [
            &mut action.model,
            &mut action.upstream_model,
            &mut action.method,
            &mut action.tool,
        ] {
            if text
                .as_ref()
                .is_some_and(|text| text.len() > TEXT_MAX_BYTES)
            {
                *text = None;
                self.is_cut = true;
            }
        }
        self
    }
}

#[derive(Debug, Default)]
struct Shard {
    kept: Vec<Remembered>,
    /// The place of the oldest, once all places are taken.
    next: usize,
}

/// The last requests, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    shards: [Mutex<Shard>; SHARDS],
}

impl Recent {
    /// Keeps a request in the place of the oldest beside it.
    pub(crate) fn keep(&self, request: Remembered) {
        let request = request.bounded();
        let Some(mut shard) = self.shard(&request.id) else {
            return;
        };
        let next = shard.next;
        // What was there is dropped after the lock.
        let _oldest = match shard.kept.get_mut(next) {
            Some(place) => Some(std::mem::replace(place, request)),
            None => {
                shard.kept.push(request);
                None
            }
        };
        shard.next = (next + 1) % KEPT;
        drop(shard);
    }

    /// The request with this id, if it is still kept.
    pub(crate) fn find(&self, id: &RequestId) -> Option<Remembered> {
        let shard = self.shard(id)?;
        shard.kept.iter().find(|kept| kept.id == *id).cloned()
    }

    fn shard(&self, id: &RequestId) -> Option<std::sync::MutexGuard<'_, Shard>> {
        let shard = self.shards.get(id.first_digit())?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;

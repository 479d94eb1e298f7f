//! What an MCP caller may do on one route, asked anew in each snapshot.

use std::sync::Arc;

use pingora_core::protocols::http::ServerSession;
use smallvec::SmallVec;
use waypoint_mcp::{Item, ListKind};
use waypoint_policy::istio::Verdict;
use waypoint_policy::{Action, Decision, ObjectName, Query, ServerId, TargetId};

use crate::mcp_tasks::Tasks;
use crate::proxy::{Caller, Context};
use crate::state::State;

/// What a request may do, in names that outlive a snapshot; asked for each listed item, and
/// again at each generation while a stream runs.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) caller: Caller,
    pub(super) route: ObjectName,
    pub(super) section: Arc<str>,
    pub(super) label: Arc<str>,
}

/// A scope in one snapshot.
pub(super) struct Resolved {
    pub(super) state: Arc<State>,
    pub(super) targets: SmallVec<[TargetId; 4]>,
    pub(super) server: ServerId,
    /// What Istio's policies said of the request.
    pub(super) verdict: Verdict,
}

impl Scope {
    /// The route as the configuration in force has it; `None` when it is gone.
    pub(super) fn resolve(
        &self,
        state: Arc<State>,
        session: &ServerSession,
        context: &Context,
    ) -> Option<Resolved> {
        let verdict = context.judge(session, &state.snapshot);
        if verdict.permit().is_err() || !self.caller.is_known(&state.snapshot) {
            return None;
        }
        let route = state.snapshot.mcp_route(&self.route, &self.section)?;
        let (targets, server) = (SmallVec::from_slice(&route.targets), route.server);
        Some(Resolved {
            state,
            targets,
            server,
            verdict,
        })
    }

    pub(super) fn decide(&self, resolved: &Resolved, method: &str, name: &str) -> Decision {
        let action = Action::Mcp {
            server: resolved.server,
            method,
            name,
        };
        self.ask(resolved, action)
    }

    pub(super) fn decide_session(&self, resolved: &Resolved) -> Decision {
        self.ask(
            resolved,
            Action::McpSession {
                server: resolved.server,
            },
        )
    }

    fn ask(&self, resolved: &Resolved, action: Action<'_>) -> Decision {
        let query = Query {
            principal: &self.caller.principal,
            targets: &resolved.targets,
            action,
        };
        let policy = &resolved.state.snapshot.policy;
        policy.decide_after(&resolved.verdict, &query)
    }

    /// Whether everything a call asked for is permitted.
    pub(super) fn permits(&self, resolved: &Resolved, items: &[Item]) -> bool {
        match items {
            [] => self.decide_session(resolved).is_allowed(),
            items => items
                .iter()
                .all(|item| self.decide(resolved, item.method, &item.name).is_allowed()),
        }
    }

    /// Whether an item of a list is shown.
    pub(super) fn shows(
        &self,
        resolved: &Resolved,
        tasks: &Tasks,
        kind: ListKind,
        name: &str,
    ) -> bool {
        match kind.method() {
            Some(method) => self.decide(resolved, method, name).is_allowed(),
            None => self.owns(resolved, tasks, name),
        }
    }

    /// Whether a task is the caller's, and what made it is still permitted.
    pub(super) fn owns(&self, resolved: &Resolved, tasks: &Tasks, id: &str) -> bool {
        tasks
            .of(&self.label, id, &self.caller.principal)
            .is_some_and(|made| self.decide(resolved, made.method, &made.name).is_allowed())
    }
}

//! What an MCP caller may do on one route, asked anew in each snapshot.

use std::sync::Arc;

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use smallvec::SmallVec;
use waypoint_mcp::{Call, ListKind};
use waypoint_policy::istio::Verdict;
use waypoint_policy::{Action, Arguments, Decision, ObjectName, Query, Secret, ServerId, TargetId};

use crate::caller::Caller;
use crate::context::Context;
use crate::facts::Facts;
use crate::mcp_tasks::{Made, Tasks};
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

/// Something a call does. It outlives the call's snapshot, and holds on to the arguments, so that
/// they can be decided on again; that is no more than the body that was read.
#[derive(Debug, Clone)]
pub(super) struct Deed {
    pub(super) method: &'static str,
    pub(super) name: Box<str>,
    /// What a tool is called with: the very bytes that are forwarded.
    pub(super) arguments: Option<Secret<Bytes>>,
}

/// Everything that a message asks to do.
#[derive(Debug, Clone)]
pub(super) struct Deeds {
    /// Its method, nothing for a client's answer, or the method of an HTTP request without one.
    pub(super) message: Box<str>,
    /// What it names. What names nothing is asked about as a message.
    pub(super) items: Vec<Deed>,
}

impl Deeds {
    /// `body` is what the call was read from.
    pub(super) fn of(call: &Call, body: &Bytes) -> Self {
        Self {
            message: call.method.clone(),
            items: Deed::all(call, body),
        }
    }

    /// A request without a message.
    pub(super) fn bare(method: &str) -> Self {
        Self {
            message: method.into(),
            items: Vec::new(),
        }
    }
}

impl Deed {
    fn all(call: &Call, body: &Bytes) -> Vec<Self> {
        let arguments = call.arguments.clone();
        let arguments = arguments.map(|range| Secret::new(body.slice(range)));
        let items = call.ask.items().iter();
        let deed = |item: &waypoint_mcp::Item| Self {
            method: item.method,
            name: item.name.clone(),
            arguments: arguments.clone(),
        };
        items.map(deed).collect()
    }

    /// What the call that made a task asked to do.
    pub(super) fn of(made: &Made) -> Self {
        Self {
            method: made.method,
            name: made.name.clone(),
            arguments: made.arguments.clone(),
        }
    }

    fn arguments(&self) -> Arguments<'_> {
        match &self.arguments {
            Some(arguments) => Arguments::Json(arguments.expose()),
            None => Arguments::Absent,
        }
    }
}

/// A scope in one snapshot.
pub(super) struct Resolved {
    pub(super) state: Arc<State>,
    pub(super) targets: SmallVec<[TargetId; 4]>,
    pub(super) server: ServerId,
    /// What Istio's policies said of the request.
    pub(super) verdict: Verdict,
    /// What policies see of the request.
    pub(super) facts: Facts,
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
        let facts = context.facts(session, &state.snapshot);
        Some(Resolved {
            facts,
            state,
            targets,
            server,
            verdict,
        })
    }

    fn decide(&self, resolved: &Resolved, deed: &Deed) -> Decision {
        self.ask(
            resolved,
            Action::Mcp {
                server: resolved.server,
                method: deed.method,
                name: &deed.name,
                arguments: deed.arguments(),
            },
        )
    }

    /// Whether a caller may do this in some way, whatever the arguments.
    pub(super) fn may(&self, resolved: &Resolved, method: &str, name: &str) -> bool {
        let action = Action::Mcp {
            server: resolved.server,
            method,
            name,
            arguments: Arguments::Best,
        };
        self.ask(resolved, action).is_allowed()
    }

    /// About a message that names nothing; without one, whether the caller may do anything here.
    pub(super) fn decide_session(&self, resolved: &Resolved, method: Option<&str>) -> Decision {
        self.ask(
            resolved,
            Action::McpSession {
                server: resolved.server,
                method,
            },
        )
    }

    /// What a message asks to do, piece by piece, each with the method of what it names.
    pub(super) fn decisions(
        &self,
        resolved: &Resolved,
        deeds: &Deeds,
    ) -> impl Iterator<Item = (Option<&'static str>, Decision)> {
        let whole = deeds.items.is_empty().then_some(&*deeds.message);
        let whole = whole.map(|message| (None, self.decide_session(resolved, Some(message))));
        let items = deeds.items.iter();
        let items = items.map(|deed| (Some(deed.method), self.decide(resolved, deed)));
        whole.into_iter().chain(items)
    }

    fn ask(&self, resolved: &Resolved, action: Action<'_>) -> Decision {
        let policy = &resolved.state.snapshot.policy;
        policy.decide_after(&resolved.verdict, &self.query(resolved, action))
    }

    fn query<'q>(&'q self, resolved: &'q Resolved, action: Action<'q>) -> Query<'q> {
        Query {
            principal: &self.caller.principal,
            targets: &resolved.targets,
            action,
            facts: resolved.facts.view(),
        }
    }

    /// The questions that a message asks, piece by piece, each with the name of what it is about.
    pub(super) fn queries<'q>(
        &'q self,
        resolved: &'q Resolved,
        deeds: &'q Deeds,
    ) -> impl Iterator<Item = (Option<&'q str>, Query<'q>)> {
        let server = resolved.server;
        let whole = deeds.items.is_empty().then_some(&*deeds.message);
        let whole = whole.map(|message| {
            let method = Some(message);
            (None, Action::McpSession { server, method })
        });
        let items = deeds.items.iter().map(move |deed| {
            let action = Action::Mcp {
                server,
                method: deed.method,
                name: &deed.name,
                arguments: deed.arguments(),
            };
            (Some(&*deed.name), action)
        });
        let all = whole.into_iter().chain(items);
        all.map(|(name, action)| (name, self.query(resolved, action)))
    }

    /// Whether everything a call asked for is permitted, and no limit stops it altogether.
    pub(super) fn permits(&self, resolved: &Resolved, deeds: &Deeds) -> bool {
        let policy = &resolved.state.snapshot.policy;
        let mut queries = self.queries(resolved, deeds);
        let is_stopped = !policy.usage_limits().is_empty()
            && queries.any(|(_, query)| {
                policy
                    .limits(&query)
                    .into_iter()
                    .any(|limit| limit.is_stop())
            });
        !is_stopped
            && self
                .decisions(resolved, deeds)
                .all(|(_, decision)| decision.is_allowed())
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
            Some(method) => self.may(resolved, method, name),
            None => self.owns(resolved, tasks, name),
        }
    }

    /// Whether a task is the caller's, and what made it is still permitted.
    pub(super) fn owns(&self, resolved: &Resolved, tasks: &Tasks, id: &str) -> bool {
        tasks
            .of(&self.label, id, &self.caller.principal)
            .is_some_and(|made| self.decide(resolved, &Deed::of(&made)).is_allowed())
    }
}

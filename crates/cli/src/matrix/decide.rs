//! What is decided about a cell, and what it depends on.

use waypoint_config::Snapshot;
use waypoint_policy::istio::{Protocol, Request, Verdict};
use waypoint_policy::{self as policy, Arguments, Decision, Query};

use super::callers::Caller;
use super::facts::{self, Facts, facts};
use super::targets::Target;

/// What is decided about a cell.
#[derive(Debug)]
pub(super) struct Decided {
    /// What is allowed at worst, else at best.
    pub(super) decision: Decision,
    /// What it needs to be allowed, such as `x-workflow-type: operational`; `None` when nothing
    /// else matters.
    pub(super) condition: Option<String>,
}

/// What decides about one target.
pub(super) struct Judge<'s> {
    snapshot: &'s Snapshot,
    target: &'s Target<'s>,
    /// Without the request that shows nothing, which is asked about first.
    facts: Vec<Facts>,
    /// What Deny rules of the agents' own kinds take away by.
    denying: Vec<Facts>,
}

impl<'s> Judge<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, target: &'s Target<'s>) -> Self {
        let mut attached = snapshot.istio.of("");
        for host in &target.behind {
            attached.extend(snapshot.istio.of(host));
        }
        let mut facts = facts(snapshot, &attached, target.any_host);
        let (granting, denying) = facts::of_agents(snapshot, &target.attached);
        facts.extend(granting);
        facts.extend(denying.iter().cloned());
        Self {
            snapshot,
            target,
            facts,
            denying,
        }
    }

    pub(super) fn decide(&self, caller: &Caller) -> Decided {
        let plainly = self.with(caller, &Facts::default());
        // Who is nobody is refused before any policy is asked.
        if self.facts.is_empty() || (self.needs_identity() && caller.principal.spiffe().is_none()) {
            return plainly;
        }
        let is_allowed = plainly.decision.is_allowed();
        let mut others: Vec<(&Facts, Decided)> = Vec::new();
        for facts in &self.facts {
            let decided = self.with(caller, facts);
            // Of what needs more than another way there is no need to speak.
            let is_more = |(less, _): &(&Facts, Decided)| {
                less.words.iter().all(|word| facts.words.contains(word))
            };
            if decided.decision.is_allowed() != is_allowed && !others.iter().any(is_more) {
                others.push((facts, decided));
            }
        }
        if others.is_empty() {
            return plainly;
        }
        let ways = others.iter().map(|(facts, decided)| {
            let words = facts.in_words();
            match decided.decision.is_allowed() {
                true => words + &self.taken_away(caller, facts),
                false => words,
            }
        });
        let ways: Vec<String> = ways.collect();
        let ways = ways.join("; or ");
        let (decision, arguments, said) = match is_allowed {
            true => (
                plainly.decision,
                plainly.condition,
                format!("unless {ways}"),
            ),
            false => {
                let (_, first) = others.swap_remove(0);
                (first.decision, first.condition, ways)
            }
        };
        let all = arguments.into_iter().chain([said]);
        Decided {
            decision,
            condition: Some(all.collect::<Vec<_>>().join(", ")),
        }
    }

    /// What takes away again what these facts give.
    fn taken_away(&self, caller: &Caller, facts: &Facts) -> String {
        let denying = self.denying.iter().filter(|denying| {
            let both = facts.clone().and(denying);
            !self.with(caller, &both).decision.is_allowed()
        });
        let words: Vec<String> = denying.map(Facts::in_words).collect();
        match words.is_empty() {
            true => String::new(),
            false => format!(" unless {}", words.join(" or ")),
        }
    }

    fn needs_identity(&self) -> bool {
        self.target.kind != "http"
    }

    /// What is decided about a request that shows this.
    fn with(&self, caller: &Caller, facts: &Facts) -> Decided {
        let verdict = self.istio(caller, facts);
        if let Some(decision) = verdict.denial() {
            return Decided {
                decision,
                condition: None,
            };
        }
        let ask = |arguments| {
            let query = Query {
                principal: &caller.principal,
                targets: &self.target.attached,
                action: self.target.action(arguments),
                facts: self.seen(facts),
            };
            self.snapshot.policy.decide_after(&verdict, &query)
        };
        // What is allowed with any arguments is named by the rule that allows all of them.
        let worst = ask(Arguments::Worst);
        if worst.is_allowed() {
            return Decided {
                decision: worst,
                condition: None,
            };
        }
        let decision = ask(Arguments::Best);
        Decided {
            condition: decision.is_allowed().then(|| "by arguments".to_owned()),
            decision,
        }
    }

    /// What the agents' policies see of the request that asks for the target.
    fn seen<'f>(&'f self, facts: &'f Facts) -> policy::Facts<'f> {
        let (method, host, path) = self.target.line();
        let host = facts.host.as_deref().unwrap_or(host);
        policy::Facts {
            method,
            host: host.split_once(':').map_or(host, |(name, _)| name),
            path,
            port: self.port(),
            headers: &facts.headers,
            claims: facts.claims.as_ref(),
        }
    }

    fn port(&self) -> u16 {
        let mut listeners = self.snapshot.listeners.iter();
        // Requests arrive at a listener of theirs, through tunnels too.
        let first =
            listeners.find(|listener| listener.protocol != waypoint_config::Protocol::Hbone);
        first.map_or(0, |listener| listener.port)
    }

    /// What Istio's policies say of the request that asks for the target.
    fn istio(&self, caller: &Caller, facts: &Facts) -> Verdict {
        // Nobody reaches an LLM or MCP route without an identity, before any policy is asked.
        if !self.snapshot.policy.has_istio()
            || (self.needs_identity() && caller.principal.spiffe().is_none())
        {
            return Verdict::default();
        }
        let (method, host, path) = self.target.line();
        let host = facts.host.as_deref().unwrap_or(host);
        let named = host.split_once(':').map_or(host, |(name, _)| name);
        let request = Request {
            protocol: Protocol::Http,
            principal: &caller.principal,
            source_ip: facts.source_ip,
            remote_ip: facts.remote_ip.or(facts.source_ip),
            destination_ip: facts.destination_ip,
            port: self.port(),
            sni: "",
            method,
            host,
            path,
            headers: &facts.headers,
            claims: facts.claims.as_ref(),
            custom: &facts.custom,
        };
        self.snapshot
            .authorize(&request, &self.target.behind, named)
    }
}

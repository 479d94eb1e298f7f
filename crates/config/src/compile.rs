//! From raw objects to a snapshot: names resolved, matchers built, all errors at once.

mod access;
mod agent;
mod attach;
mod authorization;
mod draft;
pub(crate) mod endpoint;
mod entry;
mod ext_authz;
mod gateway;
mod http;
mod jwt_keys;
mod limit;
mod llm;
mod mcp;
mod named;
mod parameters;
mod refs;
mod request_authentication;
mod rest;
mod set;
mod solo;
mod store;
mod targets;
mod token_principal;

use waypoint_policy::{Kind, ObjectName, ObjectRef, PolicySet, Posture, Settings};

use crate::diagnostic::{Diagnostic, Skipped};
use crate::istio_targets::IstioTargets;
use crate::kind::ObjectKind;
use crate::object::{self, Diagnostics, Object};
use crate::snapshot::{Provider, Route, Snapshot};
use crate::{File, Options, Outcome};

use draft::Drafts;
use gateway::Chosen;
use set::Set;

/// The class of the Gateways that are ours.
pub const GATEWAY_CLASS: &str = "kgateway-waypoint";

/// Compiles the objects in these files for one waypoint. All findings at once.
#[must_use]
pub fn compile(files: &[File], options: &Options) -> Outcome {
    let mut out = Diagnostics::default();
    let (objects, skipped) = object::load(files, &mut out);
    let set = Set::read(&objects, &mut out);
    let snapshot = gateway::choose(&set, options.gateway.as_ref(), &mut out)
        .and_then(|name| one(&set, &name, false, &mut out));
    outcome(snapshot, out, skipped)
}

/// Compiles the objects in these files for every waypoint in them, or for the one that is named.
/// For commands that look for mistakes; there is no snapshot when there are several waypoints.
#[must_use]
pub fn check(files: &[File], options: &Options) -> Outcome {
    let mut loaded = Diagnostics::default();
    let (objects, skipped) = object::load(files, &mut loaded);
    let compiled = |objects: &[Object]| {
        let mut out = loaded.clone();
        let mut set = Set::read(objects, &mut out);
        let rests = std::mem::take(&mut set.rests);
        let snapshot = every(&set, options, &mut out);
        (snapshot, rests, out)
    };
    let (snapshot, rests, mut out) = compiled(&objects);
    rest::report(&objects, rests, |objects| compiled(objects).2, &mut out);
    outcome(snapshot, out, skipped)
}

/// Every waypoint there is, or the one that is asked for.
fn every(set: &Set<'_>, options: &Options, out: &mut Diagnostics) -> Option<Snapshot> {
    let names = gateway::ours(set);
    if options.gateway.is_some() || names.is_empty() {
        let name = gateway::choose(set, options.gateway.as_ref(), out)?;
        return one(set, &name, false, out);
    }
    let mut snapshots: Vec<_> = names
        .iter()
        .filter_map(|name| one(set, name, names.len() > 1, out))
        .collect();
    snapshots.pop().filter(|_| snapshots.is_empty())
}

fn outcome(snapshot: Option<Snapshot>, out: Diagnostics, skipped: Vec<Skipped>) -> Outcome {
    let diagnostics = out.finish();
    let failed = diagnostics.iter().any(Diagnostic::is_error);
    Outcome {
        snapshot: snapshot.filter(|_| !failed),
        diagnostics,
        skipped,
    }
}

fn one(
    set: &Set<'_>,
    name: &ObjectName,
    beside_others: bool,
    out: &mut Diagnostics,
) -> Option<Snapshot> {
    let gateway = set.gateways.get(name)?;
    let parameters = parameters::compile(set, gateway, out);
    let chosen = Chosen::compile(set, gateway, &parameters, beside_others, out);
    let mut drafts = Drafts::default();
    llm::providers(set, &chosen, &mut drafts, out);
    solo::compile(set, &chosen, &mut drafts, out);
    llm::routes(set, &chosen, &mut drafts, out);
    mcp::compile(set, &chosen, &mut drafts, out);
    http::compile(set, &chosen, &mut drafts, out);
    let policies = agent::compile(set, &chosen, &drafts, out);
    let access = access::compile(set, &chosen, &drafts, out);
    let limits = limit::compile(set, &chosen, &drafts, out);
    let trust_domains = chosen.parameters.trust_domains.iter();
    let trust_domains: Vec<Box<str>> = trust_domains.map(|d| d.as_str().into()).collect();
    let ext_authz = ext_authz::compile(set, &chosen, out);
    let mesh = authorization::Mesh {
        root_namespace: &parameters.root_namespace,
        trust_domains: &trust_domains,
        namespace_default_deny: parameters.namespace_default_deny,
        ext_authz: &ext_authz,
    };
    let istio = authorization::compile(set, &chosen, &mesh, out);
    authorization::liveness::warn(set, &chosen, &drafts, &mesh, &istio, out);
    drafts.report_equal(out);
    drafts.warn_unreachable(&chosen, out);
    let addressed = addressed(set, name, &chosen.parameters.dns_suffix);
    let authentication = request_authentication::compile(set, &chosen, &mesh, &addressed, out);
    let about_agents = (&*policies, &*limits);
    agent::warn_of_issuers(set, &chosen, &drafts, about_agents, &authentication, out);
    let settings = Settings {
        posture: parameters.posture,
        namespace: name.namespace.clone(),
        trust_domains,
    };
    let policy = PolicySet::compile_all(policies, istio, settings).with_access(access);
    let policy = policy.with_limits(limits);
    let mut snapshot = finish(name, chosen, drafts, addressed, policy);
    snapshot.authentication = authentication;
    snapshot.ext_authz = ext_authz.into_values().flatten().collect();
    Some(snapshot)
}

fn finish(
    name: &ObjectName,
    chosen: Chosen<'_>,
    drafts: Drafts<'_>,
    addressed: Vec<(String, ObjectRef)>,
    policy: PolicySet,
) -> Snapshot {
    let class = ObjectRef::whole(Kind::GatewayClass, ObjectName::new("", GATEWAY_CLASS));
    let istio_class = policy.target(&class);
    let gateway_target = policy.target(&ObjectRef::whole(Kind::Gateway, name.clone()));
    let providers = drafts
        .providers
        .into_iter()
        .map(|draft| {
            let target = ObjectRef::whole(Kind::LlmProvider, draft.llm.name.clone());
            Provider {
                target: policy.target(&target).filter(|_| !draft.imported),
                ..draft.provider()
            }
        })
        .collect();
    let mut routes = crate::RouteTable::new(chosen.listeners.len());
    for draft in drafts.routes {
        let mut route = draft.route;
        let targets: Vec<_> = gateway_target
            .into_iter()
            .chain(draft.targets.iter().filter_map(|t| policy.target(t)))
            .collect();
        match &mut route {
            Route::Llm(route) => route.targets = targets,
            Route::Mcp(route) => route.targets = targets,
            Route::Plain(route) => route.targets = targets,
        }
        routes.insert(route, &draft.listeners, &draft.hosts, &draft.matched);
    }
    Snapshot {
        generation: 0,
        gateway: name.clone(),
        gateway_target,
        istio: IstioTargets::new(
            gateway_target.into_iter().chain(istio_class).collect(),
            addressed
                .into_iter()
                .filter_map(|(host, object)| Some((host, policy.target(&object)?))),
        ),
        authentication: Vec::new(),
        ext_authz: Vec::new(),
        parameters: chosen.parameters,
        listeners: chosen.listeners,
        policy,
        providers,
        servers: drafts.servers,
        routes,
    }
}

/// The host names by which a Service or ServiceEntry is addressed, in lower case; `*.` in front
/// stands for any name below.
fn addressed(set: &Set<'_>, gateway: &ObjectName, suffix: &str) -> Vec<(String, ObjectRef)> {
    let mut hosts = Vec::new();
    for name in set.services.keys() {
        let (service, namespace) = (&name.name, &name.namespace);
        let object = ObjectRef::whole(Kind::Service, name.clone());
        let mut names = vec![
            format!("{service}.{namespace}.svc.{suffix}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}"),
        ];
        if *namespace == gateway.namespace {
            names.push(service.to_string());
        }
        hosts.extend(names.into_iter().map(|host| (host, object.clone())));
    }
    for (name, entry) in &set.entries {
        let object = ObjectRef::whole(Kind::ServiceEntry, name.clone());
        let names = entry.raw.hosts.iter().map(|host| host.to_ascii_lowercase());
        hosts.extend(names.map(|host| (host, object.clone())));
    }
    hosts
}

/// How an object is named in messages.
fn title(object: &Object) -> String {
    format!("{} {}", object.kind.as_str(), object.name)
}

/// The posture of the policy crate.
fn posture(raw: Option<crate::raw::parameters::Posture>) -> Posture {
    use crate::raw::parameters::Posture as Raw;
    match raw {
        Some(Raw::Observe) => Posture::Observe,
        Some(Raw::Strict) => Posture::Strict,
        Some(Raw::Graduated) | None => Posture::Graduated,
    }
}

/// An object that is named but was not found; silent when it is there and broken.
fn missing(
    set: &Set<'_>,
    kind: ObjectKind,
    name: &ObjectName,
    at: object::At<'_>,
    out: &mut Diagnostics,
) {
    if set.is_broken(kind, name) {
        return;
    }
    let names = set.names(kind);
    let same: Vec<&str> = names
        .iter()
        .filter(|n| n.namespace == name.namespace)
        .map(|n| &*n.name)
        .collect();
    let hint = match crate::suggest::hint(&name.name, &same) {
        hint if hint.starts_with("; did") => hint,
        _ => String::new(),
    };
    out.error(
        at,
        "missing-reference",
        format!("there is no {} {name}{hint}", kind.as_str()),
    );
}

#[cfg(test)]
mod tests;

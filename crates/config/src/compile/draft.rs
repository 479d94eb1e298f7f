//! What the parts of a configuration compile to before policies are attached.

use std::collections::HashMap;

use waypoint_llm as llm;
use waypoint_policy::{ObjectName, ObjectRef, ProviderId, ServerId};

use super::gateway::Chosen;
use crate::object::{At, Diagnostics};
use crate::snapshot::{
    ClientCertificate, Credential, Endpoint, PathMatch, PlainMatch, Protocol, Provider, Route,
    Server,
};

/// A route, and where it goes in the table.
pub(super) struct RouteDraft<'a> {
    pub(super) route: Route,
    /// What policies may be attached to, beside the Gateway.
    pub(super) targets: Vec<ObjectRef>,
    pub(super) listeners: Vec<usize>,
    pub(super) hosts: Vec<String>,
    pub(super) matched: PlainMatch,
    pub(super) title: String,
    /// Where its prefix was written.
    pub(super) at: At<'a>,
}

/// A provider before policies are attached.
pub(super) struct ProviderDraft {
    pub(super) llm: llm::Provider,
    pub(super) endpoint: Endpoint,
    pub(super) credential: Credential,
    /// From an import form; not an object policies can be attached to.
    pub(super) imported: bool,
}

impl ProviderDraft {
    pub(super) fn provider(self) -> Provider {
        let Self {
            llm,
            endpoint,
            credential,
            ..
        } = self;
        Provider {
            llm,
            target: None,
            endpoint,
            credential,
        }
    }
}

/// A route of an MCPProxy, served here or not, as policies name it.
pub(super) struct McpSection {
    pub(super) proxy: ObjectName,
    pub(super) section: String,
    /// `None` when the destination has errors that were reported.
    pub(super) server: Option<ServerId>,
}

/// Everything compiled so far.
#[derive(Default)]
pub(super) struct Drafts<'a> {
    pub(super) providers: Vec<ProviderDraft>,
    pub(super) provider_ids: HashMap<ObjectName, ProviderId>,
    pub(super) servers: Vec<Server>,
    pub(super) server_ids: HashMap<(Endpoint, String), ServerId>,
    pub(super) sections: Vec<McpSection>,
    pub(super) routes: Vec<RouteDraft<'a>>,
}

impl Drafts<'_> {
    /// Adds a provider; ids are given in order.
    pub(super) fn add_provider(&mut self, mut draft: ProviderDraft) -> ProviderId {
        let id = ProviderId(index(self.providers.len()));
        draft.llm.id = id;
        self.provider_ids.insert(draft.llm.name.clone(), id);
        self.providers.push(draft);
        id
    }

    /// The server at a destination; the same destination is the same server.
    pub(super) fn server(&mut self, endpoint: Endpoint, path: String, label: String) -> ServerId {
        let fresh = ServerId(index(self.servers.len()));
        let key = (endpoint.clone(), path.trim_end_matches('/').to_owned());
        let id = *self.server_ids.entry(key).or_insert(fresh);
        if id == fresh {
            self.servers.push(Server {
                id,
                label: label.into(),
                endpoint,
                path,
            });
        }
        id
    }

    /// Routes that the same request would take are an error at the later one.
    pub(super) fn report_equal(&self, out: &mut Diagnostics) {
        let mut seen: HashMap<(usize, &str, &PathMatch), Vec<&RouteDraft<'_>>> = HashMap::new();
        for draft in &self.routes {
            let hosts: Vec<&str> = match draft.hosts.as_slice() {
                [] => vec![""],
                hosts => hosts.iter().map(String::as_str).collect(),
            };
            // Without a served listener they still may not be equal.
            let listeners = match draft.listeners.as_slice() {
                [] => &[usize::MAX],
                listeners => listeners,
            };
            let mut reported = false;
            for listener in listeners {
                for host in &hosts {
                    let same = seen
                        .entry((*listener, host, &draft.matched.path))
                        .or_default();
                    if let Some(other) = same.iter().find(|other| equal(other, draft))
                        && !reported
                    {
                        report(draft, other, host, out);
                        reported = true;
                    }
                    same.push(draft);
                }
            }
        }
    }

    /// Listeners where nobody has an identity serve no LLM and MCP routes.
    pub(super) fn warn_unreachable(&self, chosen: &Chosen<'_>, out: &mut Diagnostics) {
        let mut listeners = chosen.listeners.iter();
        let has_hbone = listeners.any(|listener| listener.protocol == Protocol::Hbone);
        for (index, listener) in chosen.listeners.iter().enumerate() {
            let anonymous = match &listener.tls {
                Some(tls) => tls.client == ClientCertificate::Off,
                // Callers in the mesh come by tunnels.
                None => !has_hbone,
            } && listener.developer.is_none()
                && listener.tokens.is_empty();
            let needs = |draft: &&RouteDraft<'_>| {
                draft.listeners.contains(&index) && !matches!(draft.route, Route::Plain(_))
            };
            if anonymous && chosen.parameters_known && self.routes.iter().any(|draft| needs(&draft))
            {
                let message = format!(
                    "callers of listener `{}` have no identity, so LLM and MCP routes refuse them; ask \
                     for client certificates (or set `tokenPrincipals`) in the WaypointParameters",
                    listener.name
                );
                out.warning(chosen.gateway.object.name_at(), "no-identity", message);
            }
        }
    }
}

/// Whether two routes on one host and path take the same requests. LLM and MCP routes share a
/// path with nothing, not even with a plain route that looks at headers: which policies hold must
/// not depend on a header.
fn equal(a: &RouteDraft<'_>, b: &RouteDraft<'_>) -> bool {
    let plain = |draft: &RouteDraft<'_>| matches!(draft.route, Route::Plain(_));
    let sorted = |draft: &RouteDraft<'_>| {
        let mut headers = draft.matched.headers.clone();
        headers.sort();
        headers
    };
    !(plain(a) && plain(b)) || (a.matched.method == b.matched.method && sorted(a) == sorted(b))
}

fn report(draft: &RouteDraft<'_>, other: &RouteDraft<'_>, host: &str, out: &mut Diagnostics) {
    let (PathMatch::Prefix(path) | PathMatch::Exact(path)) = &draft.matched.path;
    let on = if host.is_empty() {
        String::new()
    } else {
        format!(" on `{host}`")
    };
    let message = format!(
        "`{path}`{on} of {} is already taken by {} at {}:{}:{}",
        draft.title, other.title, other.at.file, other.at.place.line, other.at.place.col
    );
    out.error(draft.at, "duplicate-route", message);
}

fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

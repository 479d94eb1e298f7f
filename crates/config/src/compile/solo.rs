//! The import form of LLM egress: `gateway.solo.io/v1` `Gateway`.

use waypoint_llm as llm;
use waypoint_policy::{ObjectName, ProviderId};

use super::draft::{Drafts, ProviderDraft, RouteDraft};
use super::endpoint::{self, TlsChoice};
use super::gateway::{Chosen, missing_parent};
use super::llm::positive;
use super::set::{Decoded, Set};
use crate::object::{At, Diagnostics};
use crate::raw::gateway::Gateway;
use crate::raw::solo as raw;
use crate::snapshot::{Credential, LlmRoute, PathMatch, PlainMatch, Route};

/// Whether an import is for this Gateway: one it names, or any of its namespace.
pub(super) fn is_for(
    import: &Decoded<'_, raw::SoloGateway>,
    gateway: &Decoded<'_, Gateway>,
) -> bool {
    let (own, other) = (&import.object.name, &gateway.object.name);
    let names = &import.raw.proxy_names;
    own.namespace == other.namespace
        && (names.is_empty() || names.iter().any(|n| **n == *other.name))
}

pub(super) fn compile<'a>(
    set: &'a Set<'a>,
    chosen: &Chosen<'_>,
    drafts: &mut Drafts<'a>,
    out: &mut Diagnostics,
) {
    for (name, import) in &set.solo {
        let at = import.object.spec();
        for (index, proxy) in import.raw.proxy_names.iter().enumerate() {
            let gateway = ObjectName {
                namespace: name.namespace.clone(),
                name: proxy.as_str().into(),
            };
            if !set.gateways.contains_key(&gateway) {
                missing_parent(set, &gateway, true, at.key("proxyNames").index(index), out);
            }
        }
        if !is_for(import, chosen.gateway) {
            continue;
        }
        for (field, on) in [
            ("ssl", import.raw.ssl),
            ("useProxyProto", import.raw.use_proxy_proto),
        ] {
            if on == Some(true) {
                out.error(
                    at.key(field),
                    "not-enforced",
                    format!("`{field}` is not supported here"),
                );
            }
        }
        if !chosen.llm {
            let message = format!(
                "Gateway {} has `kgateway.io/ai-gateway-enabled: \"false\"`, so nothing here is served",
                chosen.name
            );
            out.warning(import.object.name_at(), "not-served", message);
            continue;
        }
        let services = at.key("httpGateway").key("virtualServices");
        for (index, service) in import.raw.http_gateway.virtual_services.iter().enumerate() {
            virtual_service(chosen, import, service, services.index(index), drafts, out);
        }
    }
}

fn virtual_service<'a>(
    chosen: &Chosen<'_>,
    import: &'a Decoded<'a, raw::SoloGateway>,
    service: &raw::VirtualService,
    at: At<'a>,
    drafts: &mut Drafts<'a>,
    out: &mut Diagnostics,
) {
    if service.domains.is_empty() {
        out.error(
            at.key("domains"),
            "empty-list",
            "`domains` is empty; name the providers' hosts",
        );
    }
    let mut providers = Vec::new();
    for (index, domain) in service.domains.iter().enumerate() {
        let at = at.key("domains").index(index);
        providers.extend(provider(chosen, import, domain, at, drafts, out).map(|id| (domain, id)));
    }
    for (index, route) in service.routes.iter().enumerate() {
        let at = at.key("routes").index(index);
        let (timeouts, retry) = options(&route.options, at.key("options"), out);
        let all = [raw::Matcher {
            prefix: "/".to_owned(),
        }];
        let matchers = if route.matchers.is_empty() {
            &all[..]
        } else {
            &route.matchers
        };
        for (index, matcher) in matchers.iter().enumerate() {
            let at = at.key("matchers").index(index).key("prefix");
            let Some(prefix) = endpoint::prefix(&matcher.prefix, at, out) else {
                continue;
            };
            for (domain, provider) in &providers {
                let backend = llm::Backend {
                    provider: *provider,
                    weight: 1,
                    priority: 0,
                    model: None,
                };
                drafts.routes.push(RouteDraft {
                    route: Route::Llm(LlmRoute {
                        name: import.object.name.clone(),
                        label: format!("LLMRoute/{}", import.object.name).into(),
                        targets: Vec::new(),
                        // The provider's own paths begin at the root; the prefix only chooses.
                        prefix: "/".to_owned(),
                        rules: vec![llm::Rule {
                            models: Vec::new(),
                            backends: vec![backend],
                            timeouts,
                            retry,
                        }],
                        host_form: true,
                    }),
                    targets: Vec::new(),
                    listeners: (0..chosen.listeners.len()).collect(),
                    hosts: vec![domain.to_ascii_lowercase()],
                    matched: PlainMatch {
                        path: PathMatch::Prefix(prefix.clone()),
                        method: None,
                        headers: Vec::new(),
                    },
                    title: super::title(import.object),
                    at,
                });
            }
        }
    }
}

/// The provider behind a domain: public, by TLS, with the caller's own credential.
fn provider(
    chosen: &Chosen<'_>,
    import: &Decoded<'_, raw::SoloGateway>,
    domain: &str,
    at: At<'_>,
    drafts: &mut Drafts<'_>,
    out: &mut Diagnostics,
) -> Option<ProviderId> {
    let host = domain.to_ascii_lowercase();
    let dialect = match host.as_str() {
        "api.openai.com" => llm::Dialect::OpenAi,
        "api.anthropic.com" => llm::Dialect::Anthropic,
        _ => {
            let message = format!(
                "domain `{domain}` is no LLM provider this form can name (`api.openai.com`, \
                 `api.anthropic.com`); use an LLMProvider and an LLMRoute"
            );
            out.error(at, "unknown-value", message);
            return None;
        }
    };
    let name = ObjectName::new(&import.object.name.namespace, &host);
    if let Some(known) = drafts.provider_ids.get(&name).copied() {
        let imported = drafts
            .providers
            .iter()
            .any(|draft| draft.llm.id == known && draft.imported);
        if !imported {
            let message = format!("there is also an LLMProvider {name}; use an LLMRoute to it");
            out.error(at, "duplicate-name", message);
            return None;
        }
        return Some(known);
    }
    let tls = Some(TlsChoice::default());
    let endpoint = endpoint::of_host(&host, 443, tls, &chosen.parameters, at, out)?;
    Some(drafts.add_provider(ProviderDraft {
        llm: llm::Provider {
            id: ProviderId(0),
            name,
            dialect,
            operations: dialect.operations().to_vec(),
            models: None,
            allowances: llm::Allowances::default(),
        },
        endpoint,
        credential: Credential::Passthrough,
        imported: true,
    }))
}

/// Timeouts and retries; `retryOn` in Envoy's words.
fn options(
    raw: &raw::RouteOptions,
    at: At<'_>,
    out: &mut Diagnostics,
) -> (llm::Timeouts, llm::Retry) {
    let mut timeouts = llm::Timeouts::default();
    if let Some(request) = positive(raw.timeout.map(|t| t.0), at, "timeout", out) {
        timeouts.request = request;
    }
    let mut retry = llm::Retry {
        attempts: 0,
        on: llm::RetryOn::NONE,
        ..llm::Retry::default()
    };
    let Some(policy) = &raw.retry_policy else {
        return (timeouts, retry);
    };
    let at = at.key("retryPolicy");
    timeouts.per_try = positive(
        policy.per_try_timeout.map(|t| t.0),
        at,
        "perTryTimeout",
        out,
    );
    retry.attempts = policy.num_retries.unwrap_or(1);
    if retry.attempts > 10 {
        out.error(
            at.key("numRetries"),
            "bad-value",
            "`numRetries` must be at most 10",
        );
    }
    for word in policy
        .retry_on
        .as_deref()
        .unwrap_or("5xx")
        .split(',')
        .map(str::trim)
    {
        match word {
            // In Envoy, `5xx` is also "no answer at all".
            "5xx" => {
                retry.on.server_error = true;
                retry.on.connect_failure = true;
                retry.on.reset = true;
            }
            "gateway-error" => retry.on.server_error = true,
            "connect-failure" | "refused-stream" => retry.on.connect_failure = true,
            "reset" => retry.on.reset = true,
            _ => {
                let message = format!(
                    "`{word}` is not one of `5xx`, `gateway-error`, `connect-failure`, \
                     `refused-stream`, `reset`"
                );
                out.error(at.key("retryOn"), "unknown-value", message);
            }
        }
    }
    (timeouts, retry)
}

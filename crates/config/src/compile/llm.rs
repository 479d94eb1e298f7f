//! `LLMProvider` and `LLMRoute`.

use std::collections::HashSet;
use std::time::Duration;

use waypoint_llm as llm;
use waypoint_policy::{Kind, ObjectName, ObjectRef, Operation, Pattern, ProviderId};

use super::draft::{Drafts, ProviderDraft, RouteDraft};
use super::endpoint::{self, TlsChoice};
use super::gateway::Chosen;
use super::set::{Decoded, Set};
use super::{attach, missing, refs};
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics};
use crate::raw::llm as raw;
use crate::snapshot::{LlmRoute, Parameters, PathMatch, PlainMatch, Route};

const MAX_ATTEMPTS: u32 = 10;
const MAX_WEIGHT: u32 = 1_000_000;
const RETRY_ON: &str = "`5xx`, `429`, `connect-failure`, `reset`, `timeout`";

/// All providers; those of other waypoints too, so that policies may name them.
pub(super) fn providers(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    drafts: &mut Drafts<'_>,
    out: &mut Diagnostics,
) {
    let called = called(set, chosen);
    for provider in set.providers.values() {
        let parameters = chosen.parameters_of(called.contains(&provider.object.name));
        if let Some(draft) = one_provider(set, &parameters, provider, out) {
            drafts.add_provider(draft);
        }
    }
}

/// The providers that routes of this waypoint lead to.
fn called(set: &Set<'_>, chosen: &Chosen<'_>) -> HashSet<ObjectName> {
    // What is wrong with the attachment is said when the routes are compiled.
    let mut unsaid = Diagnostics::default();
    let mut called = HashSet::new();
    for route in set.llm_routes.values() {
        let parents = route.raw.parent_refs.as_deref();
        if attach::listeners(set, chosen, route.object, parents, &mut unsaid).is_none() {
            continue;
        }
        for backend in route.raw.rules.iter().flat_map(|rule| &rule.backend_refs) {
            let namespace = backend.namespace.as_deref();
            called.insert(ObjectName::new(
                namespace.unwrap_or(&route.object.name.namespace),
                &backend.name,
            ));
        }
    }
    called
}

fn one_provider(
    set: &Set<'_>,
    parameters: &Parameters,
    provider: &Decoded<'_, raw::LlmProvider>,
    out: &mut Diagnostics,
) -> Option<ProviderDraft> {
    let (object, spec) = (provider.object, &provider.raw);
    let at = object.spec();
    let dialect = match spec.dialect {
        raw::Dialect::OpenAI => llm::Dialect::OpenAi,
        raw::Dialect::Anthropic => llm::Dialect::Anthropic,
        other => {
            let message =
                format!("dialect `{other:?}` is not supported yet; use `OpenAI` or `Anthropic`");
            out.error(at.key("dialect"), "not-enforced", message);
            return None;
        }
    };
    let mut tls_whole = true;
    let tls = spec.tls.as_ref().map(|tls| {
        let at = at.key("tls");
        let references = &tls.ca_certificate_refs;
        let roots = refs::roots(set, object, references, at.key("caCertificateRefs"), out);
        tls_whole = roots.is_some();
        TlsChoice {
            hostname: tls_hostname(tls.hostname.as_deref(), at, out),
            roots_pem: roots.filter(|_| !references.is_empty()),
        }
    });
    let text = spec.endpoint.as_deref().unwrap_or(match dialect {
        llm::Dialect::OpenAi => "https://api.openai.com",
        llm::Dialect::Anthropic => "https://api.anthropic.com",
    });
    let endpoint = endpoint::of_url(text, tls, parameters, at.key("endpoint"), out);
    let credential = refs::credential(
        set,
        object,
        spec.credential.as_ref(),
        at.key("credential"),
        out,
    );
    let operations = operations(
        dialect,
        spec.operations.as_deref(),
        at.key("operations"),
        out,
    );
    let models = spec
        .models
        .as_ref()
        .map(|list| models(list, at.key("models"), out));
    let draft = ProviderDraft {
        llm: llm::Provider {
            id: ProviderId(0),
            name: object.name.clone(),
            dialect,
            operations,
            models,
            allowances: llm::Allowances {
                background: spec.allow.background,
                stored: spec.allow.stored_threads,
            },
        },
        endpoint: endpoint?,
        credential: credential?,
        imported: false,
    };
    tls_whole.then_some(draft)
}

pub(super) fn tls_hostname(
    name: Option<&str>,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<String> {
    match endpoint::host_name(name?, false) {
        Ok(name) => Some(name),
        Err(why) => {
            out.error(at.key("hostname"), "bad-hostname", why);
            None
        }
    }
}

fn operations(
    dialect: llm::Dialect,
    given: Option<&[String]>,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Vec<Operation> {
    let all = dialect.operations();
    let Some(given) = given else {
        return all.to_vec();
    };
    let mut operations = Vec::new();
    for (index, text) in given.iter().enumerate() {
        match text
            .parse::<Operation>()
            .ok()
            .filter(|operation| all.contains(operation))
        {
            Some(operation) => operations.push(operation),
            None => {
                let known: Vec<_> = all.iter().map(|op| format!("`{}`", op.as_str())).collect();
                let message = format!("`{text}` is not one of {}", known.join(", "));
                out.error(at.index(index), "unknown-value", message);
            }
        }
    }
    if given.is_empty() {
        out.error(
            at,
            "empty-list",
            "`operations` is empty, so the provider could do nothing",
        );
    }
    operations
}

fn models(list: &[raw::Model], at: At<'_>, out: &mut Diagnostics) -> llm::Models {
    let mut seen: Vec<&str> = Vec::new();
    if list.is_empty() {
        out.error(
            at,
            "empty-list",
            "`models` is empty, so the provider serves none; remove it to serve all",
        );
    }
    for (index, model) in list.iter().enumerate() {
        let at = at.index(index);
        let aliases = model.aliases.iter().enumerate();
        let names = std::iter::once((at.key("name"), &model.name))
            .chain(aliases.map(|(index, alias)| (at.key("aliases").index(index), alias)));
        for (at, name) in names {
            if name.is_empty() {
                out.error(at, "bad-value", "a model name must not be empty");
            } else if seen.contains(&name.as_str()) {
                out.error(
                    at,
                    "duplicate-name",
                    format!("model name `{name}` is already used"),
                );
            }
            seen.push(name);
        }
    }
    let compiled = list.iter().enumerate().map(|(index, model)| llm::Model {
        name: model.name.as_str().into(),
        aliases: model
            .aliases
            .iter()
            .map(|alias| alias.as_str().into())
            .collect(),
        price: (model.price.as_ref())
            .and_then(|given| price(given, at.index(index).key("price"), out)),
    });
    compiled.collect()
}

/// `None` when one of the numbers is none, which is reported.
fn price(given: &raw::Price, at: At<'_>, out: &mut Diagnostics) -> Option<llm::Price> {
    let mut read = |field: &str, text: &str| {
        let price = text.parse::<llm::PerMillion>();
        price
            .map_err(|error| out.error(at.key(field), "bad-value", error.to_string()))
            .ok()
    };
    let input = read("input", &given.input);
    let mut optional = |field, text: Option<&str>| match text {
        Some(text) => read(field, text).map(Some),
        None => Some(None),
    };
    let cached_input = optional("cachedInput", given.cached_input.as_deref());
    let cache_write = optional("cacheWrite", given.cache_write.as_deref());
    let output = read("output", &given.output);
    Some(llm::Price {
        input: input?,
        cached_input: cached_input?,
        cache_write: cache_write?,
        output: output?,
    })
}

/// The routes of this waypoint.
pub(super) fn routes<'a>(
    set: &'a Set<'a>,
    chosen: &Chosen<'_>,
    drafts: &mut Drafts<'a>,
    out: &mut Diagnostics,
) {
    for route in set.llm_routes.values() {
        let (object, spec) = (route.object, &route.raw);
        let parents = spec.parent_refs.as_deref();
        let Some(listeners) = attach::listeners(set, chosen, object, parents, out) else {
            continue;
        };
        if !chosen.llm {
            let message = format!(
                "Gateway {} has `kgateway.io/ai-gateway-enabled: \"false\"`, so this route is not served",
                chosen.name
            );
            out.warning(object.name_at(), "not-served", message);
            continue;
        }
        let at = object.spec();
        let hosts = endpoint::host_names(&spec.hostnames, at.key("hostnames"), out);
        let prefix_at = at.key("pathPrefix");
        let prefix = spec.path_prefix.as_deref().unwrap_or("/");
        let prefix = endpoint::prefix(prefix, prefix_at, out);
        if spec.rules.is_empty() {
            out.error(
                at.key("rules"),
                "empty-list",
                "`rules` is empty, so the route goes nowhere",
            );
        }
        let mut rules = Vec::new();
        for (index, rule) in spec.rules.iter().enumerate() {
            let at = at.key("rules").index(index);
            rules.extend(one_rule(set, drafts, route, rule, at, out));
        }
        let Some(prefix) = prefix else { continue };
        drafts.routes.push(RouteDraft {
            targets: vec![ObjectRef::whole(Kind::LlmRoute, object.name.clone())],
            listeners,
            matched: PlainMatch {
                path: PathMatch::Prefix(prefix.clone()),
                method: None,
                headers: Vec::new(),
            },
            title: super::title(object),
            at: prefix_at,
            route: Route::Llm(LlmRoute {
                name: object.name.clone(),
                label: format!("LLMRoute/{}", object.name).into(),
                targets: Vec::new(),
                prefix,
                rules,
                host_form: !hosts.is_empty(),
            }),
            hosts,
        });
    }
}

fn one_rule(
    set: &Set<'_>,
    drafts: &Drafts<'_>,
    route: &Decoded<'_, raw::LlmRoute>,
    rule: &raw::LlmRule,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<llm::Rule> {
    let mut models: Vec<Pattern> = Vec::new();
    for (index, matched) in rule.matches.iter().flatten().enumerate() {
        let at = at.key("matches").index(index).key("models");
        if matched.models.is_empty() {
            out.error(at, "empty-list", "`models` is empty, so nothing matches");
        }
        for (index, text) in matched.models.iter().enumerate() {
            match text.parse() {
                Ok(pattern) => models.push(pattern),
                Err(error) => out.error(at.index(index), "bad-value", format!("`{text}`: {error}")),
            }
        }
    }
    let refs_at = at.key("backendRefs");
    if rule.backend_refs.is_empty() {
        out.error(
            refs_at,
            "empty-list",
            "`backendRefs` is empty, so the rule goes nowhere",
        );
    }
    let mut backends = Vec::new();
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        backends.extend(one_backend(
            set,
            drafts,
            route,
            backend,
            refs_at.index(index),
            out,
        ));
    }
    if !backends.is_empty()
        && backends
            .iter()
            .all(|backend: &llm::Backend| backend.weight == 0)
    {
        out.warning(
            refs_at,
            "never-matches",
            "every weight is 0, so the rule goes nowhere",
        );
    }
    let timeouts = timeouts(&rule.timeouts, at.key("timeouts"), out);
    let retry = match &rule.retry {
        Some(retry) => retries(retry, at.key("retry"), out),
        // Failover needs an attempt per backend.
        None => {
            let others = u32::try_from(backends.len().saturating_sub(1)).unwrap_or(MAX_ATTEMPTS);
            let attempts = llm::Retry::default().attempts.max(others).min(MAX_ATTEMPTS);
            llm::Retry {
                attempts,
                ..llm::Retry::default()
            }
        }
    };
    Some(llm::Rule {
        models,
        backends,
        timeouts,
        retry,
    })
}

fn one_backend(
    set: &Set<'_>,
    drafts: &Drafts<'_>,
    route: &Decoded<'_, raw::LlmRoute>,
    backend: &raw::LlmBackendRef,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<llm::Backend> {
    let kind = ObjectKind::LlmProvider;
    let group = backend.group.as_deref().unwrap_or(kind.group());
    let given = backend.kind.as_deref().unwrap_or(kind.as_str());
    if (group, given) != (kind.group(), kind.as_str()) {
        let message = format!(
            "backend `{group}/{given}` is not `{}/LLMProvider`",
            kind.group()
        );
        out.error(at.key("kind"), "unknown-value", message);
        return None;
    }
    let weight = backend.weight.unwrap_or(1);
    if weight > MAX_WEIGHT {
        out.error(
            at.key("weight"),
            "bad-value",
            format!("`weight` must be at most {MAX_WEIGHT}"),
        );
    }
    let name = refs::named(backend.namespace.as_deref(), &backend.name, route.object);
    if !set.providers.contains_key(&name) {
        missing(set, kind, &name, at.key("name"), out);
        return None;
    }
    if !refs::granted(
        set,
        refs::From::object(route.object),
        kind,
        &name,
        at.key("name"),
        out,
    ) {
        return None;
    }
    // Absent when the provider's own errors were reported.
    let provider = *drafts.provider_ids.get(&name)?;
    if let Some(model) = &backend.model {
        let draft = drafts
            .providers
            .iter()
            .find(|draft| draft.llm.id == provider)?;
        if draft.llm.upstream_model(model).is_none() {
            let message = format!(
                "LLMProvider {name} has no model `{model}`, so this backend serves nothing"
            );
            out.warning(at.key("model"), "never-matches", message);
        }
    }
    Some(llm::Backend {
        provider,
        weight,
        priority: backend.priority.unwrap_or(0),
        model: backend.model.as_deref().map(Into::into),
    })
}

fn timeouts(raw: &raw::LlmTimeouts, at: At<'_>, out: &mut Diagnostics) -> llm::Timeouts {
    let default = llm::Timeouts::default();
    let mut time = |field: &str, value: Option<crate::raw::Duration>, default: Duration| {
        positive(value.map(|value| value.0), at, field, out).unwrap_or(default)
    };
    let request = time("request", raw.request, default.request);
    let connect = time("connect", raw.connect, default.connect);
    let stream_idle = time("streamIdle", raw.stream_idle, default.stream_idle);
    let per_try = raw
        .per_try
        .map(|value| time("perTry", Some(value), request));
    llm::Timeouts {
        request,
        connect,
        stream_idle,
        per_try,
    }
}

/// A time that must not be zero.
pub(super) fn positive(
    value: Option<Duration>,
    at: At<'_>,
    field: &str,
    out: &mut Diagnostics,
) -> Option<Duration> {
    if value.is_some_and(|value| value.is_zero()) {
        out.error(
            at.key(field),
            "bad-value",
            format!("`{field}` must be longer than 0s"),
        );
    }
    value
}

fn retries(raw: &raw::Retry, at: At<'_>, out: &mut Diagnostics) -> llm::Retry {
    let default = llm::Retry::default();
    let attempts = raw.attempts.unwrap_or(default.attempts);
    if attempts > MAX_ATTEMPTS {
        out.error(
            at.key("attempts"),
            "bad-value",
            format!("`attempts` must be at most {MAX_ATTEMPTS}"),
        );
    }
    let on = match &raw.on {
        None => default.on,
        Some(list) => {
            let mut on = llm::RetryOn::NONE;
            for (index, condition) in list.iter().enumerate() {
                match condition.0.as_str() {
                    "5xx" => on.server_error = true,
                    "429" => on.rate_limited = true,
                    "connect-failure" => on.connect_failure = true,
                    "reset" => on.reset = true,
                    "timeout" => on.timeout = true,
                    other => {
                        let message = format!("`{other}` is not one of {RETRY_ON}");
                        out.error(at.key("on").index(index), "unknown-value", message);
                    }
                }
            }
            on
        }
    };
    let base = raw.backoff.base.map_or(default.base, |base| base.0);
    let max = raw.backoff.max.map_or(default.max.max(base), |max| max.0);
    if max < base {
        let message = "`backoff.max` must not be shorter than `backoff.base`";
        out.error(at.key("backoff").key("max"), "bad-value", message);
    }
    llm::Retry {
        attempts,
        on,
        base,
        max,
    }
}

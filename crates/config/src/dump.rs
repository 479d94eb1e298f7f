//! A snapshot as JSON, without anything secret.

use std::borrow::Cow;

use serde_json::{Value, json};
use waypoint_policy::{Names, ProviderId, ServerId};

use crate::jwt::TokenForm;
use crate::snapshot::{
    Address, ClientCertificate, Credential, Endpoint, Filter, Listener, PathMatch, PlainMatch,
    Protocol, Route, Snapshot,
};

impl Names for Snapshot {
    fn provider(&self, id: ProviderId) -> Cow<'_, str> {
        match Snapshot::provider(self, id) {
            Some(provider) => provider.llm.name.to_string().into(),
            None => "unknown".into(),
        }
    }

    fn server(&self, id: ServerId) -> Cow<'_, str> {
        match Snapshot::server(self, id) {
            Some(server) => (&*server.label).into(),
            None => "unknown".into(),
        }
    }
}

impl Snapshot {
    /// What is in force, for an operator to read. No keys, no credentials, no header values.
    #[must_use]
    pub fn redacted_json(&self) -> Value {
        let parameters = &self.parameters;
        json!({
            "generation": self.generation,
            "gateway": self.gateway,
            "posture": self.policy.posture().as_str(),
            "authorization_policies": self.policy.istio_policies().iter().map(|policy| json!({
                "name": policy.name,
                "targets": policy.targets,
                "action": format!("{:?}", policy.action).to_ascii_uppercase(),
                "mode": policy.mode,
                "rules": policy.rules.len(),
            })).collect::<Vec<_>>(),
            "access_policies": self.policy.access_policies().collect::<Vec<_>>(),
            "parameters": {
                "trust_domains": parameters.trust_domains,
                "allow_private_endpoints":
                    parameters.allow_private.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "audit": {
                    "stdout": parameters.audit.stdout,
                    "file": parameters.audit.file.as_ref().map(|file| json!({
                        "path": file.path,
                        "max_size_bytes": file.max_size_bytes,
                    })),
                },
                "limits": {
                    "connections": parameters.limits.connections,
                    "header_bytes": parameters.limits.header_bytes,
                    "header_timeout_ms": millis(parameters.limits.header_timeout),
                    "llm_body_bytes": parameters.limits.llm_body_bytes,
                    "mcp_body_bytes": parameters.limits.mcp_body_bytes,
                    "sse_event_bytes": parameters.limits.sse_event_bytes,
                    "answer_bytes": parameters.limits.answer_bytes,
                    "handshake_timeout_ms": millis(parameters.limits.handshake_timeout),
                    "idle_timeout_ms": millis(parameters.limits.idle_timeout),
                    "body_timeout_ms": millis(parameters.limits.body_timeout),
                },
                "drain_ms": millis(parameters.drain),
                "path_normalization": parameters.path_normalization.as_str(),
                "dns_suffix": parameters.dns_suffix,
                "limit_store": parameters.limit_store.as_ref().map(|store| json!({
                    "endpoint": endpoint(&store.endpoint),
                    "database": store.database,
                    "timeout_ms": millis(store.timeout),
                    "replicas": store.replicas,
                    "username": store.username,
                    "credential": credential(&store.credential),
                })),
                "identity": parameters.identity.as_ref().map(|files| json!({
                    "certificate": files.certificate,
                    "private_key": files.private_key,
                    "trust_bundle": files.trust_bundle,
                })),
            },
            "listeners": self.listeners.iter().map(listener).collect::<Vec<_>>(),
            "providers": self.providers.iter().map(|provider| json!({
                "id": provider.llm.id,
                "name": provider.llm.name,
                "dialect": provider.llm.dialect.as_str(),
                "operations": provider.llm.operations.iter().map(|op| op.as_str()).collect::<Vec<_>>(),
                "models": provider.llm.models.as_ref().map(|models| models.iter().map(|model| json!({
                    "name": model.name,
                    "aliases": model.aliases,
                })).collect::<Vec<_>>()),
                "endpoint": endpoint(&provider.endpoint),
                "credential": credential(&provider.credential),
            })).collect::<Vec<_>>(),
            "servers": self.servers.iter().map(|server| json!({
                "id": server.id,
                "label": server.label,
                "endpoint": endpoint(&server.endpoint),
                "path": server.path,
            })).collect::<Vec<_>>(),
            "routes": self.routes.iter().map(route).collect::<Vec<_>>(),
            "policies": self.policy.policies(),
            "usage_limits": self.policy.usage_limits(),
        })
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn listener(listener: &Listener) -> Value {
    json!({
        "name": listener.name,
        "addresses": listener.addresses,
        "port": listener.port,
        "protocol": match listener.protocol {
            Protocol::Http => "HTTP",
            Protocol::Https => "HTTPS",
            Protocol::Hbone => "HBONE",
        },
        "hostname": listener.hostname,
        "client_certificate": listener.tls.as_ref().map(|tls| match tls.client {
            ClientCertificate::Off => "Off",
            ClientCertificate::Optional { .. } => "Optional",
            ClientCertificate::Required { .. } => "Required",
        }),
        "developer": listener.developer.as_ref().map(ToString::to_string),
        "token_principals": listener.tokens.iter().map(|token| json!({
            "type": match token.form {
                TokenForm::ServiceAccount => "ServiceAccount",
                TokenForm::Spiffe => "SPIFFE",
            },
            "issuer": token.issuer,
            "audiences": token.audiences,
        })).collect::<Vec<_>>(),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "scheme": if endpoint.tls.is_some() { "https" } else { "http" },
        "host": endpoint.host,
        "port": endpoint.port,
        "prefix": endpoint.prefix,
        "tls_hostname": endpoint.tls.as_ref().map(|tls| &tls.hostname),
        "own_roots": endpoint.tls.as_ref().is_some_and(|tls| tls.roots_pem.is_some()),
        "addresses": match &endpoint.address {
            Address::Dns(name) => json!({"dns": name}),
            Address::Fixed(addresses) => json!(addresses),
        },
        "may_be_private": endpoint.private,
        "http2": endpoint.http2,
    })
}

fn credential(credential: &Credential) -> Value {
    match credential {
        Credential::None => json!("none"),
        Credential::Passthrough => json!("passthrough"),
        Credential::Inline(_) => json!("secret"),
        Credential::Env(name) => json!({"env": name}),
        Credential::File(path) => json!({"file": path}),
    }
}

fn route(route: &Route) -> Value {
    match route {
        Route::Llm(route) => json!({
            "kind": "LLM",
            "name": route.name,
            "prefix": route.prefix,
            "host_form": route.host_form,
            "rules": route.rules.iter().map(|rule| json!({
                "models": rule.models.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "backends": rule.backends.iter().map(|backend| json!({
                    "provider": backend.provider,
                    "weight": backend.weight,
                    "priority": backend.priority,
                    "model": backend.model,
                })).collect::<Vec<_>>(),
                "request_timeout_ms": millis(rule.timeouts.request),
                "retry_attempts": rule.retry.attempts,
            })).collect::<Vec<_>>(),
        }),
        Route::Mcp(route) => json!({
            "kind": "MCP",
            "name": route.name,
            "route": route.section,
            "prefix": route.prefix,
            "server": route.server,
            "credential": credential(&route.credential),
            "request_timeout_ms": millis(route.timeouts.request),
        }),
        Route::Plain(route) => json!({
            "kind": "Plain",
            "name": route.name,
            "rule": route.rule,
            "match": matched(&route.matched),
            "filters": route.filters.iter().map(|filter| match filter {
                Filter::RequestHeaders(_) => "RequestHeaderModifier",
                Filter::ResponseHeaders(_) => "ResponseHeaderModifier",
                Filter::Redirect(_) => "RequestRedirect",
                Filter::Rewrite(_) => "URLRewrite",
            }).collect::<Vec<_>>(),
            "backends": route.backends.iter().map(|backend| json!({
                "name": backend.name,
                "weight": backend.weight,
                "external": backend.external,
                "endpoint": endpoint(&backend.endpoint),
            })).collect::<Vec<_>>(),
            "request_timeout_ms": route.request_timeout.map(millis),
        }),
    }
}

fn matched(matched: &PlainMatch) -> Value {
    let path = match &matched.path {
        PathMatch::Prefix(path) => json!({"prefix": path}),
        PathMatch::Exact(path) => json!({"exact": path}),
    };
    let headers: Vec<&str> = matched
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    json!({"path": path, "method": matched.method, "headers": headers})
}

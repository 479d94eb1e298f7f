//! The kinds we read, the kinds we refuse, and whose the others are.

/// A kind we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ObjectKind {
    Gateway,
    GatewayClass,
    HttpRoute,
    ReferenceGrant,
    Service,
    Secret,
    ConfigMap,
    EndpointSlice,
    ServiceEntry,
    /// Read, and of no consequence yet.
    Namespace,
    /// Read, and of no consequence yet.
    Pod,
    SoloGateway,
    McpProxy,
    WaypointParameters,
    LlmProvider,
    LlmRoute,
    AgentPolicy,
    UsageLimit,
    AuthorizationPolicy,
    RequestAuthentication,
    XAccessPolicy,
}

impl ObjectKind {
    /// The kind as it is written.
    pub(crate) fn as_str(self) -> &'static str {
        KINDS
            .iter()
            .find(|known| known.read == Some(self))
            .map_or("", |known| known.kind)
    }

    /// The group it belongs to.
    pub(crate) fn group(self) -> &'static str {
        KINDS
            .iter()
            .find(|known| known.read == Some(self))
            .map_or("", |known| known.group)
    }

    pub(crate) fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::GatewayClass | Self::Namespace)
    }

    /// Whether unknown fields are errors.
    pub(crate) fn is_strict(self) -> bool {
        matches!(
            self,
            Self::WaypointParameters
                | Self::LlmProvider
                | Self::LlmRoute
                | Self::McpProxy
                | Self::AgentPolicy
                | Self::UsageLimit
                | Self::AuthorizationPolicy
                | Self::RequestAuthentication
                | Self::XAccessPolicy
                | Self::SoloGateway
                | Self::ReferenceGrant
        )
    }
}

struct Known {
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    /// `None` when we know that it restricts something and do not enforce it.
    read: Option<ObjectKind>,
}

const fn read(
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    read: ObjectKind,
) -> Known {
    Known {
        group,
        kind,
        versions,
        read: Some(read),
    }
}

const fn refused(group: &'static str, kind: &'static str) -> Known {
    Known {
        group,
        kind,
        versions: &[],
        read: None,
    }
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const OURS: &str = "waypoint.kgateway.io";
const MCP: &str = "mcp.kgateway.io";

const KINDS: &[Known] = &[
    read(
        GATEWAY_API,
        "Gateway",
        &["v1", "v1beta1"],
        ObjectKind::Gateway,
    ),
    read(
        GATEWAY_API,
        "GatewayClass",
        &["v1", "v1beta1"],
        ObjectKind::GatewayClass,
    ),
    read(
        GATEWAY_API,
        "HTTPRoute",
        &["v1", "v1beta1"],
        ObjectKind::HttpRoute,
    ),
    read(
        GATEWAY_API,
        "ReferenceGrant",
        &["v1", "v1beta1"],
        ObjectKind::ReferenceGrant,
    ),
    refused(GATEWAY_API, "BackendTLSPolicy"),
    read("", "Service", &["v1"], ObjectKind::Service),
    read("", "Secret", &["v1"], ObjectKind::Secret),
    read("", "ConfigMap", &["v1"], ObjectKind::ConfigMap),
    read("", "Namespace", &["v1"], ObjectKind::Namespace),
    read("", "Pod", &["v1"], ObjectKind::Pod),
    read(
        "discovery.k8s.io",
        "EndpointSlice",
        &["v1"],
        ObjectKind::EndpointSlice,
    ),
    read(
        "networking.istio.io",
        "ServiceEntry",
        &["v1", "v1beta1", "v1alpha3"],
        ObjectKind::ServiceEntry,
    ),
    read(
        "security.istio.io",
        "AuthorizationPolicy",
        &["v1", "v1beta1"],
        ObjectKind::AuthorizationPolicy,
    ),
    read(
        "security.istio.io",
        "RequestAuthentication",
        &["v1", "v1beta1"],
        ObjectKind::RequestAuthentication,
    ),
    read(
        "gateway.solo.io",
        "Gateway",
        &["v1"],
        ObjectKind::SoloGateway,
    ),
    read(
        "agentic.networking.x-k8s.io",
        "XAccessPolicy",
        &["v1alpha1"],
        ObjectKind::XAccessPolicy,
    ),
    read(MCP, "MCPProxy", &["v1"], ObjectKind::McpProxy),
    read(
        OURS,
        "WaypointParameters",
        &["v1alpha1"],
        ObjectKind::WaypointParameters,
    ),
    read(OURS, "LLMProvider", &["v1alpha1"], ObjectKind::LlmProvider),
    read(OURS, "LLMRoute", &["v1alpha1"], ObjectKind::LlmRoute),
    read(OURS, "AgentPolicy", &["v1alpha1"], ObjectKind::AgentPolicy),
    read(OURS, "UsageLimit", &["v1alpha1"], ObjectKind::UsageLimit),
    refused(OURS, "ToolCatalog"),
];

/// What is to be done with an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Read(ObjectKind),
    /// It restricts something we do not enforce yet.
    NotEnforced,
    /// A kind we read in a version we do not; the versions we do.
    UnknownVersion(String),
    /// A group of ours without such a kind; the kinds it has.
    UnknownKind(&'static [&'static str]),
    /// Another project's.
    Other,
}

pub(crate) fn classify(api_version: &str, kind: &str) -> Class {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match KINDS
        .iter()
        .find(|known| known.group == group && known.kind == kind)
    {
        Some(Known { read: None, .. }) => Class::NotEnforced,
        Some(Known {
            read: Some(read),
            versions,
            ..
        }) if versions.contains(&version) => Class::Read(*read),
        Some(Known { versions, .. }) => {
            let slash = if group.is_empty() { "" } else { "/" };
            let known: Vec<_> = versions
                .iter()
                .map(|v| format!("`{group}{slash}{v}`"))
                .collect();
            Class::UnknownVersion(known.join(" or "))
        }
        None if group == OURS => Class::UnknownKind(&[
            "WaypointParameters",
            "LLMProvider",
            "LLMRoute",
            "AgentPolicy",
            "UsageLimit",
        ]),
        None if group == MCP => Class::UnknownKind(&["MCPProxy"]),
        None => Class::Other,
    }
}

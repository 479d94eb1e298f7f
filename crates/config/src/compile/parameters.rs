//! `WaypointParameters` and the mesh's own settings.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use waypoint_policy::{ObjectName, Posture};

use super::set::{Decoded, Set};
use super::{missing, store};
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics, Object};
use crate::path::PathNormalization;
use crate::raw;
use crate::raw::gateway::{Gateway, ParametersRef};
use crate::raw::parameters::{ListenerParameters, WaypointParameters};
use crate::snapshot::{Audit, AuditFile, IdentityFiles, Limits, Parameters};
use crate::yaml::{self, Node, Value};

const DEFAULT_ROOT_NAMESPACE: &str = "istio-system";
const DEFAULT_DOMAIN: &str = "cluster.local";
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
const DEFAULT_AUDIT_MIB: u32 = 256;

/// Settings of a waypoint, with what only compiling needs.
pub(super) struct Compiled<'a> {
    pub(super) posture: Posture,
    /// Istio's own namespace, where policies for a GatewayClass live.
    pub(super) root_namespace: String,
    pub(super) namespace_default_deny: bool,
    pub(super) parameters: Parameters,
    /// The object, for what is said by listener.
    pub(super) source: Option<&'a Decoded<'a, WaypointParameters>>,
    /// Whether the object that is named could be read. What it may have allowed is no reason for
    /// further errors if not.
    pub(super) known: bool,
}

impl Compiled<'_> {
    /// What is said of a listener.
    pub(super) fn listener(&self, name: &str) -> Option<&ListenerParameters> {
        self.source
            .and_then(|source| source.raw.listeners.get(name))
    }
}

pub(super) fn compile<'a>(
    set: &'a Set<'a>,
    gateway: &Decoded<'_, Gateway>,
    out: &mut Diagnostics,
) -> Compiled<'a> {
    let mark = out.len();
    let source = find(set, gateway, out);
    let known = source.is_some()
        || (!out.errors_since(mark) && !set.any_broken(ObjectKind::WaypointParameters));
    let mesh = mesh(set, out);
    let root_namespace = mesh
        .as_ref()
        .and_then(|mesh| mesh.root_namespace.clone())
        .unwrap_or_else(|| DEFAULT_ROOT_NAMESPACE.to_owned());
    let path_normalization = mesh
        .as_ref()
        .map(|mesh| mesh.path_normalization)
        .unwrap_or_default();
    let default = WaypointParameters::default();
    let (raw, at) = match source {
        Some(source) => (&source.raw, source.object.spec()),
        None => (&default, gateway.object.at()),
    };
    if raw.trusted_waypoints.is_some() {
        let message = "`trustedWaypoints` is not supported yet; remove it";
        out.error(at.key("trustedWaypoints"), "not-enforced", message);
    }
    let trust_domains = match &raw.trust_domains {
        Some(domains) => domains.clone(),
        None => mesh.map_or_else(|| vec![DEFAULT_DOMAIN.to_owned()], |mesh| mesh.domains),
    };
    check_domains(&trust_domains, at.key("trustDomains"), out);
    let dns_suffix = raw
        .dns_suffix
        .as_deref()
        .unwrap_or(DEFAULT_DOMAIN)
        .trim_matches('.');
    if !crate::object::is_name(dns_suffix) {
        let message = format!("`{dns_suffix}` is not a DNS name in lower case");
        out.error(at.key("dnsSuffix"), "bad-value", message);
    }
    let parameters = Parameters {
        trust_domains,
        allow_private: match known {
            true => raw
                .allow_private_endpoints
                .iter()
                .map(|net| net.0.trunc())
                .collect(),
            // An error stands, so that nothing of this is ever served.
            false => everywhere(),
        },
        audit: audit(raw, at, out),
        limits: limits(&raw.limits, at.key("limits"), out),
        drain: raw.drain_timeout.map_or(DEFAULT_DRAIN, |drain| drain.0),
        path_normalization,
        dns_suffix: dns_suffix.to_owned(),
        identity: identity(raw, at.key("identity"), out),
        limit_store: source.and_then(|source| {
            let store = source.raw.limit_store.as_ref()?;
            store::compile(set, source.object, store, out)
        }),
    };
    Compiled {
        posture: super::posture(raw.posture),
        root_namespace,
        namespace_default_deny: raw.namespace_default_deny,
        parameters,
        source,
        known,
    }
}

/// All addresses, for what is compiled only to look for other mistakes.
pub(super) fn everywhere() -> Vec<IpNet> {
    vec![Ipv4Net::default().into(), Ipv6Net::default().into()]
}

/// The object a Gateway names, or else its class.
fn find<'a>(
    set: &'a Set<'a>,
    gateway: &Decoded<'_, Gateway>,
    out: &mut Diagnostics,
) -> Option<&'a Decoded<'a, WaypointParameters>> {
    let object = gateway.object;
    if let Some(reference) = &gateway.raw.infrastructure.parameters_ref {
        let at = object.spec().key("infrastructure").key("parametersRef");
        let name = ObjectName {
            name: reference.name.as_str().into(),
            ..object.name.clone()
        };
        return resolve(set, reference, &name, at, out);
    }
    let class = set
        .classes
        .get(&ObjectName::new("", super::GATEWAY_CLASS))?;
    let reference = class.raw.parameters_ref.as_ref()?;
    let at = class.object.spec().key("parametersRef");
    let Some(namespace) = &reference.namespace else {
        out.error(
            at,
            "missing-field",
            "`spec.parametersRef.namespace` is missing",
        );
        return None;
    };
    resolve(
        set,
        reference,
        &ObjectName::new(namespace, &reference.name),
        at,
        out,
    )
}

fn resolve<'a>(
    set: &'a Set<'a>,
    reference: &ParametersRef,
    name: &ObjectName,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<&'a Decoded<'a, WaypointParameters>> {
    let kind = ObjectKind::WaypointParameters;
    if reference.group != kind.group() || reference.kind != kind.as_str() {
        let message = format!(
            "`{}/{}` is not `{}/{}`",
            reference.group,
            reference.kind,
            kind.group(),
            kind.as_str()
        );
        out.error(at.key("kind"), "unknown-value", message);
        return None;
    }
    let found = set.parameters.get(name);
    if found.is_none() {
        missing(set, kind, name, at.key("name"), out);
    }
    found
}

fn check_domains(domains: &[String], at: At<'_>, out: &mut Diagnostics) {
    if domains.is_empty() {
        out.error(
            at,
            "empty-list",
            "`trustDomains` must name at least one trust domain",
        );
    }
    for (index, domain) in domains.iter().enumerate() {
        // SPIFFE ID §2.1.
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(known) {
            let message =
                format!("`{domain}` is not a trust domain: use a-z, 0-9, `-`, `.` and `_`");
            out.error(at.index(index), "bad-value", message);
        }
    }
}

/// The mesh's own settings, from the ConfigMap `istio` of `istio-system`.
struct Mesh {
    /// The own trust domain, then its aliases.
    domains: Vec<String>,
    root_namespace: Option<String>,
    path_normalization: PathNormalization,
}

fn mesh(set: &Set<'_>, out: &mut Diagnostics) -> Option<Mesh> {
    let map = set
        .config_maps
        .get(&ObjectName::new("istio-system", "istio"))?;
    let text = map.raw.data.get("mesh")?;
    let (documents, faults) = yaml::read(text);
    let at = map.object.at().key("data").key("mesh");
    for fault in &faults {
        let message = format!("in line {} of `mesh`: {}", fault.at.line, fault.message);
        out.error(at, fault.code, message);
    }
    let mesh = documents.first()?;
    let own = mesh
        .get("trustDomain")
        .and_then(Node::as_str)
        .unwrap_or(DEFAULT_DOMAIN);
    let mut domains = vec![own.to_owned()];
    if let Some(Node {
        value: Value::List(aliases),
        ..
    }) = mesh.get("trustDomainAliases")
    {
        domains.extend(aliases.iter().filter_map(Node::as_str).map(str::to_owned));
    }
    check_domains(&domains, at, out);
    let root_namespace = mesh.get("rootNamespace").and_then(Node::as_str);
    Some(Mesh {
        domains,
        root_namespace: root_namespace.map(str::to_owned),
        path_normalization: path_normalization(mesh, at, out),
    })
}

fn path_normalization(mesh: &Node, at: At<'_>, out: &mut Diagnostics) -> PathNormalization {
    let Some(own) = mesh.get("pathNormalization") else {
        return PathNormalization::default();
    };
    let wanted = own.get("normalization");
    match (wanted, wanted.and_then(Node::as_str)) {
        // Istio's DEFAULT is BASE.
        (None, _) | (_, Some("DEFAULT" | "BASE")) => PathNormalization::Base,
        (_, Some("NONE")) => PathNormalization::None,
        (_, Some("MERGE_SLASHES")) => PathNormalization::MergeSlashes,
        (_, Some("DECODE_AND_MERGE_SLASHES")) => PathNormalization::DecodeAndMergeSlashes,
        (_, other) => {
            let message = format!(
                "`{}` in `pathNormalization.normalization` of `mesh` is not one of `DEFAULT`, \
                 `NONE`, `BASE`, `MERGE_SLASHES`, `DECODE_AND_MERGE_SLASHES`",
                other.unwrap_or_default()
            );
            out.error(at, "unknown-value", message);
            PathNormalization::default()
        }
    }
}

fn audit(raw: &WaypointParameters, at: At<'_>, out: &mut Diagnostics) -> Audit {
    let Some(audit) = &raw.audit else {
        return Audit {
            stdout: true,
            file: None,
        };
    };
    let at = at.key("audit");
    let file = audit.file.as_ref().map(|file| {
        if file.path.is_empty() {
            out.error(
                at.key("file").key("path"),
                "bad-value",
                "`audit.file.path` must be a path",
            );
        }
        let mib = file.max_size_mib.unwrap_or(DEFAULT_AUDIT_MIB);
        if mib == 0 {
            let place = at.key("file").key("maxSizeMiB");
            out.error(
                place,
                "bad-value",
                "`audit.file.maxSizeMiB` must be at least 1",
            );
        }
        AuditFile {
            path: PathBuf::from(&file.path),
            max_size_bytes: u64::from(mib) << 20,
        }
    });
    if audit.stdout.is_none() && file.is_none() {
        out.warning(
            at,
            "no-audit",
            "`audit` names no place, so nothing is audited",
        );
    }
    Audit {
        stdout: audit.stdout.is_some(),
        file,
    }
}

fn limits(raw: &raw::parameters::Limits, at: At<'_>, out: &mut Diagnostics) -> Limits {
    let default = Limits::default();
    let mut count = |field: &str, value: Option<u32>, default: usize, least: usize| {
        let value = value.map_or(Some(default), |value| usize::try_from(value).ok());
        let value = value.unwrap_or(usize::MAX);
        if value < least {
            let message = format!("`limits.{field}` must be at least {least}");
            out.error(at.key(field), "bad-value", message);
        }
        value
    };
    let connections = count("connections", raw.connections, default.connections, 1);
    let header_bytes = count("headerBytes", raw.header_bytes, default.header_bytes, 1024);
    let llm_body_bytes = count(
        "llmBodyBytes",
        raw.llm_body_bytes,
        default.llm_body_bytes,
        1024,
    );
    let mcp_body_bytes = count(
        "mcpBodyBytes",
        raw.mcp_body_bytes,
        default.mcp_body_bytes,
        1024,
    );
    let sse_event_bytes = count(
        "sseEventBytes",
        raw.sse_event_bytes,
        default.sse_event_bytes,
        1024,
    );
    let answer_bytes = count("answerBytes", raw.answer_bytes, default.answer_bytes, 1024);
    let mut time = |field: &str, value: Option<raw::Duration>, default: Duration| {
        let value = value.map_or(default, |value| value.0);
        if value.is_zero() {
            let message = format!("`limits.{field}` must be longer than 0s");
            out.error(at.key(field), "bad-value", message);
        }
        value
    };
    Limits {
        connections,
        header_bytes,
        header_timeout: time("headerTimeout", raw.header_timeout, default.header_timeout),
        llm_body_bytes,
        mcp_body_bytes,
        sse_event_bytes,
        answer_bytes,
        handshake_timeout: time(
            "handshakeTimeout",
            raw.handshake_timeout,
            default.handshake_timeout,
        ),
        idle_timeout: time("idleTimeout", raw.idle_timeout, default.idle_timeout),
        body_timeout: time("bodyTimeout", raw.body_timeout, default.body_timeout),
    }
}

fn identity(raw: &WaypointParameters, at: At<'_>, out: &mut Diagnostics) -> Option<IdentityFiles> {
    let identity = raw.identity.as_ref()?;
    for (field, value) in [
        ("workloadAPI", &identity.workload_api),
        ("istioCA", &identity.istio_ca),
    ] {
        if value.is_some() {
            let message = format!("`identity.{field}` is not supported yet; use `identity.files`");
            out.error(at.key(field), "not-enforced", message);
        }
    }
    let Some(files) = &identity.files else {
        if identity.workload_api.is_none() && identity.istio_ca.is_none() {
            out.error(at, "missing-field", "`identity.files` is missing");
        }
        return None;
    };
    Some(IdentityFiles {
        certificate: PathBuf::from(&files.certificate),
        private_key: PathBuf::from(&files.private_key),
        trust_bundle: PathBuf::from(&files.trust_bundle),
    })
}

/// A switch among a Gateway's annotations; on unless it is `false`.
pub(super) fn switch(object: &Object, annotation: &str, out: &mut Diagnostics) -> bool {
    match object.annotations.get(annotation).map(String::as_str) {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            let at = object
                .at()
                .key("metadata")
                .key("annotations")
                .key(annotation);
            let message =
                format!("annotation `{annotation}` must be \"true\" or \"false\", not `{other}`");
            out.error(at, "unknown-value", message);
            true
        }
    }
}

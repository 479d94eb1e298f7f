//! The Gateway that is compiled for, and its listeners.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use waypoint_policy::ObjectName;

use super::parameters::{Compiled, everywhere, switch};
use super::set::{Decoded, Set};
use super::{GATEWAY_CLASS, endpoint, missing, named, refs, token_principal};
use crate::jwt::TokenPrincipal;
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics};
use crate::raw::gateway as raw;
use crate::raw::parameters::{ClientCertificateMode, ListenerParameters};
use crate::snapshot::{ClientCertificate, Listener, Parameters, Protocol, ServerTls};
use crate::suggest;

const PROTOCOLS: &[&str] = &["HTTP", "HTTPS", "HBONE", "istio.io/PROXY", "TLS"];

/// The Gateways of our class, in order.
pub(super) fn ours(set: &Set<'_>) -> Vec<ObjectName> {
    let ours = set
        .gateways
        .iter()
        .filter(|(_, g)| g.raw.gateway_class_name == GATEWAY_CLASS);
    ours.map(|(name, _)| name.clone()).collect()
}

/// The Gateway to compile for.
pub(super) fn choose(
    set: &Set<'_>,
    wanted: Option<&(String, String)>,
    out: &mut Diagnostics,
) -> Option<ObjectName> {
    let ours = ours(set);
    if let Some((namespace, name)) = wanted {
        let name = ObjectName::new(namespace, name);
        match set.gateways.get(&name) {
            Some(_) if ours.contains(&name) => return Some(name),
            Some(gateway) => {
                let message = format!(
                    "Gateway {name} is of class `{}`, not `{GATEWAY_CLASS}`",
                    gateway.raw.gateway_class_name
                );
                out.error(
                    gateway.object.spec().key("gatewayClassName"),
                    "no-gateway",
                    message,
                );
            }
            None if set.is_broken(ObjectKind::Gateway, &name) => {}
            None => {
                let message = format!("there is no Gateway {name}");
                none(named::gateway(set, Some(&name)), message, out);
            }
        }
        return None;
    }
    match ours.as_slice() {
        [one] => return Some(one.clone()),
        [] if set.any_broken(ObjectKind::Gateway) => {}
        [] => {
            let message = format!(
                "there is no Gateway of class `{GATEWAY_CLASS}`; add one with \
                 `gatewayClassName: {GATEWAY_CLASS}`, whose listeners say where to serve"
            );
            // One of another class may be what was meant.
            let others = set.gateways.values();
            let others = others.map(|other| other.object.spec().key("gatewayClassName"));
            let other = others.min_by_key(|at| (at.file, at.place.line, at.place.col));
            none(other.or_else(|| named::gateway(set, None)), message, out);
        }
        several => {
            let names: Vec<String> = several.iter().map(ObjectName::to_string).collect();
            let message = format!(
                "there are {} Gateways of class `{GATEWAY_CLASS}`, choose one with --gateway: {}",
                several.len(),
                names.join(", ")
            );
            out.global("several-gateways", message);
        }
    }
    None
}

/// Says that there is no Gateway, at what names it if anything does.
fn none(at: Option<At<'_>>, message: String, out: &mut Diagnostics) {
    match at {
        Some(at) => out.error(at, "no-gateway", message),
        None => out.global("no-gateway", message),
    }
}

/// The Gateway that is compiled for.
pub(super) struct Chosen<'a> {
    pub(super) name: ObjectName,
    pub(super) gateway: &'a Decoded<'a, raw::Gateway>,
    pub(super) parameters: Parameters,
    pub(super) llm: bool,
    pub(super) mcp: bool,
    /// The listeners that are served; an import form may add to them.
    pub(super) listeners: Vec<Listener>,
    /// Whether what the WaypointParameters say is known; if not, that has been reported.
    pub(super) parameters_known: bool,
    /// Whether a `limitStore` was written, however well.
    pub(super) has_limit_store: bool,
    /// Other waypoints are compiled for in the same run: what is not attached here is theirs.
    pub(super) beside_others: bool,
}

impl<'a> Chosen<'a> {
    pub(super) fn compile(
        set: &'a Set<'a>,
        gateway: &'a Decoded<'a, raw::Gateway>,
        parameters: &Compiled<'_>,
        beside_others: bool,
        out: &mut Diagnostics,
    ) -> Self {
        let object = gateway.object;
        let llm = switch(object, "kgateway.io/ai-gateway-enabled", out);
        let mcp = switch(object, "kgateway.io/mcp-proxy-enabled", out);
        let addresses = addresses(gateway, out);
        let mut listeners: Vec<Listener> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        let mut ports: Vec<(u16, &str)> = Vec::new();
        for (index, listener) in gateway.raw.listeners.iter().enumerate() {
            let at = object.spec().key("listeners").index(index);
            if names.contains(&listener.name.as_str()) {
                let message = format!("there is another listener `{}`", listener.name);
                out.error(at.key("name"), "duplicate-name", message);
            }
            names.push(&listener.name);
            if let Some((_, other)) = ports.iter().find(|(port, _)| *port == listener.port) {
                let message = format!("port {} is already listener `{other}`'s", listener.port);
                out.error(at.key("port"), "duplicate-port", message);
            }
            ports.push((listener.port, &listener.name));
            let one = OneListener {
                set,
                gateway,
                parameters,
                addresses: &addresses,
                raw: listener,
                at,
            };
            listeners.extend(one.compile(out));
        }
        if let Some(source) = parameters.source {
            for name in source
                .raw
                .listeners
                .keys()
                .filter(|name| !names.contains(&name.as_str()))
            {
                let at = source.object.spec().key("listeners").key(name);
                let hint = suggest::hint(name, &names);
                let message = format!("Gateway {} has no listener `{name}`{hint}", object.name);
                out.error(at, "missing-reference", message);
            }
        }
        import_listeners(set, gateway, &addresses, &mut ports, &mut listeners, out);
        let mut carried = listeners.iter();
        if carried.all(|listener| listener.protocol == Protocol::Hbone) {
            let message =
                "no listener of this Gateway is served yet; add one with protocol HTTP or HTTPS";
            out.warning(object.name_at(), "nothing-served", message);
        }
        Self {
            name: object.name.clone(),
            gateway,
            parameters: parameters.parameters.clone(),
            llm,
            mcp,
            listeners,
            parameters_known: parameters.known,
            has_limit_store: parameters
                .source
                .is_some_and(|source| source.raw.limit_store.is_some()),
            beside_others,
        }
    }

    /// The settings for an object that is attached to this waypoint, or is not. Where another
    /// waypoint's settings decide about it, ours are no reason for an error.
    pub(super) fn parameters_of(&self, attached: bool) -> Cow<'_, Parameters> {
        if attached || !self.beside_others {
            return Cow::Borrowed(&self.parameters);
        }
        Cow::Owned(Parameters {
            allow_private: everywhere(),
            ..self.parameters.clone()
        })
    }
}

/// The addresses to bind; none means all.
fn addresses(gateway: &Decoded<'_, raw::Gateway>, out: &mut Diagnostics) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (index, address) in gateway.raw.addresses.iter().enumerate() {
        let at = gateway.object.spec().key("addresses").index(index);
        if let Some(other) = address.kind.as_deref().filter(|kind| *kind != "IPAddress") {
            let message = format!("address type `{other}` is not one of `IPAddress`");
            out.error(at.key("type"), "unknown-value", message);
            continue;
        }
        let value = address.value.as_deref().unwrap_or_default();
        match value.parse::<IpAddr>() {
            Ok(ip) if addresses.contains(&ip) => {}
            Ok(ip) => addresses.push(ip),
            Err(_) => {
                let message = format!("`{value}` is not an IP address");
                out.error(at.key("value"), "bad-value", message);
            }
        }
    }
    addresses
}

/// Listeners of the import form: what it binds, unless the Gateway has the port itself.
fn import_listeners<'a>(
    set: &'a Set<'a>,
    gateway: &Decoded<'_, raw::Gateway>,
    addresses: &[IpAddr],
    ports: &mut Vec<(u16, &'a str)>,
    listeners: &mut Vec<Listener>,
    out: &mut Diagnostics,
) {
    for (name, import) in set
        .solo
        .iter()
        .filter(|(_, import)| super::solo::is_for(import, gateway))
    {
        let Some(port) = import.raw.bind_port else {
            continue;
        };
        if ports.iter().any(|(taken, _)| *taken == port) {
            continue;
        }
        let at = import.object.spec();
        if port == 0 {
            out.error(
                at.key("bindPort"),
                "bad-value",
                "`bindPort` must be 1 to 65535",
            );
            continue;
        }
        let own = match import.raw.bind_address.as_deref().map(str::parse::<IpAddr>) {
            Some(Ok(ip)) if !ip.is_unspecified() => vec![ip],
            None | Some(Ok(_)) => addresses.to_vec(),
            Some(Err(_)) => {
                out.error(
                    at.key("bindAddress"),
                    "bad-value",
                    "`bindAddress` must be an IP address",
                );
                continue;
            }
        };
        ports.push((port, &import.object.name.name));
        listeners.push(Listener {
            name: name.name.clone(),
            addresses: own,
            port,
            protocol: Protocol::Http,
            hostname: None,
            tls: None,
            developer: None,
            tokens: Vec::new(),
        });
    }
}

struct OneListener<'a> {
    set: &'a Set<'a>,
    gateway: &'a Decoded<'a, raw::Gateway>,
    parameters: &'a Compiled<'a>,
    addresses: &'a [IpAddr],
    raw: &'a raw::Listener,
    at: At<'a>,
}

impl OneListener<'_> {
    fn compile(&self, out: &mut Diagnostics) -> Option<Listener> {
        let (raw, at) = (self.raw, self.at);
        if raw.port == 0 {
            out.error(at.key("port"), "bad-value", "`port` must be 1 to 65535");
        }
        let from = raw
            .allowed_routes
            .namespaces
            .from
            .as_deref()
            .unwrap_or("Same");
        if !matches!(from, "Same" | "All") {
            let place = at.key("allowedRoutes").key("namespaces").key("from");
            let message = format!("`{from}` is not one of `Same`, `All`");
            out.error(place, "unknown-value", message);
        }
        let protocol = match raw.protocol.as_str() {
            "HTTP" => Protocol::Http,
            "HTTPS" => Protocol::Https,
            "HBONE" if self.has_identity() => Protocol::Hbone,
            "HBONE" => {
                let message = format!(
                    "listener `{}` is not served: HBONE needs our own certificate, `identity.files` in \
                     the WaypointParameters of the Gateway",
                    raw.name
                );
                out.warning(at.key("protocol"), "not-served", message);
                return None;
            }
            known if PROTOCOLS.contains(&known) => {
                let message = format!(
                    "listener `{}`: protocol `{known}` is not served yet",
                    raw.name
                );
                out.warning(at.key("protocol"), "not-served", message);
                return None;
            }
            other => {
                let hint = suggest::hint(other, PROTOCOLS);
                let message = format!("unknown protocol `{other}`{hint}");
                out.error(at.key("protocol"), "unknown-value", message);
                return None;
            }
        };
        let hostname = match raw.hostname.as_deref().filter(|host| !host.is_empty()) {
            None => None,
            Some(host) => match endpoint::host_name(host, true) {
                Ok(host) => Some(Arc::from(host)),
                Err(why) => {
                    out.error(at.key("hostname"), "bad-hostname", why);
                    None
                }
            },
        };
        let extra = self.parameters.listener(&raw.name);
        let tls = match protocol {
            Protocol::Http => {
                self.no_tls(extra, out);
                None
            }
            Protocol::Https => Some(self.tls(extra, out)?),
            Protocol::Hbone => {
                self.no_tls(extra, out);
                if hostname.is_some() {
                    let message = "`hostname` has no use where protocol HBONE carries connections to other \
                                   listeners";
                    out.error(at.key("hostname"), "bad-listener", message);
                }
                None
            }
        };
        let has_certificates = match &tls {
            Some(tls) => tls.client != ClientCertificate::Off,
            None => protocol == Protocol::Hbone,
        };
        let developer = self.developer(extra, has_certificates, out);
        let in_clear = protocol == Protocol::Http && !self.is_loopback();
        let tokens = self.tokens(extra, has_certificates, in_clear, out);
        Some(Listener {
            name: raw.name.as_str().into(),
            addresses: self.addresses.to_vec(),
            port: raw.port,
            protocol,
            hostname,
            tls,
            developer,
            tokens,
        })
    }

    fn tokens(
        &self,
        extra: Option<&ListenerParameters>,
        has_certificates: bool,
        in_clear: bool,
        out: &mut Diagnostics,
    ) -> Vec<Arc<TokenPrincipal>> {
        let (Some(extra), Some(source)) = (extra, self.parameters.source) else {
            return Vec::new();
        };
        token_principal::Place {
            set: self.set,
            object: source.object,
            parameters: &self.parameters.parameters,
            at: self.extra_at().key("tokenPrincipals"),
            has_certificates,
            has_developer: extra.principal.is_some(),
            in_clear,
        }
        .compile(&extra.token_principals, out)
    }

    /// Whether there is a certificate of ours, or was to be one.
    fn has_identity(&self) -> bool {
        self.parameters.parameters.identity.is_some()
    }

    fn is_loopback(&self) -> bool {
        !self.addresses.is_empty() && self.addresses.iter().all(IpAddr::is_loopback)
    }

    /// Where this listener's settings stand in the WaypointParameters.
    fn extra_at(&self) -> At<'_> {
        match self.parameters.source {
            Some(source) => source.object.spec().key("listeners").key(&self.raw.name),
            None => self.at,
        }
    }

    fn no_tls(&self, extra: Option<&ListenerParameters>, out: &mut Diagnostics) {
        if self.raw.tls.is_some() {
            let message = "`tls` needs protocol HTTPS";
            out.error(self.at.key("tls"), "bad-listener", message);
        }
        if extra.is_some_and(|extra| extra.client_certificate.is_some()) {
            let message = "`clientCertificate` needs a listener with protocol HTTPS";
            out.error(
                self.extra_at().key("clientCertificate"),
                "bad-listener",
                message,
            );
        }
    }

    fn tls(&self, extra: Option<&ListenerParameters>, out: &mut Diagnostics) -> Option<ServerTls> {
        let object = self.gateway.object;
        let at = self.at.key("tls");
        let Some(tls) = &self.raw.tls else {
            let message = format!("listener `{}` needs `tls.certificateRefs`", self.raw.name);
            out.error(self.at, "missing-field", message);
            return None;
        };
        if let Some(other) = tls.mode.as_deref().filter(|mode| *mode != "Terminate") {
            let message = format!("`{other}` is not one of `Terminate`");
            out.error(at.key("mode"), "unknown-value", message);
        }
        let refs_at = at.key("certificateRefs");
        let [reference] = tls.certificate_refs.as_slice() else {
            let message = "`tls.certificateRefs` must name exactly one Secret";
            out.error(refs_at, "bad-listener", message);
            return None;
        };
        let certificate = refs::certificate(self.set, object, reference, refs_at.index(0), out);
        let client = self.client(tls, extra, out);
        let (certificate_pem, private_key_pem) = certificate?;
        Some(ServerTls {
            certificate_pem,
            private_key_pem,
            client: client?,
        })
    }

    fn client(
        &self,
        tls: &raw::ListenerTls,
        extra: Option<&ListenerParameters>,
        out: &mut Diagnostics,
    ) -> Option<ClientCertificate> {
        let validation = tls.frontend_validation.as_ref();
        let asked = extra.and_then(|extra| extra.client_certificate.as_ref());
        let (mode, references, object, at) = match (asked, validation) {
            (Some(_), Some(_)) => {
                let message = "client certificates are already asked for by `frontendValidation` of \
                               the Gateway's listener";
                out.error(
                    self.extra_at().key("clientCertificate"),
                    "bad-listener",
                    message,
                );
                return None;
            }
            (Some(asked), None) => {
                let object = self.parameters.source?.object;
                let at = self.extra_at().key("clientCertificate");
                (asked.mode, &asked.ca_certificate_refs, object, at)
            }
            (None, Some(validation)) => {
                let at = self.at.key("tls").key("frontendValidation");
                if let Some(other) = validation
                    .mode
                    .as_deref()
                    .filter(|mode| *mode != "AllowValidOnly")
                {
                    let message = format!("`{other}` is not one of `AllowValidOnly`");
                    out.error(at.key("mode"), "unknown-value", message);
                    return None;
                }
                let refs = &validation.ca_certificate_refs;
                (
                    ClientCertificateMode::Required,
                    refs,
                    self.gateway.object,
                    at,
                )
            }
            (None, None) => return Some(ClientCertificate::Off),
        };
        if mode == ClientCertificateMode::Off {
            return Some(ClientCertificate::Off);
        }
        let at = at.key("caCertificateRefs");
        if references.is_empty() {
            out.error(
                at,
                "missing-field",
                "`caCertificateRefs` must name the roots of client certificates",
            );
            return None;
        }
        let roots_pem = refs::roots(self.set, object, references, at, out)?;
        Some(match mode {
            ClientCertificateMode::Optional => ClientCertificate::Optional { roots_pem },
            _ => ClientCertificate::Required { roots_pem },
        })
    }

    /// Developer identity is a convenience of one machine; anywhere else it would be an open door.
    fn developer(
        &self,
        extra: Option<&ListenerParameters>,
        has_certificates: bool,
        out: &mut Diagnostics,
    ) -> Option<waypoint_policy::SpiffeId> {
        let principal = &extra?.principal.as_ref()?.0;
        let at = self.extra_at().key("principal");
        if !self.is_loopback() {
            let message = format!(
                "listener `{}` may have a developer identity only if every address of the Gateway is \
                 a loopback address; set `spec.addresses` of Gateway {} to 127.0.0.1",
                self.raw.name, self.gateway.object.name
            );
            out.error(at, "developer-identity", message);
            return None;
        }
        if has_certificates {
            let message = "a listener has either a developer identity or client certificates";
            out.error(at, "developer-identity", message);
            return None;
        }
        Some(principal.clone())
    }
}

/// Reports a Gateway that a route of ours names and that is not there.
pub(super) fn missing_parent(
    set: &Set<'_>,
    name: &ObjectName,
    ours: bool,
    at: At<'_>,
    out: &mut Diagnostics,
) {
    if ours {
        missing(set, ObjectKind::Gateway, name, at, out);
    } else if !set.is_broken(ObjectKind::Gateway, name) {
        let message =
            format!("Gateway {name} is not among the objects read, so this route is not served");
        out.warning(at, "not-attached", message);
    }
}

//! All objects that were read, by kind and name.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::de::DeserializeOwned;
use waypoint_policy::ObjectName;

use crate::decode::{Leniency, Rest, decode};
use crate::kind::ObjectKind;
use crate::object::{Diagnostics, Object};
use crate::raw::{self, Body};

/// An object in its raw form.
#[derive(Debug)]
pub(super) struct Decoded<'a, T> {
    pub(super) object: &'a Object,
    pub(super) raw: T,
}

type ByName<'a, T> = BTreeMap<ObjectName, Decoded<'a, T>>;

/// All objects, by kind and name.
#[derive(Default)]
pub(super) struct Set<'a> {
    pub(super) gateways: ByName<'a, raw::gateway::Gateway>,
    pub(super) classes: ByName<'a, raw::gateway::GatewayClass>,
    pub(super) grants: ByName<'a, raw::gateway::ReferenceGrant>,
    pub(super) parameters: ByName<'a, raw::parameters::WaypointParameters>,
    pub(super) http_routes: ByName<'a, raw::http::HttpRoute>,
    pub(super) services: ByName<'a, raw::core::Service>,
    pub(super) slices: ByName<'a, raw::core::EndpointSlice>,
    pub(super) secrets: ByName<'a, raw::core::Secret>,
    pub(super) config_maps: ByName<'a, raw::core::ConfigMap>,
    pub(super) entries: ByName<'a, raw::istio::ServiceEntry>,
    pub(super) solo: ByName<'a, raw::solo::SoloGateway>,
    pub(super) mcp: ByName<'a, raw::mcp::McpProxy>,
    pub(super) providers: ByName<'a, raw::llm::LlmProvider>,
    pub(super) llm_routes: ByName<'a, raw::llm::LlmRoute>,
    pub(super) policies: ByName<'a, raw::agent::AgentPolicy>,
    pub(super) limits: ByName<'a, raw::limit::UsageLimit>,
    pub(super) access: ByName<'a, raw::access::AccessPolicy>,
    pub(super) authorization: ByName<'a, raw::authorization::Object>,
    pub(super) authentication: ByName<'a, raw::request_authentication::Object>,
    /// Slices by namespace and Service.
    pub(super) slices_of: HashMap<(String, String), Vec<ObjectName>>,
    names: HashSet<(ObjectKind, ObjectName)>,
    broken: HashSet<(ObjectKind, ObjectName)>,
    /// What is left of broken objects, by their index.
    pub(super) rests: Vec<(usize, Rest)>,
    /// Something could not be read at all, so anything that is not there may be in it.
    lost: bool,
}

const SERVICE: Leniency = Leniency {
    ignored: &[
        "allocateLoadBalancerNodePorts",
        "clusterIPs",
        "externalIPs",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "nodePort",
        "publishNotReadyAddresses",
        "selector",
        "sessionAffinity",
        "sessionAffinityConfig",
        "trafficDistribution",
    ],
    strict_below: &[],
};

const SLICE: Leniency = Leniency {
    ignored: &[
        "deprecatedTopology",
        "hints",
        "hostname",
        "nodeName",
        "protocol",
        "serving",
        "targetRef",
        "terminating",
        "zone",
    ],
    strict_below: &[],
};

const SECRET: Leniency = Leniency {
    ignored: &["type", "immutable"],
    strict_below: &[],
};

const CONFIG_MAP: Leniency = Leniency {
    ignored: &["binaryData", "immutable"],
    strict_below: &[],
};

const GATEWAY: Leniency = Leniency {
    ignored: &["annotations", "labels", "kinds"],
    strict_below: &["tls", "namespaces"],
};

const CLASS: Leniency = Leniency {
    ignored: &["controllerName", "description"],
    strict_below: &[],
};

/// A condition or a change we do not know could be one that restricts.
const HTTP_ROUTE: Leniency = Leniency {
    ignored: &[],
    strict_below: &["matches", "filters"],
};

const ENTRY: Leniency = Leniency {
    ignored: &[
        "addresses",
        "exportTo",
        "labels",
        "locality",
        "network",
        "subjectAltNames",
        "weight",
    ],
    strict_below: &[],
};

impl<'a> Set<'a> {
    pub(super) fn read(objects: &'a [Object], out: &mut Diagnostics) -> Self {
        let mut set = Self {
            lost: out.lost_objects(),
            ..Self::default()
        };
        let mut first: HashMap<(ObjectKind, ObjectName), &Object> = HashMap::new();
        for (index, object) in objects.iter().enumerate() {
            let key = (object.kind, object.name.clone());
            if let Some(first) = first.get(&key) {
                let place = first.name_at().place;
                let message = format!(
                    "{} is already in {}:{}:{}",
                    super::title(object),
                    first.file,
                    place.line,
                    place.col
                );
                out.error(object.name_at(), "duplicate-object", message);
                continue;
            }
            first.insert(key, object);
            set.add(index, object, out);
        }
        set
    }

    fn add(&mut self, index: usize, object: &'a Object, out: &mut Diagnostics) {
        let key = (object.kind, object.name.clone());
        self.names.insert(key.clone());
        let mark = out.len();
        let read = match object.kind {
            ObjectKind::Namespace | ObjectKind::Pod => Ok(()),
            ObjectKind::Gateway => spec(object, &mut self.gateways, Some(&GATEWAY), out),
            ObjectKind::GatewayClass => spec(object, &mut self.classes, Some(&CLASS), out),
            ObjectKind::ReferenceGrant => spec(object, &mut self.grants, None, out),
            ObjectKind::WaypointParameters => spec(object, &mut self.parameters, None, out),
            ObjectKind::HttpRoute => spec(object, &mut self.http_routes, Some(&HTTP_ROUTE), out),
            ObjectKind::Service => spec(object, &mut self.services, Some(&SERVICE), out),
            ObjectKind::ServiceEntry => spec(object, &mut self.entries, Some(&ENTRY), out),
            ObjectKind::SoloGateway => spec(object, &mut self.solo, None, out),
            ObjectKind::McpProxy => spec(object, &mut self.mcp, None, out),
            ObjectKind::LlmProvider => spec(object, &mut self.providers, None, out),
            ObjectKind::LlmRoute => spec(object, &mut self.llm_routes, None, out),
            ObjectKind::AgentPolicy => spec(object, &mut self.policies, None, out),
            ObjectKind::UsageLimit => spec(object, &mut self.limits, None, out),
            ObjectKind::XAccessPolicy => spec(object, &mut self.access, None, out),
            ObjectKind::AuthorizationPolicy => whole(object, &mut self.authorization, None, out),
            ObjectKind::RequestAuthentication => whole(object, &mut self.authentication, None, out),
            ObjectKind::EndpointSlice => whole(object, &mut self.slices, Some(&SLICE), out),
            ObjectKind::Secret => whole(object, &mut self.secrets, Some(&SECRET), out),
            ObjectKind::ConfigMap => whole(object, &mut self.config_maps, Some(&CONFIG_MAP), out),
        };
        if object.kind == ObjectKind::EndpointSlice
            && let Some(service) = object.labels.get("kubernetes.io/service-name")
        {
            let key = (object.name.namespace.to_string(), service.clone());
            self.slices_of
                .entry(key)
                .or_default()
                .push(object.name.clone());
        }
        if read.is_err() || out.errors_since(mark) {
            self.broken.insert(key);
        }
        if let Err(Some(rest)) = read {
            self.rests.push((index, rest));
        }
    }

    /// Whether there is such an object, or may be, with errors that were reported.
    pub(super) fn is_broken(&self, kind: ObjectKind, name: &ObjectName) -> bool {
        self.lost || self.broken.contains(&(kind, name.clone()))
    }

    /// Whether any object of the kind has errors that were reported.
    pub(super) fn any_broken(&self, kind: ObjectKind) -> bool {
        self.lost || self.broken.iter().any(|(k, _)| *k == kind)
    }

    /// The names of all objects of a kind, in order.
    pub(super) fn names(&self, kind: ObjectKind) -> Vec<&ObjectName> {
        let mut names: Vec<_> = self
            .names
            .iter()
            .filter(|(k, _)| *k == kind)
            .map(|(_, name)| name)
            .collect();
        names.sort();
        names
    }
}

fn spec<'a, T: DeserializeOwned>(
    object: &'a Object,
    into: &mut ByName<'a, T>,
    leniency: Option<&Leniency>,
    out: &mut Diagnostics,
) -> Result<(), Option<Rest>> {
    debug_assert_eq!(
        leniency.is_none(),
        object.kind.is_strict(),
        "{:?}",
        object.kind
    );
    let Body { spec: raw } = decode(object, leniency, out)?;
    into.insert(object.name.clone(), Decoded { object, raw });
    Ok(())
}

fn whole<'a, T: DeserializeOwned>(
    object: &'a Object,
    into: &mut ByName<'a, T>,
    leniency: Option<&Leniency>,
    out: &mut Diagnostics,
) -> Result<(), Option<Rest>> {
    let raw = decode(object, leniency, out)?;
    into.insert(object.name.clone(), Decoded { object, raw });
    Ok(())
}

//! An example as it stands, but for where it listens and where it leads: on this machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use waypoint_tests::certificates::Authority;
use waypoint_tests::waypoint::{Ports, Whole};

use crate::authz::yaml;

/// Kinds that say who may do what and which request goes where: not a byte of them is changed.
const KEPT: [&str; 7] = [
    "AgentPolicy",
    "AuthorizationPolicy",
    "HTTPRoute",
    "LLMRoute",
    "MCPProxy",
    "Namespace",
    "RequestAuthentication",
];

/// Where destinations are, by the name of their object.
pub(super) type Destinations = HashMap<&'static str, SocketAddr>;

struct Overlay<'a> {
    ports: &'a Ports,
    authority: &'a Authority,
    destinations: &'a Destinations,
    /// Services that routes of tools name and the example has no object of.
    services: Vec<Value>,
}

/// One of `config/examples`, for one of its Gateways.
pub(super) fn example(
    name: &str,
    gateway: Option<&str>,
    destinations: &Destinations,
) -> anyhow::Result<Whole> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let (ports, authority) = (Ports::take(), Authority::new());
    let mut overlay = Overlay {
        ports: &ports,
        authority: &authority,
        destinations,
        services: Vec::new(),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory.join(name)).with_context(|| name.to_owned())? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        let file = path.file_stem().and_then(|stem| stem.to_str());
        let file = file.context("a name is text")?;
        for (index, document) in text.split("\n---\n").enumerate() {
            let object = yaml::read(document)?;
            files.push(match overlay.on(&object)? {
                None => (format!("{file}-{index}.yaml"), document.to_owned()),
                Some(changed) => (format!("{file}-{index}.json"), changed.to_string()),
            });
        }
    }
    let services = overlay.services.iter().enumerate();
    files.extend(services.map(|(index, object)| (format!("own-{index}.json"), object.to_string())));
    Ok(Whole {
        files,
        gateway: gateway.map(str::to_owned),
        ports,
        authority,
    })
}

impl Overlay<'_> {
    /// What an object becomes; nothing for one that stays.
    fn on(&mut self, object: &Value) -> anyhow::Result<Option<Value>> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").context("an object has a kind")?;
        let name = text("/metadata/name").context("an object has a name")?;
        let namespace = text("/metadata/namespace").unwrap_or_default();
        if kind == "MCPProxy" {
            self.tool_servers(namespace, &object["spec"]["routes"])?;
        }
        if KEPT.contains(&kind) {
            return Ok(None);
        }
        let mut changed = object.clone();
        let spec = &mut changed["spec"];
        match kind {
            "Gateway" if object["apiVersion"] == "gateway.solo.io/v1" => {
                spec["bindAddress"] = "127.0.0.1".into();
                spec["bindPort"] = self.ports.plain.into();
            }
            "Gateway" => {
                spec["addresses"] = json!([{"type": "IPAddress", "value": "127.0.0.1"}]);
                let listeners = spec["listeners"].as_array_mut();
                for listener in listeners.context("a Gateway has listeners")? {
                    if listener["protocol"] == "HTTPS" {
                        listener["port"] = self.ports.mtls.into();
                    }
                }
            }
            "WaypointParameters" => {
                spec["allowPrivateEndpoints"] = json!(["127.0.0.0/8"]);
                spec["audit"] = json!({"file": {"path": "{dir}/audit.jsonl"}});
            }
            "LLMProvider" => spec["endpoint"] = format!("http://{}", self.at(name)?).into(),
            "Service" => {
                let port = self.at(name)?.port();
                spec["ports"][0]["targetPort"] = port.into();
                self.services.push(slice(namespace, name, port));
            }
            "ServiceEntry" => {
                let at = self.at(name)?;
                spec["resolution"] = "STATIC".into();
                spec["ports"][0]["protocol"] = "HTTP".into();
                let port = spec["ports"][0]["name"].as_str().unwrap_or_default();
                spec["endpoints"] = json!([{"address": at.ip(), "ports": {port: at.port()}}]);
            }
            "Secret" if name == "waypoint-tls" => {
                let server = self.authority.server();
                changed["stringData"]["tls.crt"] = server.certificate_pem.into();
                changed["stringData"]["tls.key"] = server.key_pem.into();
            }
            "ConfigMap" if name == "mesh-root" => {
                changed["data"]["ca.crt"] = self.authority.pem.as_str().into();
            }
            "Secret" => {}
            other => anyhow::bail!("{other} {name}: neither kept nor changed"),
        }
        Ok(Some(changed))
    }

    fn at(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let found = self.destinations.get(name);
        found.copied().with_context(|| format!("nowhere: {name}"))
    }

    /// The Services that an `MCPProxy` leads to.
    fn tool_servers(&mut self, own: &str, routes: &Value) -> anyhow::Result<()> {
        for route in routes.as_array().context("a proxy has routes")? {
            let destination = &route["destination"];
            let namespace = destination["namespace"].as_str().unwrap_or(own);
            let name = destination["service"].as_str().context("a Service")?;
            // Services of one name are told apart by the routes to them.
            let route = route["name"].as_str().context("a route has a name")?;
            let port = self.at(route)?.port();
            let ports = json!([{
                "name": "http", "port": destination["port"], "targetPort": port,
            }]);
            self.services.push(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"ports": ports},
            }));
            self.services.push(slice(namespace, name, port));
        }
        Ok(())
    }
}

fn slice(namespace: &str, service: &str, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": service, "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"name": "http", "port": port}],
    })
}

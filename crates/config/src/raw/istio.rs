//! Istio: `ServiceEntry`.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ServiceEntry {
    pub(crate) hosts: Vec<String>,
    #[serde(default)]
    pub(crate) ports: Vec<EntryPort>,
    pub(crate) location: Option<Location>,
    pub(crate) resolution: Option<Resolution>,
    #[serde(default)]
    pub(crate) endpoints: Vec<EntryEndpoint>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EntryPort {
    pub(crate) number: u16,
    pub(crate) name: String,
    pub(crate) protocol: Option<String>,
    pub(crate) target_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Location {
    #[serde(rename = "MESH_EXTERNAL")]
    External,
    #[serde(rename = "MESH_INTERNAL")]
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Resolution {
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "STATIC")]
    Static,
    #[serde(rename = "DNS")]
    Dns,
    #[serde(rename = "DNS_ROUND_ROBIN")]
    DnsRoundRobin,
    #[serde(rename = "DYNAMIC_DNS")]
    DynamicDns,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EntryEndpoint {
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) ports: BTreeMap<String, u16>,
}

//! The files of the demo: its configuration, and the certificates that people use with `curl`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::authority::{Authority, Identity};

/// Keys the providers know; agents have none.
pub(super) const OPENAI_KEY: &str = "demo-openai-key";
/// See [`OPENAI_KEY`].
pub(super) const ANTHROPIC_KEY: &str = "demo-anthropic-key";

/// The agents and servers with an identity.
pub(super) const WORKLOADS: [&str; 5] = [
    "orchestrator-agent",
    "pr-agent",
    "summary-agent",
    "github-mcp",
    "mcp-code-scanning",
];

const OBJECTS: [(&str, &str); 5] = [
    (
        "1-gateway.yaml",
        include_str!("configuration/1-gateway.yaml"),
    ),
    ("2-models.yaml", include_str!("configuration/2-models.yaml")),
    ("3-tools.yaml", include_str!("configuration/3-tools.yaml")),
    ("4-egress.yaml", include_str!("configuration/4-egress.yaml")),
    (
        "5-policies.yaml",
        include_str!("configuration/5-policies.yaml"),
    ),
];

/// Ports on loopback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) openai: u16,
    pub(super) anthropic: u16,
    pub(super) github_mcp: u16,
    pub(super) scanning_mcp: u16,
    pub(super) outside: u16,
}

/// Everything that was written.
#[derive(Debug)]
pub(super) struct Setup {
    /// What `--config` of the other commands takes.
    pub(super) configuration: PathBuf,
    pub(super) audit: PathBuf,
    pub(super) root: PathBuf,
    pub(super) root_pem: String,
    pub(super) identities: BTreeMap<&'static str, Identity>,
}

/// The identity of a service account in the demo's namespace.
pub(super) fn spiffe(account: &str) -> String {
    format!("spiffe://cluster.local/ns/agensys-demo-1/sa/{account}")
}

impl Setup {
    /// Writes everything below `directory`, which nobody else can read.
    pub(super) fn write(directory: &Path, ports: Ports) -> anyhow::Result<Self> {
        let authority = Authority::new().context("the certificate authority cannot be made")?;
        let waypoint = authority.waypoint(&spiffe("waypoint"))?;
        let configuration = directory.join("config");
        let audit = directory.join("audit.jsonl");
        std::fs::create_dir(&configuration)
            .with_context(|| format!("cannot create {}", configuration.display()))?;
        for (name, text) in objects(ports, &audit) {
            save(&configuration.join(name), &text)?;
        }
        let secrets = secrets(&authority.root_pem, &waypoint);
        save(&configuration.join("6-secrets.json"), &secrets)?;
        let root = directory.join("root.crt");
        save(&root, &authority.root_pem)?;
        let mut identities = BTreeMap::new();
        for name in WORKLOADS {
            let identity = authority.workload(&spiffe(name))?;
            save(
                &directory.join(format!("{name}.crt")),
                &identity.certificate_pem,
            )?;
            save(&directory.join(format!("{name}.key")), &identity.key_pem)?;
            identities.insert(name, identity);
        }
        Ok(Self {
            configuration,
            audit,
            root,
            root_pem: authority.root_pem,
            identities,
        })
    }
}

/// The objects with their ports, by file name.
pub(super) fn objects(ports: Ports, audit: &Path) -> Vec<(&'static str, String)> {
    let fill = |text: &str| {
        let numbers = [
            ("${PORT}", ports.gateway),
            ("${OPENAI}", ports.openai),
            ("${ANTHROPIC}", ports.anthropic),
            ("${GITHUB_MCP}", ports.github_mcp),
            ("${SCANNING_MCP}", ports.scanning_mcp),
            ("${OUTSIDE}", ports.outside),
        ];
        let text = text.replace("${AUDIT}", &audit.display().to_string());
        numbers.into_iter().fold(text, |text, (name, port)| {
            text.replace(name, &port.to_string())
        })
    };
    OBJECTS.map(|(name, text)| (name, fill(text))).into()
}

/// Secrets, as JSON so that nothing needs quoting by hand.
pub(super) fn secrets(root_pem: &str, waypoint: &Identity) -> String {
    let secret = |name: &str, data: serde_json::Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "agensys-demo-1"},
            "stringData": data,
        })
    };
    let list = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            secret("mesh-root", json!({"ca.crt": root_pem})),
            secret("waypoint-certificate", json!({
                "tls.crt": waypoint.certificate_pem,
                "tls.key": waypoint.key_pem,
            })),
            secret("provider-keys", json!({"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY})),
        ],
    });
    format!("{list:#}")
}

fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

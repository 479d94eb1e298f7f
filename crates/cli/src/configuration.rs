//! Configuration as the commands take it: paths and, where there are several, a Gateway.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use waypoint_config::{File, Outcome, Snapshot};

/// `namespace/name` of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayName {
    namespace: String,
    name: String,
}

impl FromStr for GatewayName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.into(),
                    name: name.into(),
                })
            }
            _ => Err("write it as NAMESPACE/NAME, such as agents/waypoint".into()),
        }
    }
}

pub(crate) fn options(gateway: Option<&GatewayName>) -> waypoint_config::Options {
    waypoint_config::Options {
        gateway: gateway.map(|gateway| (gateway.namespace.clone(), gateway.name.clone())),
        ..Default::default()
    }
}

/// The snapshots of a configuration; nothing when it has errors, which are then printed.
pub(crate) fn watch(
    paths: &[PathBuf],
    gateway: Option<&GatewayName>,
) -> anyhow::Result<Option<watch::Receiver<Arc<Snapshot>>>> {
    let Some(mut snapshot) = load(paths, gateway)? else {
        return Ok(None);
    };
    snapshot.generation = 1;
    let (sender, receiver) = watch::channel(Arc::new(snapshot));
    tokio::spawn(async move { sender.closed().await });
    Ok(Some(receiver))
}

/// The snapshot of a configuration; nothing when it has errors, which are then printed.
pub(crate) fn load(
    paths: &[PathBuf],
    gateway: Option<&GatewayName>,
) -> anyhow::Result<Option<Snapshot>> {
    let files = read(paths)?;
    let Outcome {
        snapshot,
        diagnostics,
        ..
    } = waypoint_config::compile(&files, &options(gateway));
    if snapshot.is_none() {
        for diagnostic in &diagnostics {
            eprintln!("{diagnostic}");
        }
        eprintln!(
            "hint: correct the errors above; `kgateway-waypoint check` looks at files without serving them"
        );
    }
    Ok(snapshot)
}

/// The files at these paths, in order.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path)
                .with_context(|| format!("cannot list {}", path.display()))?;
            let mut inside: Vec<PathBuf> = entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| is_configuration(path))
                .collect();
            inside.sort();
            for path in inside {
                files.push(one(&path)?);
            }
        } else {
            files.push(one(path)?);
        }
    }
    Ok(files)
}

fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
}

fn one(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(File {
        path: path.display().to_string(),
        text,
    })
}

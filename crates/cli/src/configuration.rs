//! Configuration as the commands take it: paths and, where there are several, a Gateway.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use waypoint_config::{Diagnostic, File, Outcome, Snapshot};
use waypoint_source::{FileSource, Limits};

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

/// How to compile for a Gateway.
pub(crate) fn options(gateway: Option<&GatewayName>) -> waypoint_config::Options {
    waypoint_config::Options {
        gateway: gateway.map(|gateway| (gateway.namespace.clone(), gateway.name.clone())),
        ..Default::default()
    }
}

/// Configuration that is read again when it changes; nothing when it has errors, which are then
/// printed. Warnings are printed in any case.
pub(crate) fn open(paths: &[PathBuf], gateway: Option<&GatewayName>) -> Option<FileSource> {
    let options = waypoint_source::Options {
        compile: options(gateway),
        ..Default::default()
    };
    match FileSource::open(paths, options) {
        Ok(source) => {
            print(&source.status().borrow().last_diagnostics);
            Some(source)
        }
        Err(diagnostics) => {
            refuse(&diagnostics);
            None
        }
    }
}

/// The configuration as it is now; nothing when it has errors, which are then printed.
pub(crate) fn load(paths: &[PathBuf], gateway: Option<&GatewayName>) -> Option<Arc<Snapshot>> {
    let read = waypoint_source::read(paths, Limits::default());
    let Outcome {
        snapshot,
        diagnostics,
        ..
    } = match read {
        Ok(files) => waypoint_config::compile(&files, &options(gateway)),
        Err(diagnostics) => {
            refuse(&diagnostics);
            return None;
        }
    };
    match snapshot {
        Some(snapshot) => Some(Arc::new(snapshot)),
        None => {
            refuse(&diagnostics);
            None
        }
    }
}

/// The files at these paths.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<File>, Vec<Diagnostic>> {
    waypoint_source::read(paths, Limits::default())
}

fn print(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
}

fn refuse(diagnostics: &[Diagnostic]) {
    print(diagnostics);
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    eprintln!(
        "hint: correct the {} above; `kgateway-waypoint check PATH` looks again without serving",
        if errors == 1 { "error" } else { "errors" }
    );
}

//! YAML and JSON objects to a snapshot, or diagnostics that point at file:line.

mod address;
mod compile;
mod decode;
mod diagnostic;
mod dump;
mod ext_authz;
mod istio_targets;
mod jwt;
mod kind;
mod object;
mod path;
mod raw;
mod route;
mod schema;
mod snapshot;
mod suggest;
mod yaml;

pub use address::is_private;
pub use compile::{GATEWAY_CLASS, check, compile};
pub use diagnostic::{Diagnostic, Severity, Skipped};
pub use ext_authz::{CheckedBody, ExtAuthz, ExtAuthzProtocol, HttpAuthz};
pub use istio_targets::IstioTargets;
pub use jwt::{
    JwtKeys, JwtLocations, JwtPlace, JwtRule, PlaceError, RequestAuthentication, TokenForm,
    TokenPrincipal,
};
pub use path::{PathError, PathNormalization, normalize_path};
pub use route::{RouteQuery, RouteTable};
pub use schema::schemas;
pub use snapshot::*;
pub use waypoint_policy::ObjectName;

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, as diagnostics show it.
    pub path: String,
    /// What is in it: YAML documents, or JSON.
    pub text: String,
}

/// How to compile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `(namespace, name)` of the Gateway to compile for; by default the only one of our class.
    pub gateway: Option<(String, String)>,
    /// Where the objects come from.
    pub source: Source,
}

/// Where objects come from; some settings are for files only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// Files under the operator's control.
    #[default]
    Files,
}

/// What came of compiling.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration; `None` if there was any error.
    pub snapshot: Option<Snapshot>,
    /// Findings, by file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// Objects of other projects.
    pub skipped: Vec<Skipped>,
}

//! The house rules that `cargo metadata` can show: arrows, purity, licences, unwanted crates.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Which workspace crates a crate may use. Absent: all of them (`cli`, `tests`, `benches`).
const ARROWS: [(&str, &[&str]); 8] = [
    ("waypoint-policy", &[]),
    ("waypoint-wire", &[]),
    ("waypoint-llm", &["waypoint-policy", "waypoint-wire"]),
    ("waypoint-mcp", &["waypoint-policy", "waypoint-wire"]),
    (
        "waypoint-config",
        &["waypoint-policy", "waypoint-llm", "waypoint-mcp"],
    ),
    ("waypoint-source", &["waypoint-config"]),
    ("waypoint-mesh", &["waypoint-policy", "waypoint-wire"]),
    (
        "waypoint-gateway",
        &[
            "waypoint-policy",
            "waypoint-wire",
            "waypoint-llm",
            "waypoint-mcp",
            "waypoint-config",
            "waypoint-mesh",
        ],
    ),
];
/// Crates that compose the rest.
const COMPOSERS: [&str; 3] = ["kgateway-waypoint", "waypoint-tests", "waypoint-benches"];

/// Crates without I/O, clock, randomness or logging: those are arguments.
const PURE: [&str; 5] = [
    "waypoint-policy",
    "waypoint-wire",
    "waypoint-llm",
    "waypoint-mcp",
    "waypoint-config",
];
/// Edges that only exist because some other crate of the workspace turns a feature on: cargo
/// resolves features once for all members. Here `rmcp`, in the demo, gives `schemars` the types of
/// `chrono`; a pure crate that is built by itself has none of it.
const UNIFIED: [(&str, &str); 1] = [("schemars", "chrono")];

/// What would bring I/O, a clock, randomness or logging into a pure crate.
const IMPURE: [&str; 22] = [
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "mio",
    "socket2",
    "hyper",
    "h2",
    "reqwest",
    "rustls",
    "async-std",
    "smol",
    "notify",
    "tempfile",
    "walkdir",
    "rand",
    "rand_core",
    "getrandom",
    "time",
    "chrono",
    "log",
    "tracing",
    "tracing-core",
];

/// Crates the shipped binary must not contain, and why.
const UNWANTED: [(&str, &str); 8] = [
    ("openssl", "rustls is our TLS"),
    ("openssl-sys", "rustls is our TLS"),
    ("native-tls", "rustls is our TLS"),
    ("boring", "rustls is our TLS"),
    ("aws-lc-rs", "ring is the one provider of cryptography"),
    ("aws-lc-sys", "ring is the one provider of cryptography"),
    ("reqwest", "upstream calls go through our own exchange"),
    ("pingora-openssl", "rustls is our TLS"),
];
/// Crates no crate of ours may name, though one that we use may.
const UNNAMED: [(&str, &str); 2] = [
    ("serde_yaml", "it is unmaintained and loses positions"),
    ("serde_yml", "it is unmaintained and loses positions"),
];

/// Licences, by SPDX identifier, that go with Apache-2.0 in a binary.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What cargo would build here; crates of other platforms are left out.
fn metadata() -> Metadata {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .other_options(vec![
            "--locked".into(),
            "--filter-platform".into(),
            host.unwrap().into(),
        ])
        .exec()
        .unwrap()
}

fn member<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    let mut members = metadata.workspace_packages().into_iter();
    members
        .find(|package| package.name.as_str() == name)
        .unwrap_or_else(|| panic!("{name} is not in the workspace"))
}

/// Everything a crate is built from (dev-dependencies aside), with the way there.
fn tree(metadata: &Metadata, root: &Package) -> BTreeMap<PackageId, String> {
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeMap::from([(root.id.clone(), root.name.to_string())]);
    let mut open = vec![root.id.clone()];
    while let Some(id) = open.pop() {
        for dependency in &nodes[&id].deps {
            let mut kinds = dependency.dep_kinds.iter();
            // Build scripts and macros run on the builder's machine and may read its clock.
            let edge = (
                metadata[&id].name.as_str(),
                metadata[&dependency.pkg].name.as_str(),
            );
            let linked =
                kinds.any(|kind| kind.kind == DependencyKind::Normal) && !UNIFIED.contains(&edge);
            if linked && !found.contains_key(&dependency.pkg) {
                let way = format!("{} → {}", found[&id], metadata[&dependency.pkg].name);
                found.insert(dependency.pkg.clone(), way);
                open.push(dependency.pkg.clone());
            }
        }
    }
    found
}

#[test]
fn arrows_point_inward() {
    let metadata = metadata();
    let members: BTreeSet<_> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let arrows = BTreeMap::from(ARROWS);
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(allowed) = arrows.get(name) else {
            if !COMPOSERS.contains(&name) {
                problems.push(format!("{name}: say here what it may use"));
            }
            continue;
        };
        let named = package.dependencies.iter();
        let used = named.filter(|dependency| dependency.kind != DependencyKind::Development);
        for dependency in used.filter(|dependency| members.contains(&dependency.name)) {
            if !allowed.contains(&dependency.name.as_str()) {
                problems.push(format!("{name} → {}: no such arrow", dependency.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn pure_crates_stay_pure() {
    let metadata = metadata();
    let mut problems = Vec::new();
    for name in PURE {
        for (id, way) in tree(&metadata, member(&metadata, name)) {
            if IMPURE.contains(&metadata[&id].name.as_str()) {
                problems.push(way);
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn unwanted_crates_stay_out() {
    let metadata = metadata();
    let unwanted = BTreeMap::from(UNWANTED);
    let mut problems = Vec::new();
    for (id, way) in tree(&metadata, member(&metadata, "kgateway-waypoint")) {
        if let Some(why) = unwanted.get(metadata[&id].name.as_str()) {
            problems.push(format!("{way}: {why}"));
        }
    }
    let unnamed = BTreeMap::from(UNNAMED);
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            if let Some(why) = unnamed.get(dependency.name.as_str()) {
                problems.push(format!("{} → {}: {why}", package.name, dependency.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let text = package.license.as_deref().unwrap_or_default();
        // Lax, because old crates still write `MIT/Apache-2.0`.
        let permissive =
            spdx::Expression::parse_mode(text, spdx::ParseMode::LAX).is_ok_and(|expression| {
                expression.evaluate(|wanted| {
                    let id = wanted.license.id();
                    id.is_some_and(|id| LICENCES.contains(&id.name))
                })
            });
        if !permissive {
            problems.push(format!("{} {}: {text:?}", package.name, package.version));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

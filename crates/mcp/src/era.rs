//! Which era of the protocol a message belongs to.

use crate::{
    head::Header,
    mirror,
    refusal::{McpRefusal, mismatch},
};

/// Revisions with `initialize` and, over HTTP, sessions; newest first.
pub const LEGACY_VERSIONS: &[&str] = &[
    "2025-11-25",
    "2025-06-18",
    "2025-03-26",
    "2024-11-05",
    "2024-10-07",
];

/// Stateless revisions, which say their version in every request; newest first.
pub const MODERN_VERSIONS: &[&str] = &["2026-07-28"];

/// The era of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// Revisions up to 2025-11-25.
    Legacy,
    /// Revision 2026-07-28 and later.
    Modern,
}

/// What the era of a message depends on besides its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Initialize,
    Request,
    /// A notification or a response; these need not repeat the version in the body.
    OneWay,
}

/// Finds the era by the version header and the version in `params._meta`.
///
/// An `initialize` without a version in its body is legacy whatever it
/// negotiates: a common client names 2026-07-28 in `params.protocolVersion`.
///
/// Source: MCP 2026-07-28, Streamable HTTP, "Protocol Version Header".
///
/// # Errors
/// `-32020` if header and body disagree or one lacks a modern version,
/// `-32022` for a version nobody published, `-32602` for a modern request
/// without a version in its body; all with status 400.
pub(crate) fn detect(
    header: Header<'_>,
    meta: Option<&str>,
    sort: Sort,
) -> Result<Era, McpRefusal> {
    let header = mirror::text(header).map_err(|()| mismatch("MCP-Protocol-Version"))?;
    let legacy = |version: &str| LEGACY_VERSIONS.contains(&version);
    let modern = |version: &str| MODERN_VERSIONS.contains(&version);
    match (header, meta) {
        (None, None) => Ok(Era::Legacy),
        (None, Some(version)) if legacy(version) => Ok(Era::Legacy),
        (None, Some(_)) => Err(mismatch("MCP-Protocol-Version")),
        (Some(header), Some(version)) if header != version => Err(mismatch("MCP-Protocol-Version")),
        (Some(version), _) if legacy(version) => Ok(Era::Legacy),
        (Some(version), Some(_)) if modern(version) => Ok(Era::Modern),
        (Some(version), None) if modern(version) => match sort {
            Sort::Initialize => Ok(Era::Legacy),
            Sort::OneWay => Ok(Era::Modern),
            Sort::Request => Err(McpRefusal::params(
                "_meta must hold io.modelcontextprotocol/protocolVersion",
            )),
        },
        (Some(version), _) => Err(McpRefusal::version(version)),
    }
}

//! Where log lines go: standard error, filtered.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// The libraries below speak up only when something is wrong; a later directive overrides these.
const QUIET: &str = "pingora=error,pingora_proxy=off,hickory=error,rustls=error,rmcp=error,h2=error,hyper=error,notify=error,mio=error";

/// Sends what `tracing` and `log` carry to standard error.
///
/// # Errors
/// If `filter` does not read as a filter.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).with_context(|| {
        format!(
            "`--log {filter}` is not a filter; write it as `info` or `info,waypoint_gateway=debug`"
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}

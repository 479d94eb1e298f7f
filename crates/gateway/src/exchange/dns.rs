//! Names to addresses, without blocking and no longer than their TTL.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;

use super::ExchangeError;

/// The resolver of the system's configuration with a cache that respects TTLs.
#[derive(Debug)]
pub(crate) struct Dns {
    resolver: Option<TokioResolver>,
}

impl Dns {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Without a usable configuration only
    /// `localhost` and literals resolve.
    pub(crate) fn from_system() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        if let Err(error) = &resolver {
            tracing::warn!(%error, "no DNS: only literal addresses will resolve");
        }
        Self {
            resolver: resolver.ok(),
        }
    }

    /// All addresses of a name.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ExchangeError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let resolver = self.resolver.as_ref().ok_or(ExchangeError::NoAddress)?;
        // A trailing dot keeps search domains out: a provider's name must mean one thing.
        let absolute = if name.ends_with('.') || !name.contains('.') {
            name.to_owned()
        } else {
            format!("{name}.")
        };
        let found = resolver.lookup_ip(absolute).await.map_err(|error| {
            tracing::debug!(%error, "lookup failed");
            ExchangeError::NoAddress
        })?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(ExchangeError::NoAddress);
        }
        Ok(addresses)
    }
}

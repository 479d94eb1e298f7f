//! `limitStore` of `WaypointParameters`: where shared limits are kept.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use url::{Host, Url};

use super::llm::tls_hostname;
use super::refs;
use super::set::Set;
use crate::object::{At, Diagnostics, Object};
use crate::raw::store as raw;
use crate::snapshot::{Address, Credential, Endpoint, LimitStore, UpstreamTls};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

pub(super) fn compile(
    set: &Set<'_>,
    object: &Object,
    raw: &raw::LimitStore,
    out: &mut Diagnostics,
) -> Option<LimitStore> {
    let spec = object.spec();
    let at = spec.key("limitStore");
    let at = at.key("redis");
    let raw = &raw.redis;
    let timeout = raw.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
    if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
        let message = "`timeout` must be from 1ms to 10s";
        out.error(at.key("timeout"), "bad-value", message);
    }
    let replicas = NonZeroU32::new(raw.replicas.unwrap_or(1));
    if replicas.is_none() {
        let message = "`replicas` must be at least 1";
        out.error(at.key("replicas"), "bad-value", message);
    }
    let url = url(&raw.url)
        .map_err(|why| {
            // What is written there may be a password, and is not repeated.
            let message = format!("this is not `redis(s)://host[:port][/database]`: {why}");
            out.error(at.key("url"), "bad-endpoint", message);
        })
        .ok();
    let tls_at = at.key("tls");
    let mut roots_pem = None;
    let mut hostname = None;
    let mut is_whole = true;
    if let Some(tls) = &raw.tls {
        let references = &tls.ca_certificate_refs;
        let roots = refs::roots(
            set,
            object,
            references,
            tls_at.key("caCertificateRefs"),
            out,
        );
        is_whole = roots.is_some();
        roots_pem = roots.filter(|_| !references.is_empty());
        hostname = tls_hostname(tls.hostname.as_deref(), tls_at, out);
        if url.as_ref().is_some_and(|url| !url.is_tls) {
            let message = "`tls` needs a URL that begins with `rediss://`";
            out.error(tls_at, "contradiction", message);
        }
    }
    let credential = credential(set, object, raw, at, out);
    if raw.username.is_some() && raw.credential.is_none() {
        let message = "`username` needs a `credential`";
        out.error(at.key("username"), "missing-field", message);
    }
    let url = url.filter(|_| is_whole)?;
    Some(LimitStore {
        database: url.database,
        endpoint: url.endpoint(hostname, roots_pem),
        timeout,
        replicas: replicas?,
        username: raw.username.clone(),
        credential: credential?,
    })
}

fn credential(
    set: &Set<'_>,
    object: &Object,
    raw: &raw::Redis,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Credential> {
    let at = at.key("credential");
    let credential = refs::credential(set, object, raw.credential.as_ref(), at, out)?;
    let is_none = matches!(credential, Credential::None | Credential::Passthrough);
    if raw.credential.is_some() && is_none {
        let message = "no caller has a password for the store; use `secretRef`";
        out.error(at.key("passthrough"), "bad-credential", message);
        return None;
    }
    Some(credential)
}

/// What a URL says.
#[derive(Debug)]
struct StoreUrl {
    is_tls: bool,
    host: String,
    port: u16,
    database: u32,
}

fn url(text: &str) -> Result<StoreUrl, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let is_tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err("the scheme must be redis or rediss".into()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a password belongs in `credential`, a user in `username`".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must end with the database".into());
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').to_ascii_lowercase(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => String::new(),
    };
    if host.parse::<IpAddr>().is_err() && !crate::object::is_name(&host) {
        return Err("there is no host".into());
    }
    let port = url.port().unwrap_or(DEFAULT_PORT);
    if port == 0 {
        return Err("the port must be 1 to 65535".into());
    }
    let path = url.path().strip_prefix('/').unwrap_or_default();
    let is_number = path.bytes().all(|byte| byte.is_ascii_digit());
    let database = match path {
        "" => Some(0),
        _ => path.parse().ok().filter(|_| is_number),
    };
    Ok(StoreUrl {
        is_tls,
        host,
        port,
        database: database.ok_or("the database must be a number")?,
    })
}

impl StoreUrl {
    fn endpoint(&self, hostname: Option<String>, roots_pem: Option<String>) -> Endpoint {
        let literal = self.host.parse::<IpAddr>().ok();
        Endpoint {
            tls: self.is_tls.then(|| UpstreamTls {
                hostname: hostname.unwrap_or_else(|| self.host.clone()),
                roots_pem,
            }),
            host: self.host.as_str().into(),
            port: self.port,
            prefix: String::new(),
            address: match literal {
                Some(ip) => Address::Fixed(vec![SocketAddr::new(ip, self.port)]),
                None => Address::Dns(self.host.clone()),
            },
            private: true,
            http2: false,
        }
    }
}

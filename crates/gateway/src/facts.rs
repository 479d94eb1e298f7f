//! What policies see of a request, held for as long as they are asked about it.

use std::sync::Arc;

use http::HeaderValue;
use pingora_core::protocols::http::ServerSession;
use waypoint_config::Snapshot;
use waypoint_policy::istio::{Claims, Headers};
use waypoint_policy::{self as policy};

use crate::edge::Head;

/// The request as it was judged in one snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    head: Option<Arc<Head>>,
    port: u16,
    fields: Fields,
    claims: Option<Arc<Claims>>,
}

/// The header fields that policies of the snapshot look at, which are few: names in lower case.
#[derive(Debug, Clone, Default)]
struct Fields(Vec<(Box<str>, HeaderValue)>);

impl Headers for Fields {
    fn any(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.0.iter().filter(|(known, _)| **known == *name);
        let mut values = std::iter::from_fn(|| values.next()).peekable();
        values.peek()?;
        Some(values.any(|(_, value)| found(value.as_bytes())))
    }
}

impl Facts {
    pub(crate) fn new(
        snapshot: &Snapshot,
        session: &ServerSession,
        head: Arc<Head>,
        port: u16,
        claims: Option<Arc<Claims>>,
    ) -> Self {
        let headers = &session.req_header().headers;
        let names = snapshot.policy.header_names().iter();
        let fields = names.flat_map(|name| {
            let values = headers.get_all(&**name).iter();
            values.map(|value| (name.clone(), value.clone()))
        });
        Self {
            head: Some(head),
            port,
            fields: Fields(fields.collect()),
            claims,
        }
    }

    pub(crate) fn view(&self) -> policy::Facts<'_> {
        let head = self.head.as_deref();
        policy::Facts {
            method: head.map_or("", |head| &head.method),
            host: head.map_or("", Head::host),
            path: head.map_or("", |head| &head.path),
            port: self.port,
            headers: &self.fields,
            claims: self.claims.as_deref(),
        }
    }
}

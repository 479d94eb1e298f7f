//! What the gateway does to a request before anything is decided about it.

use std::net::IpAddr;

use waypoint_policy::is_identity_header;
use waypoint_policy::istio::last_forwarded;

/// Header fields, names in lower case.
type Fields = Vec<(String, String)>;

/// The fields that are left, and the names of those that were removed: claims of identity.
pub(super) fn strip(fields: Fields) -> (Fields, Vec<String>) {
    let fields = fields.into_iter();
    let (removed, left): (Fields, Fields) = fields.partition(|(name, _)| is_identity_header(name));
    let mut removed: Vec<String> = removed.into_iter().map(|(name, _)| name).collect();
    removed.dedup();
    (left, removed)
}

/// The client's address by the last `X-Forwarded-For`, as the gateway reads it.
pub(super) fn forwarded_for(fields: &Fields) -> Option<IpAddr> {
    let mut fields = fields.iter().rev();
    let (_, value) = fields.find(|(name, _)| name == "x-forwarded-for")?;
    last_forwarded(value)
}

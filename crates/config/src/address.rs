//! Which addresses are private, and which of them may be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::snapshot::{Endpoint, Parameters};

impl Parameters {
    /// Whether a resolved address of an endpoint may be connected to: any public address, and a
    /// private one if the endpoint is a Service or `allowPrivateEndpoints` names it.
    #[must_use]
    pub fn may_connect(&self, endpoint: &Endpoint, ip: IpAddr) -> bool {
        endpoint.private
            || !is_private(ip)
            || self.allow_private.iter().any(|net| net.contains(&ip))
    }
}

/// Whether an address is not one of the public Internet (IANA special-purpose registries,
/// RFC 6890), or carries one that is not.
#[must_use]
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        // RFC 6598, RFC 6890 §2.2.2, RFC 2544.
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (18..20).contains(&b))
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Mapped and compatible addresses, with :: and ::1 among the latter.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => ip.is_loopback() || v4(high, low),
        // NAT64: RFC 6052 §2.1, and RFC 8215, which is local.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 1, ..] => true,
        // 6to4: RFC 3056 §2.
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo, ORCHID, documentation: RFC 4380, RFC 7343, RFC 3849.
        [0x2001, 0..0x200 | 0xdb8, ..] => true,
        // Outside 2000::/3 nothing is public (RFC 4291 §2.4).
        [first, ..] => first & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
mod tests;

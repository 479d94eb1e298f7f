//! Ports nobody else has.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the system takes source ports, so that no connection of a test
/// running beside this one can be given a port between its choice and its use.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A TCP port on which nothing listens, and which this process gives out only once per round.
///
/// # Panics
/// When every port of the range is taken.
#[must_use]
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs of the tests that overlap begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT));
    let start = start.unwrap_or_default();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

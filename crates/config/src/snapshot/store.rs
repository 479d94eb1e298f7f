//! The store that several waypoints share their limits in.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Credential, Endpoint};

/// A Valkey or Redis server that keeps the amounts of shared limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStore {
    /// Where it is. Private addresses are fine: no caller has chosen it.
    pub endpoint: Endpoint,
    /// The number of the database there.
    pub database: u32,
    /// How long one question to it may take.
    pub timeout: Duration,
    /// How many waypoints share it at least: what a limit is divided by while it is down.
    pub replicas: NonZeroU32,
    /// The user to say we are; `None` is the default one.
    pub username: Option<String>,
    /// The password.
    pub credential: Credential,
}

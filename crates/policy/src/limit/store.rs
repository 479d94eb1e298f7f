//! Where the amounts of a limit are kept.

use serde::Serialize;

/// Where the amounts of a limit are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Store {
    /// In each gateway for itself.
    #[default]
    Local,
    /// In a store that several gateways share; while it cannot be asked, this holds.
    Shared(StoreFailure),
}

/// What holds while a shared store cannot be asked, once what was taken in advance is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum StoreFailure {
    /// Calls are refused.
    #[default]
    Closed,
    /// Calls go on; what they use is counted when the store is back.
    Open,
    /// Each gateway admits its share of the limit.
    LocalShare,
}

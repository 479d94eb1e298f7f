//! Workload identity, TLS and accepted connections; knows nothing of Pingora, LLM or MCP.

pub mod accept;
pub mod certificates;
pub mod hbone;
pub mod identity;
pub mod io;
pub mod sniff;
pub mod tls;

pub use accept::{ConnectionResult, Events, Listener, ListenerSettings, Security, Tunnel};
pub use certificates::{Certificates, Files, Svid};
pub use identity::{IdentityError, IdentitySource};
pub use io::Io;
pub use sniff::HttpVersion;

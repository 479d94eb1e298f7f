//! Workload identity, certificates, TLS and accepted connections.

//! The two pipelines on Pingora.

//! YAML and JSON objects to a snapshot, or diagnostics that point at file:line.

//! Benchmarks: criterion and the end-to-end harness.

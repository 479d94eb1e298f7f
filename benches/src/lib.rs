//! Benchmarks: the traffic, the load generator, the upstream and the contenders of the end-to-end
//! harness; `benches/` measures single functions with the same traffic.

pub mod bare;
pub mod case;
pub mod http1;
pub mod load;
pub mod process;
pub mod report;
pub mod run;
pub mod setup;
pub mod traffic;
pub mod upstream;

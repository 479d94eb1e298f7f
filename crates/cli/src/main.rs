//! The command line of kgateway-waypoint.
fn main() {}

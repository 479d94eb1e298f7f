//! The demo plays to its end as it should.

use std::process::Stdio;

use tokio::process::Command;
use waypoint_tests::wait::soon;
use waypoint_tests::waypoint::binary;

#[tokio::test]
async fn the_demo_ends_well() {
    let mut command = Command::new(binary());
    command
        .args(["demo", "--once"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = soon("the end of the demo", command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for expected in ["allow", "deny", "$0.000175", "as expected"] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

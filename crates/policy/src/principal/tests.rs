#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn shows_who_calls() {
    let text = "spiffe://d/ns/a/sa/b";
    let id: SpiffeId = text.parse().unwrap();
    let workload = Principal::from(id.clone());
    assert_eq!(workload.to_string(), text);
    assert_eq!(workload.spiffe(), Some(&id));
    let anonymous = Principal::Anonymous;
    assert_eq!(
        (anonymous.to_string(), anonymous.spiffe()),
        ("anonymous".into(), None)
    );
}

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn shows_neither_headers_nor_claims() {
    let claims = Claims(serde_json::from_str(r#"{"sub": "hunter2"}"#).unwrap());
    let facts = Facts {
        method: "GET",
        host: "example.com",
        path: "/a",
        port: 443,
        claims: Some(&claims),
        ..Facts::default()
    };
    assert_eq!(
        format!("{facts:?}"),
        r#"Facts { method: "GET", host: "example.com", path: "/a", port: 443, .. }"#
    );
}

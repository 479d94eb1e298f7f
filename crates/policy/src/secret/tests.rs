#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn shows_nothing() {
    let secret = Secret::new("hunter2".to_owned());
    let shown = format!("{secret} {secret:?} {:?}", Some(&secret));
    assert_eq!(shown, "[secret] [secret] Some([secret])");
    assert_eq!(serde_json::to_string(&secret).unwrap(), r#""[secret]""#);
    assert_eq!(secret.expose(), "hunter2");
}

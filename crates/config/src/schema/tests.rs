use std::fs;
use std::path::Path;

/// Run with `UPDATE_SCHEMAS=1` to write what changed.
#[test]
fn schemas_are_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/schema");
    for (name, schema) in super::schemas() {
        let path = directory.join(&name);
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "{name} is out of date: run the test with UPDATE_SCHEMAS=1"
        );
    }
}

use std::path::Path;

use super::*;

/// One of the example configurations.
fn example(name: &str) -> std::sync::Arc<Snapshot> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../config/examples")
        .join(name);
    configuration::load(&[path], None).expect("an example compiles")
}

#[test]
fn the_code_review_example() {
    let snapshot = example("code-review");
    insta::assert_snapshot!(Matrix::of(&snapshot).to_tables(Paint::PLAIN));
}

#[test]
fn the_quickstart_example() {
    let snapshot = example("quickstart");
    insta::assert_snapshot!(Matrix::of(&snapshot).to_tables(Paint::PLAIN));
}

#[test]
fn the_demo() {
    let snapshot = crate::demo::snapshot();
    insta::assert_snapshot!(Matrix::of(&snapshot).to_tables(Paint::PLAIN));
}

#[test]
fn the_three_forms_say_the_same() {
    let snapshot = crate::demo::snapshot();
    let matrix = Matrix::of(&snapshot);
    let json: serde_json::Value = serde_json::from_str(&matrix.to_json().unwrap()).unwrap();
    let cells = json["cells"].as_array().unwrap();
    assert_eq!(cells.len(), matrix.callers.len() * matrix.targets.len());
    let allowed = cells
        .iter()
        .filter(|cell| cell["decision"] == "allow")
        .count();
    let csv = matrix.to_csv();
    assert_eq!(csv.lines().count(), 1 + cells.len());
    assert_eq!(
        csv.lines().filter(|line| line.contains(",allow,")).count(),
        allowed
    );
    assert_eq!(
        matrix.to_tables(Paint::PLAIN).matches("allow ").count(),
        allowed
    );
}

#[test]
fn csv_fields() {
    for (text, expected) in [
        ("plain", "plain"),
        ("a,b", "\"a,b\""),
        ("say \"x\"", "\"say \"\"x\"\"\""),
        ("=1+1", "\"'=1+1\""),
        ("@x", "\"'@x\""),
    ] {
        assert_eq!(csv_field(text), expected);
    }
}

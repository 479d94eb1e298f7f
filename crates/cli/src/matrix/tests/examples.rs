//! The examples that were written from documents, held to the documents' own tables.

use std::collections::BTreeSet;

use super::*;

/// A line of a table: who, where, what, and what it takes.
struct Row<'t> {
    text: &'t str,
    source: &'t str,
    destination: &'t str,
    items: Vec<String>,
    condition: &'t str,
}

/// The permissions of a table, which ends by denying everything else.
fn rows(table: &'static str) -> Vec<Row<'static>> {
    let lines = table.lines().filter(|line| line.starts_with("| "));
    let mut rows = Vec::new();
    let mut is_closed = false;
    for line in lines.skip(1) {
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [source, destination, methods, what, action, condition] = columns.as_slice() else {
            panic!("{line}");
        };
        assert!(!is_closed, "after the end: {line}");
        if *source == "ALL" {
            assert_eq!((*destination, *action), ("ALL", "DENY"), "{line}");
            is_closed = true;
            continue;
        }
        assert_eq!(*action, "ALLOW", "{line}");
        let what = what.split(", ");
        let items = what.flat_map(|what| {
            let with_method = |method: &str| match method {
                "" => what.to_owned(),
                method => format!("{method} {what}"),
            };
            methods.split(", ").map(with_method).collect::<Vec<_>>()
        });
        rows.push(Row {
            text: line,
            source,
            destination,
            items: items.collect(),
            condition,
        });
    }
    assert!(is_closed, "a table says what holds for all others");
    rows
}

/// Whether a short name is the last part of an object's name, or the first of a host's.
fn is_named(target: &str, short: &str) -> bool {
    let before = target.strip_suffix(short);
    let after = target.strip_prefix(short);
    before.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        || after.is_some_and(|rest| rest.starts_with('.'))
}

#[test]
fn the_matrix_is_the_documents_table() {
    for (name, gateway, table) in [
        (
            "zero-trust",
            Some("app-travelexample/app-travelexample-waypoint"),
            include_str!("zero-trust.md"),
        ),
        (
            "zero-trust-strict",
            None,
            include_str!("zero-trust-strict.md"),
        ),
        ("code-review", None, include_str!("code-review.md")),
    ] {
        let snapshot = example(name, gateway);
        let matrix = Matrix::of(&snapshot);
        let json: serde_json::Value = serde_json::from_str(&matrix.to_json().unwrap()).unwrap();
        let rows = rows(table);
        let mut met = BTreeSet::new();
        for cell in json["cells"].as_array().unwrap() {
            let text = |field: &str| cell[field].as_str().unwrap_or_default();
            let said = (text("decision"), text("condition"));
            let mut here = rows.iter().filter(|row| {
                row.source == text("caller")
                    && is_named(text("target"), row.destination)
                    && row.items.iter().any(|item| item == text("item"))
            });
            let expected = match here.next() {
                None => ("deny", ""),
                Some(row) => {
                    let items = row.items.iter().filter(|item| *item == text("item"));
                    met.extend(items.map(|item| (row.text, item.as_str())));
                    match row.condition {
                        "" => ("allow", ""),
                        condition => ("conditional", condition),
                    }
                }
            };
            assert!(here.next().is_none(), "{name}: two lines about {cell}");
            assert_eq!(said, expected, "{name}: {cell}");
        }
        for row in &rows {
            for item in &row.items {
                let is_met = met.contains(&(row.text, item.as_str()));
                assert!(is_met, "{name}: no cell is {item} of {}", row.text);
            }
        }
        insta::assert_snapshot!(name, matrix.to_tables(Paint::PLAIN));
    }
}

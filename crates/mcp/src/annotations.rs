//! Whether a tool's `x-mcp-header` annotations are ones a client may follow.
//!
//! Source: MCP 2026-07-28, Streamable HTTP, "Custom Headers from Tool
//! Parameters". A client must leave a tool with an invalid annotation out of
//! its list; leaving it out here keeps it from clients that do not check.

use std::collections::HashSet;

use serde_json::{Map, Value};

const KEY: &str = "x-mcp-header";

/// Checks one tool of a list. Tools without annotations are valid.
pub(crate) fn are_valid(tool: &[u8]) -> bool {
    if memchr::memmem::find(tool, KEY.as_bytes()).is_none() {
        return true;
    }
    let Ok(tool) = serde_json::from_slice::<Value>(tool) else {
        return false;
    };
    let Some(Value::Object(schema)) = tool.get("inputSchema") else {
        return true;
    };
    let mut names = HashSet::new();
    !schema.contains_key(KEY) && object(schema, true, &mut names)
}

/// Depth is bounded by the parser.
fn object(schema: &Map<String, Value>, reachable: bool, names: &mut HashSet<String>) -> bool {
    schema.iter().all(|(key, value)| match key.as_str() {
        KEY => reachable && annotation(schema, value, names),
        "properties" => schemas(value, reachable, names),
        "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => {
            schemas(value, false, names)
        }
        // Instances, not schemas.
        "default" | "const" | "enum" | "examples" => true,
        _ => any(value, names),
    })
}

/// The values of a map from names to schemas.
fn schemas(value: &Value, reachable: bool, names: &mut HashSet<String>) -> bool {
    match value {
        Value::Object(map) => map.values().all(|value| match value {
            Value::Object(schema) => object(schema, reachable, names),
            other => any(other, names),
        }),
        other => any(other, names),
    }
}

fn any(value: &Value, names: &mut HashSet<String>) -> bool {
    match value {
        Value::Object(schema) => object(schema, false, names),
        Value::Array(items) => items.iter().all(|item| any(item, names)),
        _ => true,
    }
}

fn annotation(schema: &Map<String, Value>, name: &Value, names: &mut HashSet<String>) -> bool {
    let Value::String(name) = name else {
        return false;
    };
    let primitive = matches!(
        schema.get("type").and_then(Value::as_str),
        Some("string" | "integer" | "boolean")
    );
    let token = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    primitive && token && names.insert(name.to_ascii_lowercase())
}

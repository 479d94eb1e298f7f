//! JSON Schemas of our kinds, for editors.

use schemars::{JsonSchema, schema_for};
use serde_json::{Value, json};

use crate::kind::ObjectKind;
use crate::raw;

/// The schema of each kind of ours, by file name.
#[must_use]
pub fn schemas() -> Vec<(String, Value)> {
    vec![
        object::<raw::parameters::WaypointParameters>(ObjectKind::WaypointParameters, "v1alpha1"),
        object::<raw::llm::LlmProvider>(ObjectKind::LlmProvider, "v1alpha1"),
        object::<raw::llm::LlmRoute>(ObjectKind::LlmRoute, "v1alpha1"),
        object::<raw::agent::AgentPolicy>(ObjectKind::AgentPolicy, "v1alpha1"),
        object::<raw::limit::UsageLimit>(ObjectKind::UsageLimit, "v1alpha1"),
        object::<raw::mcp::McpProxy>(ObjectKind::McpProxy, "v1"),
    ]
}

fn object<S: JsonSchema>(kind: ObjectKind, version: &str) -> (String, Value) {
    let mut spec = schema_for!(S).to_value();
    let mut taken = |key: &str| spec.as_object_mut().and_then(|spec| spec.remove(key));
    let (definitions, dialect) = (taken("$defs"), taken("$schema"));
    let description = taken("description");
    taken("title");
    let schema = json!({
        "$schema": dialect,
        "title": kind.as_str(),
        "description": description,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": {"const": format!("{}/{version}", kind.group())},
            "kind": {"const": kind.as_str()},
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 253},
                    "namespace": {"type": "string", "maxLength": 63},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
            "spec": spec,
            "status": {},
        },
        "$defs": definitions.unwrap_or_else(|| json!({})),
    });
    (format!("{}.json", kind.as_str().to_lowercase()), schema)
}

#[cfg(test)]
mod tests;

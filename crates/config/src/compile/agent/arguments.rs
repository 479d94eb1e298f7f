//! What tools may be called with.

use std::collections::BTreeMap;

use waypoint_policy::{Argument, Constraint, JsonType, Pointer, Scalar};

use crate::object::{At, Diagnostics};
use crate::raw::argument as raw;

/// The method whose arguments rules can be about.
pub(super) const TOOLS_CALL: &str = "tools/call";

pub(super) fn arguments(
    raw: &BTreeMap<String, raw::Constraint>,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Vec<Argument> {
    if raw.is_empty() {
        let message = "`arguments` is empty; name an argument, such as `/owner`, or remove it";
        out.error(at, "empty-list", message);
    }
    let mut arguments = Vec::new();
    for (text, raw) in raw {
        let at = at.key(text);
        let constraint = constraint(raw, at, out);
        match text.parse::<Pointer>() {
            Ok(pointer) => arguments.push(Argument {
                pointer,
                constraint,
            }),
            Err(error) => out.error(at, "bad-value", format!("`{text}`: {error}")),
        }
    }
    arguments
}

fn constraint(raw: &raw::Constraint, at: At<'_>, out: &mut Diagnostics) -> Constraint {
    let constraint = Constraint {
        one_of: scalars(raw.one_of.as_deref(), "in", at, out),
        none_of: scalars(raw.none_of.as_deref(), "notIn", at, out),
        pattern: raw.pattern.as_ref().map(|pattern| pattern.0.clone()),
        min: raw.min.as_ref().map(|bound| bound.0.clone()),
        max: raw.max.as_ref().map(|bound| bound.0.clone()),
        min_length: raw.min_length,
        max_length: raw.max_length,
        is: raw.is.map(json_type),
        optional: raw.required == Some(false),
    };
    for field in ["min", "max"] {
        if at.key(field).is_rounded() {
            let message = format!("`{field}` has more digits than are kept; put it in quotes");
            out.error(at.key(field), "rounded", message);
        }
    }
    let asks = Constraint {
        optional: false,
        ..constraint.clone()
    };
    if raw.required != Some(true) && asks == Constraint::default() {
        let message = "this asks nothing; give it a field such as `in`, or `required: true`";
        out.error(at, "no-constraint", message);
    }
    if let (Some(min), Some(max)) = (&constraint.min, &constraint.max)
        && min > max
    {
        let message = format!("`min` {min} is above `max` {max}, so nothing matches");
        out.error(at.key("min"), "contradiction", message);
    }
    if let (Some(min), Some(max)) = (constraint.min_length, constraint.max_length)
        && min > max
    {
        let message = format!("`minLength` {min} is above `maxLength` {max}, so nothing matches");
        out.error(at.key("minLength"), "contradiction", message);
    }
    check_types(&constraint, at, out);
    constraint
}

fn scalars(
    raw: Option<&[raw::Listed]>,
    field: &str,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Vec<Scalar>> {
    let raw = raw?;
    let at = at.key(field);
    if raw.is_empty() {
        let message = format!("`{field}` is empty; name a value or remove it");
        out.error(at, "empty-list", message);
    }
    for index in 0..raw.len() {
        if at.index(index).is_rounded() {
            let message = "this number has more digits than are kept; give it as `min` and `max`, \
                           in quotes";
            out.error(at.index(index), "rounded", message);
        }
    }
    Some(raw.iter().map(|listed| listed.0.clone()).collect())
}

fn json_type(raw: raw::Type) -> JsonType {
    match raw {
        raw::Type::String => JsonType::String,
        raw::Type::Number => JsonType::Number,
        raw::Type::Integer => JsonType::Integer,
        raw::Type::Boolean => JsonType::Boolean,
        raw::Type::Array => JsonType::Array,
        raw::Type::Object => JsonType::Object,
        raw::Type::Null => JsonType::Null,
    }
}

/// Says when the fields are about values of different types.
fn check_types(constraint: &Constraint, at: At<'_>, out: &mut Diagnostics) {
    let kinds = |list: &Option<Vec<Scalar>>| -> Option<Vec<JsonType>> {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        Some(list.iter().map(Scalar::kind).collect())
    };
    let of = |is: bool, kinds: &[JsonType]| is.then(|| kinds.to_vec());
    let number = constraint.min.is_some() || constraint.max.is_some();
    let length = constraint.min_length.is_some() || constraint.max_length.is_some();
    let fields = [
        (
            "type",
            constraint.is.map(|is| match is {
                JsonType::Integer => vec![JsonType::Number],
                is => vec![is],
            }),
        ),
        ("in", kinds(&constraint.one_of)),
        ("notIn", kinds(&constraint.none_of)),
        (
            "pattern",
            of(constraint.pattern.is_some(), &[JsonType::String]),
        ),
        ("min and max", of(number, &[JsonType::Number])),
        (
            "minLength and maxLength",
            of(length, &[JsonType::String, JsonType::Array]),
        ),
    ];
    let mut asked: Option<Vec<JsonType>> = None;
    let mut before: Vec<&str> = Vec::new();
    for (field, kinds) in fields {
        let Some(kinds) = kinds else { continue };
        let mut both = asked.unwrap_or_else(|| kinds.clone());
        both.retain(|kind| kinds.contains(kind));
        if both.is_empty() {
            let message = format!(
                "`{field}` is about values of another type than `{}`, so nothing matches",
                before.join("` and `")
            );
            out.error(at, "contradiction", message);
            return;
        }
        asked = Some(both);
        before.push(field);
    }
}

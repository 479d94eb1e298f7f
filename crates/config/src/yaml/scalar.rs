//! What a plain scalar means: YAML 1.2.2 §10.3.2, the core schema.

use serde_json::Number;

use super::Value;

/// The value of a plain scalar. Numbers that JSON cannot hold (`.inf`, `.nan`) stay text.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Value> {
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8).map(Value::Number);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return radix(hex, 16).map(Value::Number);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return match text.strip_prefix('+').unwrap_or(text).parse::<i64>() {
            Ok(value) => Some(Value::Number(value.into())),
            Err(_) => text
                .parse::<u64>()
                .ok()
                .map(|value| Value::Number(value.into()))
                .or_else(|| float(text)),
        };
    }
    is_float(digits).then(|| float(text)).flatten()
}

fn radix(digits: &str, radix: u32) -> Option<Number> {
    // `from_str_radix` would take a sign.
    digits
        .bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then_some(())?;
    u64::from_str_radix(digits, radix).ok().map(Number::from)
}

fn float(text: &str) -> Option<Value> {
    let number = text.parse::<f64>().ok().and_then(Number::from_f64)?;
    let exact = |text: &str| text.parse::<waypoint_policy::Number>().ok();
    let written = exact(text);
    Some(
        match written.is_some() && written == exact(&number.to_string()) {
            true => Value::Number(number),
            false => Value::Rounded(number),
        },
    )
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && mantissa.len() > 1,
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_ok && exponent_ok
}

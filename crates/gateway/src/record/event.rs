//! One audit event, as the line of JSON that tells it.
//!
//! Written member by member: every request writes one, and a serializer takes four times as long.

use std::time::Duration;

use serde::{Serialize, Serializer};
use waypoint_llm::{Source, Usage};
use waypoint_policy::{By, Code, RuleName};
use waypoint_wire::json::{ObjectWriter, push_string};

use super::{ActionRecord, RequestRecord};

/// Text from requests (models, tools) is cut to so many bytes.
const TEXT_MAX_BYTES: usize = 256;

/// Adds the event of a request that took so long to `line`.
pub(super) fn write(line: &mut Vec<u8>, record: &RequestRecord, took: Duration) {
    let mut event = ObjectWriter::begin(line);
    event.text("time", Timestamp::of(record.time).as_str());
    event.text("request_id", record.id.as_str());
    if let Some(trace_id) = &record.trace_id {
        event.text("trace_id", trace_id);
    }
    let id = record.principal.spiffe();
    event.text("principal", id.map_or("anonymous", |id| id.as_str()));
    event.text("identity_source", record.identity_source.as_str());
    event.text("listener", &record.listener);
    event.text_or_null("route", record.route.as_deref());
    event.object("action", |object| action(object, &record.action));
    let decision = |allowed| if allowed { "allow" } else { "deny" };
    event.text_or_null("decision", record.allowed.map(decision));
    match &record.by {
        Some(by) => event.object("by", |object| decider(object, by)),
        None => event.null("by"),
    }
    if record.would_deny.is_empty() {
        event.text("mode", "enforce");
    } else {
        event.text("mode", "would_deny");
        let rules = event.member("would_deny");
        list(rules, &record.would_deny, |out, named| {
            let mut object = ObjectWriter::begin(out);
            rule(&mut object, named);
            object.end();
        });
    }
    event.number("generation", record.generation);
    event.number("status", record.status.into());
    event.text_or_null("code", record.code.map(Code::as_str));
    let told = record.code.map_or(&[][..], Code::flags).iter().copied();
    let gone = record.downstream_gone.then_some("DOWNSTREAM_DISCONNECTED");
    // Envoy's counter of the same is `failure_mode_allowed`.
    let open = record
        .failed_open
        .then_some("EXT_AUTHZ_FAILURE_MODE_ALLOWED");
    let streamed = record.streamed.then_some("STREAMED");
    let unpriced = record.price_unknown.then_some("PRICE_UNKNOWN");
    let flags = told.chain(gone).chain(open).chain(streamed).chain(unpriced);
    let mut flags = flags.peekable();
    if flags.peek().is_some() {
        list(event.member("flags"), flags, push_string);
    }
    if !record.limit_warnings.is_empty() {
        let warnings = event.member("limit_warnings");
        list(warnings, &record.limit_warnings, |out, warning| {
            let mut object = ObjectWriter::begin(out);
            object.text("namespace", &warning.limit.name.namespace);
            object.text("name", &warning.limit.name.name);
            object.number("at_percent", warning.at.into());
            object.end();
        });
    }
    if let Some(usage) = &record.usage {
        event.object("tokens", |object| tokens(object, usage));
    }
    if let Some(micro_usd) = record.cost_micro_usd {
        dollars(event.member("cost_usd"), micro_usd);
    }
    duration(event.member("duration_ms"), took);
    event.number("attempts", record.attempts.into());
    event.end();
}

fn action(object: &mut ObjectWriter<'_>, action: &ActionRecord) {
    object.text("kind", action.kind);
    if let Some(provider) = &action.provider {
        object.text("provider", &provider.to_string());
    }
    if let Some(operation) = action.operation {
        object.text("operation", operation.as_str());
    }
    if let Some(model) = &action.model {
        object.text("model", cut(model));
    }
    if let Some(server) = &action.server {
        object.text("server", server);
    }
    if let Some(method) = &action.method {
        object.text("method", cut(method));
    }
    if let Some(tool) = &action.tool {
        object.text("tool", cut(tool));
    }
}

/// As `By` serializes.
fn decider(object: &mut ObjectWriter<'_>, by: &By) {
    if let By::Rule(named) = by {
        return rule(object, named);
    }
    let (kind, name) = by.kind_and_name();
    object.text("kind", kind);
    object.text("name", name);
}

/// As `RuleName` serializes.
fn rule(object: &mut ObjectWriter<'_>, named: &RuleName) {
    object.text("kind", named.kind);
    if !named.policy.namespace.is_empty() {
        object.text("namespace", &named.policy.namespace);
    }
    object.text("name", &named.policy.name);
    if !named.rule.is_empty() {
        object.text("rule", &named.rule);
    }
}

fn tokens(object: &mut ObjectWriter<'_>, usage: &Usage) {
    object.number_or_null("input", usage.input);
    object.number_or_null("output", usage.output);
    if let Some(cached) = usage.cached_input {
        object.number("cached_input", cached);
    }
    if let Some(reasoning) = usage.reasoning {
        object.number("reasoning", reasoning);
    }
    let source = match usage.source {
        Source::Upstream => "upstream",
        Source::Estimated => "estimated",
    };
    object.text("source", source);
}

/// Milliseconds with three digits behind the point.
fn duration(out: &mut Vec<u8>, took: Duration) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(took.as_millis()).as_bytes());
    let rest = took.subsec_micros() % 1000;
    let digit = |number: u32| b'0' + (number % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// USD with six digits behind the point.
fn dollars(out: &mut Vec<u8>, micro_usd: u64) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(micro_usd / 1_000_000).as_bytes());
    let mut rest = micro_usd % 1_000_000;
    let mut fraction = *b".000000";
    for place in fraction.iter_mut().rev().take(6) {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&fraction);
}

fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Cuts text from a request to a bounded length, at a character.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

/// RFC 3339, UTC, milliseconds.
pub(crate) struct Timestamp([u8; 24]);

impl Timestamp {
    pub(crate) fn of(time: std::time::SystemTime) -> Self {
        let time = time::OffsetDateTime::from(time);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        // Every request writes one: digits in place are a tenth of what formatting costs.
        let mut put = |places: std::ops::Range<usize>, mut number: u32| {
            for place in text[places].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0..4, time.year().unsigned_abs());
        put(5..7, u32::from(u8::from(time.month())));
        put(8..10, u32::from(time.day()));
        put(11..13, u32::from(time.hour()));
        put(14..16, u32::from(time.minute()));
        put(17..19, u32::from(time.second()));
        put(20..23, u32::from(time.millisecond()));
        Self(text)
    }
}

impl Timestamp {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use std::sync::Arc;

    use waypoint_policy::{Effect, Mode, ObjectName, Posture};

    use super::*;

    #[test]
    fn deciders_are_written_as_they_serialize() {
        let rule = |namespace: &str, name: &str, rule: &str| {
            By::Rule(Arc::new(RuleName {
                kind: "AgentPolicy",
                policy: ObjectName::new(namespace, name),
                rule: rule.into(),
                effect: Effect::Allow,
                mode: Mode::Enforce,
            }))
        };
        for by in [
            rule("agents", "review", "chat \"4\""),
            rule("", "whole", ""),
            By::Uncovered(Posture::Strict),
            By::NoMatch,
            By::NoIstioAllow,
            By::Identity,
            By::Transport("why"),
        ] {
            let mut written = Vec::new();
            let mut object = ObjectWriter::begin(&mut written);
            decider(&mut object, &by);
            object.end();
            let serialized = serde_json::to_string(&by).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), serialized);
        }
    }

    #[test]
    fn durations() {
        for (microseconds, expected) in [(0, "0.000"), (12, "0.012"), (90_061_020, "90061.020")] {
            let mut out = Vec::new();
            duration(&mut out, Duration::from_micros(microseconds));
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn costs() {
        for (micro_usd, expected) in [
            (0, "0.000000"),
            (98, "0.000098"),
            (1_000_000, "1.000000"),
            (12_345_600, "12.345600"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            let mut out = Vec::new();
            dollars(&mut out, micro_usd);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn timestamps() {
        for (milliseconds, expected) in [
            (0, "\"1970-01-01T00:00:00.000Z\""),
            (951_868_799_009, "\"2000-02-29T23:59:59.009Z\""),
            (1_795_267_509_120, "\"2026-11-21T13:25:09.120Z\""),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
            let text = serde_json::to_string(&Timestamp::of(time)).unwrap();
            assert_eq!(text, expected);
        }
    }
}

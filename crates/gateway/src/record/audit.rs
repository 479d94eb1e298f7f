//! The audit log: one JSON object per line, written in batches by a task of its own.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use waypoint_config::Audit;
use waypoint_llm::Source;
use waypoint_policy::{By, Code, ObjectName, RuleName};

use super::RequestRecord;

/// Lines wait here at most so long, which lets one system call write many.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);
/// With so many bytes waiting the writer is woken at once.
const BATCH_BYTES: usize = 256 * 1024;
/// With so many bytes waiting, requests wait for the writer: no event is dropped and memory
/// stays bounded.
const PENDING_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The last events, kept for `/decisions`.
const RECENT: usize = 256;
/// What most events are smaller than.
const USUAL_BYTES: usize = 768;
/// Text from requests (models, tools) is cut to so many bytes.
const TEXT_MAX_BYTES: usize = 256;

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    recent: VecDeque<Vec<u8>>,
    to_writer: bool,
}

/// Takes audit events; [`AuditLog::run`] writes them.
#[derive(Debug)]
pub(crate) struct AuditLog {
    pending: Mutex<Pending>,
    filled: Notify,
    drained: Notify,
}

/// Where lines go; opened files are kept between batches.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    audit: Audit,
    file: Option<(tokio::fs::File, u64)>,
}

impl AuditLog {
    pub(crate) fn new() -> Self {
        Self {
            pending: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; waits while too much is unwritten.
    pub(super) async fn write(&self, record: &RequestRecord, took: Duration) {
        loop {
            let drained = self.drained.notified();
            if self.pending().lines.len() < PENDING_MAX_BYTES {
                break;
            }
            self.filled.notify_one();
            drained.await;
        }
        self.push(record, took);
    }

    /// Adds an event without waiting.
    pub(super) fn push(&self, record: &RequestRecord, took: Duration) {
        // Before the lock is taken, which all workers share.
        let mut line = Vec::with_capacity(USUAL_BYTES);
        if let Err(error) = serde_json::to_writer(&mut line, &Event::of(record, took)) {
            tracing::error!(%error, "audit event cannot be written");
            return;
        }
        let mut pending = self.pending();
        if pending.to_writer {
            pending.lines.extend_from_slice(&line);
            pending.lines.push(b'\n');
        }
        if pending.recent.len() == RECENT {
            pending.recent.pop_front();
        }
        pending.recent.push_back(line);
        if pending.lines.len() >= BATCH_BYTES {
            self.filled.notify_one();
        }
    }

    /// The newest events as a JSON array, newest last; only that of one request when it is given.
    pub(crate) fn recent(&self, request_id: Option<&str>) -> Vec<u8> {
        // Every line holds its id once, in this form, before any text of a request.
        let wanted = request_id.map(|id| format!("\"request_id\":{}", serde_json::json!(id)));
        let wanted = wanted.as_deref().unwrap_or_default().as_bytes();
        let pending = self.pending();
        let lines = pending.recent.iter().filter(|line| {
            wanted.is_empty() || line.windows(wanted.len()).any(|window| window == wanted)
        });
        let mut out = vec![b'['];
        for (index, line) in lines.enumerate() {
            if index > 0 {
                out.extend_from_slice(b",\n");
            }
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b"]\n");
        out
    }

    /// Whether events are kept for a writer at all.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.pending().to_writer = enabled;
    }

    /// Waits for the next batch.
    pub(crate) async fn wait(&self) {
        tokio::select! {
            () = tokio::time::sleep(BATCH_INTERVAL) => {}
            () = self.filled.notified() => {}
        }
    }

    /// Writes what is pending; gives the number of events that were lost.
    pub(crate) async fn flush(&self, sinks: &mut Sinks) -> u64 {
        let lines = std::mem::take(&mut self.pending().lines);
        if lines.is_empty() {
            return 0;
        }
        let result = sinks.write(&lines).await;
        self.drained.notify_waiters();
        match result {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(%error, "audit events could not be written");
                lines.iter().filter(|byte| **byte == b'\n').count() as u64
            }
        }
    }
}

impl Sinks {
    /// Takes the configuration in force.
    pub(crate) fn configure(&mut self, audit: &Audit) {
        if self.audit != *audit {
            self.audit = audit.clone();
            self.file = None;
        }
    }

    async fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if self.audit.stdout {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(lines).await?;
            stdout.flush().await?;
        }
        let Some(target) = &self.audit.file else {
            return Ok(());
        };
        let (file, size) = match &mut self.file {
            Some(open) => open,
            closed => {
                let file = tokio::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&target.path)
                    .await?;
                let size = file.metadata().await?.len();
                closed.insert((file, size))
            }
        };
        file.write_all(lines).await?;
        file.flush().await?;
        *size += lines.len() as u64;
        if *size >= target.max_size_bytes {
            let mut old = target.path.clone().into_os_string();
            old.push(".1");
            // What was written is written; a file that cannot be turned over grows on.
            match tokio::fs::rename(&target.path, PathBuf::from(old)).await {
                Ok(()) => self.file = None,
                Err(error) => tracing::error!(%error, "the audit file cannot be rotated"),
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Event<'a> {
    time: Timestamp,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    principal: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'a str>,
    identity_source: &'static str,
    listener: &'a str,
    route: Option<&'a str>,
    action: Action<'a>,
    decision: Option<&'static str>,
    by: Option<&'a By>,
    mode: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    would_deny: &'a [std::sync::Arc<RuleName>],
    generation: u64,
    status: u16,
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Tokens>,
    duration_ms: f64,
    attempts: u32,
}

#[derive(Serialize)]
struct Action<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Shown<'a, ObjectName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
}

#[derive(Serialize)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_input: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<u64>,
    source: &'static str,
}

impl<'a> Event<'a> {
    fn of(record: &'a RequestRecord, took: Duration) -> Self {
        let action = &record.action;
        let mut flags = record.code.map_or(&[][..], Code::flags).to_vec();
        if record.downstream_gone {
            flags.push("DOWNSTREAM_DISCONNECTED");
        }
        if record.failed_open {
            // Envoy's counter of the same is `failure_mode_allowed`.
            flags.push("EXT_AUTHZ_FAILURE_MODE_ALLOWED");
        }
        if record.streamed {
            flags.push("STREAMED");
        }
        Self {
            time: Timestamp::of(record.time),
            request_id: record.id.as_str(),
            trace_id: record.trace_id.as_deref(),
            principal: record
                .principal
                .spiffe()
                .map_or("anonymous", |id| id.as_str()),
            via: None,
            identity_source: record.identity_source.as_str(),
            listener: &record.listener,
            route: record.route.as_deref(),
            action: Action {
                kind: action.kind,
                provider: action.provider.as_ref().map(Shown),
                operation: action.operation.map(|operation| operation.as_str()),
                model: action.model.as_deref().map(cut),
                server: action.server.as_deref(),
                method: action.method.as_deref().map(cut),
                tool: action.tool.as_deref().map(cut),
            },
            decision: record
                .allowed
                .map(|allowed| if allowed { "allow" } else { "deny" }),
            by: record.by.as_ref(),
            mode: if record.would_deny.is_empty() {
                "enforce"
            } else {
                "would_deny"
            },
            would_deny: &record.would_deny,
            generation: record.generation,
            status: record.status,
            code: record.code.map(Code::as_str),
            flags,
            tokens: record.usage.as_ref().map(|usage| Tokens {
                input: usage.input,
                output: usage.output,
                cached_input: usage.cached_input,
                reasoning: usage.reasoning,
                source: match usage.source {
                    Source::Upstream => "upstream",
                    Source::Estimated => "estimated",
                },
            }),
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            attempts: record.attempts,
        }
    }
}

/// Cuts text from a request to a bounded length, at a character.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

/// A value as the string that it shows.
struct Shown<'a, T>(&'a T);

impl<T: std::fmt::Display> Serialize for Shown<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
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

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

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

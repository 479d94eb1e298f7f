//! The audit log: one JSON object per line, written in batches by a task of its own.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use waypoint_config::Audit;

use super::{RequestRecord, event};

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
        event::write(&mut line, record, took);
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

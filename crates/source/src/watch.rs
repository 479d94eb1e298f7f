//! Files that are watched: each change that compiles becomes a new generation.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use waypoint_config::{Diagnostic, File, Snapshot};

use crate::files::{self, Limits};

/// Files that do not come to rest are taken as they are after so many looks.
const MAX_LOOKS: usize = 20;

/// How to read and watch.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to compile.
    pub compile: waypoint_config::Options,
    /// Bounds on what is read.
    pub limits: Limits,
    /// Files must be unchanged for so long before they are taken.
    pub settle: Duration,
    /// Files are looked at this often even if the system reports no change.
    pub poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compile: waypoint_config::Options::default(),
            limits: Limits::default(),
            settle: Duration::from_millis(100),
            poll: Duration::from_secs(3),
        }
    }
}

/// How the configuration stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The generation in force.
    pub generation: u64,
    /// Changes that were not taken, since the start.
    pub rejected_total: u64,
    /// Findings in the files as they are now. With errors among them, they are not what is in
    /// force.
    pub last_diagnostics: Vec<Diagnostic>,
}

/// The configuration in some files.
#[derive(Debug)]
pub struct FileSource {
    paths: Vec<PathBuf>,
    options: Options,
    /// What is in force.
    published: Vec<File>,
    /// What was seen last; differs from what is in force after a rejection.
    seen: Result<Vec<File>, Vec<Diagnostic>>,
    directories: BTreeSet<PathBuf>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<Status>,
}

impl FileSource {
    /// Reads and compiles the files for the first time. Blocks on the file system.
    ///
    /// # Errors
    /// All findings, when there is an error among them.
    pub fn open(paths: &[PathBuf], options: Options) -> Result<Self, Vec<Diagnostic>> {
        let mut scan = files::scan(paths, options.limits);
        let directories = std::mem::take(&mut scan.directories);
        let files = scan.result()?;
        let (mut snapshot, diagnostics) = compile(&files, &options.compile)?;
        snapshot.generation = 1;
        let status = Status {
            generation: 1,
            rejected_total: 0,
            last_diagnostics: diagnostics,
        };
        Ok(Self {
            paths: paths.to_vec(),
            options,
            published: files.clone(),
            seen: Ok(files),
            directories,
            snapshot: watch::Sender::new(Arc::new(snapshot)),
            status: watch::Sender::new(status),
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Watches until `shutdown` is done. Must be called within a tokio runtime.
    pub fn spawn(self, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown => {}
                () = self.watch() => {}
            }
        })
    }

    async fn watch(mut self) {
        let changed = Arc::new(Notify::new());
        let mut watches = Watches::new(&changed);
        loop {
            watches.follow(&self.directories);
            // A change between the last look and the new watches is found by the next poll.
            tokio::select! {
                () = changed.notified() => {
                    // However fast a directory changes, it is looked at in turns.
                    tokio::time::sleep(self.options.settle).await;
                }
                () = tokio::time::sleep(self.options.poll) => {}
            }
            let Some(found) = self.settled().await else {
                continue;
            };
            if found != self.seen {
                self.take(found).await;
            }
        }
    }

    /// The files once they are at rest, so that a file is not taken half written.
    async fn settled(&mut self) -> Option<Result<Vec<File>, Vec<Diagnostic>>> {
        let mut found = self.look().await?;
        if found == self.seen {
            return Some(found);
        }
        for _ in 0..MAX_LOOKS {
            tokio::time::sleep(self.options.settle).await;
            let again = self.look().await?;
            let rests = again == found;
            found = again;
            if rests {
                break;
            }
        }
        Some(found)
    }

    async fn look(&mut self) -> Option<Result<Vec<File>, Vec<Diagnostic>>> {
        let (paths, limits) = (self.paths.clone(), self.options.limits);
        let mut scan = tokio::task::spawn_blocking(move || files::scan(&paths, limits))
            .await
            .ok()?;
        self.directories = std::mem::take(&mut scan.directories);
        Some(scan.result())
    }

    async fn take(&mut self, found: Result<Vec<File>, Vec<Diagnostic>>) {
        self.seen.clone_from(&found);
        let files = match found {
            Ok(files) => files,
            Err(problems) => return self.reject(problems),
        };
        let options = self.options.compile.clone();
        let work = tokio::task::spawn_blocking(move || {
            let compiled = compile(&files, &options);
            (files, compiled)
        });
        let (files, compiled) = match work.await {
            Ok(done) => done,
            // Whatever is wrong with these files must not end the watching.
            Err(error) => {
                let message = format!("the configuration could not be compiled: {error}");
                return self.reject(vec![Diagnostic::global("internal", message)]);
            }
        };
        match compiled {
            Err(diagnostics) => self.reject(diagnostics),
            Ok((_, diagnostics)) if files == self.published => {
                self.status
                    .send_modify(|status| status.last_diagnostics = diagnostics);
                tracing::info!("the configuration is again the one in force");
            }
            Ok((mut snapshot, diagnostics)) => {
                self.published = files;
                let generation = self.status.borrow().generation + 1;
                snapshot.generation = generation;
                for diagnostic in &diagnostics {
                    tracing::warn!("{diagnostic}");
                }
                self.snapshot.send_replace(Arc::new(snapshot));
                self.status.send_modify(|status| {
                    status.generation = generation;
                    status.last_diagnostics = diagnostics;
                });
                tracing::info!(generation, "a new configuration is in force");
            }
        }
    }

    fn reject(&self, diagnostics: Vec<Diagnostic>) {
        for diagnostic in &diagnostics {
            if diagnostic.is_error() {
                tracing::error!("{diagnostic}");
            } else {
                tracing::warn!("{diagnostic}");
            }
        }
        self.status.send_modify(|status| {
            status.rejected_total += 1;
            status.last_diagnostics = diagnostics;
        });
        let generation = self.status.borrow().generation;
        tracing::error!(
            generation,
            "the changed configuration has errors; the last good one stays"
        );
    }
}

fn compile(
    files: &[File],
    options: &waypoint_config::Options,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    let outcome = waypoint_config::compile(files, options);
    match outcome.snapshot {
        Some(snapshot) => Ok((snapshot, outcome.diagnostics)),
        None => Err(outcome.diagnostics),
    }
}

/// Watches on directories, not files: editors and Kubernetes replace files.
struct Watches {
    /// `None` when the system offers no watches; then polling is all there is.
    watcher: Option<notify::RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Watches {
    fn new(changed: &Arc<Notify>) -> Self {
        let changed = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| matters(&event)) {
                changed.notify_one();
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the system offers no file watches; changes are found by polling");
        }
        Self {
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
        }
    }

    fn follow(&mut self, directories: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.watched.difference(directories) {
            // A directory that was removed took its watch along.
            let _ = watcher.unwatch(gone);
        }
        self.watched
            .retain(|directory| directories.contains(directory));
        for fresh in directories {
            if !self.watched.contains(fresh)
                && watcher.watch(fresh, RecursiveMode::NonRecursive).is_ok()
            {
                self.watched.insert(fresh.clone());
            }
        }
    }
}

/// Whether an event can change the configuration. Our own reading is an access; and what is
/// written into other files, such as a log that lies beside the configuration, does not matter.
fn matters(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            event.paths.is_empty() || event.paths.iter().any(|path| files::is_configuration(path))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;

//! The configuration files below some paths.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use waypoint_config::{Diagnostic, File};

/// Directories inside each other.
const MAX_DEPTH: usize = 16;

/// Bounds on what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of one file, in bytes.
    pub file_bytes: u64,
    /// Number of files.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            files: 10_000,
        }
    }
}

/// Reads all configuration files: a path that is a file as it is; of a directory `*.yaml`,
/// `*.yml` and `*.json` in it and below, in order of their names.
///
/// Hidden names are passed over and links followed, so that a mounted ConfigMap (visible links
/// into a hidden `..data`) is read once.
///
/// # Errors
/// What could not be read, all at once; also when there is nothing to read.
pub fn read(paths: &[PathBuf], limits: Limits) -> Result<Vec<File>, Vec<Diagnostic>> {
    scan(paths, limits).result()
}

/// What a look at the paths gave.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    files: Vec<File>,
    problems: Vec<Diagnostic>,
    /// Directories in which a change would change the outcome.
    pub(crate) directories: BTreeSet<PathBuf>,
}

impl Scan {
    pub(crate) fn result(self) -> Result<Vec<File>, Vec<Diagnostic>> {
        if self.problems.is_empty() {
            Ok(self.files)
        } else {
            Err(self.problems)
        }
    }
}

pub(crate) fn scan(paths: &[PathBuf], limits: Limits) -> Scan {
    let mut walk = Walk {
        limits,
        seen: HashSet::new(),
        scan: Scan::default(),
    };
    for path in paths {
        walk.root(path);
    }
    if walk.scan.files.is_empty() && walk.scan.problems.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let message = format!(
            "there is no *.yaml, *.yml or *.json file in {}; name a file, or a directory of them",
            names.join(", ")
        );
        walk.scan
            .problems
            .push(Diagnostic::global("no-files", message));
    }
    walk.scan
}

struct Walk {
    limits: Limits,
    /// Files and directories that were visited, by their real path.
    seen: HashSet<PathBuf>,
    scan: Scan,
}

impl Walk {
    fn root(&mut self, path: &Path) {
        // A path that is replaced or not there yet shows in its directory.
        if let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            self.scan.directories.extend(parent.canonicalize());
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(path),
            Ok(metadata) if metadata.is_file() => self.file(path, true),
            Ok(_) => self.problem(path, "neither a file nor a directory"),
            Err(error) => self.problem(path, &error),
        }
    }

    fn directory(&mut self, root: &Path) {
        let mut pending = vec![(root.to_owned(), 0)];
        while let Some((path, depth)) = pending.pop() {
            let real = match path.canonicalize() {
                Ok(real) => real,
                Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.problem(&path, &error);
                    continue;
                }
            };
            self.scan.directories.insert(real.clone());
            if !self.seen.insert(real) {
                continue;
            }
            if depth > MAX_DEPTH {
                self.problem(
                    &path,
                    &format!("more than {MAX_DEPTH} directories inside each other"),
                );
                continue;
            }
            let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let mut entries: Vec<PathBuf> = match entries {
                Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
                Err(error) => {
                    self.problem(&path, &error);
                    continue;
                }
            };
            entries.retain(|entry| !is_hidden(entry));
            entries.sort();
            let mut below = Vec::new();
            for entry in entries {
                match fs::metadata(&entry) {
                    Ok(metadata) if metadata.is_dir() => below.push((entry, depth + 1)),
                    Ok(metadata) if metadata.is_file() && is_configuration(&entry) => {
                        self.file(&entry, false);
                    }
                    Ok(_) => {}
                    Err(_) if !is_configuration(&entry) => {}
                    // Gone since the directory was listed; a link to nowhere is a mistake.
                    Err(_) if fs::symlink_metadata(&entry).is_err() => {}
                    Err(error) => self.problem(&entry, &error),
                }
            }
            pending.extend(below.into_iter().rev());
        }
    }

    fn file(&mut self, path: &Path, named: bool) {
        match path.canonicalize() {
            Ok(real) => {
                self.scan
                    .directories
                    .extend(real.parent().map(Path::to_owned));
                if !self.seen.insert(real) {
                    return;
                }
            }
            Err(error) if !named && error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problem(path, &error),
        }
        if self.scan.files.len() >= self.limits.files {
            return self.problem(path, &format!("more than {} files", self.limits.files));
        }
        match read_text(path, self.limits.file_bytes) {
            Ok(text) => self.scan.files.push(File {
                path: path.display().to_string(),
                text,
            }),
            Err(error) if !named && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.problem(path, &error),
        }
    }

    fn problem(&mut self, path: &Path, why: &(impl ToString + ?Sized)) {
        let path = path.display().to_string();
        self.scan
            .problems
            .push(Diagnostic::file(path, "unreadable", why.to_string()));
    }
}

fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more tells a file that is too large, also one that grows meanwhile.
    fs::File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        let message = format!("larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

pub(crate) fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests;

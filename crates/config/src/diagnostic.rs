//! What is wrong with a configuration, and where.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration is not taken.
    Error,
    /// It is taken, but may not do what its author expects.
    Warning,
}

/// One finding, at one place.
///
/// Displays as `file:line:col: error[code]: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the kind of finding.
    pub code: &'static str,
    /// What is wrong and what to do, lower case, without a full stop.
    pub message: String,
    /// The file as it was named; empty when the finding belongs to no file.
    pub file: String,
    /// Line, from 1; 0 when there is no place in the file.
    pub line: usize,
    /// Column in characters, from 1.
    pub col: usize,
}

impl Diagnostic {
    /// An error that belongs to no file.
    #[must_use]
    pub fn global(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            file: String::new(),
            line: 0,
            col: 0,
        }
    }

    /// An error about a file as a whole.
    #[must_use]
    pub fn file(file: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            ..Self::global(code, message)
        }
    }

    /// Whether this keeps the configuration from being taken.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.col)?;
            }
            f.write_str(" ")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)
    }
}

/// An object that was not read because its kind is another project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// `group/version`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// `namespace/name`.
    pub name: String,
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            api_version,
            kind,
            name,
            file,
            line,
        } = self;
        write!(f, "{file}:{line}: skipped {kind} {name} ({api_version})")
    }
}

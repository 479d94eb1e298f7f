//! Where objects come from: files that are watched for change.

mod files;
mod watch;

pub use files::{Limits, read};
pub use watch::{FileSource, Options, Status};

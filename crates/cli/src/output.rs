//! Standard output that may be a pipe to a reader who has seen enough.

use std::io::{ErrorKind, Write};

/// Writes text to standard output. A closed pipe is not an error: `| head` ends that way.
///
/// # Errors
/// What else can go wrong with standard output, such as a full disk.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

//! What we show to an upstream: read when it is needed, read again when it changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use waypoint_config::Credential;
use waypoint_policy::{Code, Refusal, Secret};

/// A changed file is noticed within this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// No credential is larger.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
struct Held {
    checked: Instant,
    modified: Option<SystemTime>,
    value: Secret<String>,
}

/// Credentials that live in files.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    files: Mutex<HashMap<PathBuf, Held>>,
}

impl Credentials {
    /// The secret text of a credential; `None` when the upstream is shown nothing of ours.
    ///
    /// # Errors
    /// [`Code::CredentialUnavailable`]: the call must not go out without it.
    pub(crate) fn secret(&self, credential: &Credential) -> Result<Option<String>, Refusal> {
        let unavailable = || Refusal::new(Code::CredentialUnavailable);
        match credential {
            Credential::None | Credential::Passthrough => Ok(None),
            Credential::Inline(secret) => Ok(Some(secret.expose().clone())),
            Credential::Env(name) => match std::env::var(name) {
                Ok(value) if !value.trim().is_empty() => Ok(Some(value.trim().to_owned())),
                _ => {
                    tracing::error!(variable = name, "credential variable is not set");
                    Err(unavailable())
                }
            },
            Credential::File(path) => self.file(path).map(Some).ok_or_else(unavailable),
        }
    }

    fn file(&self, path: &Path) -> Option<String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = files.get(path)
            && held.checked.elapsed() < CHECK_INTERVAL
        {
            return Some(held.value.expose().clone());
        }
        let read = || -> std::io::Result<(Option<SystemTime>, String)> {
            let metadata = std::fs::metadata(path)?;
            if metadata.len() > MAX_BYTES {
                return Err(std::io::Error::other(format!(
                    "larger than {MAX_BYTES} bytes"
                )));
            }
            Ok((metadata.modified().ok(), std::fs::read_to_string(path)?))
        };
        match read() {
            Ok((modified, text)) if !text.trim().is_empty() => {
                let value = text.trim().to_owned();
                if files
                    .get(path)
                    .is_some_and(|held| held.modified != modified)
                {
                    tracing::info!(path = %path.display(), "credential file changed");
                }
                let held = Held {
                    checked: Instant::now(),
                    modified,
                    value: Secret::new(value.clone()),
                };
                files.insert(path.to_owned(), held);
                Some(value)
            }
            Ok(_) => {
                tracing::error!(path = %path.display(), "credential file is empty");
                None
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "credential file cannot be read");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_credential_is_a_refusal_and_a_changed_one_is_read_again() {
        let credentials = Credentials::default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let file = Credential::File(path.clone());
        assert_eq!(
            credentials.secret(&file).unwrap_err().code,
            Code::CredentialUnavailable
        );
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(credentials.secret(&file).unwrap().as_deref(), Some("one"));
        std::fs::write(&path, "two").unwrap();
        credentials
            .files
            .lock()
            .unwrap()
            .get_mut(&path)
            .unwrap()
            .checked -= CHECK_INTERVAL;
        assert_eq!(credentials.secret(&file).unwrap().as_deref(), Some("two"));
        let unset = Credential::Env("WAYPOINT_TEST_NO_SUCH_VARIABLE".into());
        assert!(credentials.secret(&unset).is_err());
    }
}

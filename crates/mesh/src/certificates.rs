//! Our own certificate, its key and the roots of our peers: where they come from, and which are in
//! force.

use std::fmt::Debug;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use waypoint_policy::{Secret, SpiffeId};

use crate::identity::{self, IdentityError};
use crate::tls::{self, TlsError};

/// A changed file is noticed within this time.
const LOOK: Duration = Duration::from_secs(1);
/// Nothing that is read here is larger.
const MAX_BYTES: u64 = 4 << 20;

/// Who we are in the mesh, and whom we believe.
#[derive(Debug)]
pub struct Svid {
    /// Our name.
    pub id: SpiffeId,
    /// Our chain, leaf first, and its key.
    pub key: Arc<CertifiedKey>,
    /// Who may sign our peers.
    pub roots: Arc<RootCertStore>,
    /// When the leaf ends; `None` if beyond all clocks.
    pub expires: Option<SystemTime>,
}

/// Where our certificate comes from.
pub trait Certificates: Debug + Send + Sync + 'static {
    /// What is in force now; the same `Arc` until that changes.
    fn current(&self) -> Arc<Svid>;
}

/// Why a certificate of ours cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The PEM is not what it should be, or key and certificate are not a pair.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The leaf names no workload.
    #[error("our own {0}")]
    Identity(#[from] IdentityError),
    /// The leaf is over, or not yet valid.
    #[error("our own certificate is not valid now")]
    NotNow,
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
    /// PEM roots that sign our peers.
    pub trust_bundle: PathBuf,
}

/// What the files say.
#[derive(Debug)]
struct Texts {
    certificate: String,
    private_key: Secret<String>,
    trust_bundle: String,
}

impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate
            && self.private_key.expose() == other.private_key.expose()
            && self.trust_bundle == other.trust_bundle
    }
}

/// A certificate in files that are read again when they change.
#[derive(Debug)]
pub struct Files {
    places: Places,
    held: ArcSwap<Svid>,
    /// What was read last, good or not, so that each change is told of once; nothing if it could not
    /// be read.
    last: Mutex<Option<Texts>>,
}

impl Files {
    /// Reads the files; [`Self::watch`] reads them again.
    ///
    /// # Errors
    /// [`CertificatesError`]: there is nothing to fall back on.
    pub fn open(places: Places) -> Result<Arc<Self>, CertificatesError> {
        let texts = Texts::read(&places)?;
        let svid = texts.parse(SystemTime::now())?;
        Ok(Arc::new(Self {
            places,
            held: ArcSwap::from_pointee(svid),
            last: Mutex::new(Some(texts)),
        }))
    }

    /// Where the files are.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Looks at the files until nobody has them any more.
    pub async fn watch(files: Weak<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(files) = files.upgrade() else {
                return;
            };
            let _ = tokio::task::spawn_blocking(move || files.look(SystemTime::now())).await;
        }
    }

    /// Puts what the files say now in force, if it is new and can be used whole: files are replaced
    /// one after the other, and half of a new pair is none.
    fn look(&self, now: SystemTime) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = match Texts::read(&self.places) {
            Ok(texts) => texts,
            Err(error) => {
                if last.take().is_some() {
                    tracing::warn!(%error, "our certificate cannot be read; the one before stays");
                }
                return;
            }
        };
        let is_new = last.as_ref() != Some(&texts);
        // What was read before may not have been valid yet.
        let parsed = match is_new || !self.is_in_force(&texts) {
            true => texts.parse(now),
            false => return,
        };
        match parsed {
            Ok(svid) => {
                tracing::info!(id = %svid.id, "our certificate or trust bundle changed");
                self.held.store(Arc::new(svid));
            }
            Err(error) if is_new => {
                tracing::warn!(%error, "our certificate cannot be used; the one before stays");
            }
            Err(_) => {}
        }
        *last = Some(texts);
    }

    /// Whether these texts are what is in force; cheap, and certain only of the leaf.
    fn is_in_force(&self, texts: &Texts) -> bool {
        let held = self.held.load();
        let leaf = tls::certificates(&texts.certificate, "the certificate");
        matches!(leaf, Ok(chain) if chain.first() == held.key.cert.first())
    }
}

impl Certificates for Files {
    fn current(&self) -> Arc<Svid> {
        self.held.load_full()
    }
}

impl Texts {
    fn read(places: &Places) -> Result<Self, CertificatesError> {
        Ok(Self {
            certificate: text(&places.certificate)?,
            private_key: Secret::new(text(&places.private_key)?),
            trust_bundle: text(&places.trust_bundle)?,
        })
    }

    fn parse(&self, now: SystemTime) -> Result<Svid, CertificatesError> {
        let chain = tls::certificates(&self.certificate, "the certificate")?;
        let leaf = chain.first().ok_or(IdentityError::Malformed)?;
        let id = identity::workload(leaf)?;
        if !identity::is_valid_at(leaf, now) {
            return Err(CertificatesError::NotNow);
        }
        let expires = identity::not_after(leaf);
        let key = PrivateKeyDer::from_pem_slice(self.private_key.expose().as_bytes())
            .map_err(|_| TlsError::NoPrivateKey)?;
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::from)?;
        Ok(Svid {
            id,
            key: Arc::new(key),
            roots: Arc::new(tls::roots(&self.trust_bundle)?),
            expires,
        })
    }
}

fn text(path: &Path) -> Result<String, CertificatesError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("larger than {MAX_BYTES} bytes")));
        }
        Ok(text)
    };
    read().map_err(|error| CertificatesError::File {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests;

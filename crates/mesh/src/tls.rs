//! Server-side TLS whose client certificates are SPIFFE identities.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::certificates::{Certificates, Svid};
use crate::identity;

/// What a listener asks of its callers.
#[derive(Debug, Clone)]
pub enum ClientAuthentication {
    /// No certificate is asked for.
    Off,
    /// A certificate is asked for; a caller without one is anonymous.
    Optional {
        /// PEM of the trust bundle.
        roots_pem: String,
    },
    /// Without a valid certificate there is no connection.
    Required {
        /// PEM of the trust bundle.
        roots_pem: String,
    },
}

/// Why a listener's TLS settings cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM holds no usable certificate.
    #[error("no certificate in the PEM of {0}")]
    NoCertificate(&'static str),
    /// The PEM holds no usable private key.
    #[error("no private key in the PEM")]
    NoPrivateKey,
    /// rustls refuses the combination, for instance a key of another certificate.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// Nobody in the mesh would take our own certificate.
    #[error("our own certificate is of trust domain {0}, which is not among `trustDomains`")]
    OwnTrustDomain(String),
    /// The client verifier could not be built.
    #[error("trust bundle: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Reads every certificate of a PEM text.
///
/// # Errors
/// [`TlsError::NoCertificate`] when it is unreadable or empty; `what` names it.
pub fn certificates(
    pem: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NoCertificate(what)),
    }
}

/// Reads a trust bundle.
///
/// # Errors
/// [`TlsError`] when it holds no certificate or one that cannot be a trust anchor.
pub fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, "the trust bundle")? {
        store.add(certificate)?;
    }
    Ok(store)
}

/// The TLS settings of one listener; ALPN offers h2 and http/1.1.
///
/// # Errors
/// [`TlsError`] for unusable PEM or a key that does not fit.
pub fn server_config(
    certificate_pem: &str,
    private_key_pem: &str,
    clients: &ClientAuthentication,
    trust_domains: &[String],
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate_pem, "the listener")?;
    let key = PrivateKeyDer::from_pem_slice(private_key_pem.as_bytes())
        .map_err(|_| TlsError::NoPrivateKey)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        ClientAuthentication::Off => builder.with_no_client_auth(),
        ClientAuthentication::Optional { roots_pem }
        | ClientAuthentication::Required { roots_pem } => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(roots_pem)?), provider);
            let verifier = match clients {
                ClientAuthentication::Optional { .. } => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(Arc::new(SpiffeVerifier {
                chain: verifier.build()?,
                trust_domains: trust_domains.to_vec(),
            }))
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if !matches!(clients, ClientAuthentication::Off) {
        no_resumption(&mut config);
    }
    Ok(Arc::new(config))
}

/// TLS of a listener in the mesh, which follows our certificate as it changes.
#[derive(Debug)]
pub struct MeshTls {
    certificates: Arc<dyn Certificates>,
    trust_domains: Vec<String>,
    built: ArcSwapOption<(Arc<Svid>, Arc<ServerConfig>)>,
}

impl MeshTls {
    /// Settings with the certificate in force, for callers of these trust domains.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn new(
        certificates: Arc<dyn Certificates>,
        trust_domains: &[String],
    ) -> Result<Self, TlsError> {
        let made = Self {
            certificates,
            trust_domains: trust_domains.to_vec(),
            built: ArcSwapOption::empty(),
        };
        made.config()?;
        Ok(made)
    }

    /// The settings for a handshake that begins now.
    ///
    /// # Errors
    /// [`TlsError::OwnTrustDomain`], and what rustls has against the certificate.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let svid = self.certificates.current();
        if let Some(built) = &*self.built.load()
            && Arc::ptr_eq(&built.0, &svid)
        {
            return Ok(Arc::clone(&built.1));
        }
        let domain = svid.id.trust_domain();
        if !self.trust_domains.iter().any(|known| known == domain) {
            return Err(TlsError::OwnTrustDomain(domain.to_owned()));
        }
        let config = mesh_config(&svid, &self.trust_domains)?;
        self.built
            .store(Some(Arc::new((svid, Arc::clone(&config)))));
        Ok(config)
    }
}

/// TLS as in the mesh: 1.3 only, HTTP/2 only, and no connection without a workload's certificate.
/// Names of servers are neither sent nor looked at there.
fn mesh_config(svid: &Svid, trust_domains: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::clone(&svid.roots);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let key = SingleCertAndKey::from(Arc::clone(&svid.key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(SpiffeVerifier {
            chain: chain.build()?,
            trust_domains: trust_domains.to_vec(),
        }))
        .with_cert_resolver(Arc::new(key));
    config.alpn_protocols = vec![b"h2".to_vec()];
    no_resumption(&mut config);
    Ok(Arc::new(config))
}

/// A resumed session would bring the caller's certificate back without looking at it again, after
/// it has expired too.
fn no_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// Verifies the chain, then that the leaf names exactly one accepted workload: a certificate we
/// cannot read an identity from ends the handshake instead of becoming an anonymous caller.
#[derive(Debug)]
struct SpiffeVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domains: Vec<String>,
}

impl ClientCertVerifier for SpiffeVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        identity::spiffe_id(end_entity, &self.trust_domains).map_err(|error| {
            rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(
                Arc::new(error),
            )))
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

//! Server-side TLS whose client certificates are SPIFFE identities.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

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
        // A resumed session would bring the caller's certificate back without looking at it again,
        // after it has expired too.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
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

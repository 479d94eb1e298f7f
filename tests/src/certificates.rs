//! A throw-away certificate authority, and what it signs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::clients::Credentials;

/// Signs the certificates of one test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key, PKCS #8.
    pub key_pem: String,
}

/// What is wrong with a certificate, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From 2020 to 2120.
    Now,
    /// It ended in 2021.
    Expired,
    /// It begins in 2119.
    NotYet,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Panics
    /// If the key cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = params(&[], Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "throw-away root of a test");
        let certificate = params.self_signed(&key).expect("a root can be signed");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A server's certificate for `127.0.0.1` and `localhost`.
    #[must_use]
    pub fn server(&self) -> Identity {
        let names = [
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::DnsName("localhost".try_into().expect("ASCII")),
        ];
        self.sign(params(&names, Validity::Now))
    }

    /// A server's certificate for these DNS names.
    ///
    /// # Panics
    /// When a name is not ASCII.
    #[must_use]
    pub fn server_for(&self, names: &[&str], validity: Validity) -> Identity {
        let names: Vec<SanType> = names
            .iter()
            .map(|name| SanType::DnsName((*name).try_into().expect("ASCII")))
            .collect();
        self.sign(params(&names, validity))
    }

    /// A waypoint's certificate: its URI is what the mesh looks at, its address what other clients do.
    ///
    /// # Panics
    /// When the URI is not ASCII.
    #[must_use]
    pub fn waypoint(&self, spiffe: &str) -> Identity {
        let names = [
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::URI(spiffe.try_into().expect("ASCII")),
        ];
        self.sign(params(&names, Validity::Now))
    }

    /// A workload's certificate with one URI.
    #[must_use]
    pub fn agent(&self, spiffe: &str) -> Identity {
        self.with_uris(&[spiffe], Validity::Now)
    }

    /// A client's certificate with any number of URIs.
    ///
    /// # Panics
    /// When a URI is not ASCII.
    #[must_use]
    pub fn with_uris(&self, uris: &[&str], validity: Validity) -> Identity {
        let uris: Vec<SanType> = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("ASCII")))
            .collect();
        self.sign(params(&uris, validity))
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can sign");
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Settings of a TLS client that trusts this authority and offers one protocol.
    ///
    /// # Panics
    /// When the PEM is not what this module made.
    #[must_use]
    pub fn client(&self, identity: Option<&Identity>, alpn: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a root");
        roots.add(root).expect("a trust anchor");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
                builder
                    .with_client_auth_cert(vec![chain.expect("PEM")], key.expect("PEM"))
                    .expect("the key fits")
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    /// Writes what a foreign client needs into a directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn credentials(&self, directory: &Path, agent: &Identity) -> std::io::Result<Credentials> {
        let found = Credentials {
            roots: directory.join("roots.pem"),
            certificate: directory.join("agent.pem"),
            private_key: directory.join("agent.key"),
        };
        std::fs::write(&found.roots, &self.pem)?;
        std::fs::write(&found.certificate, &agent.certificate_pem)?;
        std::fs::write(&found.private_key, &agent.key_pem)?;
        Ok(found)
    }
}

impl Identity {
    /// Settings of a TLS server that shows this certificate; `protocols` are offered by ALPN.
    ///
    /// # Panics
    /// When the PEM is not what this module made.
    #[must_use]
    pub fn server(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let chain = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![chain.expect("PEM")], key.expect("PEM"))
            .expect("the key fits");
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn params(names: &[SanType], validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.not_before = match validity {
        Validity::Now | Validity::Expired => date_time_ymd(2020, 1, 1),
        Validity::NotYet => date_time_ymd(2119, 1, 1),
    };
    params.not_after = match validity {
        Validity::Now | Validity::NotYet => date_time_ymd(2120, 1, 1),
        Validity::Expired => date_time_ymd(2021, 1, 1),
    };
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

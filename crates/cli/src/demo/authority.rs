//! A throw-away certificate authority, and the identities it gives.

use anyhow::Context;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Longer than anybody watches a demo.
const LIFE: Duration = Duration::days(1);

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

/// Signs for the trust domain; its key never leaves this process.
pub(super) struct Authority {
    pub(super) root_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut params = params("demo mesh root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?;
        Ok(Self {
            root_pem: root.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// A workload's certificate, as Istio makes it: one URI name and nothing else.
    pub(super) fn workload(&self, spiffe: &str) -> anyhow::Result<Identity> {
        let mut params = params("workload");
        params.subject_alt_names = vec![uri(spiffe)?];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        self.sign(params)
    }

    /// The waypoint's certificate, which `curl` must believe too.
    pub(super) fn waypoint(&self, spiffe: &str) -> anyhow::Result<Identity> {
        let mut params = params("waypoint");
        params.subject_alt_names = vec![
            uri(spiffe)?,
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> anyhow::Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate: Certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

fn uri(spiffe: &str) -> anyhow::Result<SanType> {
    let name = spiffe.try_into().context("a SPIFFE ID is ASCII")?;
    Ok(SanType::URI(name))
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // Clocks of containers may lag behind.
    params.not_before = OffsetDateTime::now_utc() - Duration::minutes(5);
    params.not_after = OffsetDateTime::now_utc() + LIFE;
    params.use_authority_key_identifier_extension = true;
    params
}

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, KeyPair, SanType};

use super::*;

fn certificate(uris: &[&str], dns: &[&str], ca: bool) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    for uri in uris {
        params
            .subject_alt_names
            .push(SanType::URI((*uri).try_into().unwrap()));
    }
    for name in dns {
        params
            .subject_alt_names
            .push(SanType::DnsName((*name).try_into().unwrap()));
    }
    if ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn exactly_one_spiffe_uri_names_the_caller() {
    let ours = ["cluster.local".to_owned(), "old.example".to_owned()];
    let id = "spiffe://cluster.local/ns/agents/sa/pr-agent";
    for (case, uris, dns, ca, expected) in [
        ("one SPIFFE URI", &[id][..], &[][..], false, Ok(id)),
        ("DNS names beside it", &[id], &["a.example"], false, Ok(id)),
        (
            "alias trust domain",
            &["spiffe://old.example/ns/a/sa/b"],
            &[],
            false,
            Ok("spiffe://old.example/ns/a/sa/b"),
        ),
        (
            "no name at all",
            &[],
            &[],
            false,
            Err(IdentityError::UriNames(0)),
        ),
        (
            "DNS only",
            &[],
            &["a.example"],
            false,
            Err(IdentityError::UriNames(0)),
        ),
        (
            "two SPIFFE URIs",
            &[id, "spiffe://cluster.local/ns/a/sa/b"],
            &[],
            false,
            Err(IdentityError::UriNames(2)),
        ),
        (
            "a SPIFFE and another URI",
            &[id, "https://a.example"],
            &[],
            false,
            Err(IdentityError::UriNames(2)),
        ),
        (
            "another URI",
            &["https://a.example"],
            &[],
            false,
            Err(IdentityError::NotSpiffe),
        ),
        (
            "malformed SPIFFE",
            &["spiffe://cluster.local/ns/../sa/b"],
            &[],
            false,
            Err(IdentityError::NotSpiffe),
        ),
        (
            "foreign trust domain",
            &["spiffe://evil.example/ns/a/sa/b"],
            &[],
            false,
            Err(IdentityError::ForeignTrustDomain),
        ),
        (
            "longer trust domain",
            &["spiffe://cluster.local.evil/ns/a/sa/b"],
            &[],
            false,
            Err(IdentityError::ForeignTrustDomain),
        ),
        (
            "signing certificate",
            &[id],
            &[],
            true,
            Err(IdentityError::SigningCertificate),
        ),
    ] {
        let der = certificate(uris, dns, ca);
        let found = spiffe_id(&der, &ours).map(|id| id.as_str().to_owned());
        assert_eq!(found, expected.map(str::to_owned), "{case}");
    }
}

#[test]
fn garbage_is_malformed() {
    let mut broken_san = CertificateParams::new(Vec::<String>::new()).unwrap();
    broken_san
        .custom_extensions
        .push(CustomExtension::from_oid_content(
            &[2, 5, 29, 17],
            vec![0xff, 0x00, 0x13],
        ));
    let der = broken_san
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec();
    assert!(spiffe_id(&der, &[]).is_err());
    assert_eq!(spiffe_id(b"not DER", &[]), Err(IdentityError::Malformed));
    assert_eq!(spiffe_id(&[], &[]), Err(IdentityError::Malformed));
}

use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
use tempfile::TempDir;

use super::*;

const ID: &str = "spiffe://cluster.local/ns/agents/sa/wp";

fn sans(uris: &[&str]) -> Vec<SanType> {
    let uris = uris.iter();
    uris.map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect()
}

fn pair(uris: &[&str], years: (i32, i32)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = sans(uris);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn good() -> (String, String) {
    pair(&[ID], (2020, 2120))
}

struct Directory(TempDir);

impl Directory {
    fn new((certificate, key): &(String, String)) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        directory.write("tls.crt", certificate);
        directory.write("tls.key", key);
        directory.write("root.crt", certificate);
        directory
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn open(&self) -> Result<Arc<Files>, CertificatesError> {
        Files::open(Places {
            certificate: self.0.path().join("tls.crt"),
            private_key: self.0.path().join("tls.key"),
            trust_bundle: self.0.path().join("root.crt"),
        })
    }
}

#[test]
fn what_cannot_be_ours_is_refused() {
    let other = good();
    for (case, found, expected) in [
        ("no name", pair(&[], (2020, 2120)), "has 0 URI names"),
        (
            "two names",
            pair(&[ID, ID], (2020, 2120)),
            "has 2 URI names",
        ),
        (
            "another name",
            pair(&["https://a/b"], (2020, 2120)),
            "names no SPIFFE ID",
        ),
        ("over", pair(&[ID], (2020, 2021)), "not valid now"),
        ("not begun", pair(&[ID], (2119, 2120)), "not valid now"),
        ("another key", (other.0.clone(), good().1), "KeyMismatch"),
        ("no key", (other.0.clone(), String::new()), "no private key"),
        (
            "no certificate",
            (String::new(), other.1.clone()),
            "no certificate",
        ),
    ] {
        let error = Directory::new(&found).open().unwrap_err().to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
    let directory = Directory::new(&other);
    std::fs::remove_file(directory.0.path().join("root.crt")).unwrap();
    let error = directory.open().unwrap_err().to_string();
    assert!(error.contains("root.crt"), "{error}");
}

#[test]
fn half_of_a_new_pair_is_none() {
    let (first, second) = (good(), good());
    let directory = Directory::new(&first);
    let files = directory.open().unwrap();
    let now = SystemTime::now();
    let begun = files.current();
    assert_eq!(begun.id.to_string(), ID);
    files.look(now);
    assert!(Arc::ptr_eq(&begun, &files.current()), "nothing has changed");
    for broken in ["", "-----BEGIN CERTIFICATE-----\nMII", &second.0] {
        directory.write("tls.crt", broken);
        files.look(now);
        assert!(Arc::ptr_eq(&begun, &files.current()), "{broken}");
    }
    std::fs::remove_file(directory.0.path().join("tls.key")).unwrap();
    files.look(now);
    assert!(Arc::ptr_eq(&begun, &files.current()));
    directory.write("tls.key", &second.1);
    files.look(now);
    let renewed = files.current();
    assert_ne!(renewed.key.cert, begun.key.cert);
    directory.write("root.crt", &[first.0.as_str(), &second.0].concat());
    files.look(now);
    assert_eq!(files.current().roots.len(), 2);
    assert_eq!(files.current().key.cert, renewed.key.cert);
}

#[test]
fn a_certificate_counts_when_it_is_valid() {
    let directory = Directory::new(&good());
    let files = directory.open().unwrap();
    let begun = files.current();
    let later = pair(&[ID], (2040, 2120));
    directory.write("tls.crt", &later.0);
    directory.write("tls.key", &later.1);
    files.look(SystemTime::now());
    assert!(Arc::ptr_eq(&begun, &files.current()), "not yet");
    // The same files, some decades after.
    files.look(SystemTime::UNIX_EPOCH + Duration::from_secs(72 * 365 * 86_400));
    assert_ne!(files.current().key.cert, begun.key.cert);
}

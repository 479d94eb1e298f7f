//! Identities that are written with one trust domain and meant with each of our own.

use super::TextMatch;

/// In policies it stands for the mesh's own trust domain, whatever that is called.
const LOCAL: &str = "cluster.local";

/// The values that a value of `principals` stands for.
///
/// A value of exactly five segments, `TD/ns/X/sa/Y`, whose trust domain is our own, an alias of
/// it, or `cluster.local`, is replaced by one for each of ours; any other stays as it is. `own`
/// has the mesh's trust domain first, then its aliases.
#[must_use]
pub fn expand_principal(value: &str, own: &[Box<str>]) -> Vec<String> {
    let is_identity = |rest: &str| {
        let parts: Vec<&str> = rest.split('/').collect();
        matches!(parts.as_slice(), ["ns", _, "sa", _])
    };
    match value.split_once('/') {
        Some((domain, rest)) if domain != "*" && is_identity(rest) && is_own(domain, own) => own
            .iter()
            .map(|domain| format!("{domain}/{rest}"))
            .collect(),
        _ => vec![value.to_owned()],
    }
}

/// The values that a value of `trustDomains` stands for.
#[must_use]
pub fn expand_trust_domain(value: &str, own: &[Box<str>]) -> Vec<String> {
    match value == LOCAL || own.iter().any(|domain| **domain == *value) {
        true => own.iter().map(|domain| domain.to_string()).collect(),
        false => vec![value.to_owned()],
    }
}

fn is_own(written: &str, own: &[Box<str>]) -> bool {
    let pattern = TextMatch::new(written);
    written == LOCAL || own.iter().any(|domain| pattern.matches(domain.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases() {
        let own: Vec<Box<str>> = vec!["td1".into(), "td2".into()];
        let one = |value: &str| expand_principal(value, &own);
        let both = ["td1/ns/a/sa/b", "td2/ns/a/sa/b"];
        assert_eq!(one("td1/ns/a/sa/b"), both);
        assert_eq!(one("td2/ns/a/sa/b"), both);
        assert_eq!(one("cluster.local/ns/a/sa/b"), both);
        assert_eq!(one("td*/ns/a/sa/b"), both);
        assert_eq!(one("*1/ns/a/sa/b"), both);
        assert_eq!(one("td1/ns/a/sa/*"), ["td1/ns/a/sa/*", "td2/ns/a/sa/*"]);
        for kept in [
            "other/ns/a/sa/b",
            "*/ns/a/sa/b",
            "td1/ns/a/*",
            "td1/*",
            "*",
            "*/sa/b",
            "td1/ns/a/sa/b/c",
            "td1/foo/a/bar/b",
        ] {
            assert_eq!(one(kept), [kept]);
        }
        assert_eq!(expand_trust_domain("td2", &own), ["td1", "td2"]);
        assert_eq!(expand_trust_domain("cluster.local", &own), ["td1", "td2"]);
        assert_eq!(expand_trust_domain("td*", &own), ["td*"]);
        assert_eq!(expand_trust_domain("other", &own), ["other"]);
    }
}

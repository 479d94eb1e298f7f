//! What objects name in other objects: grants, secrets, certificates, credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use waypoint_policy::{ObjectName, Secret};

use super::missing;
use super::set::Set;
use crate::kind::ObjectKind;
use crate::object::{At, Diagnostics, Object};
use crate::raw::{self, CertificateRef};
use crate::snapshot::Credential;

/// The object that names another, for grants: its kind and namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) kind: ObjectKind,
    pub(super) namespace: &'a str,
}

impl<'a> From<'a> {
    pub(super) fn object(object: &'a Object) -> Self {
        Self {
            kind: object.kind,
            namespace: &object.name.namespace,
        }
    }
}

/// Whether an object may name another (Gateway API, ReferenceGrant). Reports when not.
pub(super) fn granted(
    set: &Set<'_>,
    from: From<'_>,
    kind: ObjectKind,
    name: &ObjectName,
    at: At<'_>,
    out: &mut Diagnostics,
) -> bool {
    if *from.namespace == *name.namespace {
        return true;
    }
    let in_namespace = |grant: &&ObjectName| grant.namespace == name.namespace;
    let allowed = set
        .grants
        .iter()
        .filter(|(grant, _)| in_namespace(grant))
        .any(|(_, grant)| {
            let spec = &grant.raw;
            spec.from.iter().any(|f| {
                f.group == from.kind.group()
                    && f.kind == from.kind.as_str()
                    && f.namespace == from.namespace
            }) && spec.to.iter().any(|to| {
                to.group == kind.group()
                    && to.kind == kind.as_str()
                    && to
                        .name
                        .as_deref()
                        .is_none_or(|only| only.is_empty() || *only == *name.name)
            })
        });
    let unread = set.any_broken(ObjectKind::ReferenceGrant);
    if !allowed && !unread {
        let message = format!(
            "{} {name} is in another namespace; a ReferenceGrant in `{}` must allow {} from `{}`",
            kind.as_str(),
            name.namespace,
            from.kind.as_str(),
            from.namespace,
        );
        out.error(at, "not-granted", message);
    }
    allowed
}

/// The value of a key of a Secret.
fn secret_value(
    set: &Set<'_>,
    name: &ObjectName,
    key: &str,
    at: At<'_>,
    key_at: At<'_>,
    out: &mut Diagnostics,
) -> Option<String> {
    let Some(secret) = set.secrets.get(name) else {
        missing(set, ObjectKind::Secret, name, at, out);
        return None;
    };
    // `stringData` wins, as in Kubernetes.
    if let Some(value) = secret.raw.string_data.get(key) {
        return Some(value.clone());
    }
    let Some(encoded) = secret.raw.data.get(key) else {
        out.error(
            key_at,
            "missing-reference",
            format!("Secret {name} has no key `{key}`"),
        );
        return None;
    };
    let compact: String = encoded.split_ascii_whitespace().collect();
    let decoded = STANDARD
        .decode(compact)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    if decoded.is_none() {
        let place = secret.object.at().key("data").key(key);
        out.error(
            place,
            "bad-value",
            format!("`data.{key}` must be the base64 of UTF-8 text"),
        );
    }
    decoded
}

/// A credential, and whether it reads well.
pub(super) fn credential(
    set: &Set<'_>,
    object: &Object,
    raw: Option<&raw::Credential>,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<Credential> {
    let Some(raw) = raw else {
        return Some(Credential::None);
    };
    let given = [
        raw.secret_ref.is_some(),
        raw.passthrough.is_some(),
        raw.env.is_some(),
        raw.file.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        let message = "a credential is exactly one of `secretRef`, `passthrough`, `env` and `file`";
        out.error(at, "bad-credential", message);
        return None;
    }
    if let Some(passthrough) = raw.passthrough {
        return Some(if passthrough {
            Credential::Passthrough
        } else {
            Credential::None
        });
    }
    if let Some(env) = &raw.env {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if env.is_empty()
            || !env.bytes().all(valid)
            || env.starts_with(|c: char| c.is_ascii_digit())
        {
            out.error(
                at.key("env"),
                "bad-credential",
                "`env` must be the name of an environment variable",
            );
            return None;
        }
        return Some(Credential::Env(env.clone()));
    }
    if let Some(file) = &raw.file {
        if file.is_empty() {
            out.error(at.key("file"), "bad-credential", "`file` must be a path");
            return None;
        }
        return Some(Credential::File(file.into()));
    }
    let secret_ref = raw.secret_ref.as_ref()?;
    let at = at.key("secretRef");
    let name = named(secret_ref.namespace.as_deref(), &secret_ref.name, object);
    if !granted(
        set,
        From::object(object),
        ObjectKind::Secret,
        &name,
        at,
        out,
    ) {
        return None;
    }
    let key = &secret_ref.key;
    let value = secret_value(set, &name, key, at.key("name"), at.key("key"), out)?;
    // Editors and `echo` leave a line feed behind.
    let value = value.trim();
    if value.is_empty() || !value.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        let message =
            format!("key `{key}` of Secret {name} must be visible ASCII text without spaces");
        out.error(at.key("key"), "bad-credential", message);
        return None;
    }
    Some(Credential::Inline(Secret::new(value.to_owned())))
}

/// The name of another object, by default in the same namespace.
pub(super) fn named(namespace: Option<&str>, name: &str, object: &Object) -> ObjectName {
    ObjectName::new(namespace.unwrap_or(&object.name.namespace), name)
}

/// PEM roots, from one or several objects.
pub(super) fn roots(
    set: &Set<'_>,
    object: &Object,
    refs: &[CertificateRef],
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<String> {
    let mut pem = String::new();
    let mut whole = true;
    for (index, reference) in refs.iter().enumerate() {
        match root(set, object, reference, at.index(index), out) {
            Some(text) => {
                pem.push_str(text.trim());
                pem.push('\n');
            }
            None => whole = false,
        }
    }
    whole.then_some(pem)
}

fn root(
    set: &Set<'_>,
    object: &Object,
    reference: &CertificateRef,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<String> {
    let kind = match reference.kind.as_deref() {
        None | Some("Secret") => ObjectKind::Secret,
        Some("ConfigMap") => ObjectKind::ConfigMap,
        Some(other) => {
            let message = format!("`{other}` is not one of `Secret`, `ConfigMap`");
            out.error(at.key("kind"), "unknown-value", message);
            return None;
        }
    };
    core_group(reference, at, out)?;
    let name = named(reference.namespace.as_deref(), &reference.name, object);
    if !granted(set, From::object(object), kind, &name, at, out) {
        return None;
    }
    let at = at.key("name");
    let pem = if kind == ObjectKind::Secret {
        secret_value(set, &name, "ca.crt", at, at, out)?
    } else {
        let Some(map) = set.config_maps.get(&name) else {
            missing(set, kind, &name, at, out);
            return None;
        };
        let Some(pem) = map.raw.data.get("ca.crt") else {
            out.error(
                at,
                "missing-reference",
                format!("ConfigMap {name} has no key `ca.crt`"),
            );
            return None;
        };
        pem.clone()
    };
    is_pem(
        &pem,
        "CERTIFICATE",
        &format!("`ca.crt` of {} {name}", kind.as_str()),
        at,
        out,
    )
    .then_some(pem)
}

/// The certificate chain and private key of a TLS Secret.
pub(super) fn certificate(
    set: &Set<'_>,
    object: &Object,
    reference: &CertificateRef,
    at: At<'_>,
    out: &mut Diagnostics,
) -> Option<(String, Secret<String>)> {
    if let Some(other) = reference.kind.as_deref().filter(|kind| *kind != "Secret") {
        let message = format!("`{other}` is not one of `Secret`");
        out.error(at.key("kind"), "unknown-value", message);
        return None;
    }
    core_group(reference, at, out)?;
    let name = named(reference.namespace.as_deref(), &reference.name, object);
    if !granted(
        set,
        From::object(object),
        ObjectKind::Secret,
        &name,
        at,
        out,
    ) {
        return None;
    }
    let at = at.key("name");
    let chain = secret_value(set, &name, "tls.crt", at, at, out);
    let key = secret_value(set, &name, "tls.key", at, at, out);
    let (chain, key) = (chain?, key?);
    let chain_ok = is_pem(
        &chain,
        "CERTIFICATE",
        &format!("`tls.crt` of Secret {name}"),
        at,
        out,
    );
    let key_ok = is_pem(
        &key,
        "PRIVATE KEY",
        &format!("`tls.key` of Secret {name}"),
        at,
        out,
    );
    (chain_ok && key_ok).then(|| (chain, Secret::new(key)))
}

fn core_group(reference: &CertificateRef, at: At<'_>, out: &mut Diagnostics) -> Option<()> {
    match reference.group.as_deref() {
        None | Some("") => Some(()),
        Some(other) => {
            let message = format!("group `{other}` is not the core group; leave `group` empty");
            out.error(at.key("group"), "unknown-value", message);
            None
        }
    }
}

/// Whether there is a PEM block of the kind; the gateway reads what is in it.
fn is_pem(text: &str, kind: &str, what: &str, at: At<'_>, out: &mut Diagnostics) -> bool {
    let begins = text.lines().any(|line| {
        line.trim()
            .strip_prefix("-----BEGIN ")
            .is_some_and(|rest| rest.ends_with(&format!("{kind}-----")))
    });
    if !begins {
        out.error(
            at,
            "bad-certificate",
            format!("{what} holds no PEM block of kind {kind}"),
        );
    }
    begins
}

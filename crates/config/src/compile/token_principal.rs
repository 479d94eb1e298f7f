//! Which tokens give callers of a listener their identity.

use std::sync::Arc;

use super::set::Set;
use super::{http, jwt_keys, refs};
use crate::jwt::{JwtLocations, TokenForm, TokenPrincipal};
use crate::object::{At, Diagnostics, Object};
use crate::raw::parameters as raw;
use crate::snapshot::Parameters;

/// The listener that takes them.
pub(super) struct Place<'c> {
    pub(super) set: &'c Set<'c>,
    /// The WaypointParameters.
    pub(super) object: &'c Object,
    pub(super) parameters: &'c Parameters,
    pub(super) at: At<'c>,
    /// Whether callers may show certificates.
    pub(super) has_certificates: bool,
    /// Whether everybody is taken to be the developer.
    pub(super) has_developer: bool,
    /// Whether what is sent there can be read on its way.
    pub(super) in_clear: bool,
}

impl Place<'_> {
    pub(super) fn compile(
        &self,
        written: &[raw::TokenPrincipal],
        out: &mut Diagnostics,
    ) -> Vec<Arc<TokenPrincipal>> {
        if written.is_empty() {
            return Vec::new();
        }
        // One caller must not be two.
        let other = match (self.has_certificates, self.has_developer) {
            (true, _) => Some("client certificates"),
            (_, true) => Some("a developer identity"),
            _ => None,
        };
        if let Some(other) = other {
            let message = format!("a listener has either {other} or `tokenPrincipals`");
            out.error(self.at, "bad-listener", message);
        }
        if self.in_clear {
            let message = "tokens come in clear text here: whoever reads one can be its owner; use \
                           protocol HTTPS";
            out.warning(self.at, "tokens-in-clear", message);
        }
        let written = written.iter().enumerate();
        let compiled = written.filter_map(|(index, raw)| self.one(raw, self.at.index(index), out));
        compiled.map(Arc::new).collect()
    }

    fn one(
        &self,
        raw: &raw::TokenPrincipal,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Option<TokenPrincipal> {
        let mark = out.len();
        let has_keys = raw.jwks.is_some() || raw.jwks_uri.is_some();
        let needs_issuer = raw.kind == raw::TokenKind::ServiceAccount || !has_keys;
        if raw.issuer.as_deref().is_some_and(str::is_empty)
            || (raw.issuer.is_none() && needs_issuer)
        {
            let message = "`issuer` must be set; only tokens of type SPIFFE whose keys are given go \
                           without";
            out.error(at.key("issuer"), "missing-field", message);
        }
        if raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty) {
            let message = "`audiences` must name us: a token that was made for somebody else is \
                           nobody's identity here";
            out.error(at.key("audiences"), "missing-field", message);
        }
        let refs = &raw.ca_certificate_refs;
        let roots_at = at.key("caCertificateRefs");
        let roots_pem = match refs.is_empty() {
            true => None,
            false => refs::roots(self.set, self.object, refs, roots_at, out),
        };
        let keys = jwt_keys::Source {
            issuer: raw.issuer.as_deref(),
            jwks: raw.jwks.as_deref(),
            jwks_uri: raw.jwks_uri.as_deref(),
            timeout: raw.timeout,
            roots_pem,
        };
        let keys = keys.keys(self.parameters, at, out);
        let mut headers = Vec::new();
        for (index, header) in raw.from_headers.iter().enumerate() {
            let at = at.key("fromHeaders").index(index).key("name");
            let name = http::header_name(&header.name, at, out);
            headers.extend(name.map(|name| (name, header.prefix.clone())));
        }
        if headers.is_empty() {
            headers.push(("authorization".to_owned(), "Bearer ".to_owned()));
        }
        (!out.errors_since(mark)).then_some(TokenPrincipal {
            form: match raw.kind {
                raw::TokenKind::ServiceAccount => TokenForm::ServiceAccount,
                raw::TokenKind::Spiffe => TokenForm::Spiffe,
            },
            issuer: raw.issuer.clone(),
            audiences: raw.audiences.clone(),
            keys: keys?,
            locations: JwtLocations {
                headers,
                ..JwtLocations::default()
            },
            forward: raw.forward_original_token,
        })
    }
}

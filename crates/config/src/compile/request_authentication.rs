//! Istio's `RequestAuthentication`: which tokens are verified, and with whose keys.

use waypoint_policy::{Kind, ObjectName, ObjectRef};

use super::authorization::{self, Mesh};
use super::gateway::Chosen;
use super::jwt_keys;
use super::set::{Decoded, Set};
use crate::jwt::{JwtKeys, JwtLocations, JwtRule, RequestAuthentication};
use crate::object::{At, Diagnostics};
use crate::raw::authorization::Selector;
use crate::raw::request_authentication as raw;

pub(super) fn compile(
    set: &Set<'_>,
    chosen: &Chosen<'_>,
    mesh: &Mesh<'_>,
    addressed: &[(String, ObjectRef)],
    out: &mut Diagnostics,
) -> Vec<RequestAuthentication> {
    let mut compiled = Vec::new();
    for decoded in set.authentication.values() {
        let one = One {
            set,
            chosen,
            mesh,
            decoded,
        };
        let Some(targets) = one.targets(out) else {
            continue;
        };
        let at = decoded.object.spec().key("jwtRules");
        let rules = decoded.raw.spec.jwt_rules.iter().enumerate();
        let rules: Vec<JwtRule> = rules
            .filter_map(|(index, rule)| one.rule(rule, at.index(index), out))
            .collect();
        let class = ObjectName::new("", super::GATEWAY_CLASS);
        let always = targets.iter().any(|target| match target.kind {
            Kind::Gateway => target.name == chosen.name,
            Kind::GatewayClass => target.name == class,
            _ => false,
        });
        let hosts = addressed.iter();
        let hosts = hosts.filter(|(_, object)| targets.contains(object));
        compiled.push(RequestAuthentication {
            name: decoded.object.name.clone(),
            always,
            hosts: hosts.map(|(host, _)| host.clone()).collect(),
            rules,
        });
    }
    compiled
}

struct One<'c> {
    set: &'c Set<'c>,
    chosen: &'c Chosen<'c>,
    mesh: &'c Mesh<'c>,
    decoded: &'c Decoded<'c, raw::Object>,
}

impl One<'_> {
    fn targets(&self, out: &mut Diagnostics) -> Option<Vec<ObjectRef>> {
        let (object, spec) = (self.decoded.object, &self.decoded.raw.spec);
        let at = object.spec();
        if spec.target_ref.is_none() && spec.target_refs.is_empty() {
            let selects = |selector: &Selector| selector.selects();
            let how = match spec.selector.as_ref().is_some_and(selects) {
                true => "a selector",
                false => "no targetRefs",
            };
            let message = format!(
                "RequestAuthentication {} has {how}: a waypoint does not apply it; give it \
                 `targetRefs`",
                object.name
            );
            out.warning(object.name_at(), "not-for-waypoints", message);
            return None;
        }
        if spec.selector.is_some() || (spec.target_ref.is_some() && !spec.target_refs.is_empty()) {
            let message = "only one of `targetRefs`, `targetRef` and `selector` can be set";
            out.error(at, "bad-value", message);
            return None;
        }
        let mut targets = Vec::new();
        let mut add = |reference, at| {
            let found = authorization::target(self.set, self.mesh, object, reference, at, out);
            targets.extend(found);
        };
        if let Some(reference) = &spec.target_ref {
            add(reference, at.key("targetRef"));
        }
        for (index, reference) in spec.target_refs.iter().enumerate() {
            add(reference, at.key("targetRefs").index(index));
        }
        Some(targets)
    }

    fn rule(&self, raw: &raw::JwtRule, at: At<'_>, out: &mut Diagnostics) -> Option<JwtRule> {
        let mark = out.len();
        match (&raw.issuer, &raw.jwks_uri) {
            // The first is refused by the schema, the second by the webhook.
            (Some(issuer), _) if issuer.is_empty() => {
                let message = "`issuer` must not be empty: without one, tokens of any issuer count \
                               that a key of `jwksUri` signed";
                out.error(at.key("issuer"), "bad-value", message);
            }
            (None, None) => {
                let message = "`issuer` or `jwksUri` must be set";
                out.error(at, "missing-field", message);
            }
            _ => {}
        }
        for (index, audience) in raw.audiences.iter().enumerate() {
            if audience.is_empty() {
                let at = at.key("audiences").index(index);
                out.error(at, "bad-value", "an audience must not be empty");
            }
        }
        let keys = self.keys(raw, at, out);
        let mut headers = Vec::new();
        for (index, header) in raw.from_headers.iter().enumerate() {
            let at = at.key("fromHeaders").index(index).key("name");
            let name = header_name(&header.name, at, out);
            headers.extend(name.map(|name| (name, header.prefix.clone())));
        }
        let mut claim_headers = Vec::new();
        for (index, output) in raw.output_claim_to_headers.iter().enumerate() {
            let at = at.key("outputClaimToHeaders").index(index);
            if output.claim.is_empty() {
                out.error(at.key("claim"), "missing-field", "`claim` must be set");
            }
            let path = output.claim.split('.').map(Into::into).collect();
            let name = header_name(&output.header, at.key("header"), out);
            claim_headers.extend(name.map(|name| (name, path)));
        }
        let payload = raw.output_payload_to_header.as_deref();
        let payload_header =
            payload.and_then(|name| header_name(name, at.key("outputPayloadToHeader"), out));
        for (field, names) in [
            ("fromParams", &raw.from_params),
            ("fromCookies", &raw.from_cookies),
        ] {
            for (index, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                let message = format!("`{field}` must not have an empty name");
                out.error(at.key(field).index(index), "bad-value", message);
            }
        }
        let mut locations = JwtLocations {
            headers,
            params: raw.from_params.clone(),
            cookies: raw.from_cookies.clone(),
        };
        if locations.is_empty() {
            locations.headers = vec![("authorization".to_owned(), "Bearer ".to_owned())];
            locations.params = vec!["access_token".to_owned()];
        }
        (!out.errors_since(mark)).then_some(JwtRule {
            issuer: raw.issuer.clone(),
            audiences: raw.audiences.clone(),
            keys: keys?,
            locations,
            forward: raw.forward_original_token,
            payload_header,
            claim_headers,
            space_delimited: raw.space_delimited_claims.clone(),
        })
    }

    fn keys(&self, raw: &raw::JwtRule, at: At<'_>, out: &mut Diagnostics) -> Option<JwtKeys> {
        let source = jwt_keys::Source {
            issuer: raw.issuer.as_deref(),
            jwks: raw.jwks.as_deref(),
            jwks_uri: raw.jwks_uri.as_deref(),
            timeout: raw.timeout,
            roots_pem: None,
        };
        source.keys(&self.chosen.parameters, at, out)
    }
}

fn header_name(name: &str, at: At<'_>, out: &mut Diagnostics) -> Option<String> {
    super::http::header_name(name, at, out)
}

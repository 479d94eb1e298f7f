//! The fields of a rule, value by value.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use waypoint_policy::istio::{
    Attribute, PathTemplate, Test, TextMatch, Value, expand_principal, expand_trust_domain,
};

use crate::PathNormalization;
use crate::object::{At, Diagnostics};
use crate::raw::authorization as raw;

/// Istio's bounds on `serviceAccounts`.
const ACCOUNTS_MAX: usize = 16;
const ACCOUNT_MAX_BYTES: usize = 320;

/// Reads the fields of one policy's rules.
pub(super) struct Reader<'r> {
    /// The policy's own namespace.
    pub(super) namespace: &'r str,
    /// Our trust domain, then its aliases.
    pub(super) trust_domains: &'r [Box<str>],
    /// The form that paths of requests are matched in.
    pub(super) paths: PathNormalization,
}

/// A field: its name, its values, the name of its `not` form, its values.
type Field<'r> = (
    Attribute,
    &'static str,
    &'r [String],
    &'static str,
    &'r [String],
);

impl Reader<'_> {
    pub(super) fn source(
        &self,
        raw: Option<&raw::Source>,
        index: usize,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Vec<Test> {
        let Some(raw) = raw else {
            out.error(at, "missing-field", "`from.source` must be set");
            return Vec::new();
        };
        let accounts = [&raw.service_accounts, &raw.not_service_accounts];
        let others = [
            &raw.principals,
            &raw.not_principals,
            &raw.namespaces,
            &raw.not_namespaces,
        ];
        if accounts.iter().any(|list| !list.is_empty())
            && others.iter().any(|list| !list.is_empty())
        {
            let message = "`serviceAccounts` cannot be set with `principals` or `namespaces`";
            out.error(at.key("serviceAccounts"), "bad-value", message);
        }
        if accounts.iter().any(|list| list.len() > ACCOUNTS_MAX) {
            let message = format!("`serviceAccounts` has more than {ACCOUNTS_MAX} values");
            out.error(at.key("serviceAccounts"), "bad-value", message);
        }
        let fields: [Field<'_>; 7] = [
            (
                Attribute::Principal,
                "principals",
                &raw.principals,
                "notPrincipals",
                &raw.not_principals,
            ),
            (
                Attribute::RequestPrincipal,
                "requestPrincipals",
                &raw.request_principals,
                "notRequestPrincipals",
                &raw.not_request_principals,
            ),
            (
                Attribute::Namespace,
                "namespaces",
                &raw.namespaces,
                "notNamespaces",
                &raw.not_namespaces,
            ),
            (
                Attribute::ServiceAccount,
                "serviceAccounts",
                &raw.service_accounts,
                "notServiceAccounts",
                &raw.not_service_accounts,
            ),
            (
                Attribute::TrustDomain,
                "trustDomains",
                &raw.trust_domains,
                "notTrustDomains",
                &raw.not_trust_domains,
            ),
            (
                Attribute::SourceIp,
                "ipBlocks",
                &raw.ip_blocks,
                "notIpBlocks",
                &raw.not_ip_blocks,
            ),
            (
                Attribute::RemoteIp,
                "remoteIpBlocks",
                &raw.remote_ip_blocks,
                "notRemoteIpBlocks",
                &raw.not_remote_ip_blocks,
            ),
        ];
        let prefix = format!("from[{index}].source");
        self.fields(&fields, &prefix, "`from.source`", at, out)
    }

    pub(super) fn operation(
        &self,
        raw: Option<&raw::Operation>,
        index: usize,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Vec<Test> {
        let Some(raw) = raw else {
            out.error(at, "missing-field", "`to.operation` must be set");
            return Vec::new();
        };
        let fields: [Field<'_>; 4] = [
            (
                Attribute::DestinationPort,
                "ports",
                &raw.ports,
                "notPorts",
                &raw.not_ports,
            ),
            (
                Attribute::Method,
                "methods",
                &raw.methods,
                "notMethods",
                &raw.not_methods,
            ),
            (
                Attribute::Host,
                "hosts",
                &raw.hosts,
                "notHosts",
                &raw.not_hosts,
            ),
            (
                Attribute::Path,
                "paths",
                &raw.paths,
                "notPaths",
                &raw.not_paths,
            ),
        ];
        let prefix = format!("to[{index}].operation");
        self.fields(&fields, &prefix, "`to.operation`", at, out)
    }

    fn fields(
        &self,
        fields: &[Field<'_>],
        prefix: &str,
        title: &str,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Vec<Test> {
        let mut tests = Vec::new();
        for (attribute, name, values, not_name, not_values) in fields {
            if values.is_empty() && not_values.is_empty() {
                continue;
            }
            tests.push(Test {
                attribute: attribute.clone(),
                field: format!("{prefix}.{name}").into(),
                values: self.values(attribute, values, at.key(name), out),
                not_values: self
                    .values(attribute, not_values, at.key(not_name), out)
                    .unwrap_or_default(),
            });
        }
        if tests.is_empty() {
            out.error(at, "empty-list", format!("{title} must not be empty"));
        }
        tests
    }

    pub(super) fn condition(
        &self,
        raw: &raw::Condition,
        index: usize,
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Test {
        let attribute = match attribute(&raw.key) {
            Ok(attribute) => attribute,
            Err(why) => {
                out.error(at.key("key"), "unknown-value", why);
                Attribute::Unknown(raw.key.as_str().into())
            }
        };
        if raw.values.is_empty() && raw.not_values.is_empty() {
            let message = "a condition needs at least one of `values` and `notValues`";
            out.error(at, "empty-list", message);
        }
        let values = self.values(&attribute, &raw.values, at.key("values"), out);
        let not_values = self.values(&attribute, &raw.not_values, at.key("notValues"), out);
        Test {
            attribute,
            field: format!("when[{index}] {}", raw.key).into(),
            values,
            not_values: not_values.unwrap_or_default(),
        }
    }

    /// The values of a list; `None` for one that is not there.
    fn values(
        &self,
        attribute: &Attribute,
        list: &[String],
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Option<Vec<Value>> {
        if list.is_empty() {
            return None;
        }
        let mut values = Vec::new();
        for (index, text) in list.iter().enumerate() {
            match self.value(attribute, text) {
                Ok(read) => values.extend(read),
                Err(why) => {
                    out.error(at.index(index), "bad-value", why);
                    values.push(Value::Unusable(text.as_str().into()));
                }
            }
        }
        Some(values)
    }

    /// What one value stands for.
    fn value(&self, attribute: &Attribute, text: &str) -> Result<Vec<Value>, String> {
        // An empty header value is a value; anything else empty is a slip that Istio refuses.
        if text.is_empty() && !matches!(attribute, Attribute::Header(_)) {
            return Err("a value must not be empty".to_owned());
        }
        let texts = |texts: Vec<String>| {
            let texts = texts.iter().map(|text| Value::Text(TextMatch::new(text)));
            Ok(texts.collect())
        };
        let one = |value| Ok(vec![value]);
        match attribute {
            Attribute::Principal => {
                if text.starts_with("spiffe://") {
                    return Err(format!(
                        "write `{text}` without `spiffe://`; with it nobody matches"
                    ));
                }
                texts(expand_principal(text, self.trust_domains))
            }
            Attribute::TrustDomain => texts(expand_trust_domain(text, self.trust_domains)),
            Attribute::Namespace => one(Value::Namespace(
                text.parse().map_err(|error| format!("{error}"))?,
            )),
            Attribute::ServiceAccount => one(self.account(text)?),
            Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => {
                one(Value::Network(network(text)?))
            }
            Attribute::DestinationPort => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
                let port = port.ok_or_else(|| format!("`{text}` is not a port, 1 to 65535"))?;
                one(Value::Port(port))
            }
            Attribute::Host => one(Value::Text(TextMatch::lower(text))),
            Attribute::Path if !PathTemplate::is_one(text) => {
                one(Value::Text(path(self.paths, text)?))
            }
            Attribute::Path => {
                // What is no operator must be as paths of requests come out.
                normal(self.paths, &text.replace("{**}", "x").replace("{*}", "x"))?;
                let template = PathTemplate::new(text);
                one(Value::Template(
                    template.map_err(|error| format!("`{text}`: {error}"))?,
                ))
            }
            Attribute::RequestPrincipal => one(request_principal(text)?),
            _ => one(Value::Text(TextMatch::new(text))),
        }
    }

    /// `ns/sa`, or `sa` of the policy's own namespace.
    fn account(&self, text: &str) -> Result<Value, String> {
        if text.contains('*') {
            return Err(format!("`{text}`: `serviceAccounts` takes no wildcard"));
        }
        if text.len() > ACCOUNT_MAX_BYTES {
            return Err(format!(
                "a service account has at most {ACCOUNT_MAX_BYTES} bytes"
            ));
        }
        let (namespace, name) = text.split_once('/').unwrap_or((self.namespace, text));
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(format!("`{text}` is not `namespace/name` or `name`"));
        }
        Ok(Value::ServiceAccount {
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

/// A path or the beginning or end of one, in the form that paths of requests are matched in.
///
/// A value in another form would never match, and in a DENY that would let pass what it names.
fn path(form: PathNormalization, text: &str) -> Result<TextMatch, String> {
    Ok(match TextMatch::new(text) {
        TextMatch::Exact(path) => TextMatch::Exact(own_form(form, &path)?.into()),
        TextMatch::Prefix(path) if path.is_empty() => TextMatch::Present,
        TextMatch::Prefix(path) => TextMatch::Prefix(own_form(form, &path)?.into()),
        TextMatch::Suffix(path) => {
            let whole = format!("/{}", path.strip_prefix('/').unwrap_or(&path));
            normal(form, &whole)?;
            TextMatch::Suffix(path)
        }
        TextMatch::Present => TextMatch::Present,
    })
}

/// A path in normal form.
fn own_form(form: PathNormalization, path: &str) -> Result<String, String> {
    // A beginning that ends within a segment of dots, such as `/.`, is one of `/.well-known`.
    let open = path.ends_with("/.") || path.ends_with("/..");
    match form.normalize(path) {
        Ok(_) if open => Ok(path.to_owned()),
        Ok(normal) => Ok(normal.into_owned()),
        Err(error) => Err(format!("`{path}` matches no path: {error}")),
    }
}

/// Whether a path is in normal form.
fn normal(form: PathNormalization, path: &str) -> Result<(), String> {
    match own_form(form, path)? {
        normal if normal == path => Ok(()),
        normal => Err(format!(
            "`{path}` matches no path: it is matched as `{normal}`"
        )),
    }
}

/// An address or a range of them.
fn network(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse().ok(),
    };
    let net = net.ok_or_else(|| format!("`{text}` is neither an IP address nor a CIDR range"))?;
    // Addresses are compared as IPv4 where they are: also those that are written as IPv6.
    let mapped = match net {
        IpNet::V6(net) if net.prefix_len() >= 96 => net.addr().to_ipv4_mapped().map(|address| {
            let length = net.prefix_len() - 96;
            Ipv4Net::new_assert(address, length).into()
        }),
        _ => None,
    };
    Ok(mapped.unwrap_or(net))
}

/// `iss/sub`, split at the last slash as Istio does: `*` is a token with both, a star in front is
/// about the issuer, one at the end about the subject.
fn request_principal(text: &str) -> Result<Value, String> {
    if text == "*" {
        return Ok(Value::RequestPrincipal {
            issuer: TextMatch::Present,
            subject: TextMatch::Present,
        });
    }
    let Some((issuer, subject)) = text.rsplit_once('/') else {
        return Err(format!("`{text}` is not `issuer/subject`"));
    };
    let issuer = match issuer.strip_prefix('*') {
        Some("") => TextMatch::Present,
        Some(suffix) => TextMatch::Suffix(suffix.into()),
        None => TextMatch::Exact(issuer.into()),
    };
    let subject = match subject.strip_suffix('*') {
        Some("") => TextMatch::Present,
        Some(prefix) => TextMatch::Prefix(prefix.into()),
        None => TextMatch::Exact(subject.into()),
    };
    Ok(Value::RequestPrincipal { issuer, subject })
}

/// What a condition's key is about.
fn attribute(key: &str) -> Result<Attribute, String> {
    let in_brackets = |name: &str| -> Option<Vec<Box<str>>> {
        let inner = key
            .strip_prefix(name)?
            .strip_prefix('[')?
            .strip_suffix(']')?;
        let parts: Vec<Box<str>> = inner.split("][").map(Into::into).collect();
        let is_whole = |part: &str| !part.is_empty() && !part.contains(['[', ']']);
        parts.iter().all(|part| is_whole(part)).then_some(parts)
    };
    if key.starts_with("request.headers") {
        return match in_brackets("request.headers").as_deref() {
            // Envoy keeps these among the headers.
            Some([name]) if matches!(&*name.to_ascii_lowercase(), ":authority" | "host") => {
                Ok(Attribute::Host)
            }
            Some([name]) if &**name == ":method" => Ok(Attribute::Method),
            Some([name]) if name.starts_with(':') => {
                Err(format!("`{key}` cannot be asked for; use `to.operation`"))
            }
            Some([name]) => Ok(Attribute::Header(name.to_ascii_lowercase().into())),
            _ => Err(format!("`{key}` is not `request.headers[name]`")),
        };
    }
    if key.starts_with("request.auth.claims") {
        return in_brackets("request.auth.claims")
            .map(Attribute::Claim)
            .ok_or_else(|| format!("`{key}` is not `request.auth.claims[name]`"));
    }
    Ok(match key {
        "" => return Err("`key` must not be empty".to_owned()),
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "source.namespace" => Attribute::Namespace,
        "source.principal" => Attribute::Principal,
        "source.serviceAccount" => Attribute::ServiceAccount,
        "source.trustDomain" => Attribute::TrustDomain,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => Attribute::Audiences,
        "request.auth.presenter" => Attribute::Presenter,
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::Sni,
        key if key.starts_with("experimental.envoy.filters.") => {
            return Err(format!(
                "`{key}` is about Envoy's own filters, which are not here"
            ));
        }
        other => return Err(format!("`{other}` is not a condition that Istio knows")),
    })
}

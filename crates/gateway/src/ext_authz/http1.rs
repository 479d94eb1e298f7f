//! Envoy's HTTP contract: the authorizer gets a request like the caller's, and 200 allows.
//!
//! Source: Envoy `extensions/filters/http/ext_authz/v3` (`HttpService`), and what istiod makes of
//! `envoyExtAuthzHttp`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use tokio::time::Instant;
use waypoint_config::HttpAuthz;
use waypoint_policy::istio::TextMatch;

use super::changes::{Changes, How};
use super::query::QueryChanges;
use super::{ANSWER_MAX_BYTES, Asked, CheckError, Denial, Question, Said, denial_status};
use crate::exchange::{Answer, ExchangeError, RequestHead};
use crate::headers::is_hop_by_hop;

/// Headers of the caller that go upstream no longer, named by an answer that allows.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Tells an authorizer whether it sees the whole body.
const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// The caller's request as the authorizer sees it.
pub(super) fn question(
    authorizer: &HttpAuthz,
    asked: &Asked<'_>,
) -> Result<Question, ExchangeError> {
    let body = asked.body.as_ref().map(|(body, _)| body.clone());
    let body = body.unwrap_or_default();
    let head = head(authorizer, asked, &body)?;
    Ok(Question { head, body })
}

/// What an answer means; of its body what comes until then.
pub(super) async fn said(
    authorizer: &HttpAuthz,
    mut answer: Box<Answer>,
    until: Instant,
) -> Result<Said, CheckError> {
    let status = answer.status();
    if (500..600).contains(&status) {
        return Err(CheckError::Status(status));
    }
    let headers = answer.take_headers();
    // Read also where nobody looks at it, so that the connection can be kept.
    let body = tokio::time::timeout_at(until, answer.body(ANSWER_MAX_BYTES)).await;
    Ok(match status {
        200 => allowed(authorizer, &headers),
        _ => Said::Deny(Denial {
            status: denial_status(status),
            headers: denied(authorizer, &headers),
            // A denial stays one, whatever becomes of its words.
            body: body.ok().and_then(Result::ok).unwrap_or_default(),
            failed: false,
        }),
    })
}

/// The caller's method, host and path, and of its headers those that were asked for.
fn head(
    authorizer: &HttpAuthz,
    asked: &Asked<'_>,
    body: &Bytes,
) -> Result<RequestHead, ExchangeError> {
    let request = asked.session.req_header();
    let method = Method::from_bytes(asked.head.method.as_bytes());
    let target = format!("{}{}", authorizer.path_prefix, asked.target());
    let mut out = RequestHead::new(method.map_err(|_| ExchangeError::Malformed)?, &target)?;
    out.push(&header::HOST, asked.head.authority.as_bytes())?;
    let mut length = itoa::Buffer::new();
    out.push(
        &header::CONTENT_LENGTH,
        length.format(body.len()).as_bytes(),
    )?;
    let own = |name: &HeaderName| {
        let mut additional = authorizer.additional_headers.iter();
        *name == PARTIAL || additional.any(|(own, _)| name == own.as_str())
    };
    for (name, value) in &request.headers {
        let wanted = name == header::AUTHORIZATION || any(&authorizer.request_headers, name);
        if wanted && !is_hop_by_hop(name) && name != header::HOST && !own(name) {
            out.push(name, value.as_bytes())?;
        }
    }
    for (name, value) in &authorizer.additional_headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        out.push(
            &name.map_err(|_| ExchangeError::Malformed)?,
            value.as_bytes(),
        )?;
    }
    if let Some((_, is_partial)) = &asked.body {
        let partial: &[u8] = if *is_partial { b"true" } else { b"false" };
        out.push(&PARTIAL, partial)?;
    }
    Ok(out)
}

fn any(names: &[TextMatch], name: &HeaderName) -> bool {
    names
        .iter()
        .any(|known| known.matches(name.as_str().as_bytes()))
}

fn allowed(authorizer: &HttpAuthz, headers: &HeaderMap) -> Said {
    let (mut request, mut answer) = (Changes::default(), Changes::default());
    for name in headers.keys() {
        // The first replaces what the caller sent, the others stand beside it.
        for (index, value) in headers.get_all(name).iter().enumerate() {
            if any(&authorizer.to_upstream_on_allow, name) {
                let how = if index == 0 { How::Set } else { How::Append };
                request.put(name.clone(), value.clone(), how);
            }
            if any(&authorizer.to_downstream_on_allow, name) {
                answer.put(name.clone(), value.clone(), How::Append);
            }
        }
    }
    let removed = headers.get_all(TO_REMOVE).iter();
    let removed = removed.filter_map(|value| value.to_str().ok());
    for name in removed.flat_map(|value| value.split(',')) {
        if let Ok(name) = name.trim().parse() {
            request.remove(name);
        }
    }
    Said::Allow {
        request,
        // Envoy's contract over HTTP has no word for it.
        query: QueryChanges::default(),
        answer,
    }
}

fn denied(authorizer: &HttpAuthz, headers: &HeaderMap) -> HeaderMap {
    let list = &authorizer.to_downstream_on_deny;
    let passes = |name: &HeaderName| {
        // Envoy adds these to every list.
        let always = [header::LOCATION, header::WWW_AUTHENTICATE].contains(name);
        let listed = list.is_empty() || always || any(list, name);
        listed && !is_hop_by_hop(name) && name != header::HOST
    };
    let passing = headers.iter().filter(|(name, _)| passes(name));
    passing
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

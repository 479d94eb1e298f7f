//! `envoy.service.auth.v3.Authorization/Check` over HTTP/2.
//!
//! Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md), and Envoy's ext_authz filter for what an
//! answer means.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use prost::Message;
use waypoint_config::ExtAuthz;

use super::changes::{Changes, How};
use super::proto::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpRequest, HttpResponse, OkHttpResponse, Peer, Request, SocketAddress, Timestamp,
};
use super::query::QueryChanges;
use super::{ANSWER_MAX_BYTES, Asked, CheckError, Denial, Question, Said, denial_status};
use crate::exchange::{Answer, ExchangeError, RequestHead, Upstream};
use crate::headers::is_hop_by_hop;
use crate::pipeline::llm::own_fields;

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;
/// What `grpc-timeout` can say, in milliseconds: eight digits.
const TIMEOUT_MAX_MS: u128 = 99_999_999;
/// Tells an authorizer whether it sees the whole body.
const PARTIAL: &str = "x-envoy-auth-partial-body";

/// The call of `Check`.
pub(super) fn question(
    authorizer: &ExtAuthz,
    upstream: &Upstream,
    asked: &Asked<'_>,
) -> Result<Question, ExchangeError> {
    let as_bytes = authorizer.body.is_some_and(|body| body.as_bytes);
    let body = framed(&request(asked, as_bytes));
    let mut head = RequestHead::new(Method::POST, PATH)?;
    own_fields(&mut head, upstream.endpoint(), &body)?;
    head.push(&header::TE, b"trailers")?;
    head.push(&header::CONTENT_TYPE, b"application/grpc")?;
    let timeout = authorizer.timeout.as_millis().clamp(1, TIMEOUT_MAX_MS);
    let name = HeaderName::from_static("grpc-timeout");
    head.push(&name, format!("{timeout}m").as_bytes())?;
    Ok(Question { head, body })
}

/// What an answer means.
pub(super) async fn said(mut answer: Box<Answer>) -> Result<Said, CheckError> {
    if answer.status() != 200 {
        return Err(CheckError::Status(answer.status()));
    }
    let headers = answer.take_headers();
    let (body, trailers) = answer.body_with_trailers(ANSWER_MAX_BYTES).await?;
    // An answer without a message has its status among the headers.
    let status = trailers.get("grpc-status").or(headers.get("grpc-status"));
    let status = status.and_then(|status| status.to_str().ok()?.parse().ok());
    match status {
        Some(0) => {}
        Some(code) => return Err(CheckError::Grpc(code)),
        None => return Err(CheckError::NotUnderstood),
    }
    let message = message(&body).ok_or(CheckError::NotUnderstood)?;
    let response = CheckResponse::decode(message).map_err(|_| CheckError::NotUnderstood)?;
    verdict(response)
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    // A request's body is far below this.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.extend_from_slice(&message.encode_to_vec());
    out.freeze()
}

/// The one message of an answer; compressed ones were not asked for.
fn message(body: &Bytes) -> Option<Bytes> {
    let (prefix, _) = body.split_first_chunk::<PREFIX_BYTES>()?;
    let [0, length @ ..] = *prefix else {
        return None;
    };
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let message = body.slice(PREFIX_BYTES..);
    (message.len() == length).then_some(message)
}

fn request(asked: &Asked<'_>, as_bytes: bool) -> CheckRequest {
    let request = asked.session.req_header();
    let path = asked.target();
    let scheme = match asked.is_tls {
        true => "https",
        false => "http",
    };
    let mut headers = fields(&request.headers);
    // As Envoy has them, which policies written for it read.
    for (name, value) in [
        (":method", &*asked.head.method),
        (":path", &*path),
        (":authority", &*asked.head.authority),
        (":scheme", scheme),
    ] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let (body, is_partial) = match &asked.body {
        None => (Bytes::new(), None),
        Some((body, is_partial)) => (body.clone(), Some(*is_partial)),
    };
    if let Some(is_partial) = is_partial {
        headers.insert(PARTIAL.to_owned(), is_partial.to_string());
    }
    let size = request.headers.get(header::CONTENT_LENGTH);
    let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
    let (text, raw_body) = match as_bytes {
        true => (String::new(), body),
        false => (String::from_utf8_lossy(&body).into_owned(), Bytes::new()),
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(address(asked.connection.peer)),
                principal: asked.principal.to_owned(),
            }),
            destination: Some(Peer {
                address: Some(address(asked.connection.local)),
                principal: String::new(),
            }),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(now.subsec_nanos()).unwrap_or_default(),
                }),
                http: Some(HttpRequest {
                    id: asked.request_id.to_owned(),
                    method: asked.head.method.to_string(),
                    headers,
                    path,
                    host: asked.head.authority.to_string(),
                    scheme: scheme.to_owned(),
                    size: size.unwrap_or(-1),
                    protocol: protocol(request.version).to_owned(),
                    body: text,
                    raw_body,
                }),
            }),
        }),
    }
}

/// Header fields by name; several of a name are joined (RFC 9110 §5.3).
fn fields(headers: &HeaderMap) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = HashMap::with_capacity(headers.len() + 5);
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let field = fields.entry(name.as_str().to_owned());
        field
            .and_modify(|known| {
                // RFC 9113 §8.2.3 for cookies.
                known.push_str(if name == header::COOKIE { "; " } else { "," });
                known.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    fields
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn address(address: SocketAddr) -> Address {
    Address {
        socket_address: Some(SocketAddress {
            address: address.ip().to_canonical().to_string(),
            port_value: address.port().into(),
        }),
    }
}

fn verdict(response: CheckResponse) -> Result<Said, CheckError> {
    // Without a status its code is 0, as for every absent field.
    let code = response.status.map_or(0, |status| status.code);
    match (code, response.http_response) {
        (0, Some(HttpResponse::Ok(ok))) => allowed(ok),
        (0, None) => allowed(OkHttpResponse::default()),
        // Who says both does not allow.
        (_, Some(HttpResponse::Denied(denied))) => Ok(Said::Deny(self::denied(denied))),
        (_, _) => Ok(Said::Deny(denied(DeniedHttpResponse::default()))),
    }
}

fn allowed(ok: OkHttpResponse) -> Result<Said, CheckError> {
    let set = ok.query_parameters_to_set.into_iter();
    let set = set.map(|parameter| (parameter.key, parameter.value));
    let query = QueryChanges::new(set, &ok.query_parameters_to_remove)?;
    let (mut request, mut answer) = (Changes::default(), Changes::default());
    for option in ok.headers {
        let how = how(&option, How::Set);
        let (name, value) = field(option)?;
        request.put(name, value, how);
    }
    for name in ok.headers_to_remove {
        // What names no header, as a pseudo-header does not, cannot be removed.
        if let Ok(name) = name.parse() {
            request.remove(name);
        }
    }
    for option in ok.response_headers_to_add {
        let how = how(&option, How::Append);
        let (name, value) = field(option)?;
        answer.put(name, value, how);
    }
    Ok(Said::Allow {
        request,
        query,
        answer,
    })
}

/// A denial stays one, whatever is wrong with the headers it comes with.
fn denied(denied: DeniedHttpResponse) -> Denial {
    let mut headers = HeaderMap::new();
    for option in denied.headers {
        let how = how(&option, How::Set);
        let Ok((name, value)) = field(option) else {
            continue;
        };
        match (is_hop_by_hop(&name), how) {
            (true, _) => {}
            (false, How::Append) => drop(headers.append(name, value)),
            (false, _) => drop(headers.insert(name, value)),
        }
    }
    let status = denied.status.map_or(0, |status| status.code);
    Denial {
        status: denial_status(u16::try_from(status).unwrap_or_default()),
        headers,
        body: denied.body,
        failed: false,
    }
}

/// `append` is the older way to say it, and goes first; 0 is no word at all.
fn how(option: &HeaderValueOption, default: How) -> How {
    match (option.append, option.append_action) {
        (Some(true), _) => How::Append,
        (Some(false), _) => How::Set,
        (None, 1) => How::IfAbsent,
        (None, 2) => How::Set,
        (None, 3) => How::IfPresent,
        (None, _) => default,
    }
}

fn field(option: HeaderValueOption) -> Result<(HeaderName, HeaderValue), CheckError> {
    let header = option.header.ok_or(CheckError::NotUnderstood)?;
    // A pseudo-header has no such name: whom a request is for is not changed here.
    let name = HeaderName::from_bytes(header.key.as_bytes());
    let name = name.map_err(|_| CheckError::Change("the name of a header"))?;
    if name == header::HOST {
        return Err(CheckError::Change("the host"));
    }
    let value = match header.value.is_empty() {
        true => header.raw_value,
        false => header.value,
    };
    let value = HeaderValue::from_maybe_shared(value);
    Ok((
        name,
        value.map_err(|_| CheckError::Change("the value of a header"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_message_and_no_other() {
        let frame = |bytes: &'static [u8]| message(&Bytes::from_static(bytes));
        assert_eq!(frame(b"\0\0\0\0\x02ab").as_deref(), Some(&b"ab"[..]));
        assert_eq!(frame(b"\0\0\0\0\0").as_deref(), Some(&b""[..]));
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x02abc",
            b"\x01\0\0\0\x02ab",
            b"\0\xff\xff\xff\xffab",
        ] {
            assert_eq!(frame(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_denial_stays_one_whatever_is_wrong_with_it() {
        let header = |key: &str, value: &'static [u8]| HeaderValueOption {
            header: Some(super::super::proto::HeaderValue {
                key: key.into(),
                value: Bytes::from_static(value),
                raw_value: Bytes::new(),
            }),
            append: None,
            append_action: 0,
        };
        let denied = DeniedHttpResponse {
            headers: vec![
                header(":status", b"200"),
                header("Host", b"evil"),
                header("a b", b"1"),
                header("x-cut", b"a\nb"),
                header("x-why", b"because"),
            ],
            ..DeniedHttpResponse::default()
        };
        for code in [0, 7] {
            let said = verdict(CheckResponse {
                status: Some(super::super::proto::Status { code }),
                http_response: Some(HttpResponse::Denied(denied.clone())),
            });
            let Ok(Said::Deny(denial)) = said else {
                panic!("{code}: {said:?}");
            };
            assert_eq!((denial.status, denial.headers.len()), (403, 1), "{code}");
        }
    }
}

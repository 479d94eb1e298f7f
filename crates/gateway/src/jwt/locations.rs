//! Where tokens stand in a request.

use pingora_http::RequestHeader;
use waypoint_config::JwtLocations;

use crate::edge::Head;

/// A place that holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Header(String),
    Param(String),
    Cookie(String),
}

/// A token, and the rules that look for one where it stands.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) token: String,
    pub(super) rules: Vec<usize>,
}

/// Every token that some rule looks for, by where each rule does.
pub(super) fn tokens<'r>(
    rules: impl Iterator<Item = &'r JwtLocations>,
    request: &RequestHeader,
    head: &Head,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut add = |place: Place, token: &str, rule: usize| {
        let same = |known: &&mut Found| known.place == place && known.token == token;
        match found.iter_mut().find(same) {
            Some(known) => known.rules.push(rule),
            None => found.push(Found {
                place,
                token: token.to_owned(),
                rules: vec![rule],
            }),
        }
    };
    for (index, locations) in rules.enumerate() {
        for (name, prefix) in &locations.headers {
            for value in request.headers.get_all(name.as_str()) {
                // What does not begin like a token's header is somebody else's.
                if let Ok(text) = value.to_str()
                    && let Some(token) = after(text, prefix)
                {
                    add(Place::Header(name.clone()), token.trim(), index);
                }
            }
        }
        for name in &locations.params {
            for token in params(&head.query, name) {
                add(Place::Param(name.clone()), token, index);
            }
        }
        for name in &locations.cookies {
            for value in request.headers.get_all("cookie") {
                let text = value.to_str().unwrap_or_default();
                for token in cookies(text).filter(|(known, _)| known == name) {
                    add(Place::Cookie(name.clone()), token.1, index);
                }
            }
        }
    }
    found
}

/// What stands behind a prefix; names of schemes have no case (RFC 9110 §11.1).
fn after<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Takes a token out of the request.
pub(super) fn remove(place: &Place, request: &mut RequestHeader, head: &mut Head) {
    match place {
        Place::Header(name) => {
            request.remove_header(name.as_str());
        }
        Place::Param(name) => {
            let kept: Vec<&str> = (head.query.split('&'))
                .filter(|pair| pair.split('=').next() != Some(name.as_str()))
                .collect();
            head.query = kept.join("&").into();
        }
        Place::Cookie(name) => {
            let all: Vec<String> = request
                .headers
                .get_all("cookie")
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(cookies)
                .filter(|(known, _)| known != name)
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request.remove_header("cookie");
            if !all.is_empty() {
                let _ = request.insert_header("cookie", all.join("; "));
            }
        }
    }
}

fn params<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = &'q str> {
    query.split('&').filter_map(move |pair| {
        let (known, value) = pair.split_once('=')?;
        (known == name).then_some(value)
    })
}

fn cookies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        Some((name, value.trim_matches('"')))
    })
}

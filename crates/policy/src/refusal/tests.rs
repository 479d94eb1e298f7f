use std::collections::HashSet;

use super::*;

#[test]
fn every_code_is_distinct_and_complete() {
    let names: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names.len(), Code::ALL.len());
    for (place, code) in Code::ALL.iter().enumerate() {
        // ALL is in the order of the enum, so a code that is left out shows here.
        assert_eq!(*code as usize, place, "{code}");
        let snake = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(code.as_str().chars().all(snake), "{code}");
        assert!((400..600).contains(&code.status()), "{code}");
    }
    let messages: HashSet<&str> = Code::ALL.iter().map(|code| code.message()).collect();
    assert_eq!(messages.len(), Code::ALL.len());
    assert_eq!(Code::ALL.last(), Some(&Code::Internal));
}

#[test]
fn denials_are_flagged_and_final() {
    for code in Code::ALL {
        // Where nobody could be asked nobody denied, so asking again may help.
        let other = [
            Code::OperationNotAllowed,
            Code::AuthorizerUnavailable,
            Code::PriceUnknown,
        ];
        let denial = matches!(code.status(), 401 | 403) && !other.contains(code);
        assert_eq!(code.is_denial(), denial, "{code}");
        let flags: &[&str] = match code {
            Code::AuthorizerUnavailable => &["UAEX"],
            Code::RateLimited
            | Code::QuotaExhausted
            | Code::RequestExceedsLimit
            | Code::PriceUnknown => &["RL"],
            _ if denial => &["RBAC_ACCESS_DENIED"],
            _ => &[],
        };
        assert_eq!(code.flags(), flags, "{code}");
        assert!(!(denial && code.retryable()), "{code}");
    }
}

#[test]
fn what_may_pass_by_itself_may_be_tried_again() {
    for code in Code::ALL {
        // These stay as they are until somebody changes something.
        let lasting = [
            Code::UpstreamBadAnswer,
            Code::UpstreamAuth,
            Code::CredentialUnavailable,
        ];
        let passing = matches!(code.status(), 408 | 502..=504) && !lasting.contains(code);
        let others = [Code::AuthorizerUnavailable, Code::RateLimited];
        let expected = passing || others.contains(code);
        assert_eq!(code.retryable(), expected, "{code}");
    }
}

#[test]
fn says_what_it_is_told_to() {
    let refusal = Refusal::new(Code::UpstreamUnavailable)
        .with_message("try later")
        .with_retry_after(Duration::from_secs(2))
        .decided_by(By::NoMatch);
    assert_eq!(refusal.to_string(), "upstream_unavailable: try later");
    assert_eq!((refusal.status(), refusal.by), (503, Some(By::NoMatch)));
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(2)));
    let plain = Refusal::from(Code::Forbidden);
    assert_eq!(plain.message, "RBAC: access denied");
}

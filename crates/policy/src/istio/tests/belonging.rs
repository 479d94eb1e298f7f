//! What attributes are of: HTTP, a token, the caller.

use super::*;

#[test]
fn attributes_are_of_http_of_a_token_and_of_the_caller() {
    use Attribute::*;
    for (attribute, of_http, of_token, of_caller) in [
        (Principal, false, false, true),
        (Namespace, false, false, true),
        (ServiceAccount, false, false, true),
        (TrustDomain, false, false, true),
        (SourceIp, false, false, false),
        (RemoteIp, false, false, false),
        (RequestPrincipal, true, true, true),
        (Audiences, true, true, true),
        (Presenter, true, true, true),
        (Claim(vec!["a".into()]), true, true, true),
        (Header("x-a".into()), true, false, false),
        (Host, true, false, false),
        (Method, true, false, false),
        (Path, true, false, false),
        (DestinationPort, false, false, false),
        (DestinationIp, false, false, false),
        (Sni, false, false, false),
        (Unknown("x".into()), false, false, false),
    ] {
        assert_eq!(attribute.is_http(), of_http, "{attribute:?}");
        assert_eq!(attribute.is_of_token(), of_token, "{attribute:?}");
        assert_eq!(attribute.is_of_caller(), of_caller, "{attribute:?}");
    }
}

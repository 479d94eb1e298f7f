use super::*;

#[test]
fn only_addresses_are_targets() {
    let ours = |text: &str| Ok(text.parse::<SocketAddr>().unwrap());
    for (authority, expected) in [
        ("10.0.0.1:8080", ours("10.0.0.1:8080")),
        ("[fd00::1]:8080", ours("[fd00::1]:8080")),
        ("[::ffff:10.0.0.1]:8080", ours("10.0.0.1:8080")),
        ("10.0.0.1", Err(Refused::Malformed)),
        ("10.0.0.1:", Err(Refused::Malformed)),
        ("10.0.0.1:0", Err(Refused::Malformed)),
        ("10.0.0.1:65536", Err(Refused::Malformed)),
        ("fd00::1:8080", Err(Refused::Malformed)),
        ("[fd00::1]", Err(Refused::Malformed)),
        ("[10.0.0.1]:8080", Err(Refused::Malformed)),
        ("user@10.0.0.1:8080", Err(Refused::Malformed)),
        ("mcp.tools.svc.cluster.local:8080", Err(Refused::Unbound)),
        ("mcp.tools.svc.cluster.local", Err(Refused::Malformed)),
        // As some libraries read it, an address: never one of ours here.
        ("0177.0.0.1:8080", Err(Refused::Unbound)),
        ("2130706433:8080", Err(Refused::Unbound)),
    ] {
        let uri = Uri::builder().authority(authority).build();
        let found = uri.map_or(Err(Refused::Malformed), |uri| target(&uri));
        assert_eq!(found, expected, "{authority}");
    }
    for other in ["http://10.0.0.1:8080/", "/path", "https://10.0.0.1:8080/x"] {
        let uri = Uri::try_from(other).unwrap();
        assert_eq!(target(&uri), Err(Refused::Malformed), "{other}");
    }
}

use super::is_private;

#[test]
fn knows_private_addresses() {
    for (ip, expected) in [
        ("1.1.1.1", false),
        ("104.18.7.192", false),
        ("127.0.0.1", true),
        ("10.1.2.3", true),
        ("172.16.0.1", true),
        ("172.32.0.1", false),
        ("192.168.1.1", true),
        ("169.254.169.254", true),
        ("100.64.0.1", true),
        ("100.128.0.1", false),
        ("198.18.0.1", true),
        ("0.0.0.0", true),
        ("224.0.0.1", true),
        ("255.255.255.255", true),
        ("2606:4700::1111", false),
        ("::", true),
        ("::1", true),
        ("fe80::1", true),
        ("fd00:ec2::254", true),
        ("ff02::1", true),
        ("::ffff:10.0.0.1", true),
        ("::ffff:1.1.1.1", false),
        ("::7f00:1", true),
        ("64:ff9b::a00:1", true),
        ("64:ff9b::101:101", false),
        ("2002:7f00:1::", true),
        ("2001:db8::1", true),
        ("2001::1", true),
        ("2001:4860:4860::8888", false),
    ] {
        assert_eq!(is_private(ip.parse().unwrap()), expected, "{ip}");
    }
}

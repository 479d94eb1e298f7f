use super::*;

#[test]
fn numbers_stand_in_for_names() {
    assert_eq!(Ids.provider(ProviderId(3)), "provider 3");
    assert_eq!(Ids.server(ServerId(4)), "server 4");
}

use super::*;

#[test]
fn every_kind_is_read_by_its_name() {
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(*kind));
    }
    for text in ["", "gateway", "Gateways"] {
        assert_eq!(text.parse::<Kind>(), Err(UnknownKind), "{text}");
    }
}

#[test]
fn prints_objects_and_their_sections() {
    let mut object = ObjectRef::whole(Kind::McpProxy, ObjectName::new("infra", "tools"));
    assert_eq!(object.to_string(), "MCPProxy infra/tools");
    object.section = Some("route".into());
    assert_eq!(object.to_string(), "MCPProxy infra/tools section route");
}

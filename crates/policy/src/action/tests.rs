use super::*;

#[test]
fn every_operation_is_read_by_its_name() {
    for operation in Operation::ALL {
        assert_eq!(operation.as_str().parse(), Ok(*operation));
    }
    for text in ["", "Chat", "chats"] {
        assert_eq!(text.parse::<Operation>(), Err(UnknownOperation), "{text}");
    }
}

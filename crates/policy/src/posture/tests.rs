use super::*;

#[test]
fn every_posture_is_read_as_it_is_printed() {
    for posture in [Posture::Observe, Posture::Graduated, Posture::Strict] {
        assert_eq!(posture.to_string().parse(), Ok(posture));
    }
    for text in ["", "strict", "Stricter"] {
        assert_eq!(text.parse::<Posture>(), Err(UnknownPosture), "{text}");
    }
}

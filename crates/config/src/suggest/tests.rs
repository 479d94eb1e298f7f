use super::hint;

#[test]
fn hints() {
    let known = ["dialect", "endpoint", "credential", "models"];
    for (word, expected) in [
        ("dialekt", "; did you mean `dialect`?"),
        ("endpiont", "; did you mean `endpoint`?"),
        ("Models", "; did you mean `models`?"),
        ("model", "; did you mean `models`?"),
        (
            "price",
            "; known: `dialect`, `endpoint`, `credential`, `models`",
        ),
    ] {
        assert_eq!(hint(word, &known), expected, "{word}");
    }
    assert_eq!(hint("x", &[]), "");
}

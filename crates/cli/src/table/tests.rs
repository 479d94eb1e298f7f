use super::*;

fn table() -> Table {
    let mut table = Table::new([
        ("who", Align::Left),
        ("what", Align::Left),
        ("tokens", Align::Right),
        ("why", Align::Left),
    ]);
    table.row(vec!["a".into(), "chat".into(), "12".into(), "".into()]);
    table.row(vec![
        "long name".into(),
        "".into(),
        "1234567".into(),
        Cell::new("no", Tone::Bad),
    ]);
    table
}

#[test]
fn columns_line_up_and_lines_end_with_text() {
    let expected = "\
who        what   tokens  why
a          chat       12
long name        1234567  no
";
    assert_eq!(table().render(120, Paint::PLAIN), expected);
}

#[test]
fn what_does_not_fit_follows_below_the_same_names() {
    let expected = "\
who        what
a          chat
long name

who         tokens
a               12
long name  1234567

who        why
a
long name  no
";
    assert_eq!(table().render(18, Paint::PLAIN), expected);
}

#[test]
fn control_characters_stay_out_of_the_terminal() {
    let mut table = Table::new([("x", Align::Left)]);
    table.row(vec!["\u{1b}[31mred".into()]);
    assert!(!table.render(80, Paint::PLAIN).contains('\u{1b}'));
}

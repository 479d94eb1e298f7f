//! "Did you mean": the known word that is nearest to an unknown one.

/// What to add to a message about an unknown word: the nearest known one, or all of them.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(word, known) {
        return format!("; did you mean `{near}`?");
    }
    match known {
        [] => String::new(),
        _ => {
            let list: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
            format!("; known: {}", list.join(", "))
        }
    }
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distance = |known: &&&str| distance(&lower, &known.to_lowercase());
    let near = known.iter().min_by_key(distance)?;
    let allowed = (near.chars().count() / 3).clamp(1, 3);
    (distance(&near) <= allowed).then_some(*near)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words. Words of
/// strangers are long at most as often as we ask, so they are cut first.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (above[j] + usize::from(x != y))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;

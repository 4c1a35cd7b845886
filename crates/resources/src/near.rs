//! The known name that somebody probably meant.

/// The one of `known` that `text` is a misspelling of: the same but for letter case, or at most two
/// letters (one of short words) wrong, missing, too many or swapped.
pub(crate) fn near<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer than any field there is: nobody meant one.
    if text.len() > 64 {
        return None;
    }
    if let Some(same) = known.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        return Some(same);
    }
    let allowed = if text.len() <= 4 { 1 } else { 2 };
    known
        .iter()
        .map(|name| (distance(text.as_bytes(), name.as_bytes()), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits from `a` to `b`: change, insert, delete, or swap two neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let change = last[j] + usize::from(!x.eq_ignore_ascii_case(y));
            let mut best = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                best = best.min(before[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_name_and_strangers_none() {
        let known = ["matches", "timeouts", "retry", "backendRefs", "name"];
        for (text, expected) in [
            ("mathces", Some("matches")),
            ("match", Some("matches")),
            ("timeout", Some("timeouts")),
            ("backendrefs", Some("backendRefs")),
            ("retries", None),
            ("nmae", Some("name")),
            ("spec", None),
            ("", None),
        ] {
            assert_eq!(near(text, &known), expected, "{text}");
        }
    }
}

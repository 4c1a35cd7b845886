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
    let text = text.to_ascii_lowercase();
    known
        .iter()
        .map(|name| {
            (
                strsim::osa_distance(&text, &name.to_ascii_lowercase()),
                *name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
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

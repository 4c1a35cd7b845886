//! Tables inside of pages that people write: between `<!-- weft-benches: NAME -->` and
//! `<!-- weft-benches: end -->`.

const BEGIN: &str = "<!-- weft-benches: ";
const CLOSE: &str = " -->\n";
const END: &str = "<!-- weft-benches: end -->";

/// Replaces each marked place by what `table` gives for its name; leaves a place alone for which it gives
/// nothing.
pub(super) fn replace(
    text: &str,
    table: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after
            .split_once(CLOSE)
            .ok_or("a mark of weft-benches is not closed on its line")?;
        let (old, after) = after
            .split_once(END)
            .ok_or_else(|| format!("the table '{name}' has no end: put {END} after it"))?;
        let new = table(name);
        let new = new.as_deref().unwrap_or(old);
        out.push_str(&format!("{before}{BEGIN}{name}{CLOSE}{new}{END}"));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "a\n<!-- weft-benches: one -->\nold\n<!-- weft-benches: end -->\nb\n";

    #[test]
    fn only_what_is_marked_changes_and_it_can_change_again() {
        let once = replace(PAGE, |_| Some("new\n".into())).unwrap();
        assert_eq!(once, PAGE.replace("old", "new"));
        let twice = replace(&once, |name| Some(format!("{name}\n"))).unwrap();
        assert_eq!(twice, PAGE.replace("old", "one"));
    }

    #[test]
    fn without_figures_the_old_table_stays() {
        assert_eq!(replace(PAGE, |_| None).unwrap(), PAGE);
    }

    #[test]
    fn a_mark_without_end_is_an_error_and_not_a_lost_page() {
        let page = PAGE.replace(END, "");
        assert!(replace(&page, |_| None).unwrap_err().contains("'one'"));
    }
}

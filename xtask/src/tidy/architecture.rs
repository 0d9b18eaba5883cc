//! The lists of ARCHITECTURE.md: who may import, or depend on, whom.
//!
//! They stand there once, for readers and for the rules.

/// The arrows of a section: its indented lines `a -> b, c`, up to the next heading. What stands in
/// parentheses is a remark.
pub fn arrows<'t>(text: &'t str, section: &str) -> Vec<(&'t str, Vec<&'t str>)> {
    let lines = text.lines().skip_while(|line| *line != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("    "));
    let arrows = lines.filter_map(|line| {
        let (from, to) = line.split_once("->")?;
        let to = to.split('(').next().unwrap_or_default();
        let from = from.trim();
        let names = to.split(',').map(str::trim).filter(|name| !name.is_empty());
        from.chars().all(|it| it.is_ascii_lowercase()).then(|| (from, names.collect()))
    });
    arrows.collect()
}

#[cfg(test)]
mod tests {
    use super::arrows;

    #[test]
    fn a_section_has_its_own_arrows() {
        let text = "# A\n    a ->\n## B\n    b -> a, c (remark)\n    trainer.c -> d\n### C\n    c ->\n";
        assert_eq!(arrows(text, "## B"), [("b", vec!["a", "c"])]);
        assert_eq!(arrows(text, "# A"), [("a", vec![])]);
    }
}

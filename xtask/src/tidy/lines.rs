//! How wide lines are, and that no comment on an item is one word.
//!
//! `rustfmt` breaks code, but neither strings nor comments. A comment of one word says no more than
//! the name below it.

/// Columns of a line.
const CODE: usize = 110;
/// Columns of a line that is a comment.
const COMMENT: usize = 100;

/// Lines that are too wide.
pub fn widths(at: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (columns, what, limit) = match line.trim_start().starts_with("//") {
            true => (line.chars().count(), "a comment", COMMENT),
            false => (line.chars().count(), "code", CODE),
        };
        if columns > limit {
            found.push(format!("{at}:{number}: {columns} columns; {what} may have {limit}"));
        }
    }
    found
}

/// Comments on items that are one word.
pub fn words(at: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        if let Some(said) = line.trim_start().strip_prefix("///") {
            let (_, all) = open.get_or_insert((number, String::new()));
            all.push_str(said);
            all.push(' ');
        } else if let Some((first, all)) = open.take()
            && all.split_whitespace().count() == 1
        {
            found.push(format!("{at}:{first}: `{}` says no more than the name", all.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_lines_are_counted_by_characters() {
        let text = format!("{}\n{}\n    // {}\n", "ä".repeat(110), "a".repeat(111), "b".repeat(94));
        assert_eq!(
            widths("f.rs", &text),
            ["f.rs:2: 111 columns; code may have 110", "f.rs:3: 101 columns; a comment may have 100"]
        );
    }

    #[test]
    fn a_comment_of_one_word_is_reported_unless_it_goes_on() {
        let text =
            "/// Which.\na: u8,\n/// Which\n/// one.\nb: u8,\n    /// Where.\n    c: u8,\n// Why.\n//! What.";
        assert_eq!(
            words("f.rs", text),
            ["f.rs:1: `Which.` says no more than the name", "f.rs:6: `Where.` says no more than the name"]
        );
    }
}

//! Every Rust file begins with a module comment.

/// Whether this one does not.
pub fn breaches(at: &str, text: &str) -> Vec<String> {
    if text.starts_with("//!") { Vec::new() } else { vec![format!("{at}: does not open with `//!`")] }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_opens_with_a_module_comment() {
        assert!(super::breaches("f.rs", "//! What.\n").is_empty());
        assert_eq!(super::breaches("f.rs", "// What.\n"), ["f.rs: does not open with `//!`"]);
    }
}

//! Nothing that records, lifts, slices or answers names an operating system.
//!
//! Comments may: they say where a rule comes from.

/// What must work for a system that nobody here has seen, by directory name of the crate.
pub const CRATES: [&str; 4] = ["recorder", "lift", "slicer", "engine"];

/// Words of one operating system.
const FOREIGN: [&str; 9] =
    ["linux", "task_struct", "system.map", "kallsyms", "vmlinu", "procfs", "debian", "kpcr", "ntoskrnl"];

/// Lines of code that name a system.
pub fn breaches(at: &str, text: &str) -> Vec<String> {
    let said = |(line, word)| format!("{at}:{line}: names {word}, which belongs into crates/linux or cli");
    foreign(text).into_iter().map(said).collect()
}

/// Lines of code that name a system, from 1.
fn foreign(text: &str) -> Vec<(usize, &'static str)> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_lowercase());
    let found = code.enumerate().filter_map(|(at, line)| {
        FOREIGN.iter().find(|word| line.contains(**word)).map(|word| (at + 1, *word))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::foreign;

    #[test]
    fn systems_are_named_in_comments_only() {
        assert!(foreign("/// Linux does so.\nlet a = 1; // task_struct\n").is_empty());
        assert_eq!(foreign("let a = 1;\nconst NAME: &str = \"System.map\";"), [(2, "system.map")]);
        assert_eq!(foreign("fn of_linux() {}"), [(1, "linux")]);
    }
}

//! Which folder of the slicer may import which.
//!
//! The folders are the stages of the analysis, and the list in ARCHITECTURE.md is their order.
//! Names lead to where they come from, so a re-export is no way round it.

use super::architecture::arrows;
use super::imports::Import;

/// The section that has the list. Files at the root of `crates/slicer/src` may import all; nobody
/// imports them but [`SHARED`].
const SECTION: &str = "### `slicer`";

/// The file at the root that all may import.
const SHARED: &str = "error.rs";

/// Imports that the list does not have, and lines of it that name a folder before its own line.
pub fn breaches(architecture: &str, at: &str, imports: &[Import]) -> Vec<String> {
    let list = arrows(architecture, SECTION);
    let mut found = Vec::new();
    for (line, (folder, allowed)) in list.iter().enumerate() {
        let above = |name: &&str| !list[..line].iter().any(|it| it.0 == *name);
        let late = allowed.iter().copied().filter(above);
        found.extend(late.map(|name| format!("ARCHITECTURE.md: {folder} -> {name}, which comes later")));
    }
    for Import { from, to, name, .. } in imports {
        let Some((folder, _)) = from.split_once('/') else { continue };
        let Some((_, allowed)) = list.iter().find(|(name, _)| *name == folder) else {
            found.push(format!("{at}/{from}: the list in ARCHITECTURE.md has no folder `{folder}`"));
            continue;
        };
        match to.split_once('/') {
            None if to == SHARED => {}
            None => found.push(format!("{at}/{from}: imports {to}, a file at the root ({name})")),
            Some((other, _)) if other == folder || allowed.contains(&other) => {}
            Some((other, _)) => {
                found.push(format!("{at}/{from}: `{folder}` must not import `{other}` ({name})"))
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::imports::{files, imports};
    use super::*;

    const LIST: &str = "### `slicer`\n    vocabulary ->\n    context -> vocabulary\n";

    #[test]
    fn only_edges_of_the_list_may_be() {
        let all = [
            ("lib.rs", "mod error; mod build; mod vocabulary; mod context; mod other; pub use error::Error;"),
            ("error.rs", "pub struct Error;"),
            ("build.rs", "use crate::context::C; use crate::vocabulary::deep::V;"),
            ("vocabulary/mod.rs", "pub mod deep; pub use crate::context::C;"),
            ("vocabulary/deep.rs", "use crate::Error; pub struct V; fn f() { crate::build::g() }"),
            ("context/mod.rs", "mod part; pub use part::C; use crate::vocabulary::{C as D, deep::V};"),
            ("context/part.rs", "pub struct C;"),
            ("other/mod.rs", "use crate::context::C;"),
        ];
        assert_eq!(
            breaches(LIST, "src", &imports(&files(&all))),
            [
                "src/other/mod.rs: the list in ARCHITECTURE.md has no folder `other`",
                "src/vocabulary/deep.rs: imports build.rs, a file at the root (crate::build::g)",
                "src/vocabulary/mod.rs: `vocabulary` must not import `context` (crate::context::C)",
            ]
        );
    }

    #[test]
    fn a_line_names_only_folders_above() {
        let list = "### `slicer`\n    vocabulary -> context\n    context -> vocabulary\n";
        assert_eq!(breaches(list, "src", &[]), ["ARCHITECTURE.md: vocabulary -> context, which comes later"]);
    }
}

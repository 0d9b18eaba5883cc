//! Which folder of the slicer may import which.
//!
//! The folders are the stages of the analysis, and what the table says is their order. Names lead
//! to where they come from, so a re-export is no way round it.

use super::imports::Import;

/// Who may import whom, by folder of `crates/slicer/src`. Files at its root may import all; nobody
/// imports them but [`SHARED`].
const EDGES: [(&str, &[&str]); 10] = [
    ("vocabulary", &[]),
    ("recording", &["vocabulary"]),
    ("filter", &["recording", "vocabulary"]),
    ("context", &["filter", "recording", "vocabulary"]),
    ("dependence", &["context", "filter", "recording", "vocabulary"]),
    ("analysis", &["dependence", "context", "recording", "vocabulary"]),
    ("slicing", &["analysis", "dependence", "context", "vocabulary"]),
    ("emission", &["slicing", "analysis", "dependence", "context", "vocabulary"]),
    ("training", &["vocabulary", "recording", "filter", "context", "dependence", "analysis"]),
    ("dump", &["slicing", "analysis", "dependence", "context", "vocabulary"]),
];

/// The file at the root that all may import.
const SHARED: &str = "error.rs";

/// Imports that the table does not have.
pub fn breaches(at: &str, imports: &[Import]) -> Vec<String> {
    let mut found = Vec::new();
    for Import { from, to, name, .. } in imports {
        let Some((folder, _)) = from.split_once('/') else { continue };
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == folder) else {
            found.push(format!(
                "{at}/{from}: the table of folders has no `{folder}` (xtask/src/tidy/folders.rs)"
            ));
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

    #[test]
    fn only_edges_of_the_table_may_be() {
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
            breaches("src", &imports(&files(&all))),
            [
                "src/other/mod.rs: the table of folders has no `other` (xtask/src/tidy/folders.rs)",
                "src/vocabulary/deep.rs: imports build.rs, a file at the root (crate::build::g)",
                "src/vocabulary/mod.rs: `vocabulary` must not import `context` (crate::context::C)",
            ]
        );
    }

    #[test]
    fn the_table_is_in_order() {
        let at = |name: &str| EDGES.iter().position(|it| it.0 == name);
        for (folder, allowed) in EDGES {
            for other in allowed {
                assert!(at(other).is_some(), "{folder} may import {other}, which has no line");
                let upwards = at(other) >= at(folder);
                assert!(!upwards || (folder, *other) == ("filter", "training"), "{folder}, {other}");
            }
        }
    }
}

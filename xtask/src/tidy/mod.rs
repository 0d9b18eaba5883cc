//! Rules about the shape of the workspace that no lint checks; one file for each.
//!
//! This file reads the sources and asks each rule. Rules are functions of text, so that tests need
//! no files.

mod architecture;
mod circles;
mod edges;
mod folders;
mod imports;
mod lines;
mod neutral;
mod opening;
mod parse;
mod tokens;

use crate::outcome::Outcome;
use crate::shell;
use imports::Files;
use serde_json::Value;
use std::path::Path;

/// Crates whose comments on items have more than one word.
const WORDS: [&str; 7] = ["slicer", "engine", "ir", "lift", "machine", "trace", "recorder"];

/// Checks all rules; the error lists every breach.
pub fn run() -> Outcome {
    let root = testkit::layout::root();
    let mut breaches = Vec::new();
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let mut homes = vec!["xtask".to_string()];
    for entry in std::fs::read_dir(root.join("crates"))? {
        homes.push(format!("crates/{}", entry?.file_name().to_string_lossy()));
    }
    homes.sort();
    for home in &homes {
        let name = home.rsplit('/').next().unwrap_or_default();
        let all = read(&root.join(home))?;
        for (path, text) in &all {
            let at = format!("{home}/{path}");
            breaches.extend(opening::breaches(&at, text));
            breaches.extend(lines::widths(&at, text));
            if WORDS.contains(&name) {
                breaches.extend(lines::words(&at, text));
            }
            if path.starts_with("src/") && neutral::CRATES.contains(&name) {
                breaches.extend(neutral::breaches(&at, text));
            }
        }
        let source =
            all.into_iter().filter_map(|(path, text)| Some((path.strip_prefix("src/")?.into(), text)));
        let source: Files = source.collect();
        let (at, imports) = (format!("{home}/src"), imports::imports(&source));
        breaches.extend(circles::breaches(&at, &source, &imports));
        if name == "slicer" {
            breaches.extend(folders::breaches(&architecture, &at, &imports));
        }
    }
    for (path, text) in read(&root.join("fuzz"))? {
        breaches.extend(lines::widths(&format!("fuzz/{path}"), &text));
    }
    let manifest = root.join("Cargo.toml");
    let arguments =
        ["metadata", "--format-version=1", "--no-deps", "--manifest-path", &manifest.to_string_lossy()];
    let metadata: Value = serde_json::from_str(&shell::output("cargo", &arguments)?)?;
    breaches.extend(edges::breaches(&architecture, &metadata));
    if breaches.is_empty() { Ok(()) } else { Err(format!("tidy:\n  {}", breaches.join("\n  ")).into()) }
}

/// The Rust files of a crate, by path in it. What a build leaves beside its manifest is not its
/// source.
fn read(home: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    let mut work = vec![(home.to_path_buf(), String::new())];
    while let Some((directory, prefix)) = work.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let at = format!("{prefix}{name}");
            if path.is_dir() {
                if at != "target" {
                    work.push((path, at + "/"));
                }
            } else if at.ends_with(".rs") {
                files.insert(at, std::fs::read_to_string(&path)?);
            }
        }
    }
    Ok(files)
}

//! Rules about the shape of the workspace that no lint checks.
//!
//! Every module opens with `//!`, crates depend on each other only along the edges of DESIGN.md
//! section 3 (only normal dependencies count: tests may use what they like), and nothing that
//! records, lifts, slices or answers names an operating system outside comments.

use crate::{Outcome, shell};
use serde_json::Value;
use std::path::Path;

/// Who may depend on whom, by directory name of the crate.
const EDGES: [(&str, &[&str]); 11] = [
    ("machine", &[]),
    ("ir", &[]),
    ("trace", &["machine"]),
    ("recorder", &["trace", "machine"]),
    ("lift", &["ir", "machine"]),
    ("slicer", &["trace", "lift", "ir", "machine"]),
    ("engine", &["lift", "ir", "machine"]),
    ("linux", &[]),
    ("cli", &["machine", "trace", "ir", "lift", "slicer", "engine", "linux"]),
    ("testkit", &["linux", "machine", "trace", "ir", "lift", "slicer", "engine"]),
    ("xtask", &["testkit", "linux", "machine", "trace", "ir", "lift", "slicer", "engine"]),
];

/// What must work for a system that nobody here has seen.
const NEUTRAL: [&str; 4] = ["recorder", "lift", "slicer", "engine"];

/// Words of one operating system.
const FOREIGN: [&str; 9] =
    ["linux", "task_struct", "system.map", "kallsyms", "vmlinu", "procfs", "debian", "kpcr", "ntoskrnl"];

/// Checks all rules; the error lists every breach.
pub fn run() -> Outcome {
    let root = testkit::layout::root();
    let mut breaches = Vec::new();
    for directory in ["crates", "xtask"] {
        modules(&root.join(directory), &mut breaches);
    }
    for name in NEUTRAL {
        neutral(&root.join("crates").join(name).join("src"), &mut breaches);
    }
    let manifest = root.join("Cargo.toml");
    let arguments =
        ["metadata", "--format-version=1", "--no-deps", "--manifest-path", &manifest.to_string_lossy()];
    let metadata: Value = serde_json::from_str(&shell::output("cargo", &arguments)?)?;
    edges(&metadata, &mut breaches);
    if breaches.is_empty() { Ok(()) } else { Err(format!("tidy:\n  {}", breaches.join("\n  ")).into()) }
}

/// Every Rust file begins with a module comment.
fn modules(directory: &Path, breaches: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            modules(&path, breaches);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with("//!"))
        {
            breaches.push(format!("{}: does not open with `//!`", path.display()));
        }
    }
}

/// No code of these crates names a system. Comments may: they say where a rule comes from.
fn neutral(directory: &Path, breaches: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            neutral(&path, breaches);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (line, word) in foreign(&text) {
            breaches.push(format!(
                "{}:{line}: names {word}, which belongs into crates/linux or cli",
                path.display()
            ));
        }
    }
}

/// Lines of code that name a system, from 1.
fn foreign(text: &str) -> Vec<(usize, &'static str)> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_lowercase());
    let found = code.enumerate().filter_map(|(at, line)| {
        FOREIGN.iter().find(|word| line.contains(**word)).map(|word| (at + 1, *word))
    });
    found.collect()
}

/// Every normal dependency between members is on the list.
fn edges(metadata: &Value, breaches: &mut Vec<String>) {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let names: Vec<&str> = packages().filter_map(|package| package["name"].as_str()).collect();
    for package in packages() {
        let from = short(package["name"].as_str().unwrap_or_default());
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
            breaches.push(format!("{from}: a crate that DESIGN.md section 3 does not have"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if normal && names.contains(&name) && !allowed.contains(&short(name)) {
                breaches.push(format!("{from}: must not depend on {}", short(name)));
            }
        }
    }
}

fn short(package: &str) -> &str {
    package.strip_prefix("virtuoso-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::{edges, foreign};
    use serde_json::json;

    #[test]
    fn a_forbidden_edge_is_reported_and_a_dev_dependency_is_not() {
        let dependency = |name: &str, kind: Option<&str>| json!({ "name": name, "kind": kind });
        let metadata = json!({ "packages": [
            { "name": "virtuoso-machine", "dependencies": [dependency("thiserror", None)] },
            { "name": "virtuoso-trace", "dependencies":
                [dependency("virtuoso-machine", None), dependency("virtuoso-ir", None)] },
            { "name": "virtuoso-ir", "dependencies": [dependency("virtuoso-trace", Some("dev"))] },
        ]});
        let mut breaches = Vec::new();
        edges(&metadata, &mut breaches);
        assert_eq!(breaches, ["trace: must not depend on ir"]);
    }

    #[test]
    fn systems_are_named_in_comments_only() {
        assert!(foreign("/// Linux does so.\nlet a = 1; // task_struct\n").is_empty());
        assert_eq!(foreign("let a = 1;\nconst NAME: &str = \"System.map\";"), [(2, "system.map")]);
        assert_eq!(foreign("fn of_linux() {}"), [(1, "linux")]);
    }
}

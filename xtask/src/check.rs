//! `cargo xtask check`: formatting, lints, documentation and layout, without building guests.
//!
//! Runs cargo's own tools and then [`crate::tidy`]; the first failure ends it.

use crate::outcome::Outcome;
use crate::{shell, tidy};
use std::process::Command;

/// Runs the verb.
pub fn run() -> Outcome {
    let cargo = |arguments: &str| {
        println!("check: cargo {arguments}");
        let mut command = Command::new("cargo");
        command.args(arguments.split_whitespace()).current_dir(testkit::layout::root());
        command
    };
    shell::show(&mut cargo("fmt --all --check"))?;
    shell::show(&mut cargo("clippy --quiet --workspace --all-targets -- -D warnings"))?;
    let mut doc = cargo("doc --quiet --workspace --no-deps --document-private-items");
    shell::show(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))?;
    println!("check: tidy");
    tidy::run()
}

//! `cargo xtask test`: set up, then unit and file tests, then the end-to-end test over real guests.
//!
//! The end-to-end test is built for release: it slices and runs whole traces.

use crate::{Outcome, setup, shell};
use std::process::Command;

/// Runs the verb.
pub fn run() -> Outcome {
    setup::run()?;
    let cargo = |arguments: &str| {
        println!("test: cargo {arguments}");
        let mut command = Command::new("cargo");
        command.args(arguments.split_whitespace()).current_dir(testkit::layout::root());
        command
    };
    let runner = if shell::exists("cargo-nextest") { "nextest run" } else { "test" };
    shell::show(&mut cargo(&format!("{runner} --workspace")))?;
    let mut end_to_end = cargo("test --release -p virtuoso-cli --test e2e");
    Ok(shell::show(end_to_end.env("VIRTUOSO_E2E", "1"))?)
}
